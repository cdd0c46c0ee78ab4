"""The run directory: the only interface between training and every view. Imports no torch."""
