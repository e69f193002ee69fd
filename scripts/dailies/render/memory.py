"""Memory: how frames are fitted into that of a device, and what to try when it runs out."""

from dataclasses import dataclass
from typing import Protocol

import torch

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "unable to find an engine",
)
"""What torch says when memory runs out; only on CUDA has that an exception class of its own.

The last is all that torch says of a convolution for whose workspace memory does not suffice in any of cuDNN's ways.
"""


@dataclass(frozen=True)
class Fit:
    """How frames are fitted into memory."""

    tiled: bool
    """Whether they are rendered in tiles."""
    tile: int
    """The most pixels along each side of a tile, or the sides of the one size that the network takes."""
    home: torch.device
    """Where whole frames are, before and after the network: the device itself, or beside it the CPU."""


class TooMuch(RuntimeError):
    """The network ran out of memory, which fewer or smaller inputs may help; the cause is torch's own error."""


def is_out_of_memory(error: Exception) -> bool:
    """Tell lack of memory from other failures, on every kind of device."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)


class Meter(Protocol):
    """Tells of a device's memory, in bytes."""

    def start(self) -> None:
        """Begin to watch."""

    def peak(self) -> int:
        """Give the most that was in use since ``start``, beyond what was then."""

    def free(self) -> int:
        """Give what is not in use."""


class CudaMeter:
    """A meter of a CUDA device's memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0

    def start(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) - self._before

    def free(self) -> int:
        """Give what no program uses, and what torch keeps for later."""
        kept = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return torch.cuda.mem_get_info(self._device)[0] + kept


def meter(device: torch.device) -> Meter | None:
    """Give a device's meter; None where there is none: a CPU swaps before its memory ends, and MPS tells too little."""
    return CudaMeter(device) if device.type == "cuda" else None
