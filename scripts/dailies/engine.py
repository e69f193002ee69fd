"""The engine: one frame through one network, at native resolution."""

import logging
import math
import platform
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dailies.errors import LoadError, RenderError
from dailies.models import Model
from dailies.signatures import Signature
from dailies.text import clean
from dailies.tiling import fixed_spans, spans, window

log = logging.getLogger(__name__)

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""What torch says when memory runs out; only on CUDA has that an exception class of its own."""

PROBE = 64
"""Pixels along each side of the small tensor with which a network is tried first."""

CHANNELS = {1, 3, 4}
"""How many channels a frame may have."""

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""The weights of red, green and blue in what the eye sees as brightness: Recommendation ITU-R BT.709-6, item 3.2."""


@dataclass(frozen=True)
class Settings:
    """What the pixels depend on, besides the frame and the model."""

    precision: str = "fp32"
    """fp32, tf32, fp16 or bf16."""
    parity_tolerance: Sequence[float] = (2, 0.25)
    """How far another precision may be from fp32: the largest difference and the mean, in code values of 255."""
    tiled: bool | str = "auto"
    """True, False, or "auto": the full frame, and tiles when memory runs out."""
    tile_size: int = 512
    """Pixels."""
    overlap: int = 64
    """Pixels that neighbouring tiles share at least."""


@dataclass(frozen=True)
class Fit:
    """How frames are fitted into memory."""

    tiled: bool
    """Whether they are rendered in tiles."""
    tile: int
    """The most pixels along each side of a tile, or the sides of the one size that the network takes."""
    home: torch.device
    """Where whole frames are, before and after the network: the device itself, or beside it the CPU."""


@dataclass(frozen=True)
class Parity:
    """How far a precision is from fp32 on one frame, in code values of 255; infinite where its output is not finite."""

    max: float
    mean: float


@dataclass(frozen=True)
class Rendering:
    """A frame that the engine was given, and may still be working on."""

    result: Callable[[], np.ndarray]
    """Waits for the frame and gives it; to be called once, from any thread."""
    tiled: bool
    """Whether it is rendered in tiles."""


@dataclass(frozen=True)
class _Levels:
    """Code values on their way from the device."""

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


class _TooMuch(RuntimeError):
    """The network ran out of memory, which smaller tiles may help; the cause is torch's own error."""


FLOAT = np.dtype(np.float32)


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
        self.settings = settings
        self.device = device
        self.precision = settings.precision
        """As asked for, or fp32 where the network cannot run in half or differs too much."""
        self.notes: list[str] = []
        """What a user may want to know of how it went."""
        if settings.precision in AUTOCAST and not model.signature.half:
            self._note(f"{model.architecture} cannot run in {settings.precision}; it runs in fp32")
            self.precision = "fp32"
        self.part: str | None = None
        """Which part of the network's answer is used, when it answers several tensors."""
        self._lock = threading.RLock()
        self._uploads = None
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            self._uploads = torch.cuda.Stream(device)
        self._fit = Fit(tiled=settings.tiled is True, tile=self._tile_sizes()[0], home=device)

    @torch.inference_mode()
    def probe(self) -> None:
        """Run a small tensor through the network and learn, or confirm, its scale and output channels.

        Raises LoadError that says what was expected and what came.
        """
        signature = self._signature
        size = self._probe_size()
        expected = f"{signature.channels} channels of {size[1]}×{size[0]} pixels"
        ramp = torch.linspace(0, 1, size[0] * size[1], device=self.device).reshape(1, 1, *size)
        try:
            answer = self._answer(self._fed(ramp.expand(1, 3, *size))[:1])
        except (LoadError, RenderError):
            raise
        except Exception as error:  # the network is foreign code
            if _is_out_of_memory(error):
                raise
            log.info("the network failed at its first try", exc_info=error)
            raise LoadError(
                f"the network does not take {expected} ({type(error).__name__}: {_first_line(error)}); if it wants "
                "others, set signatures"
            ) from error
        found = {"output_channels": answer.shape[1], "scale": answer.shape[2] // size[0]}
        if found["output_channels"] not in CHANNELS or answer.shape[2:] != tuple(
            side * found["scale"] for side in size
        ):
            raise LoadError(f"the network answered {_shape(answer)} to {expected}: that is no frame")
        for name, got in found.items():
            if getattr(signature, name) not in {None, got}:
                raise LoadError(
                    f"expected {name} {getattr(signature, name)}, got {got}: the network answered "
                    f"{_shape(answer)} to {expected}"
                )
        if not bool(torch.isfinite(answer).all()):
            log.warning("the network's answer to a grey ramp is not finite")
        self._signature = replace(signature, **found)

    def _probe_size(self) -> tuple[int, int]:
        signature = self._signature
        side = max(signature.multiple, PROBE // signature.multiple * signature.multiple)
        if signature.tile:
            return signature.tile
        sides = (_padded_length(side, signature.multiple, least) for least in signature.least)
        return tuple(min(own, most or own) for own, most in zip(sides, signature.most, strict=True))

    @property
    def tiled(self) -> bool:
        """Whether frames are rendered in tiles; once memory has run out, all that follow are."""
        return self._fit.tiled

    @property
    def tile_size(self) -> int | tuple[int, int]:
        """The most pixels along each side of a tile, or (height, width) where the network accepts one size only.

        It is the settings' own until memory runs out in tiles too; what was found then stays for all that follow.
        """
        return self._signature.tile or self._fit.tile

    @property
    def overlap(self) -> int:
        """Pixels that neighbouring tiles share at least; at most half a tile where tiles are smaller than asked for."""
        smaller = self._signature.tile or ((self._fit.tile,) if self._fit.tile < self.settings.tile_size else ())
        return min([self.settings.overlap, *(side // 2 for side in smaller)])

    @property
    def signature(self) -> Signature:
        """How the network is fed; after ``probe``, scale and output channels are known."""
        return self._signature

    @torch.inference_mode()
    def render(self, frame: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
        """Render one frame.

        Takes RGB ``(height, width, 3)`` of uint8, uint16 (each from 0 to its largest value) or float32 (black is 0 and
        white 1), and gives ``(height × scale, width × scale, 3)`` of ``dtype``, by default the frame's own; 4 channels
        for a network that answers 4. Integers are rounded to the nearest code value, floats are left as they come.
        Where memory runs out, the frame is rendered in tiles, and those are halved until they fit, unless tiles are
        not allowed. Where the output of a precision other than fp32 is not finite, this frame is rendered in fp32.
        Raises RenderError when that is not finite either, when the output is not of the shape that the probe found,
        and when memory does not suffice at all.
        """
        return self.submit(frame, dtype).result()

    @torch.inference_mode()
    def submit(self, frame: np.ndarray, dtype: np.dtype | None = None) -> Rendering:
        """Begin to render a frame as ``render`` does; on CUDA this returns while the device works.

        What ``render`` raises is raised here or by the result. Frames may be submitted before the results of others
        are asked for.
        """
        dtype = np.dtype(dtype or frame.dtype)
        with self._lock:
            levels, precision, tiled = self._fitted(frame, dtype), self.precision, self.tiled
        if levels.arrived:
            return Rendering(lambda: self._finished(levels, precision, frame, dtype), tiled)
        pixels = self._finished(levels, precision, frame, dtype)
        return Rendering(lambda: pixels, self.tiled)

    @torch.inference_mode()
    def _finished(self, levels: _Levels, precision: str, frame: np.ndarray, dtype: np.dtype) -> np.ndarray:
        pixels = levels.array(dtype)
        if pixels is None and precision != "fp32":
            with self._lock, self._running_in("fp32"):
                self._note(f"frames whose output in {precision} is not finite are rendered in fp32")
                pixels = self._fitted(frame, dtype).array(dtype)
        if pixels is None:
            raise RenderError("output is not finite")
        return pixels

    @torch.inference_mode()
    def settle_precision(self, frame: np.ndarray) -> Parity | None:
        """Render a frame in the precision asked for and in fp32, and stay with fp32 where they differ too much.

        Takes a frame as ``render`` does, and gives the difference of what lies from black to white; None where fp32 is
        what was asked for. Raises RenderError as ``render``.
        """
        precision, fit = self.precision, self._fit
        if precision == "fp32":
            return None
        # fp32 first: it needs more memory, and both are to be compared in the same tiles
        with self._running_in("fp32"):
            exact = self._fitted(frame, FLOAT).array(FLOAT)
        if exact is None:
            raise RenderError("output is not finite")
        parity = _parity(exact, self._fitted(frame, FLOAT).array(FLOAT))
        most, mean = self.settings.parity_tolerance
        if parity.max <= most and parity.mean <= mean:
            log.info("%s changes the first frame by %g of 255 at most, by %g on average", precision, *astuple(parity))
            self._fit = fit
            return parity
        self.precision = "fp32"
        if math.isinf(parity.max):
            self._note(f"the first frame's output in {precision} is not finite, so all are rendered in fp32")
        else:
            self._note(
                f"{precision} changes the first frame by {parity.max:g} code values of 255 at most and {parity.mean:g} "
                f"on average; parity_tolerance allows {most:g} and {mean:g}, so all are rendered in fp32"
            )
        return parity

    def _note(self, text: str) -> None:
        if text not in self.notes:
            log.warning(text)
            self.notes.append(text)

    @contextmanager
    def _running_in(self, precision: str) -> Iterator[None]:
        before, self.precision = self.precision, precision
        try:
            yield
        finally:
            self.precision = before

    def _fitted(self, frame: np.ndarray, dtype: np.dtype) -> _Levels:
        """Render a frame with what memory allows."""
        while True:
            levels = self._tried(frame, dtype)
            if isinstance(levels, _Levels):
                return levels
            # here and not where it was caught: the exception's traceback keeps the tensors alive
            if self.device.type in {"cuda", "mps"}:
                getattr(torch, self.device.type).empty_cache()
            self._fit = self._smaller_fit(frame, in_network=levels == "network")

    def _tried(self, frame: np.ndarray, dtype: np.dtype) -> _Levels | str:
        """Render with what memory is known to allow, or say what it does not suffice for: the network or the frame."""
        try:
            return self._rendered(frame, dtype)
        except _TooMuch:
            return "network"
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            return "frame"

    def _smaller_fit(self, frame: np.ndarray, *, in_network: bool) -> Fit:
        """Give what needs less memory: tiles, then smaller ones, then with whole frames beside the device.

        The frame's key in the manifest does not depend on it: what memory is free changes from one attempt to the next,
        and a resumed render would never come to an end of rendering again.
        """
        fit, sizes = self._fit, self._tile_sizes()
        height, width = frame.shape[:2]
        if self.settings.tiled is False and not fit.tiled:
            raise RenderError(f"out of memory on {self.device} (tiled must be auto or true)")
        largest = max(
            _padded_length(side, self._signature.multiple, least)
            for side, least in zip((height, width), self._signature.least, strict=True)
        )
        tried = min(fit.tile, largest) if fit.tiled else largest
        smaller = next((size for size in sizes if size < tried), None) if in_network else None
        if smaller:
            log.warning("out of memory at %d×%d, going on in tiles of %d pixels", width, height, smaller)
            return replace(fit, tiled=True, tile=smaller)
        if fit.home.type != "cpu":
            log.warning("out of memory at %d×%d, only tiles go to %s from here on", width, height, self.device)
            return Fit(tiled=True, tile=sizes[0], home=torch.device("cpu"))
        what = f"in tiles of {min(tried, sizes[-1])} pixels" if in_network else f"to keep a frame of {width}×{height}"
        raise RenderError(f"out of memory on {self.device}, even {what} (end other programs or set another device)")

    def _tile_sizes(self) -> list[int]:
        """Give the sizes of tiles to try, the settings' own first, each at most half of the one before it."""
        signature = self._signature
        if signature.tile:
            return [max(signature.tile)]
        smallest = min(_padded_length(1, signature.multiple, least) for least in signature.least)
        sizes = [max(self.settings.tile_size, smallest)]
        while (half := sizes[-1] // 2 // signature.multiple * signature.multiple) >= smallest:
            sizes.append(half)
        return sizes

    def _rendered(self, frame: np.ndarray, dtype: np.dtype) -> _Levels:
        height, width = frame.shape[:2]
        signature, scale = self._signature, self._signature.scale or 1
        unit = self._uploaded(frame).permute(2, 0, 1)[None].float() / _white(frame.dtype)
        padded = pad(self._fed(unit), signature.multiple, signature.tile or signature.least)
        if not self._takes_whole(padded):
            self._fit = replace(self._fit, tiled=True)
        answer = self._in_tiles(padded) if self.tiled else self._forward(padded)
        result = answer[:, :, : height * scale, : width * scale]
        return self._downloaded(self._levels(result, dtype), torch.isfinite(result).all())

    def _uploaded(self, frame: np.ndarray) -> Tensor:
        """Bring a frame to where whole frames are; on CUDA beside the work on the frame before it."""
        home = self._fit.home
        if home.type != "cuda":
            return torch.tensor(frame, device=home)
        pinned = torch.tensor(frame, pin_memory=True)
        with torch.cuda.stream(self._uploads):
            pixels = pinned.to(home, non_blocking=True)
        working = torch.cuda.current_stream(home)
        working.wait_stream(self._uploads)
        pixels.record_stream(working)
        return pixels

    def _downloaded(self, values: Tensor, finite: Tensor) -> _Levels:
        if values.device.type != "cuda":
            return _Levels(values.cpu(), finite)
        hosts = [torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in (values, finite)]
        for host, each in zip(hosts, (values, finite), strict=True):
            host.copy_(each, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(values.device))
        return _Levels(*hosts, arrived)

    def _fed(self, unit: Tensor) -> Tensor:
        """Turn ``(1, 3, height, width)``, black 0 and white 1, into what the network takes.

        A network of one channel gets the three colours one by one, as a batch, or the luminance (BT.709) where it
        answers colours; one of four gets an opaque alpha.
        """
        signature = self._signature
        if signature.channel_order == "bgr":
            unit = unit.flip(1)
        if signature.channels == 1:
            weights = _constant(LUMINANCE, unit.device)
            unit = unit.transpose(0, 1) if signature.is_per_colour else (unit * weights).sum(1, keepdim=True)
        elif signature.channels == 4:
            unit = torch.cat([unit, torch.ones_like(unit[:, :1])], dim=1)
        black, white = (_constant(each, unit.device) for each in signature.ends)
        return unit * (white - black) + black

    def _levels(self, answer: Tensor, dtype: np.dtype) -> Tensor:
        """Turn the network's answer into ``(height, width, 3)``, or 4 channels."""
        signature = self._signature
        black, white = signature.answer_range
        unit = (answer - black) / (white - black)
        if signature.is_per_colour:
            unit = unit.transpose(0, 1)
        elif unit.shape[1] == 1:
            unit = unit.expand(-1, 3, -1, -1)
        if signature.channel_order == "bgr":
            unit = torch.cat([unit[:, :3].flip(1), unit[:, 3:]], dim=1)
        levels = unit[0].permute(1, 2, 0)
        if np.issubdtype(dtype, np.integer):
            top = _white(dtype)
            levels = (levels * top).clamp_(0, top).round_().to(torch.uint8 if top == 255 else torch.int32)
        return levels.contiguous()

    def _takes_whole(self, padded: Tensor) -> bool:
        size, signature = tuple(padded.shape[2:]), self._signature
        if signature.tile:
            return size == signature.tile
        return all(most is None or side <= most for side, most in zip(size, signature.most, strict=True))

    def _in_tiles(self, padded: Tensor) -> Tensor:
        scale = self._signature.scale or 1
        rows, columns = (self._spans(padded.shape[axis], axis - 2) for axis in (2, 3))
        sides = [(spans[0][1] - spans[0][0]) * scale for spans in (rows, columns)]
        home = padded.device
        weight = _window(*sides, home)
        height, width = (padded.shape[axis] * scale for axis in (2, 3))
        total = padded.new_zeros((padded.shape[0], self._answered_channels, height, width))
        weights = padded.new_zeros((1, 1, height, width))
        for top, bottom in rows:
            for left, right in columns:
                place = (..., slice(top * scale, bottom * scale), slice(left * scale, right * scale))
                total[place] += self._forward(padded[:, :, top:bottom, left:right]).to(home) * weight
                weights[place] += weight
        return total / weights

    def _spans(self, length: int, axis: int) -> list[tuple[int, int]]:
        signature, size = self._signature, self._fit.tile
        multiple = signature.multiple
        if signature.tile:
            return fixed_spans(length, signature.tile[axis], self.overlap, multiple)
        most = min(size, signature.most[axis] or size) // multiple * multiple
        tile = max(most, _padded_length(1, multiple, signature.least[axis]))
        return spans(length, tile, min(self.overlap, tile - multiple), multiple)

    @property
    def _answered_channels(self) -> int:
        return self._signature.output_channels or self._signature.channels

    def _forward(self, pixels: Tensor) -> Tensor:
        try:
            answer = self._answer(pixels)
        except RuntimeError as error:
            if _is_out_of_memory(error):
                raise _TooMuch from error
            raise
        scale = self._signature.scale or 1
        expected = (pixels.shape[0], self._answered_channels, pixels.shape[2] * scale, pixels.shape[3] * scale)
        if tuple(answer.shape) != expected:
            raise RenderError(f"the network answered {_shape(answer)} to an input of {_shape(pixels)}")
        return answer

    def _answer(self, pixels: Tensor) -> Tensor:
        """Run the network once; of several tensors in its answer the first that can be a frame counts."""
        # a copy: a network may work in place, and these pixels are needed again by the next tile or after a failure
        given = pixels.to(self.device, copy=True, memory_format=torch.channels_last)
        with self._arithmetic():
            return self._frame_in(self._network(given), pixels).float()

    def _frame_in(self, result: Any, pixels: Tensor) -> Tensor:
        """Give the first tensor of an answer that can be a frame."""
        if isinstance(result, Tensor):
            if result.dim() != 4:
                raise RenderError(f"the network answered {_shape(result)} to an input of {_shape(pixels)}")
            return result
        for name, tensor in _parts(result):
            if tensor.dim() == 4 and tensor.shape[1] in CHANNELS and tensor.shape[2] >= pixels.shape[2]:
                if name != self.part:
                    log.info("the network answers a %s; its part %s is used", type(result).__name__, name)
                self.part = name
                return tensor
        raise RenderError(
            f"the network answered a {type(result).__name__} without a frame to an input of {_shape(pixels)}"
        )

    def _arithmetic(self) -> AbstractContextManager:
        if self.device.type == "cuda":
            tf32 = self.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.backends.cudnn.allow_tf32 = tf32
        # it keeps normalisation, sums and what else overflows in fp32
        kind = AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype=kind) if kind else nullcontext()


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Give one number per channel; kept, since an upload of its own would wait for all that the device has to do."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


@lru_cache(maxsize=4)
def _window(height: int, width: int, device: torch.device) -> Tensor:
    return torch.from_numpy(window(height, width)).to(device)


def _parity(exact: np.ndarray, other: np.ndarray | None) -> Parity:
    if other is None:
        return Parity(math.inf, math.inf)
    difference = np.abs(np.clip(exact, 0, 1) - np.clip(other, 0, 1)) * 255
    return Parity(round(float(difference.max()), 4), round(float(difference.mean(dtype=np.float64)), 4))


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)


def _parts(result: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Give the tensors of a tuple, list or dict, with the way to each."""
    if isinstance(result, Tensor):
        yield name, result
    elif isinstance(result, Mapping | list | tuple):
        for key, value in result.items() if isinstance(result, Mapping) else enumerate(result):
            yield from _parts(value, f"{name}[{key!r}]")


def _first_line(error: Exception) -> str:
    return clean((str(error).strip().splitlines() or [""])[0])[:200]


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))


def _white(dtype: np.dtype) -> int:
    return np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1


def pad(pixels: Tensor, multiple: int, least: tuple[int, int] = (1, 1)) -> Tensor:
    """Pad ``(batch, channels, height, width)`` on the right and below, by reflection that repeats the edge pixel.

    Both sides become multiples of ``multiple`` and at least ``least``, (height, width). The frame may be smaller than
    the padding: the reflection goes on.
    """
    for axis in (2, 3):
        length = pixels.shape[axis]
        size = _padded_length(length, multiple, least[axis - 2])
        if size > length:
            index = torch.arange(size, device=pixels.device) % (2 * length)
            pixels = pixels.index_select(axis, torch.where(index < length, index, 2 * length - 1 - index))
    return pixels


def _padded_length(length: int, multiple: int, least: int) -> int:
    return -(-max(length, least) // multiple) * multiple
