"""The sizes of images that a program takes, derived from what it declares of each side and of both together."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Accepts = Callable[[int, int], bool]
"""Returns whether a program takes images of this height and width."""

TARGET = 512
"""The length in pixels that is chosen for a side if a program takes one size only and leaves it open."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of images that a program takes, each as height and width in pixels."""

    fixed: tuple[int, int] | None = None
    """The only size to use; None: any size within the bounds. A program that leaves some freedom, but not all (one side
    is frozen, or images must be square), gets one of the sizes that it takes."""
    multiple: int = 1
    """Both sides are multiples of this many pixels."""
    least: tuple[int, int] = (1, 1)
    most: tuple[int | None, int | None] = (None, None)
    """None: no bound."""


ANY_SIZE = Sizes()


@dataclass(frozen=True)
class Side:
    """The lengths that one side of an image may have, in pixels: multiples of ``multiple``, ``least`` to ``most``."""

    least: int = 1
    most: int | None = None
    multiple: int = 1
    symbol: str | None = None
    """The variable that the side depends on; sides with the same symbol depend on each other."""
    example: int | None = None
    """The length with which the program was exported."""

    @classmethod
    def exactly(cls, pixels: int) -> "Side":
        """Return a side of one length only."""
        return cls(pixels, pixels, example=pixels)

    @classmethod
    def exported(cls, size: "int | torch.SymInt", ranges: Mapping[Any, Any]) -> "Side":
        """Read a size of torch.export; one that is neither a number nor ``k*s`` is fixed to that of the example."""
        if isinstance(size, int):
            return cls.exactly(size)
        example = size.node.hint
        multiple, symbol = size.node.expr.as_coeff_Mul()
        if not symbol.is_Symbol:
            return cls.exactly(example)
        multiple, known = int(multiple), ranges.get(symbol)
        least = int(known.lower) if known is not None and known.lower.is_Integer else 1
        most = int(known.upper) if known is not None and known.upper.is_Integer else None
        return cls(max(1, least) * multiple, most and most * multiple, multiple, str(symbol), example)

    @property
    def is_fixed(self) -> bool:
        """Whether only one length is allowed."""
        return self.least == self.most

    def samples(self, multiple: int) -> list[int]:
        """Return a few of the allowed lengths that are multiples of ``multiple``."""
        low = max(self.least, min(TARGET // 8, self.most or TARGET))
        first, last = -(-low // multiple), min(self.most or 2 * TARGET, max(2 * TARGET, low)) // multiple
        middle = (first + last) // 2
        numbers = [first, *(middle + step for step in (0, 1, 2, 3, 5, 7)), last]
        return [number * multiple for number in numbers if first <= number <= last]

    def nearest(self, pixels: int) -> int:
        """Return the largest allowed length up to ``pixels``, or the smallest allowed one."""
        pixels = min(max(pixels, self.least), self.most or pixels)
        return max(pixels // self.multiple * self.multiple, self.least)


def sizes_of(height: Side, width: Side, accepts: Accepts = lambda height, width: True) -> Sizes:
    """Return the sizes that a program takes; ``accepts`` checks conditions that the sides do not declare."""
    multiple = math.lcm(height.multiple, width.multiple)
    is_tied = height.symbol is not None and height.symbol == width.symbol
    fixed = None
    if height.is_fixed or width.is_fixed or is_tied:
        scale = TARGET // max(height.multiple, width.multiple)
        fixed = height.nearest(scale * height.multiple), width.nearest(scale * width.multiple)
        multiple = 1
    else:
        candidates = range(multiple, TARGET // 2, multiple)
        multiple = next((each for each in candidates if _accepts_multiples(each, height, width, accepts)), 0)
    if (fixed and not accepts(*fixed)) or not multiple:
        fixed, multiple = (height.example or height.least, width.example or width.least), 1
    return Sizes(fixed, multiple, (height.least, width.least), (height.most, width.most))


def _accepts_multiples(multiple: int, height: Side, width: Side, accepts: Accepts) -> bool:
    """Check a few images whose sides are multiples of this many pixels."""
    rows, columns = height.samples(multiple), width.samples(multiple)
    pairs = [*zip(rows, columns, strict=False), *zip(rows, reversed(columns), strict=False)]
    return bool(pairs) and all(accepts(*pair) for pair in pairs)
