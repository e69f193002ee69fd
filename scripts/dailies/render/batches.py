"""Batches: how many inputs go through a network together without changing any output."""

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dailies.render.memory import MemoryMeter
from dailies.render.network import Network

log = logging.getLogger(__name__)

MAX_AUTO_BATCH = 8
"""The largest batch that ``auto`` chooses: by then even small frames fill a device, and each waits for all."""

RESERVE = 0.2
"""The share of the free memory that ``auto`` does not use, for fragmentation and for frames in transfer."""

Shape = tuple[int, ...]


class Batches:
    """Combines inputs of one shape: whole frames, or the tiles of one frame.

    An input is ``(rows, channels, height, width)``; it has several rows if the frame's colours are separate. Before
    the first batch of a shape and size, a test batch is run: if an output differs in any bit from that for the input
    alone, inputs of that shape are run singly. So no pixel depends on the batch size, on free memory, or on where
    an interrupted render was resumed.
    """

    def __init__(self, wanted: int | Literal["auto"], network: Network, meter: MemoryMeter | None) -> None:
        self.largest = 1
        """The size of the largest batch since memory last ran out."""
        self._wanted = wanted
        self._network = network
        self._meter = meter
        self._bytes_per_pixel: float | None = None
        """What the first input needed; None until it has been measured."""
        self._affordable: dict[Shape, int] = {}
        self._pixel_limit: int | None = None
        """The most pixels that a batch may have, once memory has run out."""
        self._equal: dict[tuple[str, Shape, int], bool] = {}
        """Whether the outputs of a test batch were those of its inputs alone, by mode, shape and batch size."""
        self._current: tuple[int, Shape] = 1, (1, 1, 1, 1)
        """Size of the batch that is being run, and the shape of its inputs."""

    def size_for(self, shape: Shape) -> int:
        """Return the batch size for inputs of a shape, as far as is known so far."""
        if self._network.takes_one or self._network.is_compiled:
            return 1
        mode = self._network.mode
        if any(not equal and key[:2] == (mode, shape) for key, equal in self._equal.items()):
            return 1
        wanted = self._affordable_size(shape) if self._wanted == "auto" else self._wanted
        return wanted if self._pixel_limit is None else min(wanted, max(1, self._pixel_limit // _pixel_count(shape)))

    def next_size(self, shape: Shape, remaining: int) -> int:
        """Return how many of the ``remaining`` frames to run next: a full batch, or 1 if too few are left."""
        size = self.size_for(shape)
        self._current = (size if remaining >= size else 1), shape
        return self._current[0]

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the network's output for each input; all have one shape, and there are at most ``size_for(shape)``.

        Raises NetworkOutOfMemory and RenderError as the network does.
        """
        if len(inputs) > 1 and self._is_equal(inputs[0], len(inputs)):
            outputs = self._run_together(inputs)
            self.largest = max(self.largest, len(inputs))
            return outputs
        return [self._run_alone(each) for each in inputs]

    def shrink(self) -> bool:
        """Reduce later batches because memory ran out; return False if a single input was being run."""
        count, shape = self._current
        self._pixel_limit = count * _pixel_count(shape) // 2
        self.largest = 1
        return count > 1

    def _affordable_size(self, shape: Shape) -> int:
        if self._meter is None or self._bytes_per_pixel is None:
            return 1
        if shape not in self._affordable:
            cost = max(1.0, self._bytes_per_pixel * _pixel_count(shape))
            self._affordable[shape] = max(1, min(MAX_AUTO_BATCH, int((1 - RESERVE) * self._meter.free() / cost)))
        return self._affordable[shape]

    def _run_together(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        self._current = len(inputs), tuple(inputs[0].shape)
        return list(self._network(torch.cat(list(inputs))).split(len(inputs[0])))

    def _run_alone(self, pixels: Tensor) -> Tensor:
        """Run one input; the first one is used to measure the memory that a pixel needs."""
        self._current = 1, tuple(pixels.shape)
        if self._meter is None or self._bytes_per_pixel is not None:
            return self._network(pixels)
        self._meter.start()
        output = self._network(pixels)
        self._bytes_per_pixel = self._meter.peak() / _pixel_count(tuple(pixels.shape))
        return output

    def _is_equal(self, pixels: Tensor, count: int) -> bool:
        """Return whether the network's output for an input is the same at each place of a batch as alone."""
        key = self._network.mode, tuple(pixels.shape), count
        if key not in self._equal:
            pair = pixels, self._noise(pixels)
            order = [place % 2 for place in range(count)]
            alone = [self._run_alone(each) for each in pair]
            together = self._run_together([pair[which] for which in order])
            self._equal[key] = not self._network.takes_one and all(
                torch.equal(output, alone[which]) for output, which in zip(together, order, strict=True)
            )
            if not self._equal[key]:
                log.info("inputs are run singly: a batch of %d changes bits of the output", count)
        return self._equal[key]

    def _noise(self, pixels: Tensor) -> Tensor:
        """Return an input with other content, which reveals a network that mixes the inputs of a batch."""
        signature = self._network.signature
        low, high = signature.value_range
        noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(0))
        content = (noise * (high - low) + low).to(pixels.device)
        return torch.cat([content[:, : signature.colours], pixels[:, signature.colours :]], dim=1)


def even_size(count: int, most: int) -> int:
    """Return the batch size, at most ``most``, that runs ``count`` inputs in the fewest calls.

    Inputs that do not fill a batch are run singly.
    """
    return min(range(1, most + 1), key=lambda size: count // size + count % size)


def _pixel_count(shape: Shape) -> int:
    return shape[0] * shape[2] * shape[3]
