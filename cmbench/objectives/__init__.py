"""One objective per file, each written like its paper's algorithm box. `kind = "ct"` in [objective] means ct.py here.

An objective is a class `Objective(config, model, teacher, steps)` next to its `Config`. `cmbench.contracts.Objective`
defines its members, and the protocols after it the optional ones. `cmbench.testing.check_objective` checks it.
"""
