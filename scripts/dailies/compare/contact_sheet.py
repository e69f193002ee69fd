"""The contact sheet: models × chosen frames in one picture, the source and the reference first."""

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from dailies.compare import captions
from dailies.compare.layers import (
    RenderedModel,
    Shelf,
    fitted,
    gather,
    labels,
    picture,
)
from dailies.core import files
from dailies.core.errors import DailiesError
from dailies.core.text import counted
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.frames.sequence import normal_form

log = logging.getLogger(__name__)

CELLS = (480, 320, 240, 160)
"""Widths of a frame on the sheet: the first with which the sheet is no larger than ``LARGEST``."""

LARGEST = 40_000_000
"""Pixels of a sheet that any viewer opens."""

TALLEST = 16_000
"""Pixels that a sheet may be high before its models go on beside the first ones."""

CAPTION, GAP = 28, 6


class UnknownFrame(DailiesError):
    """``contact_frames`` names a frame that the sequence does not have."""


def build(
    models: Sequence[RenderedModel],
    *,
    sequence: Path,
    input_dir: Path,
    output: Path,
    chosen: Sequence[str] | None = None,
    reference: Mapping[str, Path] | None = None,
    threads: int = 4,
) -> None:
    """Write the contact sheet of all ``models`` that were rendered, as an 8-bit PNG.

    ``chosen`` names the frames to show; without it, the first, the
    middle and the last are. A frame that is missing or cannot be read is said to be. Raises UnknownFrame.
    """
    shot = load_sequence(sequence)
    shelves = gather(shot, models, input_dir=input_dir, reference=reference)
    sheet = _drawn(shot, shelves, chosen_frames(shot, chosen), threads=threads)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=6)
    files.write_bytes(output, buffer.getvalue())
    log.info("%d pictures of each frame, %d x %d pixels", len(shelves), *sheet.size)


def chosen_frames(shot: FrameSequence, chosen: Sequence[str] | None) -> list[int]:
    """Give the numbers of the frames to show, in the order asked for; names may be given with or without ending."""
    last = len(shot.frames) - 1
    if chosen is None:
        return sorted({0, last // 2, last})
    numbers = {}
    for number, frame in enumerate(shot.frames):
        numbers |= dict.fromkeys(map(normal_form, (frame.name, frame.output, Path(frame.name).stem)), number)
    if unknown := [name for name in chosen if normal_form(name) not in numbers]:
        raise UnknownFrame(
            "sequence.unknown_frame",
            f"contact_frames names {', '.join(unknown)}, but the sequence has {counted(len(shot.frames), 'frame')}, "
            f"{shot.frames[0].name} to {shot.frames[last].name}; correct contact_frames, or leave it out",
        )
    return [numbers[normal_form(name)] for name in chosen]


def _drawn(shot: FrameSequence, shelves: Sequence[Shelf], numbers: Sequence[int], *, threads: int) -> Image.Image:
    """Draw one row for each shelf, in as many columns of rows as keep the sheet from being too high to look at."""
    width = max(shot.frames[number].width for number in numbers)
    height = max(shot.frames[number].height for number in numbers)
    for cell in CELLS:
        tall = max(1, min(2 * cell, round(cell * height / width)))
        row = CAPTION + tall + GAP
        across = len(numbers) * (cell + GAP) + GAP
        if len(shelves) * row * across <= LARGEST:
            break
    rows = max(1, min(len(shelves), (TALLEST - CAPTION) // row))
    lanes = -(-len(shelves) // rows)
    rows = -(-len(shelves) // lanes)
    sheet = Image.new("RGB", (lanes * across + GAP, CAPTION + rows * row + GAP), captions.GROUND)
    for lane in range(lanes):
        for column, number in enumerate(numbers):
            name = captions.strip(shot.frames[number].output, cell, CAPTION, ink=captions.QUIET)
            sheet.paste(name, (GAP + lane * across + column * (cell + GAP), 0))
    for index, (shelf, label) in enumerate(zip(shelves, labels(shelves), strict=True)):
        factor = min(cell / width, tall / height) / shelf.scale
        said = [f"8 of {shelf.bit_depth} bits"] if shelf.bit_depth > 8 else []
        said += [f"reduced to {factor * 100:.0f} %"] if factor < 1 else []
        caption = captions.strip(label, across - 2 * GAP, CAPTION, ending=", ".join(said))
        sheet.paste(caption, (GAP + index // rows * across, CAPTION + index % rows * row))
    for index, column, image in _cells(shot, shelves, numbers, (cell, tall), threads=threads):
        left = GAP + index // rows * across + column * (cell + GAP)
        sheet.paste(image, (left, 2 * CAPTION + index % rows * row))
    return sheet


def _cells(
    shot: FrameSequence, shelves: Sequence[Shelf], numbers: Sequence[int], size: tuple[int, int], *, threads: int
) -> Iterator[tuple[int, int, Image.Image]]:
    """Give row, column and picture of every cell."""
    places = [(index, column) for index in range(len(shelves)) for column in range(len(numbers))]

    def cell(place: tuple[int, int]) -> Image.Image:
        index, column = place
        name = shot.frames[numbers[column]].output
        return fitted(picture(shelves[index], name), size)

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for (index, column), image in zip(places, pool.map(cell, places), strict=True):
            yield index, column, image
