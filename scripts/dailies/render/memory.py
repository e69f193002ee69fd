"""Device memory: how much is free, how to recognise that it ran out, and how frames are made to fit."""

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
"""What torch's errors say when memory runs out; only CUDA's allocator raises an exception class for it.

The last one is the whole message when no cuDNN algorithm of a convolution finds memory for its workspace.
"""


@dataclass(frozen=True)
class MemoryPlan:
    """How frames are made to fit into a device's memory."""

    tiled: bool
    """Whether frames are rendered in tiles."""
    tile_size: int
    """The most pixels along each side of a tile, unless the network takes tiles of one size only."""
    frame_device: torch.device
    """Where whole frames are kept before and after the network: the network's device, or the CPU."""


class NetworkOutOfMemory(RuntimeError):
    """The network ran out of memory; fewer or smaller inputs may fit. Its cause is torch's error."""


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of any kind of device means that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)


class MemoryMeter(Protocol):
    """Measures a device's memory, in bytes."""

    def start(self) -> None:
        """Start to measure the peak."""

    def peak(self) -> int:
        """Return the most memory in use since ``start``, less what was in use then."""
        ...

    def free(self) -> int:
        """Return the free memory."""
        ...


class CudaMemoryMeter:
    """Measures the memory of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0

    def start(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) - self._before

    def free(self) -> int:
        """Return the memory that no program uses, plus what torch has cached."""
        cached = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return torch.cuda.mem_get_info(self._device)[0] + cached


def memory_meter(device: torch.device) -> MemoryMeter | None:
    """Return a meter of a device's memory; None on other devices than CUDA's.

    A CPU swaps before its memory runs out, and MPS reports too little.
    """
    return CudaMemoryMeter(device) if device.type == "cuda" else None
