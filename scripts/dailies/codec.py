"""The codec: files that OpenImageIO opens, reads and writes, and what it says is wrong, in our words."""

import io
import re
import struct
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio  # noqa: N813

from dailies import png, stills
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

FORMATS = "a PNG, TIFF, EXR, DPX, JPEG, BMP, WebP, TGA, Radiance HDR, JPEG 2000 or Cineon image"

DPX_HEADER = 2048
"""Bytes of it."""

DPX_COLOURS = {50: 3, 51: 4, 52: 4}
"""What a DPX calls its channels -> how many they are, where they are not one."""

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
    suffix = suffix or stills.suffix_of(data)
    if suffix is None or (suffix == ".webp" and data[8:12] != b"WEBP"):
        reason = f"it is not {FORMATS}" if data else "it is empty"
        raise SequenceError(f"frame {name} cannot be read: {reason}")
    stills.refuse_misread(data, suffix, name)
    if suffix == ".png":
        try:
            deque(png.chunks(data), maxlen=0)
        except ValueError as error:
            raise SequenceError(f"frame {name} cannot be read: {error}") from error
    if suffix == ".dpx":
        data = _with_padding_told(data)
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


def read(file: oiio.ImageInput, data: bytes, storage: str, name: str) -> np.ndarray:
    """Give all channels of an open file as ``(height, width, channels)``, of the type ``storage``.

    ``data`` are its bytes. Raises SequenceError when they are damaged.
    """
    values = file.read_image(storage)
    # of a damaged file it may give pixels and an error
    if file.has_error or values is None:
        raise SequenceError(f"frame {name} cannot be read: {_complaint(file)}")
    return _meant(values, file, data, name)


def _meant(values: np.ndarray, file: oiio.ImageInput, data: bytes, name: str) -> np.ndarray:
    """Give what a file stands for, where OpenImageIO 3.2.2 gives something else."""
    kind, spec = file.format_name(), file.spec()
    if kind == "bmp" and spec.nchannels == 4 and not values[:, :, 3].any():
        values[:, :, 3] = 255  # a fourth byte that is not used, and no alpha
    if kind == "dpx" and spec.get_int_attribute("oiio:BitsPerSample") == 12:
        values = values & 0xFFF0 | values >> 12  # some whites come as 0xFFF0
    if spec.get_int_attribute("tiff:PhotometricInterpretation", 1) == 0 and values.dtype == np.uint16:
        values[:, :, 0] = ~values[:, :, 0]  # 0 is white, which it knows of 8 bits only
    if spec.get_string_attribute("tiff:ColorSpace") == "palette":
        values[:, :, :3] = _in_colours(data, name)  # some of its own are one code value too dark
    return values


def _in_colours(data: bytes, name: str) -> np.ndarray:
    """Give the colours of a TIFF with a palette, not turned as it may be tagged."""
    from PIL import ExifTags, Image

    try:
        image = Image.open(io.BytesIO(data))
        image.getexif()[ExifTags.Base.Orientation] = 1
        return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        reason = "its colours cannot be looked up in its palette; convert it to RGB first"
        raise SequenceError(f"frame {name} cannot be read: {reason}") from error


def _with_padding_told(data: bytes) -> bytes:
    """Give a DPX whose header says that its rows are padded to 4 bytes where they are: FFmpeg does not say it."""
    if len(data) < DPX_HEADER:
        return data
    order = ">" if data.startswith(b"SDPX") else "<"
    (start,), (width, height) = struct.unpack_from(f"{order}I", data, 4), struct.unpack_from(f"{order}2I", data, 772)
    colours, bits = DPX_COLOURS.get(data[800], 1), data[803]
    row = width * colours * (1 if bits == 8 else 2)
    if bits == 10 or not row % 4 or len(data) - start != (row + -row % 4) * height:
        return data
    return data[:812] + struct.pack(f"{order}I", -row % 4) + data[816:]


def read_quickly(data: bytes, storage: str, name: str) -> np.ndarray:
    """Give what ``read`` gives of an ordinary PNG, in half the time."""
    try:
        return png.decode(data)
    except ValueError:  # OpenImageIO accepts more, and says better what is wrong
        with opened(data, name) as file:
            return read(file, data, storage, name)


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
