"""Pruning algorithms: models that hold a model and the mutator of its channels."""
