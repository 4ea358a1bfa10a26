"""One module per group of verbs; ``cli/main.py`` lists them."""
