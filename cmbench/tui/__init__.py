"""The dashboard: Textual screens that show run directories. It reads rundir and recipe and never imports torch."""
