"""What algorithms share: how they hold a model, are built from a recipe, step and are trained."""
