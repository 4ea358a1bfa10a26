"""Which channels of a captured model can be removed, and what has to be removed with them."""
