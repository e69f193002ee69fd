"""What every kind of program is opened as, and how a file is refused."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from dailies.text import clean


@dataclass(frozen=True)
class Program:
    """A network that came with its own code."""

    network: nn.Module
    """Takes float32 ``(batch, channels, height, width)``; in evaluation mode, on the CPU. What it gives is as its
    author made it: a tensor, or a tuple, list or dict of them."""
    kind: str
    """torchscript, export or onnx."""
    size: tuple[int, int] | None = None
    """Height and width that the program takes. It takes no other where it is frozen to them; where it leaves some
    freedom but not all (one side frozen, or only squares) this is a size within it. None: any within the bounds."""
    channels: int | None = None
    """What the input must have, where the program tells."""
    batch: int | None = None
    """How many images the program was frozen to; ``network`` takes any number and runs it as often as that needs."""
    multiple: int = 1
    """Both sides are multiples of this many pixels."""
    least: tuple[int, int] = (1, 1)
    """Height and width, pixels."""
    most: tuple[int | None, int | None] = (None, None)
    """Height and width, pixels; None: no bound."""
    trusted: bool = False
    """Whether the file would have been refused without ``trusted``."""


class Unsafe(Exception):
    """What in a file could run code or reach beyond it: the rest of a sentence that begins with the file."""


class Bad(Exception):
    """What is wrong with a file, whoever wrote it: a sentence of its own."""


def shown(text: str, length: int = 60) -> str:
    """Make a text from a file fit for a log: one line, no control characters, not long."""
    return clean(text[: 4 * length])[:length]


class Fed(nn.Module):
    """A program that is given the numbers it was written for."""

    def __init__(self, program: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.program = program
        self.dtype = dtype

    def forward(self, pixels: Tensor) -> Any:
        return self.program(pixels.to(self.dtype))

    def train(self, mode: bool = True) -> nn.Module:
        """Stay as exported: torch's exported modules raise here."""
        return self


class Split(nn.Module):
    """A program for a fixed number of images that is given any number of them."""

    def __init__(self, program: nn.Module, batch: int) -> None:
        super().__init__()
        self.program = program
        self.batch = batch

    def forward(self, pixels: Tensor) -> Any:
        if len(pixels) == self.batch:
            return self.program(pixels)
        missing = -len(pixels) % self.batch
        filled = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)]) if missing else pixels

        def joined(first: Any, *others: Any) -> Any:
            if not isinstance(first, Tensor) or first.dim() == 0 or len(first) != self.batch:
                return first
            return torch.cat([first, *others])[: len(pixels)]

        return tree_map(joined, *map(self.program, filled.split(self.batch)))
