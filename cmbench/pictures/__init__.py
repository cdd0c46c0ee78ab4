"""Picture files: which ones a folder has, and how to read them."""
