"""Which sizes of images a program takes, from what it says of its sides and of them together."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


SIDE = 512
"""Pixels that are aimed at where a program leaves a size open and still does not take every size."""


@dataclass(frozen=True)
class Side:
    """What one side of the image may be: multiples of ``multiple`` from ``least`` to ``most``, all in pixels."""

    least: int = 1
    most: int | None = None
    multiple: int = 1
    symbol: str | None = None
    """Sides of one symbol depend on each other."""
    example: int | None = None
    """What it was when the program was exported."""

    @classmethod
    def of(cls, size: "int | torch.SymInt", ranges: Mapping[Any, Any]) -> "Side":
        """Read a size of torch.export; one that is neither a number nor ``k*s`` stays as it was in the example."""
        if isinstance(size, int):
            return cls(size, size, example=size)
        example = size.node.hint
        multiple, symbol = size.node.expr.as_coeff_Mul()
        if not symbol.is_Symbol:
            return cls(example, example, example=example)
        multiple, known = int(multiple), ranges.get(symbol)
        least = int(known.lower) if known is not None and known.lower.is_Integer else 1
        most = int(known.upper) if known is not None and known.upper.is_Integer else None
        return cls(max(1, least) * multiple, most and most * multiple, multiple, str(symbol), example)

    @property
    def frozen(self) -> bool:
        return self.least == self.most

    def spread(self, multiple: int) -> list[int]:
        """A few sizes among those allowed, multiples of ``multiple``."""
        low = max(self.least, min(SIDE // 8, self.most or SIDE))
        first, last = -(-low // multiple), min(self.most or 2 * SIDE, max(2 * SIDE, low)) // multiple
        middle = (first + last) // 2
        numbers = [first, *(middle + step for step in (0, 1, 2, 3, 5, 7)), last]
        return [number * multiple for number in numbers if first <= number <= last]

    def near(self, pixels: int) -> int:
        """The size that is allowed and closest below ``pixels``."""
        pixels = min(max(pixels, self.least), self.most or pixels)
        return max(pixels // self.multiple * self.multiple, self.least)


def fits(height: Side, width: Side, holds: Callable[[int, int], bool] = lambda height, width: True) -> dict:
    """Say which sizes of images a program takes, as fields of Program; ``holds`` tells whether it takes this one."""
    multiple = math.lcm(height.multiple, width.multiple)
    tied = height.symbol is not None and height.symbol == width.symbol
    size = None
    if height.frozen or width.frozen or tied:
        scale = SIDE // max(height.multiple, width.multiple)
        size = height.near(scale * height.multiple), width.near(scale * width.multiple)
        multiple = 1
    else:
        multiple = next(
            (number for number in range(multiple, SIDE // 2, multiple) if _takes(height, width, number, holds)), 0
        )
    if (size and not holds(*size)) or not multiple:
        size, multiple = (height.example or height.least, width.example or width.least), 1
    return {
        "size": size,
        "multiple": multiple,
        "least": (height.least, width.least),
        "most": (height.most, width.most),
    }


def _takes(height: Side, width: Side, multiple: int, holds: Callable[[int, int], bool]) -> bool:
    """Whether a program takes images whose sides are multiples of this many pixels, judged by a few."""
    rows, columns = height.spread(multiple), width.spread(multiple)
    pairs = [*zip(rows, columns, strict=False), *zip(rows, reversed(columns), strict=False)]
    return bool(pairs) and all(holds(*pair) for pair in pairs)
