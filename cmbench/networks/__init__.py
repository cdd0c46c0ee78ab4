"""Raw networks F_theta(x, c_noise, labels). `kind = "unet"` in a recipe's [network] means the file unet.py here.

A network is a class `Network(config, shape, classes, times=1)` next to its `Config`: see `cmbench.contracts.Network`.
"""
