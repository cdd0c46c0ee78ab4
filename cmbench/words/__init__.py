"""Text that the command line and the dashboard share: numbers, times, signs, sentences, tables. No Textual."""
