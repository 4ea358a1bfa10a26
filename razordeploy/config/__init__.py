"""Recipes and backend configs: files in, frozen dataclasses out; torch-free."""
