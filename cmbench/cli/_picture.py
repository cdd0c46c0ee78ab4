"""A small picture of samples in the terminal: half blocks for pictures, a plotext scatter for points."""

from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text

from cmbench.cli import _screen

if TYPE_CHECKING:
    from torch import Tensor

_SHADES = " .:-=+*#%@"


def show(x: "Tensor", columns: int | None = None) -> None:
    """Print samples: pictures (n, C, H, W), as `snapshot.as_seen` shows them, or points (n, d).

    Pictures stand in as many columns as there is room for, or in rows of `columns`, which are made smaller if need be.
    """
    if x.ndim == 4:
        from cmbench.engine.snapshot import as_seen

        seen, caption = as_seen(x)
        _print_grid(seen if columns is None else _narrow(seen, columns), columns)
        if caption:
            _screen.line(caption)
    elif x.ndim == 2 and x.shape[1] >= 2:
        _print_scatter(x)


def _narrow(x: "Tensor", columns: int) -> "Tensor":
    """Return pictures of which so many fit beside each other, by means of pixels."""
    from torch.nn.functional import avg_pool2d

    room = max(1, (_screen.console().width - 1) // columns - 1)
    factor = -(-x.shape[-1] // room)
    return avg_pool2d(x, factor, ceil_mode=True) if factor > 1 else x


def _print_grid(x: "Tensor", columns: int | None = None) -> None:
    from torchvision.utils import make_grid

    console = _screen.console()
    height, width = (side + 1 for side in x.shape[-2:])
    per_row = columns or max(1, (console.width - 1) // width)
    most = 32 if columns is None else 80  # pixels: 16 lines of text, or 40 where each row is another picture
    rows = max(1, most // height)  # always one row of pictures
    pixels = make_grid(x[: per_row * rows].cpu().clamp(-1, 1) * 0.5 + 0.5, nrow=per_row, padding=1, pad_value=0.5)
    levels = (pixels[:, 1:-1, 1:-1] * 255).round().int().permute(1, 2, 0).tolist()
    levels += [levels[-1]] * (len(levels) % 2)
    colours = console.color_system is not None and not console.no_color
    for upper, lower in zip(levels[::2], levels[1::2], strict=True):
        line = Text(no_wrap=True, overflow="crop")
        for a, b in zip(upper, lower, strict=True):
            if colours:
                line.append("▀", Style(color=_rgb(a), bgcolor=_rgb(b)))
            else:
                line.append(_SHADES[(sum(a) + sum(b)) * (len(_SHADES) - 1) // (6 * 255)])
        console.print(line)


def _rgb(pixel: list[int]) -> str:
    return f"rgb({pixel[0]},{pixel[1]},{pixel[2]})"


def _print_scatter(x: "Tensor") -> None:
    import plotext

    console = _screen.console()
    points = x[:2000, :2].cpu()
    inside = points[(points.abs() <= 1.5).all(dim=1)].tolist()  # plotext fails on values that are not finite
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(min(60, console.width), 24)
    plotext.xlim(-1.5, 1.5)
    plotext.ylim(-1.5, 1.5)
    if inside:
        plotext.scatter([p[0] for p in inside], [p[1] for p in inside], marker="braille")
    _screen.text(plotext.uncolorize(plotext.build()))
