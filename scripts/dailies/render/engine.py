"""Render frames with one network at native resolution, with less memory each time that it runs out."""

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dailies.core.errors import DailiesError, LoadError, RenderError
from dailies.models.load import Model
from dailies.models.signature import Signature
from dailies.render.batches import Batches
from dailies.render.first_frame import ReadFrame
from dailies.render.memory import MemoryPlan, NetworkOutOfMemory, is_out_of_memory, memory_meter
from dailies.render.network import AUTOCAST, BASELINE, Network
from dailies.render.parity import Parity
from dailies.render.results import SeveralImages, describe_nearest
from dailies.render.tensors import (
    Download,
    Transfers,
    is_finite,
    network_input,
    padded_length,
    padded_size,
    to_code_values,
)
from dailies.render.tiling import Tiling, render_tiles
from dailies.render.value_range import check_assumed_range

log = logging.getLogger(__name__)

KNOWN_RANGE = frozenset({"dailies", "spandrel"})
"""Builders that know the value range of their networks."""

FLOAT = np.dtype(np.float32)


@dataclass(frozen=True)
class Settings:
    """How frames are rendered: everything besides frame and model that pixels depend on, and ``batch``."""

    precision: str = "fp32"
    """fp32, tf32, fp16 or bf16."""
    parity_tolerance: Sequence[float] = (2, 0.25)
    """How far a faster mode may be from fp32: the largest difference and the mean, in code values of 255."""
    compile: bool = False
    """Whether torch compiles the network, for the input shape that the first frame needs."""
    autotune: bool = False
    """Whether cuDNN benchmarks its algorithms for each input shape; no effect on devices other than CUDA's."""
    tiled: bool | str = "auto"
    """True, False, or "auto": whole frames, and tiles once memory runs out."""
    tile_size: int = 512
    """The most pixels along each side of a tile."""
    overlap: int = 64
    """The fewest pixels that neighbouring tiles share."""
    batch: int | Literal["auto"] = "auto"
    """How many frames, or tiles of one, are run together; no pixel depends on it."""


@dataclass(frozen=True)
class Rendering:
    """A frame that was submitted to the engine."""

    result: Callable[[], np.ndarray]
    """Waits for the frame and returns it; call it once, from any thread."""
    tiled: bool
    """Whether the frame is rendered in tiles."""


class Engine:
    """Renders frames with one model on one device."""

    def __init__(self, model: Model, *, device: torch.device, settings: Settings) -> None:
        self.settings = settings
        self.device = device
        self.compile_seconds: float | None = None
        """How long it took to compile the network; None if it does not run compiled."""
        self._builder = model.builder
        self._network = Network(model, device, precision=settings.precision, autotune=settings.autotune)
        if settings.precision in AUTOCAST and not model.signature.half:
            self._network.note(f"{model.architecture} cannot run in {settings.precision}; it runs in fp32")
            self._network.precision = BASELINE
        self._batches = Batches(settings.batch, self._network, memory_meter(device))
        self._transfers = Transfers(device)
        self._plan = MemoryPlan(settings.tiled is True, self._tiling.sizes()[0], frame_device=device)
        self._lock = threading.RLock()
        """Held while the network runs and while its mode may change."""

    @property
    def signature(self) -> Signature:
        """What the network takes and returns; scale and output channels are set after ``probe``."""
        return self._network.signature

    @property
    def initial_multiple(self) -> int:
        """``multiple`` of the signature before ``probe``, which may find that the network needs a larger one."""
        return self._network.initial_multiple

    @property
    def part(self) -> str | None:
        """The path of the tensor that is used, if the network returns several."""
        return self._network.part

    @property
    def keyed_part(self) -> str | None:
        """``part`` as the keys of frames hold it."""
        return self._network.keyed_part

    @property
    def precision(self) -> str:
        """The precision in use: that of the settings, or fp32 if the network cannot use it or differs too much."""
        return self._network.precision

    @property
    def autotuned(self) -> bool:
        """Whether cuDNN benchmarks its algorithms; always False on devices other than CUDA's."""
        return self._network.is_autotuned

    @property
    def is_baseline(self) -> bool:
        """Whether the network runs in fp32, neither compiled nor autotuned, and is not going to be compiled."""
        return self._network.is_baseline and not self.settings.compile

    @property
    def notes(self) -> list[str]:
        """What a user should know about the render."""
        return self._network.notes

    @property
    def tiled(self) -> bool:
        """Whether frames are rendered in tiles; once memory has run out, all later ones are."""
        return self._plan.tiled

    @property
    def tile_size(self) -> int | tuple[int, int]:
        """The most pixels along each side of a tile, or (height, width) if the network takes tiles of one size only.

        It starts as in the settings and shrinks for good if memory runs out in tiles too.
        """
        return self.signature.tile or self._plan.tile_size

    @property
    def overlap(self) -> int:
        """The fewest pixels that neighbouring tiles share: at most half a tile if tiles are smaller than asked for."""
        return self._tiling.overlap_at(self._plan.tile_size)

    @property
    def batch(self) -> int:
        """The size of the largest batch of frames or tiles since memory last ran out."""
        return self._batches.largest

    def batch_size(self, height: int, width: int) -> int:
        """Return how many frames of a size to submit together, as far as is known so far."""
        with self._lock:  # meanwhile another thread may render a frame again in the baseline mode
            return 1 if self.tiled else self._batches.size_for(self._input_shape(height, width))

    @torch.inference_mode()
    def probe(self, first: ReadFrame | None = None) -> None:
        """Run small tensors through the network to find, or confirm, its scale, output channels and ``multiple``.

        ``first`` reads the first frame. It is called only if something is unknown: which of several images is the
        frame, the value range, or which sizes the network takes. Raises LoadError with what was expected and what
        came.
        """
        try:
            self._network.probe(lambda: self._first_input_size(first))
        except SeveralImages as error:
            nearest = describe_nearest(self._network, error.images, first)
            raise LoadError(error.code, f"{error}{nearest}") from None
        self._plan = replace(self._plan, tile_size=self._tiling.sizes()[0])
        if not self.signature.states_range and self._builder not in KNOWN_RANGE:
            check_assumed_range(self._network, first)

    @torch.inference_mode()
    def choose_mode(self, frame: np.ndarray) -> Parity | None:
        """Compare the mode of the settings with the baseline on one frame; use the baseline if they differ too much.

        Compiles the network first if the settings ask for it. Takes a frame as ``render`` does. Returns the
        difference, or None if the mode is the baseline. Raises RenderError as ``render`` does.
        """
        if self.is_baseline:
            return None
        plan, network = self._plan, self._network
        # the baseline first: it needs more memory, and both have to be rendered in the same tiles
        with network.in_baseline():
            exact = self._render_one(frame, FLOAT).array(FLOAT)
        if exact is None:
            raise RenderError("render.not_finite", "output is not finite")
        if self.settings.compile:
            self._compile(frame)
        if network.is_baseline:
            return None
        mode = network.mode
        parity = Parity.between(exact, self._render_one(frame, FLOAT).array(FLOAT))
        most, mean = self.settings.parity_tolerance
        if parity.is_within((most, mean)):
            log.info("%s changes the first frame by %g of 255 at most, by %g on average", mode, *astuple(parity))
            if not network.is_compiled:
                self._plan = plan
            return parity
        network.use_baseline()
        self.compile_seconds = None
        if math.isinf(parity.max):
            network.note(f"the first frame's output in {mode} is not finite, so all frames are rendered in fp32")
        else:
            network.note(
                f"{mode} changes the first frame by {parity.max:g} code values of 255 at most and {parity.mean:g} "
                f"on average; parity_tolerance allows {most:g} and {mean:g}, so all frames are rendered in fp32"
            )
        return parity

    @torch.inference_mode()
    def render(self, frame: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
        """Render one frame.

        Takes RGB ``(height, width, 3)`` of uint8, uint16 (each from 0 to its largest value) or float32 (black is 0,
        white is 1). Returns ``(height × scale, width × scale, 3)`` of ``dtype``, by default the frame's own, or 4
        channels if the network returns 4. Integers are rounded to the nearest code value, floats are not rounded.

        If memory runs out, the frame is rendered in tiles, which are halved until they fit, unless the settings forbid
        tiles. If the output in a faster mode is not finite, this frame is rendered in the baseline mode. Raises
        RenderError if that is not finite either, if the output does not have the shape that the probe found, or if
        memory does not suffice at all.
        """
        return self.submit(frame, dtype).result()

    def submit(self, frame: np.ndarray, dtype: np.dtype | None = None) -> Rendering:
        """Start to render a frame as ``render`` does; on CUDA this returns while the device works.

        The errors of ``render`` are raised here or by the result. Further frames may be submitted before the result
        is requested.
        """
        return self.submit_all([frame], [dtype])[0]

    @torch.inference_mode()
    def submit_all(self, frames: Sequence[np.ndarray], dtypes: Sequence[np.dtype | None]) -> list[Rendering]:
        """Start to render frames of one size, in batches if these fit and change no bit of the result.

        If memory runs out, batches shrink before any frame is cut into tiles.
        """
        output_types = [np.dtype(dtype or frame.dtype) for frame, dtype in zip(frames, dtypes, strict=True)]
        with self._lock:
            mode = self._network.mode
            rendered = self._render_within_memory(frames, output_types)
        return [
            self._rendering(download, mode, frame, dtype, tiled)
            for (download, tiled), frame, dtype in zip(rendered, frames, output_types, strict=True)
        ]

    def _rendering(self, download: Download, mode: str, frame: np.ndarray, dtype: np.dtype, tiled: bool) -> Rendering:
        if download.arrived:
            return Rendering(lambda: self._finish(download, mode, frame, dtype), tiled)
        pixels = self._finish(download, mode, frame, dtype)
        return Rendering(lambda: pixels, tiled)

    @torch.inference_mode()
    def _finish(self, download: Download, mode: str, frame: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Wait for a frame that was rendered in ``mode``, and render it again in the baseline if it is not finite."""
        pixels = download.array(dtype)
        if pixels is None and mode != BASELINE:
            with self._lock, self._network.in_baseline():
                self._network.note(f"frames whose output in {mode} is not finite are rendered in fp32")
                again = self._render_one(frame, dtype)
            pixels = again.array(dtype)
        if pixels is None:
            raise RenderError("render.not_finite", "output is not finite")
        return pixels

    def _compile(self, frame: np.ndarray) -> None:
        height, width = self._input_size(*frame.shape[:2])
        self.compile_seconds = self._network.compile((*self._input_shape(*frame.shape[:2])[:2], height, width))
        if self.compile_seconds is not None:
            size = f"{width}×{height}"
            log.info("the network was compiled for %s pixels in %g s", size, self.compile_seconds)

    @property
    def _tiling(self) -> Tiling:
        return Tiling(self.signature, self.settings.tile_size, self.settings.overlap)

    def _input_shape(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the shape of the network's input for a whole frame."""
        signature = self.signature
        rows = 3 if signature.is_per_colour else 1
        return rows, signature.channels, *padded_size(height, width, signature)

    def _input_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of one input for a frame: the padded frame, or a tile."""
        size = padded_size(height, width, self.signature)
        return self._tiling.grid(size, self._plan.tile_size).tile if self.tiled else size

    def _first_input_size(self, first: ReadFrame | None) -> tuple[int, int] | None:
        try:
            return self._input_size(*first().shape[:2]) if first else None
        except (DailiesError, OSError) as error:
            log.info("the first frame cannot be read", exc_info=error)
            return None

    def _render_one(self, frame: np.ndarray, dtype: np.dtype) -> Download:
        return self._render_within_memory([frame], [dtype])[0][0]

    def _render_within_memory(
        self, frames: Sequence[np.ndarray], dtypes: Sequence[np.dtype]
    ) -> list[tuple[Download, bool]]:
        """Render frames of one size, retrying with less memory; return with each whether it is in tiles."""
        done: list[tuple[Download, bool]] = []
        while len(done) < len(frames):
            failure = self._try_to_render(frames[len(done) :], dtypes[len(done) :], done)
            if failure:
                # here and not where the exception was caught: its traceback keeps the tensors alive
                if self.device.type in {"cuda", "mps"}:
                    getattr(torch, self.device.type).empty_cache()
                self._use_less_memory(frames[0], in_network=failure == "network")
        return done

    def _try_to_render(
        self, frames: Sequence[np.ndarray], dtypes: Sequence[np.dtype], done: list[tuple[Download, bool]]
    ) -> Literal["network", "frame"] | None:
        """Render frames until memory runs out and append them to ``done``; return what did not fit, None if all did."""
        try:
            for download in self._render_all(frames, dtypes):
                done.append((download, self.tiled))
        except NetworkOutOfMemory:
            return "network"
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return "frame"
        return None

    def _use_less_memory(self, frame: np.ndarray, *, in_network: bool) -> None:
        """Shrink batches; if a single input ran out of memory, change the memory plan."""
        if self._batches.shrink():
            height, width = frame.shape[:2]
            what = "tiles" if self.tiled else "frames"
            log.warning("out of memory at %d×%d with a batch of %s; using smaller batches", width, height, what)
        else:
            self._plan = self._smaller_plan(frame, in_network=in_network)

    def _smaller_plan(self, frame: np.ndarray, *, in_network: bool) -> MemoryPlan:
        """Return a plan that needs less memory: tiles, then smaller tiles, then whole frames kept on the CPU.

        The key of a frame does not depend on the plan: free memory differs between attempts, so that a resumed render
        would render the same frames again and again. Raises RenderError if there is no smaller plan.
        """
        plan, sizes = self._plan, self._tiling.sizes()
        height, width = frame.shape[:2]
        if self.settings.tiled is False and not plan.tiled:
            raise RenderError("render.out_of_memory", f"out of memory on {self.device} (tiled must be auto or true)")
        largest = max(
            padded_length(side, self.signature.multiple, least)
            for side, least in zip((height, width), self.signature.least, strict=True)
        )
        tried = min(plan.tile_size, largest) if plan.tiled else largest
        smaller = next((size for size in sizes if size < tried), None) if in_network else None
        if smaller:
            log.warning("out of memory at %d×%d; rendering in tiles of %d pixels", width, height, smaller)
            return replace(plan, tiled=True, tile_size=smaller)
        if plan.frame_device.type != "cpu":
            log.warning("out of memory at %d×%d; from now on only tiles are copied to %s", width, height, self.device)
            return MemoryPlan(tiled=True, tile_size=sizes[0], frame_device=torch.device("cpu"))
        what = f"in tiles of {min(tried, sizes[-1])} pixels" if in_network else f"to keep a frame of {width}×{height}"
        raise RenderError(
            "render.out_of_memory",
            f"out of memory on {self.device}, even {what} (end other programs or set another device)",
        )

    def _render_all(self, frames: Sequence[np.ndarray], dtypes: Sequence[np.dtype]) -> Iterator[Download]:
        shape = self._input_shape(*frames[0].shape[:2])
        if not self._tiling.takes_whole(shape[2:]):
            self._plan = replace(self._plan, tiled=True)
        begun = 0
        while begun < len(frames):
            count = 1 if self.tiled else self._batches.next_size(shape, len(frames) - begun)
            yield from self._render_batch(frames[begun : begun + count], dtypes[begun : begun + count])
            begun += count

    def _render_batch(self, frames: Sequence[np.ndarray], dtypes: Sequence[np.dtype]) -> list[Download]:
        inputs = [self._network_input(frame) for frame in frames]
        outputs = [self._render_tiled(each) for each in inputs] if self.tiled else self._batches.run(inputs)
        return [
            self._download(output, frame, dtype) for output, frame, dtype in zip(outputs, frames, dtypes, strict=True)
        ]

    def _network_input(self, frame: np.ndarray) -> Tensor:
        return network_input(self._transfers.upload(frame, self._plan.frame_device), self.signature)

    def _render_tiled(self, padded: Tensor) -> Tensor:
        rows, channels, height, width = padded.shape
        grid = self._tiling.grid((height, width), self._plan.tile_size)
        return render_tiles(
            padded,
            grid,
            self._batches.run,
            scale=self.signature.scale or 1,
            channels=self._network.output_channels,
            batch_size=self._batches.size_for((rows, channels, *grid.tile)),
        )

    def _download(self, output: Tensor, frame: np.ndarray, dtype: np.dtype) -> Download:
        height, width = (side * (self.signature.scale or 1) for side in frame.shape[:2])
        cropped = output[:, :, :height, :width]
        return self._transfers.download(to_code_values(cropped, self.signature, dtype), is_finite(cropped))
