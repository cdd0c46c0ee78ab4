"""Comparisons of runs, computed from run directories and their recipes."""
