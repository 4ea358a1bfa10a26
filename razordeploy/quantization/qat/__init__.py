"""Quantization-aware training: the graph that is exported, with its grids in it, as a network to train."""
