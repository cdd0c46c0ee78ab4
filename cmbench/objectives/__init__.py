"""One objective a file, each read like its paper's algorithm box. `kind = "ct"` in [objective] means ct.py here.

An objective is a class `Objective(config, model, teacher, steps)` next to its `Config`, with
    paths            the kinds of path that it is defined on
    needs_teacher    whether a recipe must have [teacher]
    sampler          "consistency" (few steps of f) or "ode" (Heun steps of D)
    loss(model, x_0, labels, step, random) -> Terms      step counts from 0
    after_step(model, step)                              moves the target, where there is one
    profile_edges(bins)                                  times that split the sampler's own variable evenly
    switches         optional: what `cmbench ablate` may drop, name -> the overrides that drop it, e.g.
                     {"tangent_warmup": ("objective.tangent_warmup=0",)}
It composes equations and never inherits from another objective.
"""
