"""Structured pruning: which channels go, and when, while the rest is trained."""
