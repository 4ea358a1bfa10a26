"""Neural architecture search: supernets, and searches for the subnet that is deployed."""
