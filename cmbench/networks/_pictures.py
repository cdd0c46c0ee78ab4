"""The check of the data that every network for pictures makes."""

from cmbench.errors import UsageError


def square_pictures(kind: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the colours and the size of samples of `shape`, for the network `kind`.

    Raises:
        UsageError: the data are not pictures, or the pictures are not square.
    """
    if len(shape) != 3:
        raise UsageError(f"network.kind: found '{kind}' for data of shape {list(shape)}, allowed for points: 'mlp'")
    colours, height, width = shape
    if height != width:
        raise UsageError(f"network.kind: found '{kind}' for pictures of {height}x{width}, allowed: square pictures")
    return colours, height
