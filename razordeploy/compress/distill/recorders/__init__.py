"""Recorders keep what passes through a model while their ``with`` block runs."""
