"""One objective a file, each read like its paper's algorithm box. `kind = "ct"` in [objective] means ct.py here.

An objective is a class `Objective(config, model, teacher, steps)` next to its `Config`: `cmbench.contracts.Objective`
says what it has, and the protocols after it what it may have. `cmbench.testing.check_objective` tries it.
"""
