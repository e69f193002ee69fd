"""The contact sheet: one picture with a row per model and a column per chosen frame; source and reference are first."""

import io
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from dailies.compare import captions
from dailies.compare.layers import Layer, RenderedModel, fit, gather, read_picture
from dailies.core import files
from dailies.core.errors import DailiesError
from dailies.core.text import counted, few
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.frames.sequence import normal_form
from dailies.state.records import BEST, TIE, Leaderboard, RankedModel

log = logging.getLogger(__name__)

CELL_WIDTHS = (480, 320, 240, 160)
"""Widths of a frame on the sheet. The first one that keeps the sheet within ``MAX_PIXELS`` is used."""

MAX_PIXELS = 40_000_000
"""The size of a sheet that any viewer opens."""

MAX_HEIGHT = 16_000
"""The height in pixels beyond which the models are arranged in several columns of rows."""

CAPTION, GAP = 28, 6
"""Pixels of the height of a caption, and between frames."""


class UnknownFrame(DailiesError):
    """A name in ``contact_frames`` does not match any frame of the sequence."""


def build(
    models: Sequence[RenderedModel],
    *,
    sequence: Path,
    input_dir: Path,
    output: Path,
    chosen: Sequence[str] | None = None,
    reference: Mapping[str, Path] | None = None,
    ranking: Path | None = None,
    threads: int = 4,
) -> list[str]:
    """Write the contact sheet of all complete ``models`` to ``output``, as an 8-bit PNG.

    ``ranking`` is the ``Leaderboard`` record: with it, the models are in the order of their ranks, and the verdict is
    above them. ``chosen`` are the names of the frames to show; by default these are the first, the middle and the last
    one. A frame that is missing or unreadable is replaced by the word "missing". Return notes for the user. Raises
    UnknownFrame.
    """
    frames = load_sequence(sequence)
    board = Leaderboard.load(ranking) if ranking else Leaderboard()
    places = {each.model: each for each in board.ranking.everyone} if board.ranking else {}
    models = sorted(models, key=lambda model: _rank(places, model.folder.name))
    layers = gather(frames, models, input_dir=input_dir, reference=reference)
    numbers = frame_numbers(frames, chosen, among=_shared(frames, layers))
    sheet = _draw(frames, layers, numbers, places, board.verdict, threads=threads)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=6)
    files.write_bytes(output, buffer.getvalue())
    log.info("%d pictures of each frame, %d x %d pixels", len(layers), *sheet.size)
    unrendered = _unrendered(frames, chosen or ())
    return [f"the contact sheet lacks {few(unrendered)}: rendered are {frames.choice}"] if unrendered else []


def frame_numbers(
    sequence: FrameSequence, chosen: Sequence[str] | None, among: Sequence[int] | None = None
) -> list[int]:
    """Return the numbers of the chosen frames, in the order chosen. The extension of a name is optional.

    Frames of the input that the setting ``frames`` leaves out are skipped. If none remains, or for None, the first, the
    middle and the last frame are chosen, of the numbers ``among`` if these are given. Raises UnknownFrame.
    """
    count = len(sequence.frames)
    unrendered = _unrendered(sequence, chosen or ())
    chosen = [name for name in chosen or () if name not in unrendered]
    if not chosen:
        among = among or range(count)
        return sorted({among[0], among[(len(among) - 1) // 2], among[-1]})
    numbers: dict[str, int] = {}
    for number, frame in enumerate(sequence.frames):
        numbers |= dict.fromkeys(map(normal_form, (frame.name, frame.output, Path(frame.name).stem)), number)
    if unknown := [name for name in chosen if normal_form(name) not in numbers]:
        first, last = sequence.frames[0].name, sequence.frames[-1].name
        raise UnknownFrame(
            "sequence.unknown_frame",
            f"contact_frames names {', '.join(unknown)}, but the sequence has {counted(count, 'frame')}, "
            f"{first} to {last}; correct contact_frames, or leave it out",
        )
    return [numbers[normal_form(name)] for name in chosen]


def _shared(sequence: FrameSequence, layers: Sequence[Layer]) -> list[int]:
    """Return the numbers of the frames that the models which were knocked out have, too."""
    out = [layer.originals for layer in layers if layer.is_knocked_out]
    return [
        number for number, frame in enumerate(sequence.frames) if all(frame.output in originals for originals in out)
    ]


def _unrendered(sequence: FrameSequence, names: Sequence[str]) -> list[str]:
    """Return those of the names that are frames of the input which the setting ``frames`` leaves out."""
    rendered = {frame.name for frame in sequence.frames}
    stems = {normal_form(Path(name).stem) for name in sequence.names if name not in rendered}
    known = {*stems, *(normal_form(name) for name in sequence.names if name not in rendered)}
    return [name for name in names if known & {normal_form(name), normal_form(Path(name).stem)}]


def _rank(places: Mapping[str, RankedModel], model: str) -> int:
    return places[model].rank if model in places else len(places) + 1


@dataclass(frozen=True)
class _Grid:
    """The positions on a sheet, in pixels. Its rows are arranged in one or more columns of rows."""

    cell: tuple[int, int]
    """Width and height of a frame."""
    frames: int
    """The number of frames in a row."""
    rows: int
    """The number of rows in a column."""
    columns: int
    head: int = CAPTION
    """The height above the first row: of the names of the frames, and of the verdict if there is one."""

    @property
    def row(self) -> tuple[int, int]:
        """Width and height of a row with its caption and the gap after it."""
        width, height = self.cell
        return self.frames * (width + GAP) + GAP, CAPTION + height + GAP

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        return self.columns * self.row[0] + GAP, self.head + self.rows * self.row[1] + GAP

    def caption(self, layer: int) -> tuple[int, int]:
        """Return the left and upper edge of a layer's caption; its frames are below."""
        column, row = divmod(layer, self.rows)
        return GAP + column * self.row[0], self.head + row * self.row[1]

    def frame(self, number: int) -> int:
        """Return the distance of a frame from the left edge of its row."""
        return number * (self.cell[0] + GAP)


def _grid(layers: int, frames: int, size: tuple[int, int], *, head: int) -> _Grid:
    """Return the grid for frames of a size (width, height), with the largest cells for which the sheet is in bounds."""
    for width in CELL_WIDTHS:
        height = max(1, min(2 * width, round(width * size[1] / size[0])))
        grid = _Grid((width, height), frames, layers, columns=1, head=head)
        if layers * grid.row[0] * grid.row[1] <= MAX_PIXELS:
            break
    rows = max(1, min(layers, (MAX_HEIGHT - head) // grid.row[1]))
    columns = -(-layers // rows)
    return replace(grid, rows=-(-layers // columns), columns=columns)


def _draw(
    sequence: FrameSequence,
    layers: Sequence[Layer],
    numbers: Sequence[int],
    places: Mapping[str, RankedModel],
    verdict: str | None,
    *,
    threads: int,
) -> Image.Image:
    """Return the sheet: over each column of rows the names of the frames, over each row the label of its layer."""
    width = max(sequence.frames[number].width for number in numbers)
    height = max(sequence.frames[number].height for number in numbers)
    grid = _grid(len(layers), len(numbers), (width, height), head=(2 if verdict else 1) * CAPTION)
    sheet = Image.new("RGB", grid.size, captions.BACKGROUND)
    if verdict:
        sheet.paste(captions.draw(verdict, grid.size[0] - 2 * GAP, CAPTION), (GAP, 0))
    names = [sequence.frames[number].output for number in numbers]
    for column in range(grid.columns):
        left, top = grid.caption(column * grid.rows)
        for place, name in enumerate(names):
            caption = captions.draw(name, grid.cell[0], CAPTION, colour=captions.MUTED)
            sheet.paste(caption, (left + grid.frame(place), top - CAPTION))
    for index, layer in enumerate(layers):
        factor = min(grid.cell[0] / width, grid.cell[1] / height) / layer.scale
        notes = _standing(places[layer.key]) if layer.key in places else []
        notes += [f"8 of {layer.bit_depth} bits"] if layer.bit_depth > 8 else []
        notes += [f"reduced to {factor * 100:.0f} %"] if factor < 1 else []
        name = f"{places[layer.key].rank}  {layer.label.name}" if layer.key in places else layer.label.name
        caption = captions.draw(name, grid.row[0] - 2 * GAP, CAPTION, more=layer.label.params, right=", ".join(notes))
        sheet.paste(caption, grid.caption(index))
    cells = [(index, place) for index in range(len(layers)) for place in range(len(names))]

    def cell(position: tuple[int, int]) -> Image.Image:
        index, place = position
        return fit(read_picture(layers[index], names[place]), grid.cell)

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for (index, place), image in zip(cells, pool.map(cell, cells), strict=True):
            left, top = grid.caption(index)
            sheet.paste(image, (left + grid.frame(place), top + CAPTION))
    return sheet


def _standing(place: RankedModel) -> list[str]:
    """Return what the ranking says of a model, in words; nothing of one that is only worse than the best."""
    words = {BEST: ["best"], TIE: ["tie for the best"]}.get(place.verdict, [])
    return [*words, *(["below the source"] if place.below_source else [])]
