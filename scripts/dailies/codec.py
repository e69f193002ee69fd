"""The codec: files that OpenImageIO opens, reads and writes, and what it says is wrong, in our words."""

import re
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio  # noqa: N813

from dailies import png
from dailies.errors import SequenceError

SIGNATURES = {
    png.SIGNATURE: ".png",
    b"\xff\xd8\xff": ".jpg",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",
    b"MM\0+": ".tif",
    b"\x76\x2f\x31\x01": ".exr",
    b"SDPX": ".dpx",
    b"XPDS": ".dpx",
    b"RIFF": ".webp",
}
"""How a frame's file begins, whatever its name ends in -> what OpenImageIO knows its format by."""

SCRATCH = "dailies-"
SCRATCH_NAME = re.compile(rf'\(?"?[^\s"(]*{SCRATCH}\w+/frame\.\w+"?\)?')
"""The name of the copy of a frame that OpenImageIO reads, as it stands in its messages."""

# many frames are read at once, and a render has its own count of threads; a bad header must not take all memory
oiio.attribute("threads", 1)
oiio.attribute("exr_threads", -1)
oiio.attribute("limits:imagesize_MB", 4096)


@contextmanager
def opened(data: bytes, name: str, *, pixels: bool = True) -> Iterator[oiio.ImageInput]:
    """Open a frame; turn whatever OpenImageIO makes of a bad one into a SequenceError that names it.

    Of a PNG whose ``pixels`` are not asked for it is given what stands before them.
    """
    suffix = next((suffix for start, suffix in SIGNATURES.items() if data.startswith(start)), None)
    if suffix is None or (suffix == ".webp" and data[8:12] != b"WEBP"):
        reason = "it is not a PNG, TIFF, EXR, DPX, JPEG, BMP or WebP image" if data else "it is empty"
        raise SequenceError(f"frame {name} cannot be read: {reason}")
    if suffix == ".png":
        try:
            deque(png.chunks(data), maxlen=0)
        except ValueError as error:
            raise SequenceError(f"frame {name} cannot be read: {error}") from error
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)  # without it colours are multiplied by alpha on the way
    # OpenImageIO reads memory in C++ only
    with _scratch() as folder:
        copy = folder / f"frame{suffix}"
        copy.write_bytes(data if pixels else png.head(data))
        file = oiio.ImageInput.open(str(copy), config)
        if file is None:
            raise SequenceError(f"frame {name} cannot be read: {_complaint(oiio)}")
        try:
            _seek_picture(file)
            yield file
        except (RuntimeError, MemoryError, UnicodeDecodeError, ValueError) as error:
            raise SequenceError(f"frame {name} cannot be read: {error or type(error).__name__}") from error
        finally:
            file.close()


def read(file: oiio.ImageInput, storage: str, name: str) -> np.ndarray:
    """Give all channels of a file as ``(height, width, channels)``, of the type ``storage``.

    Raises SequenceError when they are damaged.
    """
    values = file.read_image(storage)
    # of a damaged file it may give pixels and an error
    if file.has_error or values is None:
        raise SequenceError(f"frame {name} cannot be read: {_complaint(file)}")
    return values


def read_quickly(data: bytes, storage: str, name: str) -> np.ndarray:
    """Give what ``read`` gives of an ordinary PNG, in half the time."""
    try:
        return png.decode(data)
    except ValueError:  # OpenImageIO accepts more, and says better what is wrong
        with opened(data, name) as file:
            return read(file, storage, name)


def written(layers: np.ndarray, spec: oiio.ImageSpec, suffix: str) -> bytes:
    """Give the file of ``layers``, ``(height, width, channels)``, as ``spec`` says; raise OSError when it cannot be."""
    if not spec.get_string_attribute("DateTime"):
        spec.attribute("DateTime", "")  # else the time of writing: the same frame would never give the same bytes
    with _scratch() as folder:
        path = folder / f"frame{suffix}"
        file = oiio.ImageOutput.create(str(path))
        done = file.open(str(path), spec) and file.write_image(np.ascontiguousarray(layers)) and file.close()
        if not done or file.has_error:
            raise OSError(0, _complaint(file))
        return path.read_bytes()


def _seek_picture(file: oiio.ImageInput) -> None:
    """Go to the first part of an EXR that has channels R, G and B; without one, stay at the first."""
    part = 0
    while file.format_name() == "openexr" and not set("rgb") <= {each.lower() for each in file.spec().channelnames}:
        part += 1
        if not file.seek_subimage(part, 0):
            file.seek_subimage(0, 0)
            break


@contextmanager
def _scratch() -> Iterator[Path]:
    """Give a folder for one file, and say where it is when its disk is full."""
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder:
        try:
            yield Path(folder)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), folder) from error


def _complaint(speaker: Any) -> str:
    """Give the first line of what OpenImageIO says is wrong, without the name of its copy."""
    try:
        text = SCRATCH_NAME.sub("", speaker.geterror())
    except UnicodeDecodeError:  # it quotes damaged text
        text = ""
    lines = [line.strip(' :"') for line in text.splitlines() if line.strip(' :"')]
    return lines[0][:200] if lines else "it is damaged"
