"""Quantization: integer grids, range estimators, fake quantization and what is built from them."""
