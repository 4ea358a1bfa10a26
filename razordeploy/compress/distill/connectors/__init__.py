"""Connectors bring a feature of one model into the shape that a loss compares it in."""
