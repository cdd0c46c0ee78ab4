"""Weights that other code has saved: files of tensors, and whose names in them a network's own names are.

Nothing here runs code from a file. It is the only place where PyTorch's own format is read.
"""
