"""Training: from a checked recipe to events. Independent of screens and of the command line."""
