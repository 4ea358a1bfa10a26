"""Distillation losses, each equal to its official formula; ``table.py`` names them."""
