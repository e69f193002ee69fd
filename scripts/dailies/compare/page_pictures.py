"""Make the pictures of the page: thumbnails of all frames, and 8-bit copies of those that no browser shows.

Each is made once, and again if its frame changes. ``page.json`` records what each copy was made from; a sheet says so
itself. Most sheets come from the jobs that rendered the frames.
"""

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from dailies.compare.layers import Layer, with_alpha_8_bit
from dailies.core import files
from dailies.core.errors import SequenceError
from dailies.core.typed import OMITTED, Record
from dailies.frames import png, thumbnail_sheet
from dailies.frames.image import is_browser_exact
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.state import manifest
from dailies.state.layout import Layout

log = logging.getLogger(__name__)

VERSION = 4
"""Version of the code that makes copies. Increment it if the same frames would look different."""

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
    """``page.json``: the frames from which the copies and sheets were made."""

    maker: int = 0
    """The ``VERSION`` of the code that made them."""
    frames: Mapping[str, FrameState] = field(default_factory=dict)
    """By layer key and output name of the frame, separated by a slash."""

    def frame(self, layer: Layer, name: str) -> FrameState:
        """Return the state of a layer's frame."""
        return self.frames.get(_key(layer, name), FrameState())


def has_thumbnails(sequence: FrameSequence, layer: Layer) -> bool:
    """Return whether a layer's frames are large enough for thumbnails."""
    return max(max(frame.width, frame.height) for frame in sequence.frames) * layer.scale > thumbnail_sheet.LARGE


def update(sequence: FrameSequence, layers: Iterable[Layer], *, layout: Layout, threads: int) -> PagePictures:
    """Make the copies and sheets that are missing or outdated, and delete those that the page no longer shows.

    Returns what they were made from, which is also written to ``page.json``. A frame that cannot be read has an error
    there; it is logged, and its place on a sheet is black.
    """
    known = PagePictures.load_if_there(layout.page_memory)
    if known is None or known.maker != VERSION:
        known = PagePictures()
    layers = list(layers)
    groups = [group for layer in layers for group in _groups(sequence, layer)]
    frames: dict[str, FrameState] = {}
    saved = time.monotonic()
    written = {layer.key: _Written(layer, layout) for layer in layers}
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for found in pool.map(lambda group: _update_group(group, layout, known, written[group.layer.key]), groups):
            frames |= found
            for key, state in found.items():
                if state.error is not None:
                    log.warning("%s cannot be shown: %s", key, state.error)
            if time.monotonic() - saved > SAVE_SECONDS:
                PagePictures(maker=VERSION, frames={**known.frames, **frames}).save_if_changed(layout.page_memory)
                saved = time.monotonic()
    _delete_all_but({path for group in groups for path in group.files(layout)}, layout)
    for layer in layers:
        shutil.rmtree(layout.rendered_thumbnails(layer.key), ignore_errors=True)  # those that are left no longer fit
    made = PagePictures(maker=VERSION, frames=frames)
    made.save_if_changed(layout.page_memory)
    return made


class _Written:
    """The digests of a model's frames, as far as they are known from its manifests. These are read on first use."""

    def __init__(self, layer: Layer, layout: Layout) -> None:
        self._layer, self._layout = layer, layout
        self._lock = threading.Lock()
        self._digests: Mapping[str, str] | None = None

    def digest(self, name: str) -> str | None:
        """Return the sha256 of a frame; None if it is not known, so that the file has to be read."""
        with self._lock:
            if self._digests is None:
                self._digests = self._read() if self._layer.is_model else {}
        return self._digests.get(name)

    def _read(self) -> Mapping[str, str]:
        key = self._layer.key
        return manifest.digests(self._layout.manifests(key), self._layout.frames(key), self._layer.originals.keys())


def _key(layer: Layer, name: str) -> str:
    return f"{layer.key}/{name}"


@dataclass(frozen=True)
class _Group:
    """The frames of a layer that share a sheet: the unit of work of a thread."""

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
            layer, number, tuple(frame.output for frame in frames), thumbnail_sheet.size_of(frames) if large else None
        )
        for number, frames in enumerate(thumbnail_sheet.groups(sequence))
    ]


def _update_group(group: _Group, layout: Layout, known: PagePictures, written: _Written) -> dict[str, FrameState]:
    """Make the copies and the sheet of a group that are missing or outdated; return the states of its frames."""
    layer = group.layer
    originals = {name: layer.originals[name] for name in group.names if name in layer.originals}
    before = {name: known.frame(layer, name) for name in originals}
    states = {
        name: _state(path, before[name], layer.exr_layers.get(name), written.digest) for name, path in originals.items()
    }
    is_sheet_due = not _has_sheet(group, states, layout)
    thumbnails: dict[str, Image.Image] = {}
    for name, path in originals.items():
        copy, alpha = group.copy(name, layout), group.alpha(name, layout)
        is_changed = states[name].sha256 != before[name].sha256
        is_copy_due = any(path is not None and (is_changed or not path.is_file()) for path in (copy, alpha))
        if states[name].error is not None or not (is_copy_due or is_sheet_due):
            continue
        try:
            data, exr_layer = path.read_bytes(), layer.exr_layers.get(name)
            pixels, opacity = with_alpha_8_bit(data, name, exr_layer, states[name].sha256)
        except (SequenceError, OSError) as error:
            states[name] = _unreadable(error)
            continue
        if copy is not None and is_copy_due:
            files.write_bytes(copy, data if is_browser_exact(data) else png.encode(pixels))
        if alpha is not None and is_copy_due:
            files.write_bytes(alpha, png.encode(opacity[:, :, None]))
        if group.size is not None and is_sheet_due:
            thumbnails[name] = thumbnail_sheet.thumbnail(pixels, group.size)
    path_of_sheet = group.sheet(layout)
    if path_of_sheet is not None and group.size is not None and is_sheet_due:
        pictures = [thumbnails.get(name) for name in group.names]
        files.write_bytes(
            path_of_sheet, thumbnail_sheet.encode(pictures, group.size, _sheet_digest(group, group.size, states))
        )
    return {group.key(name): state for name, state in states.items()}


def _has_sheet(group: _Group, states: Mapping[str, FrameState], layout: Layout) -> bool:
    """Return whether the sheet is in place, or not needed; it is taken from the jobs that rendered its frames."""
    place = group.sheet(layout)
    if place is None or group.size is None:
        return True
    digest = _sheet_digest(group, group.size, states)
    if thumbnail_sheet.digest_in(place) == digest:
        return True
    made = layout.rendered_thumbnails(group.layer.key) / place.name
    if thumbnail_sheet.digest_in(made) != digest:
        return False
    place.parent.mkdir(parents=True, exist_ok=True)
    made.replace(place)
    return True


def _sheet_digest(group: _Group, size: tuple[int, int], states: Mapping[str, FrameState]) -> str:
    return thumbnail_sheet.digest_of(size, [states.get(name, FrameState()).sha256 for name in group.names])


def _state(
    original: Path, before: FrameState, exr_layer: str | None, written: Callable[[str], str | None]
) -> FrameState:
    """Return a frame's digest, or its error. The file is read only if its digest is not known.

    It is known if size and time are unchanged, or if it is ``written`` in a manifest.
    """
    suffix = [exr_layer] if exr_layer else []
    try:
        stat = original.stat()
        stamp: tuple[int | str, ...] = (stat.st_size, stat.st_mtime_ns, *suffix)
        if before.stamp == stamp:
            return before
        digest = written(original.name) or hashlib.sha256(original.read_bytes()).hexdigest()
        return FrameState(stamp=stamp, sha256=files.digest([digest, *suffix]) if suffix else digest)
    except OSError as error:
        return _unreadable(error)


def _unreadable(error: Exception) -> FrameState:
    return FrameState(error=(error.strerror if isinstance(error, OSError) else None) or str(error))


def _delete_all_but(wanted: set[Path], layout: Layout) -> None:
    for path in layout.all_page_pictures():
        if path not in wanted:
            path.unlink()
