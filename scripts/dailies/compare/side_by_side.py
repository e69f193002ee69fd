"""The side-by-side video: every model beside the others, under its name; source and reference are first."""

import logging
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from dailies.compare import captions
from dailies.compare.layers import DEFAULT_FPS, Layer, RenderedModel, fit, gather, read_picture
from dailies.core.errors import DailiesError
from dailies.frames.sequence import Frame
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.frames.video import EXACT

log = logging.getLogger(__name__)

MAX_SIZE = (3840, 2160)
"""Width and height in pixels of the largest video that browsers and their hardware play."""

MAX_IN_ROW = 4
"""Up to this many pictures form one row; more form a grid."""

CAPTION = 32
"""Pixels of the height of a caption: one is above each picture, one with the frame's name is below all of them."""

MIN_WIDTH = 240
"""Pixels of the width of a picture below which its caption would be illegible. Smaller frames are enlarged by a whole
number, so that their pixels become squares."""

QUALITY = 16
"""Constant rate factor of H.264. 18 is regarded as visually lossless, but here fine detail is judged."""

BT709 = 1
"""The code of the BT.709 matrix, primaries and transfer in ITU-T H.273."""


class NoEncoder(DailiesError):
    """The FFmpeg inside PyAV lacks the encoder for the video."""


@dataclass(frozen=True)
class Grid:
    """The positions of the pictures in the video, in pixels."""

    columns: int
    cell: tuple[int, int]
    """Width and height of each picture."""
    size: tuple[int, int]
    """Width and height of the video; both are even, as 4:2:0 requires."""
    factor: float
    """The size of a picture relative to the largest frame."""

    def position(self, index: int) -> tuple[int, int]:
        """Return the left and upper edge of a picture; its caption is above."""
        row, column = divmod(index, self.columns)
        return column * self.cell[0], row * (self.cell[1] + CAPTION) + CAPTION


def build(
    models: Sequence[RenderedModel],
    *,
    sequence: Path,
    input_dir: Path,
    output: Path,
    fps: float | None,
    reference: Mapping[str, Path] | None = None,
    threads: int = 4,
) -> None:
    """Write the video of all complete ``models`` to ``output``, an ``.mp4``.

    The video is H.264, 8 bits, 4:2:0, limited range, converted by and tagged with BT.709, with its index first, and at
    most 3840 × 2160 pixels. If the pictures differ from the frames in size or depth, the line below them says how. A
    frame that is missing or unreadable is replaced by the word "missing". ``fps`` defaults to the rate of the sequence.

    Only a few frames are in memory at a time. The same inputs and ``threads`` give the same bytes. Raises NoEncoder.
    """
    if "libx264" not in av.codecs_available:
        raise NoEncoder(
            "output.no_encoder",
            f"PyAV {av.__version__} was built without libx264, which encodes H.264; "
            "install its wheel from PyPI (pip install --force-reinstall av)",
        )
    frames = load_sequence(sequence)
    layers = gather(frames, models, input_dir=input_dir, reference=reference)
    scale = max(layer.scale for layer in layers)
    width, height = (max(sides) for sides in zip(*((f.width, f.height) for f in frames.frames), strict=True))
    grid = arrange(len(layers), (round(width * scale), round(height * scale)))
    rate = Fraction(fps or frames.fps or DEFAULT_FPS).limit_denominator(1001)
    draft = output.with_name(f".{output.name}.tmp")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        _encode(draft, _pictures(frames, layers, grid, threads=threads), grid.size, rate, threads)
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    log.info("%d pictures of %d frames, %d x %d pixels; %s", len(layers), len(frames.frames), *grid.size, output.name)


def arrange(count: int, frame: tuple[int, int]) -> Grid:
    """Return the grid for ``count`` pictures of frames of (width, height).

    Up to four pictures form a row. More form the grid with the largest pictures, and among equal ones the grid whose
    shape is closest to that of a screen.
    """
    zoom = math.ceil(MIN_WIDTH / frame[0]) if frame[0] < MIN_WIDTH else 1
    width, height = frame[0] * zoom, frame[1] * zoom

    def merit(columns: int) -> tuple[float, float]:
        rows = -(-count // columns)
        room = (MAX_SIZE[0] / (columns * width), (MAX_SIZE[1] - (rows + 1) * CAPTION) / (rows * height))
        shape = abs(math.log(columns * width / (rows * height) * MAX_SIZE[1] / MAX_SIZE[0]))
        return min(1, *room), -shape

    columns = count if count <= MAX_IN_ROW else max(range(1, count + 1), key=merit)
    factor, _ = merit(columns)
    cell = (max(1, int(width * factor)), max(1, int(height * factor)))
    size = (columns * cell[0], -(-count // columns) * (cell[1] + CAPTION) + CAPTION)
    return Grid(columns, cell, (size[0] + size[0] % 2, size[1] + size[1] % 2), factor * zoom)


def _pictures(sequence: FrameSequence, layers: Sequence[Layer], grid: Grid, *, threads: int) -> Iterator[np.ndarray]:
    """Yield every picture of the video in order, uint8 RGB ``(height, width, 3)``; threads prepare a few ahead."""
    background = Image.new("RGB", grid.size, captions.BACKGROUND)
    for index, layer in enumerate(layers):
        left, top = grid.position(index)
        caption = captions.draw(layer.label.name, grid.cell[0], CAPTION, more=layer.label.params)
        background.paste(caption, (left, top - CAPTION))
    notes = _notes(layers, grid)

    def compose(number: int, frame: Frame) -> np.ndarray:
        image = background.copy()
        for index, layer in enumerate(layers):
            image.paste(fit(read_picture(layer, frame.output), grid.cell), grid.position(index))
        name = f"{frame.output}  {number} / {len(sequence.frames)}"
        image.paste(captions.draw(name, grid.size[0], CAPTION, right=notes), (0, grid.size[1] - CAPTION))
        return np.asarray(image)

    pending: deque[Future[np.ndarray]] = deque()
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for number, frame in enumerate(sequence.frames, start=1):
            pending.append(pool.submit(compose, number, frame))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _notes(layers: Sequence[Layer], grid: Grid) -> str:
    """Return how the pictures differ from the frames."""
    depth = max(layer.bit_depth for layer in layers)
    notes = [f"8 of {depth} bits"] if depth > 8 else []
    if grid.factor < 1:
        notes.append(f"reduced to {grid.factor * 100:.0f} %")
    return ", ".join(notes)


def _encode(path: Path, pictures: Iterator[np.ndarray], size: tuple[int, int], rate: Fraction, threads: int) -> None:
    # FFmpeg would interpret a bare name with a colon as a URL
    with av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = size
        codec = stream.codec_context
        codec.thread_count = max(1, threads)
        stream.pix_fmt = "yuv420p"
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = ColorRange.MPEG
        # a key frame every half second, so that stepping through the video is fast
        codec.options = {"crf": str(QUALITY), "preset": "fast", "g": str(max(1, round(rate / 2)))}
        for number, pixels in enumerate(pictures):
            frame = _converted(pixels)
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _converted(pixels: np.ndarray) -> av.VideoFrame:
    """Convert RGB to YUV 4:2:0 by BT.709, limited range. By default FFmpeg would use BT.601, and not tag it."""
    return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
        format="yuv420p",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=EXACT,
    )
