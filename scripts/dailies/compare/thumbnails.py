"""The pictures made for the page: 8-bit copies of frames that no browser shows, and sheets of thumbnails.

Each is made once, and again if its frame changes. ``page.json`` records what each was made from.
"""

import hashlib
import io
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from dailies.compare.layers import Layer, with_alpha_8_bit
from dailies.core import files
from dailies.core.errors import SequenceError
from dailies.core.typed import OMITTED, Record
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.state.layout import Layout

log = logging.getLogger(__name__)

VERSION = 3
"""Version of the code that makes copies and thumbnails. Increment it if the same frames would look different."""

THUMBNAIL = 256
"""Pixels of the longer side of a thumbnail: sharp in a grid of fifty on a 1080p screen, about 10 kB."""

SHEET = 8
"""Thumbnails per file, one below the other. Loading a file takes a browser longer than decoding one thumbnail."""

LARGE = 400
"""Frames with a side longer than this have thumbnails. Smaller frames decode about as fast as a thumbnail."""

COMPRESSION, QUALITY = 1, 80
"""zlib level of the copies, JPEG quality of the thumbnails."""

SAVE_SECONDS = 10
"""Interval at which ``page.json`` is written, so that a build that was killed can be resumed."""


@dataclass(frozen=True, kw_only=True)
class FrameState:
    """The state of a frame when it was last read: its digest, or why it cannot be shown."""

    stamp: tuple[int | str, ...] | None = field(default=None, metadata=OMITTED)
    """Size and modification time of the file, and the EXR layer to read if there is one."""
    sha256: str | None = field(default=None, metadata=OMITTED)
    error: str | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class PagePictures(Record):
    """``page.json``: what each copy and each sheet was made from."""

    maker: int = 0
    """The ``VERSION`` of the code that made them."""
    frames: Mapping[str, FrameState] = field(default_factory=dict)
    """By layer key and output name of the frame, separated by a slash."""
    sheets: Mapping[str, str] = field(default_factory=dict)
    """By layer key and number, the digest of what each sheet was made from."""

    def frame(self, layer: Layer, name: str) -> FrameState:
        """Return the state of a layer's frame."""
        return self.frames.get(_key(layer, name), FrameState())


def has_thumbnails(sequence: FrameSequence, layer: Layer) -> bool:
    """Return whether a layer's frames are large enough for thumbnails."""
    return max(max(frame.width, frame.height) for frame in sequence.frames) * layer.scale > LARGE


def update(sequence: FrameSequence, layers: Iterable[Layer], *, layout: Layout, threads: int) -> PagePictures:
    """Make the copies and sheets that are missing or outdated, and delete those that the page no longer shows.

    Returns what they were made from, which is also written to ``page.json``. A frame that cannot be read has an error
    there; it is logged, and its place on a sheet is black.
    """
    known = PagePictures.load_if_there(layout.page_memory)
    if known is None or known.maker != VERSION:
        known = PagePictures()
    groups = [group for layer in layers for group in _groups(sequence, layer)]
    frames: dict[str, FrameState] = {}
    sheets: dict[str, str] = {}
    saved = time.monotonic()
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for new_frames, new_sheets in pool.map(lambda group: _update_group(group, layout, known), groups):
            frames |= new_frames
            sheets |= new_sheets
            for key, state in new_frames.items():
                if state.error is not None:
                    log.warning("%s cannot be shown: %s", key, state.error)
            if time.monotonic() - saved > SAVE_SECONDS:
                made = PagePictures(maker=VERSION, frames={**known.frames, **frames}, sheets={**known.sheets, **sheets})
                made.save_if_changed(layout.page_memory)
                saved = time.monotonic()
    _delete_all_but({path for group in groups for path in group.files(layout)}, layout)
    made = PagePictures(maker=VERSION, frames=frames, sheets=sheets)
    made.save_if_changed(layout.page_memory)
    return made


def _key(layer: Layer, name: str) -> str:
    return f"{layer.key}/{name}"


@dataclass(frozen=True)
class _Group:
    """Up to ``SHEET`` consecutive frames of a layer: the unit of work of a thread."""

    layer: Layer
    number: int
    names: tuple[str, ...]
    size: tuple[int, int] | None
    """Width and height of the thumbnails, the same for the whole sheet; None if there are no thumbnails."""

    def key(self, name: str) -> str:
        return _key(self.layer, name)

    def copy(self, name: str, layout: Layout) -> Path | None:
        """Return the file of a frame's copy; None if the page shows the frame itself."""
        if self.layer.is_browser_exact:
            return None
        return layout.page_copies(self.layer.key) / f"{Path(name).stem}.png"

    def alpha(self, name: str, layout: Layout) -> Path | None:
        """Return the file of a frame's alpha channel, a grey picture; None if no frame of the layer has one.

        It is apart from the copy, because a browser multiplies colours by alpha when it draws them.
        """
        return layout.page_alpha(self.layer.key) / f"{Path(name).stem}.png" if self.layer.has_alpha else None

    def sheet(self, layout: Layout) -> Path | None:
        """Return the file of the thumbnails; None if there are none."""
        return layout.page_thumbnails(self.layer.key) / f"{self.number}.jpg" if self.size else None

    def files(self, layout: Layout) -> set[Path]:
        """Return all files that are made of these frames."""
        names = [name for name in self.names if name in self.layer.originals]
        copies = (make(name, layout) for make in (self.copy, self.alpha) for name in names)
        return {path for path in (*copies, self.sheet(layout)) if path}


def _groups(sequence: FrameSequence, layer: Layer) -> list[_Group]:
    """Split a layer's frames into groups; a layer that needs neither copies nor thumbnails has none."""
    large = has_thumbnails(sequence, layer)
    if layer.is_browser_exact and not large:
        return []
    return [
        _Group(
            layer,
            number,
            tuple(frame.output for frame in sequence.frames[start : start + SHEET]),
            _thumbnail_size(sequence.frames[start].width, sequence.frames[start].height) if large else None,
        )
        for number, start in enumerate(range(0, len(sequence.frames), SHEET))
    ]


def _thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """Return the width and height of a frame's thumbnail, which the page stretches to the shape of the frame.

    The height is a multiple of 16, so that no block of the JPEG contains parts of two thumbnails.
    """
    longer = max(width, height)
    return max(1, round(width * THUMBNAIL / longer)), 16 * max(1, round(height * THUMBNAIL / longer / 16))


def _update_group(group: _Group, layout: Layout, known: PagePictures) -> tuple[dict[str, FrameState], dict[str, str]]:
    """Make the copies and the sheet of a group that are missing or outdated.

    Returns the states of its frames and the digest of its sheet, as ``PagePictures`` stores them.
    """
    layer = group.layer
    originals = {name: layer.originals[name] for name in group.names if name in layer.originals}
    before = {name: known.frame(layer, name) for name in originals}
    states = {name: _state(path, before[name], layer.exr_layers.get(name)) for name, path in originals.items()}
    sheet, sheet_key = group.sheet(layout), group.key(str(group.number))
    is_sheet_due = sheet is not None and not (
        known.sheets.get(sheet_key) == _sheet_digest(group, states) and sheet.is_file()
    )
    thumbnails: dict[str, Image.Image] = {}
    for name, path in originals.items():
        copy, alpha = group.copy(name, layout), group.alpha(name, layout)
        is_changed = states[name].sha256 != before[name].sha256
        is_copy_due = any(path is not None and (is_changed or not path.is_file()) for path in (copy, alpha))
        if states[name].error is not None or not (is_copy_due or is_sheet_due):
            continue
        try:
            image, opacity = with_alpha_8_bit(path.read_bytes(), name, layer.exr_layers.get(name))
        except (SequenceError, OSError) as error:
            states[name] = _unreadable(error)
            continue
        if copy is not None and is_copy_due:
            files.write_bytes(copy, _png(image))
        if alpha is not None and is_copy_due:
            files.write_bytes(alpha, _png(opacity))
        if group.size is not None and is_sheet_due:
            thumbnails[name] = image.resize(group.size, Image.Resampling.BOX)
    if sheet is not None and group.size is not None and is_sheet_due:
        files.write_bytes(sheet, _jpeg([thumbnails.get(name) for name in group.names], group.size))
    return (
        {group.key(name): state for name, state in states.items()},
        {sheet_key: _sheet_digest(group, states)} if sheet else {},
    )


def _sheet_digest(group: _Group, states: Mapping[str, FrameState]) -> str:
    """Return the digest of everything that a sheet is made from."""
    return files.digest([group.size, [states.get(name, FrameState()).sha256 for name in group.names]])


def _state(original: Path, before: FrameState, exr_layer: str | None) -> FrameState:
    """Return a frame's digest, or its error. If size and time are unchanged, the digest is not computed again."""
    suffix = [exr_layer] if exr_layer else []
    try:
        stat = original.stat()
        stamp: tuple[int | str, ...] = (stat.st_size, stat.st_mtime_ns, *suffix)
        if before.stamp == stamp:
            return before
        digest = hashlib.sha256(original.read_bytes()).hexdigest()
        return FrameState(stamp=stamp, sha256=files.digest([digest, *suffix]) if suffix else digest)
    except OSError as error:
        return _unreadable(error)


def _unreadable(error: Exception) -> FrameState:
    return FrameState(error=(error.strerror if isinstance(error, OSError) else None) or str(error))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=COMPRESSION, icc_profile=None)
    return buffer.getvalue()


def _jpeg(thumbnails: Sequence[Image.Image | None], size: tuple[int, int]) -> bytes:
    """Return a sheet of thumbnails, one below the other; the place of a missing one is black."""
    width, height = size
    sheet = Image.new("RGB", (width, height * len(thumbnails)))
    for number, thumbnail in enumerate(thumbnails):
        if thumbnail:
            sheet.paste(thumbnail, (0, height * number))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _delete_all_but(wanted: set[Path], layout: Layout) -> None:
    for path in layout.all_page_pictures():
        if path not in wanted:
            path.unlink()
