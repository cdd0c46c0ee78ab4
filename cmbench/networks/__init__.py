"""Raw networks F_theta(x, c_noise, labels). `kind = "unet"` in a recipe's [network] means the file unet.py here.

A network is a class `Network(config, shape, classes)` next to its `Config`. `shape` is that of one sample, without
the batch; `classes` is 0 for an unconditional network. `forward(x, c_noise, labels)` takes x (B, *shape), c_noise
(B,) and labels (B,) or None, and returns (B, *shape).
"""
