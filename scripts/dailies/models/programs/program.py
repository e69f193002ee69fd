"""The record of a loaded program, and the modules that wrap its network."""

import io
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from dailies.models.programs.sizes import ANY_SIZE, Sizes


@dataclass(frozen=True)
class Program:
    """A network that came with its own code."""

    network: nn.Module
    """Maps float32 ``(batch, channels, height, width)`` to whatever its author returns: a tensor, or a tuple, list or
    dict of tensors. It is on the CPU, in evaluation mode."""
    kind: str
    """torchscript, export or onnx."""
    sizes: Sizes = ANY_SIZE
    channels: int | None = None
    """Channels of the input; None if the program does not declare them."""
    batch: int | None = None
    """The number of images that the program was frozen to; None if it takes any number."""


def member_name(name: str) -> str:
    """Return the name of a zip's member without the top folder in which torch puts all of them."""
    return name.partition("/")[2] or name


def copy_archive(path: Path, edit: Callable[[str, bytes], bytes]) -> io.BytesIO:
    """Copy a zip archive into memory. ``edit`` maps the name and content of each member to its new content.

    Debug files, which refer to positions in the code, are left out because they would not match edited code.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            if not name.endswith(".debug_pkl"):
                target.writestr(name, edit(name, source.read(name)))
    copy.seek(0)
    return copy


class DeviceBound(nn.Module, ABC):
    """A program whose code names its device. It is loaded again whenever it is moved to another device."""

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
        for parameter in self.program.parameters():  # a ScriptModule has no working requires_grad_
            parameter.requires_grad_(parameter.requires_grad and not parameter.is_leaf)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Implement ``Module.to``, which calls this method."""
        if (device := fn(torch.empty(0)).device) != self._device:
            self._move_to(device)
        return self

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode; torch's exported modules raise in this method."""
        return self


class InputCast(nn.Module):
    """A program whose input is cast to the data type that it was written for."""

    def __init__(self, program: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.program = program
        self.dtype = dtype

    def forward(self, pixels: Tensor) -> Any:
        """Call the program with its own data type."""
        return self.program(pixels.to(self.dtype))


class FixedBatch(nn.Module):
    """A program for a fixed number of images, called as often as any other number of images needs."""

    def __init__(self, program: nn.Module, batch: int) -> None:
        super().__init__()
        self.program = program
        self.batch = batch

    def forward(self, pixels: Tensor) -> Any:
        """Map any number of images; the last call is filled up with copies of the last image."""
        if len(pixels) == self.batch:
            return self.program(pixels)
        missing = -len(pixels) % self.batch
        padded = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)]) if missing else pixels

        def joined(first: Any, *others: Any) -> Any:
            if not isinstance(first, Tensor) or first.dim() == 0 or len(first) != self.batch:
                return first
            return torch.cat([first, *others])[: len(pixels)]

        return tree_map(joined, *map(self.program, torch.split(padded, self.batch)))
