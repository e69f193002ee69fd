"""Batches: how many inputs go through a network together, so that each is answered as it is alone."""

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dailies.render.memory import Meter
from dailies.render.network import Network

log = logging.getLogger(__name__)

MOST = 8
"""How many inputs ``auto`` puts together at most: even small frames fill a device by then, and each waits for all."""

SPARE = 0.2
"""The part of the free memory that ``auto`` leaves alone, for what is fragmented and for frames on their way."""

Shape = tuple[int, ...]


class Batches:
    """Puts inputs of one size together: whole frames, or the tiles of one.

    An input is ``(rows, channels, height, width)``; of several rows where a frame's colours are given one by one.
    Before as many inputs of a size go through together for the first time, they are tried: where an answer is not, bit
    for bit, what the input gets alone, inputs of that size go one by one. So no pixel depends on the batch, whatever
    memory was free, wherever a render was resumed.
    """

    def __init__(self, wanted: int | Literal["auto"], network: Network, meter: Meter | None) -> None:
        self.largest = 1
        """How many went through together at most, since memory last ran out."""
        self._wanted = wanted
        self._network = network
        self._meter = meter
        self._bytes_per_pixel: float | None = None
        self._affordable: dict[Shape, int] = {}
        self._bound: int | None = None
        """The most pixels that several inputs may have together, once memory has run out."""
        self._alike: dict[tuple[str, Shape, int], bool] = {}
        self._under_way: tuple[int, Shape] = 1, (1, 1, 1, 1)

    def most(self, shape: Shape) -> int:
        """Tell how many inputs of a shape go through together, as far as is known."""
        if self._network.takes_one or self._network.is_compiled:
            return 1
        way = self._network.way
        if any(not alike and key[:2] == (way, shape) for key, alike in self._alike.items()):
            return 1
        wanted = self._afforded(shape) if self._wanted == "auto" else self._wanted
        return wanted if self._bound is None else min(wanted, max(1, self._bound // _pixels(shape)))

    def _afforded(self, shape: Shape) -> int:
        if self._meter is None or self._bytes_per_pixel is None:
            return 1
        if shape not in self._affordable:
            cost = max(1.0, self._bytes_per_pixel * _pixels(shape))
            self._affordable[shape] = max(1, min(MOST, int((1 - SPARE) * self._meter.free() / cost)))
        return self._affordable[shape]

    def take(self, shape: Shape, count: int) -> int:
        """Tell how many of ``count`` frames to put together next; those that do not make a batch go alone."""
        most = self.most(shape)
        self._under_way = (most if count >= most else 1), shape
        return self._under_way[0]

    def answers(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Give the network's answer to each input; all are of one shape, and no more than ``most`` says.

        Raises TooMuch and RenderError as the network does.
        """
        if len(inputs) > 1 and self._are_alike(inputs[0], len(inputs)):
            answers = self._together(inputs)
            self.largest = max(self.largest, len(inputs))
            return answers
        return [self._alone(each) for each in inputs]

    def shrink(self) -> bool:
        """Put fewer together from here on, since memory ran out; False where it was a single input already."""
        count, shape = self._under_way
        self._bound = count * _pixels(shape) // 2
        self.largest = 1
        return count > 1

    def _together(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        self._under_way = len(inputs), tuple(inputs[0].shape)
        return list(self._network(torch.cat(list(inputs))).split(len(inputs[0])))

    def _alone(self, pixels: Tensor) -> Tensor:
        """Answer one input; the first of all shows what an input costs."""
        self._under_way = 1, tuple(pixels.shape)
        if self._meter is None or self._bytes_per_pixel is not None:
            return self._network(pixels)
        self._meter.start()
        answer = self._network(pixels)
        self._bytes_per_pixel = self._meter.peak() / _pixels(tuple(pixels.shape))
        return answer

    def _are_alike(self, pixels: Tensor, count: int) -> bool:
        """Tell whether the network answers an input in each place of a batch as it does alone."""
        key = self._network.way, tuple(pixels.shape), count
        if key not in self._alike:
            given = pixels, self._noise(pixels)
            order = [place % 2 for place in range(count)]
            alone = [self._alone(each) for each in given]
            together = self._together([given[which] for which in order])
            self._alike[key] = not self._network.takes_one and all(
                torch.equal(own, alone[which]) for own, which in zip(together, order, strict=True)
            )
            if not self._alike[key]:
                log.info("inputs go one by one: %d together are not answered bit for bit as each alone", count)
        return self._alike[key]

    def _noise(self, pixels: Tensor) -> Tensor:
        """Give an input of other content, which shows whether a network mixes what is in a batch."""
        signature = self._network.signature
        low, high = signature.value_range
        noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(0))
        content = (noise * (high - low) + low).to(pixels.device)
        return torch.cat([content[:, : signature.colours], pixels[:, signature.colours :]], dim=1)


def even(count: int, most: int) -> int:
    """Give how many of ``count`` inputs to put together, ``most`` at most, for the fewest calls; the rest go alone."""
    return min(range(1, most + 1), key=lambda size: count // size + count % size)


def _pixels(shape: Shape) -> int:
    return shape[0] * shape[2] * shape[3]
