"""Attacks on the program, kept: each file is one, `run.py` makes them all and counts what was lost."""
