"""The command line: one file a command. Torch is imported inside the commands that compute."""
