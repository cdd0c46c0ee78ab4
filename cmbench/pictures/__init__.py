"""Picture files: which a folder holds, and how each is read."""
