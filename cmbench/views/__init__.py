"""Runs and their curves as they are looked at: a reader, axes, averages, charts as files. No Textual."""
