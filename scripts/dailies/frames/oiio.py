"""The codec: files that OpenImageIO opens, reads and writes, and what it says is wrong, in our words."""

import io
import re
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio  # noqa: N813

from dailies.core.errors import RenderError, SequenceError
from dailies.frames import dpx, png, stills
from dailies.frames.channels import INTEGERS

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

APP2, START_OF_SCAN = 0xE2, 0xDA
"""Markers in a JPEG."""

COLOUR_MAP = 320
"""The tag of a TIFF's palette: all reds, all greens, all blues, of 16 bits each."""

REDUCED, MASK = 1, 4
"""Bits of a TIFF page's NewSubfileType: it is a smaller copy of another page, or says which of its pixels are seen."""

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
        raise SequenceError("frame.unreadable", f"frame {name} cannot be read: {reason}")
    stills.refuse_misread(data, suffix, name)
    if suffix == ".png":
        try:
            deque(png.chunks(data), maxlen=0)
        except ValueError as error:
            raise SequenceError("frame.unreadable", f"frame {name} cannot be read: {error}") from error
    if suffix == ".dpx":
        data = dpx.corrected(data, name)
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)  # without it colours are multiplied by alpha on the way
    # OpenImageIO reads memory in C++ only
    with _scratch() as folder:
        copy = folder / f"frame{suffix}"
        copy.write_bytes(data if pixels else png.head(data))
        file = oiio.ImageInput.open(str(copy), config)
        if file is None:
            raise SequenceError("frame.unreadable", f"frame {name} cannot be read: {_complaint(oiio)}")
        try:
            if file.format_name() == "tiff":
                _seek_whole(file)
            yield file
        except (RuntimeError, MemoryError, UnicodeDecodeError, ValueError) as error:
            raise SequenceError(
                "frame.unreadable", f"frame {name} cannot be read: {error or type(error).__name__}"
            ) from error
        finally:
            file.close()


def read(file: oiio.ImageInput, data: bytes, storage: str, name: str) -> np.ndarray:
    """Give all channels of an open file as ``(height, width, channels)``, of the type ``storage``.

    ``data`` are its bytes. Raises SequenceError when they are damaged.
    """
    return _meant(_raw(file, storage, name), file, data, name)


def has_negatives(file: oiio.ImageInput, storage: str, name: str) -> bool:
    """Tell whether a file of signed integers holds some below 0."""
    return storage in {"int8", "int16", "int"} and bool((_raw(file, storage, name) < 0).any())


def is_white_at_0(spec: oiio.ImageSpec) -> bool:
    """Tell whether 0 is white in a TIFF."""
    return spec.get_int_attribute("tiff:PhotometricInterpretation", 1) == 0


def further_pictures(data: bytes) -> bool:
    """Tell whether a PNG is animated, or a JPEG holds several pictures: OpenImageIO opens the first and does not say.

    https://www.w3.org/TR/png-3/#apng-frame-based-animation; CIPA DC-007, Multi-Picture Format
    """
    if data.startswith(png.SIGNATURE):
        return any(kind == "acTL" for kind, _ in png.chunks(data))
    return any(content.startswith(b"MPF\0") for marker, content in _segments(data) if marker == APP2)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of the segments of a JPEG before its picture; none of another format."""
    place = 2
    while data.startswith(b"\xff\xd8") and data[place : place + 1] == b"\xff":
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == START_OF_SCAN or length < 2:
            break
        yield marker, data[place + 4 : place + 2 + length]
        place += 2 + length


def _raw(file: oiio.ImageInput, storage: str, name: str) -> np.ndarray:
    values = file.read_image(storage)
    # of a damaged file it may give pixels and an error
    if file.has_error or values is None:
        raise SequenceError("frame.unreadable", f"frame {name} cannot be read: {_complaint(file)}")
    return values


def _meant(values: np.ndarray, file: oiio.ImageInput, data: bytes, name: str) -> np.ndarray:
    """Give what a file stands for, where OpenImageIO 3.2.2 gives something else."""
    kind, spec, stored = file.format_name(), file.spec(), values.dtype
    if str(spec.format) in INTEGERS and not spec.channelformats:
        values = _scaled(values, INTEGERS[str(spec.format)])
    if kind == "dpx" and spec.get_int_attribute("oiio:BitsPerSample") == 12:
        values = values & 0xFFF0 | values >> 12  # some whites come as 0xFFF0
    if is_white_at_0(spec) and values.dtype.kind == "u":
        # it knows that of 8 bits only, and takes what lies beside the picture for white at 0, too
        wrong = values[:, :, 1:] if stored == np.uint8 else values[:, :, :1]
        np.invert(wrong, out=wrong)
    if spec.get_string_attribute("tiff:ColorSpace") == "palette":
        values[:, :, :3] = _in_colours(
            data, file.current_subimage(), name
        )  # some of its own are one code value too dark
    return values


def _scaled(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return integers of any type in all of the range of ``dtype``: their largest becomes its largest, negatives 0."""
    largest, target = np.iinfo(values.dtype).max, np.iinfo(dtype).max
    return np.rint(np.maximum(values, 0) * (target / largest)).astype(dtype)


def _in_colours(data: bytes, page: int, name: str) -> np.ndarray:
    """Return the colours of a page of a TIFF with a palette, not turned as it may be tagged."""
    from PIL import ExifTags, Image

    try:
        image = Image.open(io.BytesIO(data))
        image.seek(page)
        image.getexif()[ExifTags.Base.Orientation] = 1
        if (colours := _bytes_palette(image)) is not None:
            return colours[np.asarray(image)]
        return np.asarray(image.convert("RGB"))
    except (OSError, EOFError, ValueError, Image.DecompressionBombError) as error:
        reason = "its colours cannot be looked up in its palette; convert it to RGB first"
        raise SequenceError("frame.unreadable", f"frame {name} cannot be read: {reason}") from error


def _bytes_palette(image: Any) -> np.ndarray | None:
    """Return a palette that was written as bytes into its 16-bit entries, ``(entries, 3)``; None for any other.

    libtiff takes one for that whose entries are all below 256, as some old programs wrote it.
    """
    entries = np.array(image.tag_v2.get(COLOUR_MAP, ()), np.int64)
    if image.mode != "P" or not entries.size or entries.max() > 255 or not entries.max():
        return None
    return entries.reshape(3, -1).T.astype(np.uint8)


def has_bytes_palette(data: bytes, page: int) -> bool:
    """Tell whether a page of a TIFF has a palette of bytes in 16-bit entries."""
    from PIL import Image

    with suppress(OSError, EOFError, ValueError, Image.DecompressionBombError):
        image = Image.open(io.BytesIO(data))
        image.seek(page)
        return _bytes_palette(image) is not None
    return False


def read_quickly(data: bytes, storage: str, name: str) -> np.ndarray:
    """Give what ``read`` gives of an ordinary PNG, in half the time."""
    try:
        return png.decode(data)
    except ValueError:  # OpenImageIO accepts more, and says better what is wrong
        with opened(data, name) as file:
            return read(file, data, storage, name)


def written(layers: np.ndarray, spec: oiio.ImageSpec, suffix: str, *, whole: bool = False) -> bytes:
    """Return the file of ``layers``, ``(height, width, channels)``, as ``spec`` says.

    The file is opened again: its size and its channels must be those of ``spec``, its last row that of ``layers``, and
    with ``whole`` all of them. Raises RenderError when they are not, OSError when the file cannot be written.
    """
    if not spec.get_string_attribute("DateTime"):
        spec.attribute("DateTime", "")  # else the time of writing: the same frame would never give the same bytes
    with _scratch() as folder:
        path = folder / f"frame{suffix}"
        file = oiio.ImageOutput.create(str(path))
        done = file.open(str(path), spec) and file.write_image(np.ascontiguousarray(layers)) and file.close()
        if not done or file.has_error:
            raise OSError(0, _complaint(file))
        _verify(path, layers, spec, whole=whole)
        return path.read_bytes()


def _verify(path: Path, layers: np.ndarray, spec: oiio.ImageSpec, *, whole: bool) -> None:
    """Raise RenderError where a file does not hold what it was written from."""
    written = f"the {path.suffix[1:]} file that was written"
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    file = oiio.ImageInput.open(str(path), config)
    if file is None:
        raise RenderError("output.unreadable", f"{written} cannot be read back: {_complaint(oiio)}")
    try:
        found, wanted = _contents(file.spec()), _contents(spec)
        if found != wanted:
            raise RenderError(
                "output.wrong_layout", f"{written} holds {_in_words(found)} instead of {_in_words(wanted)}"
            )
        _verify_values(file, layers, spec, start=0 if whole else len(layers) - 1, written=written)
        if file.seek_subimage(0, 1) or file.seek_subimage(1, 0):
            raise RenderError("output.several_pictures", f"{written} holds several pictures instead of one")
    finally:
        file.close()


def _contents(spec: oiio.ImageSpec) -> tuple[tuple[int, ...], dict[str, str]]:
    """Return width and height of a picture, where it lies, and the type of each channel by name."""
    formats = spec.channelformats or (spec.format,) * spec.nchannels
    channels = dict(zip(spec.channelnames, map(str, formats), strict=True))
    return (spec.width, spec.height, spec.x, spec.y), dict(sorted(channels.items()))


def _in_words(contents: tuple[tuple[int, ...], dict[str, str]]) -> str:
    (width, height, *_), channels = contents
    return f"{width}×{height} of " + ", ".join(f"{name} ({kind})" for name, kind in channels.items())


def _verify_values(
    file: oiio.ImageInput, layers: np.ndarray, spec: oiio.ImageSpec, *, start: int, written: str
) -> None:
    """Raise RenderError where the rows of an open file from ``start`` on are not those of ``layers``."""
    formats = spec.channelformats or (spec.format,) * spec.nchannels
    order, layers, top = file.spec().channelnames, layers[start:], spec.y + start
    storage = "float" if layers.dtype.kind == "f" else str(layers.dtype)
    again = file.read_scanlines(0, 0, top, top + len(layers), 0, 0, spec.nchannels, storage)
    if again is None or file.has_error:
        raise RenderError("output.unreadable", f"{written} cannot be read back: {_complaint(file)}")
    again = again.reshape(layers.shape)
    for index, (name, kind) in enumerate(zip(spec.channelnames, formats, strict=True)):
        plane, found = layers[:, :, index], again[:, :, order.index(name)]
        meant = plane.astype(np.float16).astype(np.float32) if str(kind) == "half" else plane
        wrong = meant != found
        if meant.dtype.kind == "f":
            wrong &= ~(np.isnan(meant) & np.isnan(found))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise RenderError(
                "output.wrong_values",
                f"{written} does not hold the values that were rendered: channel {name} "
                f"is {found[row, column]} and not {meant[row, column]} at {column}, {start + row}",
            )


def _seek_whole(file: oiio.ImageInput) -> None:
    """Go to the largest page of a TIFF that is no smaller copy and no mask, to the first of several as large."""
    pages = []
    while file.seek_subimage(len(pages), 0):
        spec = file.spec()
        kind = spec.get_int_attribute("tiff:subfiletype")
        is_mask = bool(kind & MASK) or spec.get_int_attribute("tiff:PhotometricInterpretation") == MASK
        pages.append((not is_mask, not kind & REDUCED, spec.width * spec.height))
    file.geterror()  # that there is no further page
    file.seek_subimage(pages.index(max(pages)), 0)


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
