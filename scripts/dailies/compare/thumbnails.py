"""Thumbnails: small copies of frames for the page, made once and remembered."""

import hashlib
import io
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from dailies.compare.layers import (
    Shelf,
    eight_bit,
)
from dailies.core import files as files_module
from dailies.core.errors import SequenceError
from dailies.core.typed import OMITTED, Record
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.state.layout import Layout

log = logging.getLogger(__name__)

MAKER = 3
"""Version of the code that makes copies and thumbnails: raise it when it would make them differently."""

THUMBNAIL = 256
"""Pixels along the longer side of a thumbnail: sharp in a grid of fifty on a 1080p screen, about 10 kB."""

SHEET = 8
"""Thumbnails in one file, one below the other: to load a file costs a browser more than to decode one of them."""

LARGE = 400
"""Frames with a side longer than this get thumbnails; smaller ones are decoded about as fast."""

COMPRESSION, QUALITY = 1, 80
"""zlib level of the copies, JPEG quality of the thumbnails."""

SAVE_SECONDS = 10
"""How often the record of what is made is written, so that a build that was killed goes on from there."""


@dataclass(frozen=True, kw_only=True)
class FrameSeen:
    """What was seen of a frame when it was looked at: its digest, or why it cannot be shown."""

    stamp: tuple[int | str, ...] | None = field(default=None, metadata=OMITTED)
    """Size and time of its file, and the layer that was asked for."""
    sha256: str | None = field(default=None, metadata=OMITTED)
    error: str | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class PageMemory(Record):
    """``page.json``: of what each copy and thumbnail was made."""

    maker: int = 0
    """The ``MAKER`` that made them."""
    frames: Mapping[str, FrameSeen] = field(default_factory=dict)
    """By shelf and name."""
    sheets: Mapping[str, str] = field(default_factory=dict)
    """By shelf and number, the digest of what each sheet was made of."""


def _large(shot: FrameSequence, shelf: Shelf) -> bool:
    return max(max(frame.width, frame.height) for frame in shot.frames) * shelf.scale > LARGE


@dataclass(frozen=True)
class _Strip:
    """Neighbouring frames of a shelf, at most ``SHEET``: what one thread makes at a time."""

    shelf: Shelf
    number: int
    names: tuple[str, ...]
    size: tuple[int, int] | None
    """Width and height of their thumbnails, all alike on a sheet; None where they have none."""

    def key(self, name: str) -> str:
        return f"{self.shelf.key}/{name}"

    def copy(self, name: str, layout: Layout) -> Path | None:
        return None if self.shelf.as_it_is else layout.page_copies(self.shelf.key) / f"{Path(name).stem}.png"

    def sheet(self, layout: Layout) -> Path | None:
        return layout.page_thumbnails(self.shelf.key) / f"{self.number}.jpg" if self.size else None

    def files(self, layout: Layout) -> set[Path]:
        """Name all that is made of these frames, in the page's folder."""
        copies = (self.copy(name, layout) for name in self.names if name in self.shelf.originals)
        return {path for path in (*copies, self.sheet(layout)) if path}


def _strips(shot: FrameSequence, shelf: Shelf) -> list[_Strip]:
    large = _large(shot, shelf)
    return [
        _Strip(
            shelf,
            number,
            tuple(frame.output for frame in shot.frames[start : start + SHEET]),
            _thumbnail_size(shot.frames[start].width, shot.frames[start].height) if large else None,
        )
        for number, start in enumerate(range(0, len(shot.frames), SHEET))
        if large or not shelf.as_it_is
    ]


def _thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """Give the width and height of a frame's thumbnail, which the page stretches to the frame's own shape.

    The height is a multiple of 16, so that no block of JPEG holds parts of two thumbnails of a sheet.
    """
    longer = max(width, height)
    return max(1, round(width * THUMBNAIL / longer)), 16 * max(1, round(height * THUMBNAIL / longer / 16))


def _make(
    shot: FrameSequence, shelves: Iterable[Shelf], *, layout: Layout, threads: int
) -> tuple[dict[str, FrameSeen], dict[str, str]]:
    """Make the copies and sheets that are missing or out of date and delete those that nothing shows.

    Returns what was seen of each frame, by shelf and name; and of what each sheet was made, by shelf and number.
    """
    known = PageMemory.load_if_there(layout.page_memory)
    known = known if known and known.maker == MAKER else PageMemory()
    strips = [strip for shelf in shelves for strip in _strips(shot, shelf)]
    frames: dict[str, FrameSeen] = {}
    sheets: dict[str, str] = {}

    def save() -> None:
        kept = PageMemory(maker=MAKER, frames={**known.frames, **frames}, sheets={**known.sheets, **sheets})
        kept.save_if_changed(layout.page_memory)

    saved = time.monotonic()
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for looked_at, sheet in pool.map(lambda strip: _made(strip, layout, known), strips):
            frames |= looked_at
            sheets |= sheet
            for key, seen in looked_at.items():
                if seen.error is not None:
                    log.warning("%s cannot be shown: %s", key, seen.error)
            if time.monotonic() - saved > SAVE_SECONDS:
                save()
                saved = time.monotonic()
    _delete_others({path for strip in strips for path in strip.files(layout)}, layout)
    known = PageMemory()
    save()
    return frames, sheets


def _made(strip: _Strip, layout: Layout, known: PageMemory) -> tuple[dict[str, FrameSeen], dict[str, str]]:
    """Bring the copies of some frames and their sheet up to date, by digest; give what is remembered of both."""
    originals = {name: strip.shelf.originals[name] for name in strip.names if name in strip.shelf.originals}
    before = {name: known.frames.get(strip.key(name), FrameSeen()) for name in originals}
    layers = strip.shelf.layers
    seen = {name: _looked_at(path, before[name], layers.get(name)) for name, path in originals.items()}
    sheet = strip.sheet(layout)
    number = strip.key(str(strip.number))
    again = sheet and not (known.sheets.get(number) == _made_of(strip, seen) and sheet.is_file())
    thumbnails = {}
    for name, path in originals.items():
        copy = strip.copy(name, layout)
        stale = copy and not (seen[name].sha256 == before[name].sha256 and copy.is_file())
        if seen[name].error is not None or not (stale or again):
            continue
        try:
            image = eight_bit(path.read_bytes(), name, layers.get(name))
        except (SequenceError, OSError) as error:
            seen[name] = _unreadable(error)
            continue
        if stale:
            files_module.write_bytes(copy, _as_png(image))
        if again:
            thumbnails[name] = image.resize(strip.size, Image.Resampling.BOX)
    if again:
        files_module.write_bytes(sheet, _as_sheet([thumbnails.get(name) for name in strip.names], strip.size))
    return (
        {strip.key(name): each for name, each in seen.items()},
        {number: _made_of(strip, seen)} if sheet else {},
    )


def _made_of(strip: _Strip, seen: Mapping[str, FrameSeen]) -> str:
    return files_module.digest([strip.size, [seen.get(name, FrameSeen()).sha256 for name in strip.names]])


def _looked_at(original: Path, before: FrameSeen, layer: str | None) -> FrameSeen:
    """Give a frame's digest, which is not computed again while size and time stay the same; or its error."""
    asked = [layer] if layer else []
    try:
        stat = original.stat()
        stamp = (stat.st_size, stat.st_mtime_ns, *asked)
        if before.stamp == stamp:
            return before
        digest = hashlib.sha256(original.read_bytes()).hexdigest()
        return FrameSeen(stamp=stamp, sha256=files_module.digest([digest, *asked]) if asked else digest)
    except OSError as error:
        return _unreadable(error)


def _unreadable(error: Exception) -> FrameSeen:
    return FrameSeen(error=(error.strerror if isinstance(error, OSError) else None) or str(error))


def _as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=COMPRESSION, icc_profile=None)
    return buffer.getvalue()


def _as_sheet(thumbnails: Sequence[Image.Image | None], size: tuple[int, int]) -> bytes:
    """Put thumbnails below each other; a place stays black for what is missing."""
    width, height = size
    sheet = Image.new("RGB", (width, height * len(thumbnails)))
    for number, thumbnail in enumerate(thumbnails):
        if thumbnail:
            sheet.paste(thumbnail, (0, height * number))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _delete_others(wanted: set[Path], layout: Layout) -> None:
    for path in layout.all_page_pictures():
        if path not in wanted:
            path.unlink()
