"""Sheets of thumbnails: JPEGs that hold the thumbnails of eight consecutive frames, one below the other."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dailies.core import files
from dailies.frames.sequence import Frame
from dailies.frames.sequence import Sequence as FrameSequence

VERSION = 1
"""Version of the code that makes sheets. Increment it if the same frames would look different."""

THUMBNAIL = 256
"""Pixels of the longer side of a thumbnail: sharp in a grid of fifty on a 1080p screen, about 10 kB."""

FRAMES = 8
"""Thumbnails per sheet. Loading a file takes a browser longer than decoding one thumbnail."""

LARGE = 400
"""Frames with a side longer than this have thumbnails. Smaller frames decode about as fast as a thumbnail."""

QUALITY = 80
"""JPEG quality."""


def groups(sequence: FrameSequence) -> list[Sequence[Frame]]:
    """Return the frames of each sheet, in order."""
    frames = sequence.frames
    return [frames[start : start + FRAMES] for start in range(0, len(frames), FRAMES)]


def size_of(frames: Sequence[Frame]) -> tuple[int, int]:
    """Return the width and height of the thumbnails on a sheet; the page stretches them to the shape of each frame.

    The height is a multiple of 16, so that no block of the JPEG contains parts of two thumbnails.
    """
    width, height = frames[0].width, frames[0].height
    longer = max(width, height)
    return max(1, round(width * THUMBNAIL / longer)), 16 * max(1, round(height * THUMBNAIL / longer / 16))


def thumbnail(pixels: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Return a frame, ``(height, width, 3)`` uint8, reduced to ``size`` (width, height) by averaging."""
    return Image.fromarray(pixels).resize(size, Image.Resampling.BOX)


def encode(thumbnails: Sequence[Image.Image | None], size: tuple[int, int], digest: str) -> bytes:
    """Return a sheet as a JPEG that names the ``digest`` of what it was made from; a missing thumbnail is black."""
    width, height = size
    sheet = Image.new("RGB", (width, height * len(thumbnails)))
    for number, picture in enumerate(thumbnails):
        if picture:
            sheet.paste(picture, (0, height * number))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY, comment=digest.encode())
    return buffer.getvalue()


def digest_of(size: tuple[int, int], digests: Sequence[str | None]) -> str:
    """Return the digest of everything that a sheet is made from: ``digests`` are those of its frames' files."""
    return files.digest([VERSION, size, digests])


def digest_in(path: Path) -> str | None:
    """Return the digest that a sheet names; None if there is no such file, or if it names none."""
    try:
        with Image.open(path) as sheet:
            comment = sheet.info.get("comment")
    except OSError:
        return None
    return comment.decode(errors="replace") if isinstance(comment, bytes) else None
