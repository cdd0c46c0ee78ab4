"""What screens are made of; knows numbers and strings, never a run."""
