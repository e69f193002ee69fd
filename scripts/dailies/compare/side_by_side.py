"""The reel: every model beside the others in one video, with its name, the source and the reference first.

H.264 as every browser plays it. ``video`` is the other way round: it decodes the sequence from a video.
"""

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
from dailies.compare.layers import (
    FPS,
    RenderedModel,
    Shelf,
    fitted,
    gather,
    labels,
    picture,
)
from dailies.core.errors import DailiesError
from dailies.frames.sequence import Frame
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.frames.video import EXACT

log = logging.getLogger(__name__)

LARGEST = (3840, 2160)
"""Pixels of a video: what browsers and their hardware play."""

ROW = 4
"""Pictures that stand in one row; more of them make a grid."""

CAPTION = 32
"""Pixels of the strips with names, over each picture, and with the frame's name, under all of them."""

NARROWEST = 240
"""Pixels of a picture below which its name could not be read: smaller frames are enlarged, to squares."""

QUALITY = 16
"""Constant rate factor of H.264, where 18 is taken for visually lossless: what is judged here is fine detail."""

BT709 = 1
"""The code of its matrix, primaries and transfer in ITU-T H.273."""


class NoEncoder(DailiesError):
    """FFmpeg, as PyAV brings it along, cannot write the video that is asked for."""


@dataclass(frozen=True)
class Layout:
    """Where the pictures of a reel are."""

    columns: int
    cell: tuple[int, int]
    """Width and height of each picture."""
    size: tuple[int, int]
    """Of the whole video; both even, as 4:2:0 needs."""
    factor: float
    """How much larger pictures are than the frames; the same for all of those of one size."""

    def place(self, index: int) -> tuple[int, int]:
        """Give the left and upper edge of a picture; its caption is over it."""
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
    """Write the reel of all ``models`` that were rendered to ``output``, an ``.mp4``.

    H.264 is of 8 bits, 4:2:0, converted by and tagged with BT.709,
    limited range, its index first, and at most 3840 × 2160 pixels, to which the pictures are reduced. How pictures
    differ from the frames is written below them. Frames are decoded and composed a few at a time; one that is missing
    or cannot be read is said to be. The same inputs and ``threads`` give the same bytes. Raises NoEncoder.
    """
    if "libx264" not in av.codecs_available:
        raise NoEncoder(
            "output.no_encoder",
            f"PyAV {av.__version__} was built without libx264, which writes H.264; "
            "install its wheel from PyPI (pip install --force-reinstall av)",
        )
    shot = load_sequence(sequence)
    shelves = gather(shot, models, input_dir=input_dir, reference=reference)
    scale = max(shelf.scale for shelf in shelves)
    frame = (round(max(f.width for f in shot.frames) * scale), round(max(f.height for f in shot.frames) * scale))
    plan = layout(len(shelves), frame)
    rate = Fraction(fps or shot.fps or FPS).limit_denominator(1001)
    draft = output.with_name(f".{output.name}.tmp")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        _encode(draft, _composed(shot, shelves, plan, threads=threads), plan.size, rate, threads)
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    log.info("%d pictures of %d frames, %d x %d pixels; %s", len(shelves), len(shot.frames), *plan.size, output.name)


def layout(count: int, frame: tuple[int, int]) -> Layout:
    """Arrange ``count`` pictures of frames of (width, height): a row of up to four, else the grid that shows most."""
    zoom = math.ceil(NARROWEST / frame[0]) if frame[0] < NARROWEST else 1
    width, height = frame[0] * zoom, frame[1] * zoom
    best = None
    for columns in [count] if count <= ROW else range(1, count + 1):
        rows = -(-count // columns)
        room = (LARGEST[0] / (columns * width), (LARGEST[1] - (rows + 1) * CAPTION) / (rows * height))
        factor = min(1, *room)
        shape = abs(math.log(columns * width / (rows * height) * LARGEST[1] / LARGEST[0]))  # of two, that of a screen
        if best is None or (factor, -shape) > best[0]:
            best = (factor, -shape), columns, rows
    (factor, _), columns, rows = best
    cell = (max(1, int(width * factor)), max(1, int(height * factor)))
    size = (columns * cell[0], rows * (cell[1] + CAPTION) + CAPTION)
    return Layout(columns, cell, (size[0] + size[0] % 2, size[1] + size[1] % 2), factor * zoom)


def _composed(shot: FrameSequence, shelves: Sequence[Shelf], plan: Layout, *, threads: int) -> Iterator[np.ndarray]:
    """Give every picture of the reel in order, made a few ahead in threads: uint8 RGB, ``(height, width, 3)``."""
    ground = Image.new("RGB", plan.size, captions.GROUND)
    for index, label in enumerate(labels(shelves)):
        left, top = plan.place(index)
        ground.paste(captions.strip(label, plan.cell[0], CAPTION), (left, top - CAPTION))
    notes = _notes(shelves, plan)

    def compose(number: int, frame: Frame) -> np.ndarray:
        whole = ground.copy()
        for index, shelf in enumerate(shelves):
            whole.paste(fitted(picture(shelf, frame.output), plan.cell), plan.place(index))
        said = f"{frame.output}  {number} / {len(shot.frames)}"
        whole.paste(captions.strip(said, plan.size[0], CAPTION, ending=notes), (0, plan.size[1] - CAPTION))
        return np.asarray(whole)

    pending: deque[Future[np.ndarray]] = deque()
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for number, frame in enumerate(shot.frames, start=1):
            pending.append(pool.submit(compose, number, frame))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _notes(shelves: Sequence[Shelf], plan: Layout) -> str:
    """Say how pictures differ from the frames."""
    depth = max(shelf.bit_depth for shelf in shelves)
    said = [f"8 of {depth} bits"] if depth > 8 else []
    if plan.factor < 1:
        said.append(f"reduced to {plan.factor * 100:.0f} %")
    return ", ".join(said)


def _encode(path: Path, pictures: Iterator[np.ndarray], size: tuple[int, int], rate: Fraction, threads: int) -> None:
    # a bare name with a colon would be taken for an address
    with av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = size
        codec = stream.codec_context
        codec.thread_count = max(1, threads)
        stream.pix_fmt = "yuv420p"
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = ColorRange.MPEG
        # a key frame every half second: the video is stepped through
        codec.options = {"crf": str(QUALITY), "preset": "fast", "g": str(max(1, round(rate / 2)))}
        for number, pixels in enumerate(pictures):
            frame = _converted(pixels)
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _converted(pixels: np.ndarray) -> av.VideoFrame:
    """Convert RGB to what is encoded. FFmpeg, if it is not told, converts by BT.601 and does not say so."""
    return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
        format="yuv420p",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=EXACT,
    )
