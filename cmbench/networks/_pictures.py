"""What every network for pictures asks of its data."""

from cmbench.errors import UsageError


def square_pictures(kind: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return colours and size of samples of `shape` for the network `kind`.

    Raises:
        UsageError: the data are no pictures, or not square ones.
    """
    if len(shape) != 3:
        raise UsageError(f"network.kind: found '{kind}' for data of shape {list(shape)}, allowed for points: 'mlp'")
    colours, height, width = shape
    if height != width:
        raise UsageError(f"network.kind: found '{kind}' for pictures of {height}x{width}, allowed: square pictures")
    return colours, height
