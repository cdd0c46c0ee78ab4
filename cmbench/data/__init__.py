"""Batches x_0 with labels. `kind = "digits"` in a recipe's [data] means digits.py here; nothing else knows formats.

A data set is a class `Data(config, device)` next to its `Config`: `cmbench.contracts.Data` says what it has, and the
protocols after it what it may have.
"""
