"""The engine: one frame through one network, at native resolution."""

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dailies.errors import RenderError
from dailies.models import Model
from dailies.tiling import spans, window

log = logging.getLogger(__name__)

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Settings:
    """What the pixels depend on, besides the frame and the model."""

    precision: str = "fp32"
    """fp32, tf32, fp16 or bf16."""
    tiled: bool | str = "auto"
    """True, False, or "auto": the full frame, and tiles when memory runs out."""
    tile_size: int = 512
    """Pixels."""
    overlap: int = 64
    """Pixels that neighbouring tiles share at least."""


def find_device(wanted: str) -> torch.device:
    """Resolve ``auto`` to the best device there is: cuda, then mps, then cpu.

    Raises RenderError when a device that was asked for by name is not there.
    """
    mps = torch.backends.mps.is_available()
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    device = torch.device(wanted)
    there = {"cuda": (device.index or 0) < torch.cuda.device_count(), "mps": mps}.get(device.type, True)
    if not there:
        raise RenderError(
            f"device is {wanted}, but torch {torch.__version__} finds no such device on {os.uname().nodename}; "
            "set device to auto or cpu, or install a torch that supports it"
        )
    return device


class Engine:
    """Renders frames with one model on one device."""

    def __init__(self, model: Model, *, device: torch.device, settings: Settings) -> None:
        self._signature = model.signature
        self._network = model.network.to(device, memory_format=torch.channels_last)
        self._device = device
        self._settings = settings
        self.tiled = settings.tiled is True
        """Whether frames are rendered in tiles; once memory has run out, all that follow are."""
        if device.type == "cuda":
            tf32 = settings.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.backends.cudnn.allow_tf32 = tf32

    @torch.inference_mode()
    def render(self, frame: np.ndarray) -> np.ndarray:
        """Render one frame: uint8 RGB ``(height, width, 3)`` to the same, rounded to the nearest code value.

        Raises RenderError when the network's output is not finite or not of the frame's shape, and
        torch.OutOfMemoryError when memory runs out and tiles are not allowed or do not help.
        """
        height, width = frame.shape[:2]
        black, white = self._signature.value_range
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).to(self._device)
        pixels = pixels.permute(2, 0, 1)[None].to(torch.float32) / 255 * (white - black) + black
        padded = pad(pixels, self._signature.multiple).contiguous(memory_format=torch.channels_last)
        result = self._full_or_tiled(padded)[:, :, :height, :width]
        if not bool(torch.isfinite(result).all()):
            raise RenderError("output is not finite")
        levels = ((result - black) / (white - black) * 255).clamp_(0, 255).round_().to(torch.uint8)
        return levels[0].permute(1, 2, 0).contiguous().cpu().numpy()

    def _full_or_tiled(self, padded: Tensor) -> Tensor:
        if not self.tiled:
            full = self._full_if_it_fits(padded)
            if full is not None:
                return full
            self.tiled = True
            log.warning("out of memory at %d×%d, going on in tiles", padded.shape[3], padded.shape[2])
            # here and not where it was caught: the exception's traceback keeps the tensors alive
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        return self._in_tiles(padded)

    def _full_if_it_fits(self, padded: Tensor) -> Tensor | None:
        try:
            return self._forward(padded)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if self._settings.tiled != "auto" or not _out_of_memory(error):
                raise
            return None

    def _in_tiles(self, padded: Tensor) -> Tensor:
        size, overlap, multiple = self._settings.tile_size, self._settings.overlap, self._signature.multiple
        rows = spans(padded.shape[2], size, overlap, multiple)
        columns = spans(padded.shape[3], size, overlap, multiple)
        weight = torch.from_numpy(window(rows[0][1] - rows[0][0], columns[0][1] - columns[0][0])).to(self._device)
        total = torch.zeros_like(padded)
        weights = torch.zeros_like(padded[:, :1])
        for top, bottom in rows:
            for left, right in columns:
                tile = padded[:, :, top:bottom, left:right].contiguous(memory_format=torch.channels_last)
                total[:, :, top:bottom, left:right] += self._forward(tile) * weight
                weights[:, :, top:bottom, left:right] += weight
        return total / weights

    def _forward(self, pixels: Tensor) -> Tensor:
        with self._precision():
            result = self._network(pixels)
        if not isinstance(result, Tensor) or result.shape != pixels.shape:
            shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise RenderError(f"the network answered {shape} to an input of {tuple(pixels.shape)}")
        return result.float()

    def _precision(self) -> AbstractContextManager:
        kind = AUTOCAST.get(self._settings.precision)
        return torch.autocast(self._device.type, dtype=kind) if kind else nullcontext()


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def pad(pixels: Tensor, multiple: int) -> Tensor:
    """Pad ``(batch, channels, height, width)`` on the right and below, by reflection that repeats the edge pixel.

    Both sides become multiples of ``multiple``. The frame may be smaller than the padding: the reflection goes on.
    """
    for axis in (2, 3):
        length = pixels.shape[axis]
        if length % multiple:
            index = torch.arange(-(-length // multiple) * multiple, device=pixels.device) % (2 * length)
            pixels = pixels.index_select(axis, torch.where(index < length, index, 2 * length - 1 - index))
    return pixels
