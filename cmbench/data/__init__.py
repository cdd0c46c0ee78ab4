"""Batches x_0 with labels. `kind = "digits"` in a recipe's [data] means digits.py here. Only these files know formats.

A data set is a class `Data(config, device)` next to its `Config`. `cmbench.contracts.Data` defines its members, and
the protocols after it the optional ones.
"""
