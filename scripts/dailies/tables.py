"""Tables for the terminal."""

from collections.abc import Sequence

WIDEST = 60
"""Characters of a column; longer values lose their middle."""


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows of text in columns, the first row a heading with a rule below it."""
    short = [[_shortened(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in short) for i in range(len(short[0]))]
    lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in short]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _shortened(value: str) -> str:
    half = (WIDEST - 1) // 2
    return value if len(value) <= WIDEST else f"{value[:half]}…{value[-half:]}"
