"""The engine: frames through one network, at native resolution."""

import logging
import math
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dailies.core.errors import DailiesError, LoadError, RenderError
from dailies.core.text import clean, few
from dailies.models.load import Model
from dailies.models.signature import Signature, format_range
from dailies.render.batches import Batches, even
from dailies.render.memory import (
    Fit,
    TooMuch,
    is_out_of_memory,
    meter,
)
from dailies.render.network import (
    AUTOCAST,
    PLAIN,
    Network,
    Part,
    SeveralImages,
)
from dailies.render.parity import Parity, _parity
from dailies.render.tensors import (
    Download,
    Transfers,
    fed,
    levels,
    pad,
    padded_length,
    white,
)
from dailies.render.tiling import fixed_spans, spans, window

log = logging.getLogger(__name__)

KNOWN_RANGE = frozenset({"dailies", "spandrel"})
"""Builders that know what black and white are to their networks."""

RANGES = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))
"""What black and white are to most networks."""

RANGE = "set value_range in signatures, or the run's tag dailies.value_range"

CROP = 256
"""Pixels along each side of what is looked at of the first frame."""

FARTHER, MARGIN = 3, 10 / 255
"""How many times as far from the source, and by how much more, an answer has to be for its range to be doubted."""

DARK = 0.2
"""The mean, from black, 0, to white, 1, below which a frame tells nothing of the range: all answers are near to it, and
a network that brightens is the farthest in its own range."""


@dataclass(frozen=True)
class Settings:
    """How frames are rendered: what the pixels depend on besides the frame and the model, and ``batch``."""

    precision: str = "fp32"
    """fp32, tf32, fp16 or bf16."""
    parity_tolerance: Sequence[float] = (2, 0.25)
    """How far what is faster may be from fp32: the largest difference and the mean, in code values of 255."""
    compile: bool = False
    """Whether torch compiles the network, for the one shape of input that the first frame asks for."""
    autotune: bool = False
    """Whether cuDNN tries which of its ways is the fastest for each shape of input; on other devices of no effect."""
    tiled: bool | str = "auto"
    """True, False, or "auto": the full frame, and tiles when memory runs out."""
    tile_size: int = 512
    """Pixels."""
    overlap: int = 64
    """Pixels that neighbouring tiles share at least."""
    batch: int | Literal["auto"] = "auto"
    """How many frames, or tiles of one, go through the network together; no pixel depends on it."""


@dataclass(frozen=True)
class Rendering:
    """A frame that the engine was given, and may still be working on."""

    result: Callable[[], np.ndarray]
    """Waits for the frame and gives it; to be called once, from any thread."""
    tiled: bool
    """Whether it is rendered in tiles."""


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
            "device.not_in_torch",
            f"device is {wanted}, but torch {torch.__version__} finds no such device on {platform.node()}; "
            "set device to auto or cpu, or install a torch that supports it",
        )
    return device


class Engine:
    """Renders frames with one model on one device."""

    def __init__(self, model: Model, *, device: torch.device, settings: Settings) -> None:
        self.settings = settings
        self.device = device
        self._builder = model.builder
        self._network = Network(model, device, precision=settings.precision, autotune=settings.autotune)
        self._batches = Batches(settings.batch, self._network, meter(device))
        if settings.precision in AUTOCAST and not model.signature.half:
            self._network.note(f"{model.architecture} cannot run in {settings.precision}; it runs in fp32")
            self._network.precision = "fp32"
        self.compile_seconds: float | None = None
        """How long it took to compile the network, which then runs compiled; None where it runs as it is."""
        self._lock = threading.RLock()
        self._transfers = Transfers(device)
        self._fit = Fit(tiled=settings.tiled is True, tile=self._tile_sizes()[0], home=device)

    @torch.inference_mode()
    def probe(self, first: Callable[[], np.ndarray] | None = None) -> None:
        """Run a small tensor through the network and learn, or confirm, its scale, output channels and ``multiple``.

        ``first`` reads the first frame, which is needed only where something is not known: which of several images
        is the frame, what black and white are, which sizes the network takes. Raises LoadError that says what was
        expected and what came.
        """
        try:
            self._network.probe(lambda: self._size_given(first))
        except SeveralImages as error:
            raise LoadError(error.code, f"{error}{self._nearest(error.images, first)}") from None
        self._fit = replace(self._fit, tile=self._tile_sizes()[0])
        if self._assumes_range:
            self._doubt_range(first)

    def _size_given(self, first: Callable[[], np.ndarray] | None) -> tuple[int, int] | None:
        """Return the height and width of what the network gets at a time of the first frame, if that can be read."""
        try:
            return self._given(*first().shape[:2]) if first else None
        except (DailiesError, OSError) as error:
            log.info("the first frame cannot be read", exc_info=error)
            return None

    def _nearest(self, images: Sequence[Part], first: Callable[[], np.ndarray] | None) -> str:
        """Say which of several images is the nearest to the first frame; nothing where that cannot be told."""
        try:
            crop = self._crop(first()) if first else None
            if crop is None:
                return ""
            found = {part.path: part.tensor.float() for part in self._network.images(self._padded(crop))}
            far = {clean(part.name)[:60]: self._distance(found[part.path], crop) for part in images}
        except Exception as error:  # of the network, of whoever reads the frame
            log.info("the images cannot be compared with the first frame", exc_info=error)
            return ""
        nearest = min(far, key=lambda name: far[name] if math.isfinite(far[name]) else math.inf)
        differences = few(f"{name} by {distance * 255:.1f}" for name, distance in far.items())
        return (
            f". Of the first frame, {nearest} is the nearest to the input; the mean differences from it, of 255: "
            f"{differences}"
        )

    def _doubt_range(self, first: Callable[[], np.ndarray] | None) -> None:
        """Note that the range of values was assumed, and whether another leaves the first frame far nearer as it is."""
        network, assumed = self._network, self.signature
        network.note(f"value_range {format_range(assumed.value_range)} was assumed; {RANGE}, if it is another")
        try:
            crop = self._crop(first()) if first else None
            if crop is None or crop.mean() < DARK * white(crop.dtype):
                return
            with network.plain():
                far = {each: self._distance_in(each, crop) for each in (assumed.value_range, *RANGES)}
        except Exception as error:  # of the network, of whoever reads the frame
            log.info("the first frame cannot be tried in other ranges", exc_info=error)
            return
        finally:
            network.signature = assumed
        best, own = min(far, key=far.__getitem__), far[assumed.value_range]
        if own > FARTHER * far[best] and own - far[best] > MARGIN:
            network.note(
                f"with value_range {format_range(best)} the network would leave the first frame far nearer to the "
                f"source: {far[best] * 255:.1f} code values of 255 on average instead of {own * 255:.1f} with the "
                f"assumed {format_range(assumed.value_range)}; if it was trained on {format_range(best)}, {RANGE}"
            )

    def _distance_in(self, value_range: tuple[float, float], crop: np.ndarray) -> float:
        self._network.signature = replace(self._network.signature, value_range=value_range)
        return self._distance(self._network(self._padded(crop)), crop)

    @property
    def _assumes_range(self) -> bool:
        return not self.signature.states_range and self._builder not in KNOWN_RANGE

    def _crop(self, frame: np.ndarray) -> np.ndarray:
        """Cut the middle out of a frame: as much as is tried, and no more than the network takes."""
        limits = (min(CROP, most or CROP) for most in self.signature.tile or self.signature.most)
        rows, columns = (
            slice(start := max(0, (side - limit) // 2), start + limit)
            for side, limit in zip(frame.shape[:2], limits, strict=True)
        )
        return np.ascontiguousarray(frame[rows, columns])

    def _distance(self, answer: Tensor, crop: np.ndarray) -> float:
        """Return the mean difference between a crop and an answer to it, both from black, 0, to white, 1."""
        signature = replace(self.signature, output_channels=answer.shape[1])
        source = torch.from_numpy(crop.astype(np.float32) / white(crop.dtype)).permute(2, 0, 1)[None].clamp(0, 1)
        got = levels(answer, signature, FLOAT).cpu().permute(2, 0, 1)[None, :3].clamp(0, 1)
        scale = answer.shape[2] // self._shape(*crop.shape[:2])[2]
        if scale > 1:
            source = torch.nn.functional.interpolate(source, scale_factor=scale, mode="bilinear")
        return float((got[:, :, : source.shape[2], : source.shape[3]] - source).abs().mean())

    @property
    def signature(self) -> Signature:
        """How the network is fed; after ``probe``, scale and output channels are known."""
        return self._network.signature

    @property
    def precision(self) -> str:
        """As asked for, or fp32 where the network cannot run in half or differs too much."""
        return self._network.precision

    @property
    def autotuned(self) -> bool:
        """Whether cuDNN's autotuner is on, which another device than CUDA's does not have."""
        return self._network.autotunes

    @property
    def is_plain(self) -> bool:
        """Whether it runs in fp32, neither tuned nor to be compiled: what all else is measured by."""
        return self._network.is_plain and not self.settings.compile

    @property
    def notes(self) -> list[str]:
        """What a user may want to know of how it went."""
        return self._network.notes

    @property
    def part(self) -> str | None:
        """Which part of the network's answer is used, when it answers several tensors."""
        return self._network.part

    @property
    def keyed_part(self) -> str | None:
        """``part`` as the key of a frame has it."""
        return self._network.keyed_part

    @property
    def told_multiple(self) -> int:
        """What both sides were multiples of before ``probe`` found that the network needs more."""
        return self._network.told_multiple

    @property
    def tiled(self) -> bool:
        """Whether frames are rendered in tiles; once memory has run out, all that follow are."""
        return self._fit.tiled

    @property
    def tile_size(self) -> int | tuple[int, int]:
        """The most pixels along each side of a tile, or (height, width) where the network accepts one size only.

        It is the settings' own until memory runs out in tiles too; what was found then stays for all that follow.
        """
        return self.signature.tile or self._fit.tile

    @property
    def overlap(self) -> int:
        """Pixels that neighbouring tiles share at least; at most half a tile where tiles are smaller than asked for."""
        smaller = self.signature.tile or ((self._fit.tile,) if self._fit.tile < self.settings.tile_size else ())
        return min([self.settings.overlap, *(side // 2 for side in smaller)])

    @property
    def batch(self) -> int:
        """How many frames, or tiles of one, went through the network together at most, since memory last ran out."""
        return self._batches.largest

    def together(self, height: int, width: int) -> int:
        """Tell how many frames of a size are best submitted together, as far as is known by now."""
        with self._lock:  # whoever renders a frame anew in fp32 has the network for that while
            return 1 if self.tiled else self._batches.most(self._shape(height, width))

    @torch.inference_mode()
    def render(self, frame: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
        """Render one frame.

        Takes RGB ``(height, width, 3)`` of uint8, uint16 (each from 0 to its largest value) or float32 (black is 0 and
        white 1), and gives ``(height × scale, width × scale, 3)`` of ``dtype``, by default the frame's own; 4 channels
        for a network that answers 4. Integers are rounded to the nearest code value, floats are left as they come.
        Where memory runs out, the frame is rendered in tiles, and those are halved until they fit, unless tiles are
        not allowed. Where what a faster way than plain fp32 gives is not finite, this frame is rendered in plain fp32.
        Raises RenderError when that is not finite either, when the output is not of the shape that the probe found,
        and when memory does not suffice at all.
        """
        return self.submit(frame, dtype).result()

    def submit(self, frame: np.ndarray, dtype: np.dtype | None = None) -> Rendering:
        """Begin to render a frame as ``render`` does; on CUDA this returns while the device works.

        What ``render`` raises is raised here or by the result. Frames may be submitted before the results of others
        are asked for.
        """
        return self.submit_all([frame], [dtype])[0]

    @torch.inference_mode()
    def submit_all(self, frames: Sequence[np.ndarray], dtypes: Sequence[np.dtype | None]) -> list[Rendering]:
        """Begin to render frames of one size; as many go through the network together as fit and change no bit.

        Where memory runs out, fewer go together, before any is cut into tiles.
        """
        kinds = [np.dtype(dtype or frame.dtype) for frame, dtype in zip(frames, dtypes, strict=True)]
        with self._lock:
            way = self._network.way
            fitted = self._fitted(frames, kinds)
        return [
            self._rendering(download, way, frame, dtype, tiled)
            for (download, tiled), frame, dtype in zip(fitted, frames, kinds, strict=True)
        ]

    def _rendering(self, download: Download, way: str, frame: np.ndarray, dtype: np.dtype, tiled: bool) -> Rendering:
        if download.arrived:
            return Rendering(lambda: self._finished(download, way, frame, dtype), tiled)
        pixels = self._finished(download, way, frame, dtype)
        return Rendering(lambda: pixels, tiled)

    @torch.inference_mode()
    def _finished(self, download: Download, way: str, frame: np.ndarray, dtype: np.dtype) -> np.ndarray:
        pixels = download.array(dtype)
        if pixels is None and way != PLAIN:
            with self._lock, self._network.plain():
                self._network.note(f"frames whose output in {way} is not finite are rendered in fp32")
                anew = self._one(frame, dtype)
            pixels = anew.array(dtype)
        if pixels is None:
            raise RenderError("render.not_finite", "output is not finite")
        return pixels

    @torch.inference_mode()
    def settle(self, frame: np.ndarray) -> Parity | None:
        """Render a frame in the way asked for and in plain fp32, and stay with that where they differ too much.

        Compiles the network first, where that is asked for. Takes a frame as ``render`` does, and gives the difference
        of what lies from black to white; None where plain fp32 is what is run. Raises RenderError as ``render``.
        """
        if self.is_plain:
            return None
        fit, network = self._fit, self._network
        # fp32 first: it needs more memory, and both are to be compared in the same tiles
        with network.plain():
            exact = self._one(frame, FLOAT).array(FLOAT)
        if exact is None:
            raise RenderError("render.not_finite", "output is not finite")
        if self.settings.compile:
            self._compile(frame)
        if network.is_plain:
            return None
        way = network.way
        parity = _parity(exact, self._one(frame, FLOAT).array(FLOAT))
        most, mean = self.settings.parity_tolerance
        if parity.max <= most and parity.mean <= mean:
            log.info("%s changes the first frame by %g of 255 at most, by %g on average", way, *astuple(parity))
            if not network.is_compiled:
                self._fit = fit
            return parity
        network.be_plain()
        self.compile_seconds = None
        if math.isinf(parity.max):
            network.note(f"the first frame's output in {way} is not finite, so all are rendered in fp32")
        else:
            network.note(
                f"{way} changes the first frame by {parity.max:g} code values of 255 at most and {parity.mean:g} "
                f"on average; parity_tolerance allows {most:g} and {mean:g}, so all are rendered in fp32"
            )
        return parity

    def _compile(self, frame: np.ndarray) -> None:
        height, width = self._given(*frame.shape[:2])
        shape = (*self._shape(*frame.shape[:2])[:2], height, width)
        self.compile_seconds = self._network.compile(shape)
        if self.compile_seconds is not None:
            size = f"{width}×{height}"
            log.info("the network was compiled for %s pixels in %g s", size, self.compile_seconds)

    def _shape(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Give the shape of what the network gets for a whole frame."""
        signature = self.signature
        sides = (
            padded_length(side, signature.multiple, least)
            for side, least in zip((height, width), signature.tile or signature.least, strict=True)
        )
        return (3 if signature.is_per_colour else 1, signature.channels, *sides)

    def _given(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of what the network gets at a time of a frame: all of it, or a tile."""
        sides = self._shape(height, width)[2:]
        if not self.tiled:
            return sides
        rows, columns = (self._spans(side, axis)[0] for axis, side in enumerate(sides))
        return rows[1] - rows[0], columns[1] - columns[0]

    def _one(self, frame: np.ndarray, dtype: np.dtype) -> Download:
        return self._fitted([frame], [dtype])[0][0]

    def _fitted(self, frames: Sequence[np.ndarray], dtypes: Sequence[np.dtype]) -> list[tuple[Download, bool]]:
        """Render frames of one size with what memory allows; tell of each whether it was in tiles."""
        done: list[tuple[Download, bool]] = []
        while len(done) < len(frames):
            lacking = self._tried(frames[len(done) :], dtypes[len(done) :], done)
            if lacking:
                # here and not where it was caught: the exception's traceback keeps the tensors alive
                if self.device.type in {"cuda", "mps"}:
                    getattr(torch, self.device.type).empty_cache()
                self._make_do(frames[0], in_network=lacking == "network")
        return done

    def _tried(
        self, frames: Sequence[np.ndarray], dtypes: Sequence[np.dtype], done: list[tuple[Download, bool]]
    ) -> str | None:
        """Render with what memory is known to allow, or say what it does not suffice for: the network or the frame."""
        try:
            for download in self._rendered(frames, dtypes):
                done.append((download, self.tiled))
        except TooMuch:
            return "network"
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return "frame"
        return None

    def _make_do(self, frame: np.ndarray, *, in_network: bool) -> None:
        """Put fewer inputs together, or where it was a single one, find what needs less memory."""
        if self._batches.shrink():
            height, width = frame.shape[:2]
            what = "tiles" if self.tiled else "frames"
            log.warning("out of memory at %d×%d with several %s together, going on with fewer", width, height, what)
        else:
            self._fit = self._smaller_fit(frame, in_network=in_network)

    def _smaller_fit(self, frame: np.ndarray, *, in_network: bool) -> Fit:
        """Give what needs less memory: tiles, then smaller ones, then with whole frames beside the device.

        The frame's key in the manifest does not depend on it: what memory is free changes from one attempt to the next,
        and a resumed render would never come to an end of rendering again.
        """
        fit, sizes = self._fit, self._tile_sizes()
        height, width = frame.shape[:2]
        if self.settings.tiled is False and not fit.tiled:
            raise RenderError("render.out_of_memory", f"out of memory on {self.device} (tiled must be auto or true)")
        largest = max(
            padded_length(side, self.signature.multiple, least)
            for side, least in zip((height, width), self.signature.least, strict=True)
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
        raise RenderError(
            "render.out_of_memory",
            f"out of memory on {self.device}, even {what} (end other programs or set another device)",
        )

    def _tile_sizes(self) -> list[int]:
        """Give the sizes of tiles to try, the settings' own first, each at most half of the one before it."""
        signature = self.signature
        if signature.tile:
            return [max(signature.tile)]
        smallest = min(padded_length(1, signature.multiple, least) for least in signature.least)
        sizes = [max(self.settings.tile_size, smallest)]
        while (half := sizes[-1] // 2 // signature.multiple * signature.multiple) >= smallest:
            sizes.append(half)
        return sizes

    def _rendered(self, frames: Sequence[np.ndarray], dtypes: Sequence[np.dtype]) -> Iterator[Download]:
        height, width = frames[0].shape[:2]
        shape = self._shape(height, width)
        if not self._takes_whole(shape):
            self._fit = replace(self._fit, tiled=True)
        begun = 0
        while begun < len(frames):
            count = 1 if self.tiled else self._batches.take(shape, len(frames) - begun)
            yield from self._rendered_together(frames[begun : begun + count], dtypes[begun : begun + count])
            begun += count

    def _rendered_together(self, frames: Sequence[np.ndarray], dtypes: Sequence[np.dtype]) -> list[Download]:
        padded = [self._padded(frame) for frame in frames]
        answers = [self._in_tiles(each) for each in padded] if self.tiled else self._batches.answers(padded)
        return [
            self._code_values(answer, frame, dtype)
            for answer, frame, dtype in zip(answers, frames, dtypes, strict=True)
        ]

    def _padded(self, frame: np.ndarray) -> Tensor:
        signature = self.signature
        unit = self._transfers.upload(frame, self._fit.home).permute(2, 0, 1)[None].float() / white(frame.dtype)
        return pad(fed(unit, signature), signature.multiple, signature.tile or signature.least)

    def _code_values(self, answer: Tensor, frame: np.ndarray, dtype: np.dtype) -> Download:
        height, width = (side * (self.signature.scale or 1) for side in frame.shape[:2])
        result = answer[:, :, :height, :width]
        return self._transfers.download(levels(result, self.signature, dtype), torch.isfinite(result).all())

    def _takes_whole(self, shape: tuple[int, int, int, int]) -> bool:
        signature = self.signature
        if signature.tile:
            return shape[2:] == signature.tile
        return all(most is None or side <= most for side, most in zip(shape[2:], signature.most, strict=True))

    def _in_tiles(self, padded: Tensor) -> Tensor:
        scale = self.signature.scale or 1
        rows, columns = (self._spans(padded.shape[axis], axis - 2) for axis in (2, 3))
        sides = [spans[0][1] - spans[0][0] for spans in (rows, columns)]
        weight = _window(*(side * scale for side in sides), padded.device)
        height, width = (padded.shape[axis] * scale for axis in (2, 3))
        total = padded.new_zeros((padded.shape[0], self._network.answered_channels, height, width))
        weights = padded.new_zeros((1, 1, height, width))

        def blend(places: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> None:
            answers = self._batches.answers([padded[:, :, slice(*row), slice(*column)] for row, column in places])
            for answer, ((top, bottom), (left, right)) in zip(answers, places, strict=True):
                place = (..., slice(top * scale, bottom * scale), slice(left * scale, right * scale))
                total[place] += answer.to(padded.device) * weight
                weights[place] += weight

        tiles = [(row, column) for row in rows for column in columns]
        together = even(len(tiles), self._batches.most((*padded.shape[:2], *sides)))
        while tiles:
            count = together if len(tiles) >= together else 1
            blend(tiles[:count])
            tiles = tiles[count:]
        return total / weights

    def _spans(self, length: int, axis: int) -> list[tuple[int, int]]:
        signature, size = self.signature, self._fit.tile
        multiple = signature.multiple
        if signature.tile:
            return fixed_spans(length, signature.tile[axis], self.overlap, multiple)
        most = min(size, signature.most[axis] or size) // multiple * multiple
        tile = max(most, padded_length(1, multiple, signature.least[axis]))
        return spans(length, tile, min(self.overlap, tile - multiple), multiple)


@lru_cache(maxsize=4)
def _window(height: int, width: int, device: torch.device) -> Tensor:
    return torch.from_numpy(window(height, width)).to(device)
