"""Raw networks F_theta(x, c_noise, labels). `kind = "unet"` in a recipe's [network] means the file unet.py here.

A network is a class `Network(config, shape, classes, times=1)` next to its `Config`. `shape` is that of one sample,
without the batch; `classes` is 0 for an unconditional network. `forward(x, c_noise, labels)` takes x (B, *shape),
c_noise (B,), or (B, 2) for a network of two times, and labels (B,) or None, and returns (B, *shape). The embedding of
the first time is the attribute `time`.
"""
