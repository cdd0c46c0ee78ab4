"""A line that shows where one stands among many."""


def slider(width: int, position: int, count: int, ascii: bool = False) -> str:
    """Draw a rail of `width` characters with a mark at `position` of `count`."""
    end, rail, tick, mark = ("|", "-", "+", "^") if ascii else ("├", "─", "┬", "▲")
    last = end if ascii else "┤"
    inner = max(1, width - 2)
    line = [tick if i % 8 == 7 else rail for i in range(inner)]
    line[round(position * (inner - 1) / max(1, count - 1))] = mark
    return end + "".join(line) + last
