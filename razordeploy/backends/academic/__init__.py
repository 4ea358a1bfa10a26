"""Simulation without an engine: any bit width from 1 to 16, mixed freely from layer to layer."""
