"""Runs beside each other: what a comparison tells, computed from run directories and their recipes."""
