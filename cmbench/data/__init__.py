"""Batches x_0 with labels. `kind = "digits"` in a recipe's [data] means digits.py here; nothing else knows formats.

A data set is a class `Data(config, device)` next to its `Config`, with
    shape            of one sample
    classes          number of labels
    batch(n, random) -> x_0 (n, *shape) float32, labels (n,) int64, a function of random's seed and step
    held_out(n) -> up to n samples that training never sees (of a distribution: a fixed draw)
    train_sample(n) -> up to n training samples (of a distribution: another fixed draw)
    oracle() -> the closed-form denoiser of what is trained on
and may have
    draw(n, generator) -> n independent draws of what is trained on, with labels, by a generator of the CPU: what a
        perfect sampler draws; without it `batch` draws them
    held_out_labels(n) -> the labels of held_out(n), for figures of each class
    shape_and_classes(config) -> both, without reading or fetching a file; static
    names, counts    of the classes, in the order of their labels
    summary          what was found, in a line, for the journal
    content          a text that is another where the samples or labels are others; else some samples tell
and its Config
    located(base) -> the settings with paths that do not depend on the working directory, which is base
"""
