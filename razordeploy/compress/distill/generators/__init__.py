"""Generators of images for distillation without data."""
