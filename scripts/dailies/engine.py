"""The engine: one frame through one network, at native resolution."""

import logging
import platform
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

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""What torch says when memory runs out; only on CUDA has that an exception class of its own."""


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
            f"device is {wanted}, but torch {torch.__version__} finds no such device on {platform.node()}; "
            "set device to auto or cpu, or install a torch that supports it"
        )
    return device


class Engine:
    """Renders frames with one model on one device."""

    def __init__(self, model: Model, *, device: torch.device, settings: Settings) -> None:
        self._signature = model.signature
        self._network = model.network.to(device, memory_format=torch.channels_last)
        self._settings = settings
        self.device = device
        self.tiled = settings.tiled is True
        """Whether frames are rendered in tiles; once memory has run out, all that follow are."""
        if device.type == "cuda":
            tf32 = settings.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.backends.cudnn.allow_tf32 = tf32

    @torch.inference_mode()
    def render(self, frame: np.ndarray) -> np.ndarray:
        """Render one frame: uint8 RGB ``(height, width, 3)`` to the same, rounded to the nearest code value.

        Raises RenderError when the network's output is not finite or not of the frame's shape, and when memory runs
        out and tiles are not allowed or do not help.
        """
        try:
            return self._rendered(frame)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            size = self._settings.tile_size
            advice = f"tile_size must be less than {size}" if self.tiled else "tiled must be auto or true"
            raise RenderError(f"out of memory on {self.device} ({advice})") from error

    def _rendered(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        black, white = self._signature.value_range
        pixels = torch.tensor(frame, device=self.device).permute(2, 0, 1)[None]
        padded = pad(pixels.float() / 255 * (white - black) + black, self._signature.multiple)
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
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return self._in_tiles(padded)

    def _full_if_it_fits(self, padded: Tensor) -> Tensor | None:
        try:
            return self._forward(padded)
        except RuntimeError as error:
            if self._settings.tiled != "auto" or not _out_of_memory(error):
                raise
            return None

    def _in_tiles(self, padded: Tensor) -> Tensor:
        size, overlap, multiple = self._settings.tile_size, self._settings.overlap, self._signature.multiple
        rows = spans(padded.shape[2], size, overlap, multiple)
        columns = spans(padded.shape[3], size, overlap, multiple)
        weight = torch.from_numpy(window(rows[0][1] - rows[0][0], columns[0][1] - columns[0][0])).to(self.device)
        total = torch.zeros_like(padded)
        weights = torch.zeros_like(padded[:, :1])
        for top, bottom in rows:
            for left, right in columns:
                tile = self._forward(padded[:, :, top:bottom, left:right])
                total[:, :, top:bottom, left:right] += tile * weight
                weights[:, :, top:bottom, left:right] += weight
        return total / weights

    def _forward(self, pixels: Tensor) -> Tensor:
        # a copy: a network may work in place, and these pixels are needed again by the next tile or after a failure
        given = pixels.clone(memory_format=torch.channels_last)
        with self._precision():
            result = self._network(given)
        if not isinstance(result, Tensor) or result.shape != pixels.shape:
            shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise RenderError(f"the network answered {shape} to an input of {tuple(pixels.shape)}")
        return result.float()

    def _precision(self) -> AbstractContextManager:
        kind = AUTOCAST.get(self._settings.precision)
        return torch.autocast(self.device.type, dtype=kind) if kind else nullcontext()


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)


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
