"""One objective a file, each read like its paper's algorithm box. `kind = "ct"` in [objective] means ct.py here.

An objective is a class `Objective(config, model, teacher, steps)` next to its `Config`, with
    paths            the kinds of path that it is defined on
    teacher          what [teacher] must be: "none", "denoiser", "optional" (a denoiser, or none at all), or
                     "consistency" (a trained consistency model)
    sampler          "consistency" (few steps of f), "ode" (Heun steps of D) or "average_velocity" (steps of u)
    forwards         forward passes that one image costs, by who makes them; a backward pass counts as two
    loss(model, x_0, labels, step, random) -> Terms      step counts from 0
    after_step(model, step)                              moves the target, where there is one
    profile_edges(bins)                                  times that split the sampler's own variable evenly
and may have
    anatomy(model, x_0, labels, step, random) -> Anatomy   the parts of the tangent, for some samples of a batch
    times            2 where the network takes two times
    switches         for `cmbench ablate`: name -> overrides that take a part of the method away
    sigma_lowest(config)   lowest noise level that it trains, where that is not path.sigma_min; static
Its parameters, if it has any, are trained beside the network's. It composes equations and never inherits from another
objective.
"""
