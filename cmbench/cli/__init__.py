"""The command line, one file per command. Only the commands that compute import torch, inside their functions."""
