"""Searchable architectures, and the blocks they are made of."""
