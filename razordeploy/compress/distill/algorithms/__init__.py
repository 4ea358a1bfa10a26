"""Algorithms: who runs, who is trained, and in which order."""
