"""Distillers: what is recorded of whom, and which losses are made of it."""
