"""Make thumbnails of frames while they are rendered and their pixels are in memory, so that the page need not."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dailies.core import files
from dailies.frames import thumbnail_sheet
from dailies.frames.sequence import Frame, Sequence


@dataclass
class _Group:
    """The frames of one sheet, and what is known of them so far."""

    path: Path
    names: tuple[str, ...]
    size: tuple[int, int]
    found: dict[str, tuple[Image.Image, str]] = field(default_factory=dict)
    """The thumbnail and the digest of each rendered frame."""


class Thumbnails:
    """Collects thumbnails, and writes a sheet as soon as all of its frames have been added.

    A sheet of which some frames were rendered by another job, or are not simply 8-bit RGB, is left to the page.
    """

    def __init__(self, sequence: Sequence, folder: Path) -> None:
        """Write the sheets of the whole ``sequence`` to ``folder``, named by their numbers."""
        self._lock = threading.Lock()
        self._groups: dict[str, _Group] = {}
        for number, frames in enumerate(thumbnail_sheet.groups(sequence)):
            names = tuple(frame.output for frame in frames)
            group = _Group(folder / f"{number}.jpg", names, thumbnail_sheet.size_of(frames))
            self._groups |= dict.fromkeys(names, group)

    def add(self, frame: Frame, pixels: np.ndarray, digest: str) -> None:
        """Add a frame that was written: its pixels, and the digest of its file. Safe to call from several threads."""
        if pixels.dtype != np.uint8 or pixels.shape[2] != 3 or max(pixels.shape) <= thumbnail_sheet.LARGE:
            return
        group = self._groups[frame.output]
        picture = thumbnail_sheet.thumbnail(pixels, group.size)
        with self._lock:
            group.found[frame.output] = picture, digest
            if len(group.found) < len(group.names):
                return
        pictures, digests = zip(*(group.found.pop(name) for name in group.names), strict=True)
        data = thumbnail_sheet.encode(pictures, group.size, thumbnail_sheet.digest_of(group.size, digests))
        files.write_bytes(group.path, data, durable=False)
