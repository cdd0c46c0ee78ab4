"""Training: from a checked recipe to events. Knows no screen and no command line."""
