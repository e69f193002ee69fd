"""Levels: from a frame's code values to what a network takes, and from its answer back."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dailies.models.signature import Signature

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""The weights of red, green and blue in what the eye sees as brightness: Recommendation ITU-R BT.709-6, item 3.2."""


def white(dtype: np.dtype) -> int:
    """Give what white is in frames of a type: the largest integer, or 1."""
    return np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1


def fed(unit: Tensor, signature: Signature) -> Tensor:
    """Turn ``(1, 3, height, width)``, black 0 and white 1, into what the network takes.

    A network of one channel gets the three colours one by one, as a batch, or the luminance (BT.709) where it
    answers colours; one of four gets an opaque alpha. Constant channels come after these, as the signature says.
    """
    if signature.channel_order == "bgr":
        unit = unit.flip(1)
    if signature.colours == 1:
        weights = _constant(LUMINANCE, unit.device)
        unit = unit.transpose(0, 1) if signature.is_per_colour else (unit * weights).sum(1, keepdim=True)
    elif signature.colours == 4:
        unit = torch.cat([unit, torch.ones_like(unit[:, :1])], dim=1)
    low, high = (_constant(each, unit.device) for each in signature.black_and_white)
    values = unit * (high - low) + low
    if not signature.extra_channels:
        return values
    extra = _constant(signature.extra_channels, unit.device).expand(len(values), -1, *values.shape[2:])
    return torch.cat([values, extra], dim=1)


def levels(answer: Tensor, signature: Signature, dtype: np.dtype) -> Tensor:
    """Turn the network's answer to one frame into code values, ``(height, width, 3)``, or 4 channels.

    They are uint8, int32 for deeper integers, or float32, which is neither clamped nor rounded.
    """
    low, high = signature.effective_output_range
    unit = (answer - low) / (high - low)
    if signature.is_per_colour:
        unit = unit.transpose(0, 1)
    elif unit.shape[1] == 1:
        unit = unit.expand(-1, 3, -1, -1)
    if signature.channel_order == "bgr":
        unit = torch.cat([unit[:, :3].flip(1), unit[:, 3:]], dim=1)
    values = unit[0].permute(1, 2, 0)
    if np.issubdtype(dtype, np.integer):
        top = white(dtype)
        values = (values * top).clamp_(0, top).round_().to(torch.uint8 if top == 255 else torch.int32)
    return values.contiguous()


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Give one number per channel; kept, since an upload of its own would wait for all that the device has to do."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


def pad(pixels: Tensor, multiple: int, least: tuple[int, int] = (1, 1)) -> Tensor:
    """Pad ``(batch, channels, height, width)`` on the right and below, by reflection that repeats the edge pixel.

    Both sides become multiples of ``multiple`` and at least ``least``, (height, width). The frame may be smaller than
    the padding: the reflection goes on.
    """
    for axis in (2, 3):
        length = pixels.shape[axis]
        size = padded_length(length, multiple, least[axis - 2])
        if size > length:
            index = torch.arange(size, device=pixels.device) % (2 * length)
            pixels = pixels.index_select(axis, torch.where(index < length, index, 2 * length - 1 - index))
    return pixels


def padded_length(length: int, multiple: int, least: int) -> int:
    """Give the pixels along an axis after padding."""
    return -(-max(length, least) // multiple) * multiple


@dataclass(frozen=True)
class Download:
    """Code values of a frame on their way from a device."""

    values: Tensor
    finite: Tensor
    """Whether all of the network's output was."""
    arrived: "torch.cuda.Event | None" = None
    """Until then both tensors may hold anything; None: they are there."""

    def array(self, dtype: np.dtype) -> np.ndarray | None:
        """Wait for the values and give them, None where the output was not finite."""
        if self.arrived:
            self.arrived.synchronize()
        return self.values.numpy().astype(dtype, copy=False) if bool(self.finite) else None


class Transfers:
    """Moves frames to a device and code values from it: on CUDA through pinned memory, beside the network's work.

    Each direction has a stream of its own there.
    """

    def __init__(self, device: torch.device) -> None:
        self._up, self._down = (torch.cuda.Stream(device) if device.type == "cuda" else None for _ in range(2))

    def upload(self, frame: np.ndarray, home: torch.device) -> Tensor:
        """Bring a frame to where whole frames are, the device or the CPU; what follows there waits for it."""
        if home.type != "cuda":
            return torch.tensor(frame, device=home)
        # torch.tensor refuses to pin what comes from numpy
        pinned = torch.empty(frame.shape, dtype=getattr(torch, frame.dtype.name), pin_memory=True)
        np.copyto(pinned.numpy(), frame)
        with torch.cuda.stream(self._up):
            pixels = pinned.to(home, non_blocking=True)
        working = torch.cuda.current_stream(home)
        working.wait_stream(self._up)
        pixels.record_stream(working)
        return pixels

    def download(self, values: Tensor, finite: Tensor) -> Download:
        """Begin to bring code values to the CPU, when what was asked for before is done."""
        if values.device.type != "cuda":
            return Download(values.cpu(), finite)
        self._down.wait_stream(torch.cuda.current_stream(values.device))
        hosts = [torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in (values, finite)]
        with torch.cuda.stream(self._down):
            for host, each in zip(hosts, (values, finite), strict=True):
                host.copy_(each, non_blocking=True)
                each.record_stream(self._down)
            # who waits sleeps: as CUDA comes, a thread for each frame on its way would spin, beside those that decode
            arrived = torch.cuda.Event(blocking=True)
            arrived.record()
        return Download(*hosts, arrived)
