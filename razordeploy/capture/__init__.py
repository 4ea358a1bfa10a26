"""From a recipe to a model with its weights, and from a model to one graph."""
