"""What every kind of program is opened as."""

import io
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from dailies.core.text import clean


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


def shown(text: str, length: int = 60) -> str:
    """Make a text from a file fit for a log: one line, no control characters, not long."""
    return clean(text[: 4 * length])[:length]


def short(name: str) -> str:
    """Return the name of a zip's member without the folder that torch puts all of them in."""
    return name.partition("/")[2] or name


def copied(path: Path, edit: Callable[[str, bytes], bytes]) -> io.BytesIO:
    """Copy a zip archive into memory, each member as ``edit`` returns it for its name and content.

    Positions in the source code are left out, since they no longer match edited code.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            if not name.endswith(".debug_pkl"):
                target.writestr(name, edit(name, source.read(name)))
    copy.seek(0)
    return copy


class Placed(nn.Module, ABC):
    """A program on the device that it was last moved to. It names its device, so it is loaded anew for another."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.training = False
        self._move_to(torch.device("cpu"))

    @abstractmethod
    def load(self, device: torch.device) -> nn.Module:
        """Load the program for a device, in evaluation mode."""

    def _move_to(self, device: torch.device) -> None:
        self._device = device
        self.program = self.load(device)
        for parameter in self.program.parameters():  # the method that does this is missing for TorchScript
            parameter.requires_grad_(parameter.requires_grad and not parameter.is_leaf)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Follow ``Module.to``, which calls this."""
        if (device := fn(torch.empty(0)).device) != self._device:
            self._move_to(device)
        return self

    def train(self, mode: bool = True) -> nn.Module:
        """Stay in evaluation mode: torch's exported modules raise here."""
        return self


class Fed(nn.Module):
    """A program that is given the numbers it was written for."""

    def __init__(self, program: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.program = program
        self.dtype = dtype

    def forward(self, pixels: Tensor) -> Any:
        return self.program(pixels.to(self.dtype))


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
