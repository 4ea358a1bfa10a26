"""Operators by family; ``table.py`` joins them."""
