"""Ways into other programs, and the names by which their configs know our components."""
