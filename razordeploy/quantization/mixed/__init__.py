"""Bit widths layer by layer: how much each layer suffers, and which widths a budget buys."""
