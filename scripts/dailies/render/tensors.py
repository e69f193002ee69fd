"""Frames as tensors: transfers to and from a device, padding, conversion to network input and back to code values."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from dailies.models.signature import Signature

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""The weights of red, green and blue in luminance: Recommendation ITU-R BT.709-6, item 3.2."""


@dataclass(frozen=True)
class Download:
    """Code values of a frame on their way from a device."""

    values: Tensor
    finite: Tensor
    """Whether the network's whole output was finite."""
    arrived: "torch.cuda.Event | None" = None
    """Both tensors are undefined until this event; None if they have arrived."""

    def array(self, dtype: np.dtype) -> np.ndarray | None:
        """Wait for the values and return them as ``dtype``; None if the network's output was not finite."""
        if self.arrived:
            self.arrived.synchronize()
        return self.values.numpy().astype(dtype, copy=False) if bool(self.finite) else None


class Transfers:
    """Copies frames to a device and code values from it.

    On CUDA, copies go through pinned memory and overlap with the network's work; each direction has its own stream.
    """

    def __init__(self, device: torch.device) -> None:
        self._up, self._down = (torch.cuda.Stream(device) if device.type == "cuda" else None for _ in range(2))

    def upload(self, frame: np.ndarray, device: torch.device) -> Tensor:
        """Copy a frame to ``device``, which may also be the CPU; later work on that device waits for the copy."""
        if device.type != "cuda":
            return torch.tensor(frame, device=device)
        # torch.tensor cannot pin memory that comes from numpy
        pinned = torch.empty(frame.shape, dtype=getattr(torch, frame.dtype.name), pin_memory=True)
        np.copyto(pinned.numpy(), frame)
        with torch.cuda.stream(self._up):
            pixels = pinned.to(device, non_blocking=True)
        assert self._up is not None
        working = torch.cuda.current_stream(device)
        working.wait_stream(self._up)
        pixels.record_stream(working)
        return pixels

    def download(self, values: Tensor, finite: Tensor) -> Download:
        """Start copying code values to the CPU, after the work that is queued on their device so far."""
        if values.device.type != "cuda":
            return Download(values.cpu(), finite)
        assert self._down is not None
        self._down.wait_stream(torch.cuda.current_stream(values.device))
        host_values, host_finite = (
            torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in (values, finite)
        )
        with torch.cuda.stream(self._down):
            for host, each in ((host_values, values), (host_finite, finite)):
                host.copy_(each, non_blocking=True)
                each.record_stream(self._down)
            # a blocking event: by default each waiting thread would spin and compete with the threads that decode
            arrived = torch.cuda.Event(blocking=True)
            arrived.record()
        return Download(host_values, host_finite, arrived)


def white_level(dtype: np.dtype) -> int:
    """Return the code value of white in frames of a type: the largest integer, or 1 for floats."""
    return np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1


def network_input(pixels: Tensor, signature: Signature) -> Tensor:
    """Convert a frame of code values, ``(height, width, 3)``, to the network's input, and pad it."""
    white = white_level(np.dtype(str(pixels.dtype).removeprefix("torch.")))
    indexable = pixels.float() if pixels.dtype == torch.uint16 else pixels
    padded = pad(indexable, signature.multiple, signature.tile or signature.least, axes=(0, 1))
    is_table_enough = signature.colours == 3 and signature.channel_order == "rgb" and not signature.extra_channels
    if padded.dtype == torch.uint8 and padded.device.type == "cpu" and is_table_enough:
        # a fifth of the time of the arithmetic, and the same values
        values = cv2.LUT(padded.numpy(), _byte_table(signature))
        return torch.from_numpy(values).permute(2, 0, 1)[None]
    return to_network_input(padded.permute(2, 0, 1)[None].float().div_(white), signature)


@lru_cache(maxsize=4)
def _byte_table(signature: Signature) -> np.ndarray:
    """Return the network's input for each code value of 8 bits, ``(256, 1, 3)``."""
    unit = torch.arange(256).float().div_(255)
    return to_network_input(unit.expand(1, 3, 1, 256), signature)[0].permute(2, 1, 0).contiguous().numpy()


def to_network_input(unit: Tensor, signature: Signature) -> Tensor:
    """Convert ``(1, 3, height, width)``, from black 0 to white 1, to the network's channels and value range.

    A network with one colour channel gets the three colours as a batch of three, or the luminance (BT.709) if it
    returns several channels. A network with four gets an opaque alpha. The constant channels of the signature follow.
    """
    if signature.channel_order == "bgr":
        unit = unit.flip(1)
    if signature.colours == 1:
        weights = _per_channel(LUMINANCE, unit.device)
        unit = unit.transpose(0, 1) if signature.is_per_colour else (unit * weights).sum(1, keepdim=True)
    elif signature.colours == 4:
        unit = torch.cat([unit, torch.ones_like(unit[:, :1])], dim=1)
    low, high = (_per_channel(each, unit.device) for each in signature.black_and_white)
    values = (unit * (high - low)).add_(low)
    if not signature.extra_channels:
        return values
    extra = _per_channel(signature.extra_channels, unit.device).expand(len(values), -1, *values.shape[2:])
    return torch.cat([values, extra], dim=1)


def to_code_values(output: Tensor, signature: Signature, dtype: np.dtype) -> Tensor:
    """Convert the network's output to one frame to code values, ``(height, width, 3)``, or 4 channels.

    The result is uint8, int32 for deeper integers, or float32. Integers are clamped and rounded, floats are not.
    """
    low, high = signature.effective_output_range
    values = (output - low).div_(high - low)
    if np.issubdtype(dtype, np.integer):
        top = white_level(dtype)
        values = values.mul_(top).clamp_(0, top).round_().to(torch.uint8 if top == 255 else torch.int32)
    if signature.is_per_colour:
        values = values.transpose(0, 1)
    elif values.shape[1] == 1:
        values = values.expand(-1, 3, -1, -1)
    if signature.channel_order == "bgr":
        values = torch.cat([values[:, :3].flip(1), values[:, 3:]], dim=1)
    return values[0].permute(1, 2, 0).contiguous()


def is_finite(output: Tensor) -> Tensor:
    """Return whether all values of an image, ``(1, channels, height, width)``, are finite, as a tensor on its device.

    A minimum or maximum of values with a NaN is NaN. Finding both takes a fraction of the time of testing each value.
    """
    in_memory_order = output if output.is_contiguous() else output.permute(0, 2, 3, 1)
    return torch.isfinite(torch.stack(torch.aminmax(in_memory_order))).all()


def pad(pixels: Tensor, multiple: int, least: tuple[int, int] = (1, 1), *, axes: tuple[int, int] = (2, 3)) -> Tensor:
    """Pad ``(batch, channels, height, width)`` on the right and below by reflection, repeating the edge pixel.

    ``axes`` are those of height and width, if they are others. Both sides become multiples of ``multiple`` and at least
    ``least``, (height, width). If the padding is larger than the frame, the reflection is repeated.
    """
    for axis, shortest in zip(axes, least, strict=True):
        length = pixels.shape[axis]
        size = padded_length(length, multiple, shortest)
        if size > length:
            index = torch.arange(size, device=pixels.device) % (2 * length)
            pixels = pixels.index_select(axis, torch.where(index < length, index, 2 * length - 1 - index))
    return pixels


def padded_length(length: int, multiple: int, least: int) -> int:
    """Return the number of pixels along an axis after padding."""
    return -(-max(length, least) // multiple) * multiple


def padded_size(height: int, width: int, signature: Signature) -> tuple[int, int]:
    """Return the height and width of a whole frame after padding for a network."""
    least = signature.tile or signature.least
    return padded_length(height, signature.multiple, least[0]), padded_length(width, signature.multiple, least[1])


@lru_cache(maxsize=64)
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return one number per channel as a tensor; cached, because each upload would wait for the device's queue."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)
