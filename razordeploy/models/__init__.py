"""Small reference networks that the shipped recipes train and deploy."""
