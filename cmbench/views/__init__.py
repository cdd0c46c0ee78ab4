"""Views of runs and their curves: a reader, axes, averages, charts as files. Does not use Textual."""
