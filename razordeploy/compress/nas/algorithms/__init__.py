"""How supernets are trained."""
