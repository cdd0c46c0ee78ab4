"""The check of the data that every network for pictures makes."""

from cmbench.errors import UsageError


def pictures(kind: str, shape: tuple[int, ...]) -> tuple[int, tuple[int, int]]:
    """Return the colours, and the height and width, of samples of `shape`, for the network `kind`.

    Raises:
        UsageError: the data are not pictures.
    """
    if len(shape) != 3:
        raise UsageError(f"network.kind: found '{kind}' for data of shape {list(shape)}, allowed for points: 'mlp'")
    colours, height, width = shape
    return colours, (height, width)


def measures(height: int, width: int) -> str:
    """Return the measures of pictures for messages: "32", or "24x32" where they are not square."""
    return str(height) if height == width else f"{height}x{width}"
