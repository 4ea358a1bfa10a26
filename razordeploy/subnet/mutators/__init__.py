"""Managers of a model's whole search space: they find it, sample from it and set it."""
