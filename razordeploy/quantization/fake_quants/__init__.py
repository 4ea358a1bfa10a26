"""Fake quantization modules: a tensor is rounded to an integer grid and back, with a gradient."""
