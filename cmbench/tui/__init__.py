"""The dashboard: Textual screens over run directories. Reads rundir and recipe, imports no torch."""
