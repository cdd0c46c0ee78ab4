"""What the command line and the dashboard both say: numbers, times, signs, sentences, tables. No Textual."""
