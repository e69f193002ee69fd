"""Reading and writing image files with OpenImageIO, with corrections of its errors and messages that name the frame."""

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
from dailies.frames import dpx, format_checks, png
from dailies.frames.channels import INTEGER_DTYPES

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
"""First bytes of a frame's file -> suffix by which OpenImageIO recognises the format; its own suffix is ignored."""

FORMATS = "a PNG, TIFF, EXR, DPX, JPEG, BMP, WebP, TGA, Radiance HDR, JPEG 2000 or Cineon image"

APP2, START_OF_SCAN = 0xE2, 0xDA
"""Markers of JPEG segments."""

COLOUR_MAP = 320
"""Tag of a TIFF's palette: all reds, then all greens, then all blues, as 16-bit values."""

REDUCED_PAGE, MASK_PAGE = 1, 4
"""Bits of a TIFF page's NewSubfileType: it is a smaller copy of another page, or a transparency mask."""

SCRATCH_PREFIX = "dailies-"
SCRATCH_NAME = re.compile(rf'\(?"?[^\s"(]*{SCRATCH_PREFIX}\w+/frame\.\w+"?\)?')
"""Path of the temporary copy that OpenImageIO reads, as quoted in its messages."""

# frames are read in parallel by threads of the caller; a damaged header must not allocate all memory
oiio.attribute("threads", 1)
oiio.attribute("exr_threads", -1)
oiio.attribute("limits:imagesize_MB", 4096)


@contextmanager
def open_image(data: bytes, name: str, *, pixels: bool = True) -> Iterator[oiio.ImageInput]:
    """Open a frame for reading, and close it at the end of the block.

    Any failure of OpenImageIO, also within the block, is raised as a SequenceError that names the frame. Without
    ``pixels``, only the header of a PNG is passed to OpenImageIO.
    """
    suffix = next((suffix for start, suffix in SIGNATURES.items() if data.startswith(start)), None)
    suffix = suffix or format_checks.identify(data)
    if suffix is None or (suffix == ".webp" and data[8:12] != b"WEBP"):
        reason = f"it is not {FORMATS}" if data else "it is empty"
        raise SequenceError("frame.unreadable", f"frame {name} cannot be read: {reason}")
    format_checks.refuse_unsupported(data, suffix, name)
    if suffix == ".png":
        try:
            deque(png.chunks(data), maxlen=0)
        except ValueError as error:
            raise SequenceError("frame.unreadable", f"frame {name} cannot be read: {error}") from error
    if suffix == ".dpx":
        data = dpx.with_corrected_header(data, name)
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)  # otherwise colours are multiplied by alpha
    # the Python binding of OpenImageIO cannot read from memory
    with _scratch_folder() as folder:
        copy = folder / f"frame{suffix}"
        copy.write_bytes(data if pixels else png.head(data))
        file = oiio.ImageInput.open(str(copy), config)
        if file is None:
            raise SequenceError("frame.unreadable", f"frame {name} cannot be read: {_error_text(oiio)}")
        try:
            if file.format_name() == "tiff":
                _seek_main_page(file)
            yield file
        except (RuntimeError, MemoryError, UnicodeDecodeError, ValueError) as error:
            raise SequenceError(
                "frame.unreadable", f"frame {name} cannot be read: {error or type(error).__name__}"
            ) from error
        finally:
            file.close()


def read_channels(file: oiio.ImageInput, data: bytes, storage: str, name: str) -> np.ndarray:
    """Return all channels of an open file, whose bytes are ``data``, as ``(height, width, channels)``.

    ``storage`` is OpenImageIO's name of the value type. Raises SequenceError if the file is damaged.
    """
    return _corrected(_read_image(file, storage, name), file, data, name)


def has_negatives(file: oiio.ImageInput, storage: str, name: str) -> bool:
    """Return whether a file of signed integers holds values below 0."""
    return storage in {"int8", "int16", "int"} and bool((_read_image(file, storage, name) < 0).any())


def is_white_zero(spec: oiio.ImageSpec) -> bool:
    """Return whether 0 is white in a TIFF (PhotometricInterpretation WhiteIsZero)."""
    return spec.get_int_attribute("tiff:PhotometricInterpretation", 1) == 0


def has_more_images(data: bytes) -> bool:
    """Return whether a PNG is animated or a JPEG holds several pictures; OpenImageIO silently opens the first.

    https://www.w3.org/TR/png-3/#apng-frame-based-animation; CIPA DC-007, Multi-Picture Format
    """
    if data.startswith(png.SIGNATURE):
        return any(kind == "acTL" for kind, _ in png.chunks(data))
    return any(content.startswith(b"MPF\0") for marker, content in _segments(data) if marker == APP2)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of the segments of a JPEG before its picture; nothing for another format."""
    place = 2
    while data.startswith(b"\xff\xd8") and data[place : place + 1] == b"\xff":
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == START_OF_SCAN or length < 2:
            break
        yield marker, data[place + 4 : place + 2 + length]
        place += 2 + length


def _read_image(file: oiio.ImageInput, storage: str, name: str) -> np.ndarray:
    values = file.read_image(storage)
    # a damaged file can yield both pixels and an error
    if file.has_error or values is None:
        raise SequenceError("frame.unreadable", f"frame {name} cannot be read: {_error_text(file)}")
    return values


def _corrected(values: np.ndarray, file: oiio.ImageInput, data: bytes, name: str) -> np.ndarray:
    """Return the values of an open file with the errors of OpenImageIO 3.2.2 corrected."""
    kind, spec, stored = file.format_name(), file.spec(), values.dtype
    if str(spec.format) in INTEGER_DTYPES and not spec.channelformats:
        values = _rescaled(values, INTEGER_DTYPES[str(spec.format)])
    if kind == "dpx" and spec.get_int_attribute("oiio:BitsPerSample") == 12:
        values = values & 0xFFF0 | values >> 12  # some whites are read as 0xFFF0
    if is_white_zero(spec) and values.dtype.kind == "u":
        # it inverts only 8-bit values, and then inverts further channels as well
        wrong = values[:, :, 1:] if stored == np.uint8 else values[:, :, :1]
        np.invert(wrong, out=wrong)
    if spec.get_string_attribute("tiff:ColorSpace") == "palette":
        # OpenImageIO reads some colours one code value too dark
        values[:, :, :3] = _palette_colours(data, file.current_subimage(), name)
    return values


def _rescaled(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Scale integers to the range of ``dtype``: the largest becomes the largest, negative values become 0."""
    largest, target = np.iinfo(values.dtype).max, np.iinfo(dtype).max
    return np.rint(np.maximum(values, 0) * (target / largest)).astype(dtype)


def _palette_colours(data: bytes, page: int, name: str) -> np.ndarray:
    """Return the colours, ``(height, width, 3)`` uint8, of a page of a TIFF with a palette, as stored (not rotated)."""
    from PIL import ExifTags, Image

    try:
        image = Image.open(io.BytesIO(data))
        image.seek(page)
        image.getexif()[ExifTags.Base.Orientation] = 1
        if (colours := _byte_palette(image)) is not None:
            return colours[np.asarray(image)]
        return np.asarray(image.convert("RGB"))
    except (OSError, EOFError, ValueError, Image.DecompressionBombError) as error:
        reason = "its palette cannot be applied; convert it to RGB"
        raise SequenceError("frame.unreadable", f"frame {name} cannot be read: {reason}") from error


def _byte_palette(image: Any) -> np.ndarray | None:
    """Return a palette whose 16-bit entries hold 8-bit values, ``(entries, 3)`` uint8; None for any other.

    Some old programs wrote such palettes. Like libtiff, recognise them by entries that are all below 256.
    """
    entries = np.array(image.tag_v2.get(COLOUR_MAP, ()), np.int64)
    if image.mode != "P" or not entries.size or entries.max() > 255 or not entries.max():
        return None
    return entries.reshape(3, -1).T.astype(np.uint8)


def has_byte_palette(data: bytes, page: int) -> bool:
    """Return whether a page of a TIFF has a palette whose 16-bit entries hold 8-bit values."""
    from PIL import Image

    with suppress(OSError, EOFError, ValueError, Image.DecompressionBombError):
        image = Image.open(io.BytesIO(data))
        image.seek(page)
        return _byte_palette(image) is not None
    return False


def read_ordinary_png(data: bytes, storage: str, name: str) -> np.ndarray:
    """Return the result of ``read_channels`` for an ordinary PNG, in half the time; see ``png.is_ordinary``."""
    try:
        return png.decode(data)
    except ValueError:  # OpenImageIO accepts more files, and its error messages are better
        with open_image(data, name) as file:
            return read_channels(file, data, storage, name)


def write_image(layers: np.ndarray, spec: oiio.ImageSpec, suffix: str, *, whole: bool = False) -> bytes:
    """Return an encoded file of ``layers``, ``(height, width, channels)``, in the format of ``suffix`` and ``spec``.

    The file is read back to verify size, channels and the last row, and with ``whole`` all rows. Raises RenderError if
    they differ from ``spec`` and ``layers``, and OSError if the file cannot be written.
    """
    if not spec.get_string_attribute("DateTime"):
        spec.attribute("DateTime", "")  # otherwise the time of writing, which would make the bytes irreproducible
    with _scratch_folder() as folder:
        path = folder / f"frame{suffix}"
        file = oiio.ImageOutput.create(str(path))
        if file is None:
            raise OSError(0, _error_text(oiio))
        done = file.open(str(path), spec) and file.write_image(np.ascontiguousarray(layers)) and file.close()
        if not done or file.has_error:
            raise OSError(0, _error_text(file))
        _verify(path, layers, spec, whole=whole)
        return path.read_bytes()


def _verify(path: Path, layers: np.ndarray, spec: oiio.ImageSpec, *, whole: bool) -> None:
    """Raise RenderError if a file does not hold what it was written from."""
    written = f"the {path.suffix[1:]} file that was written"
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    file = oiio.ImageInput.open(str(path), config)
    if file is None:
        raise RenderError("output.unreadable", f"{written} cannot be read back: {_error_text(oiio)}")
    try:
        found, wanted = _layout(file.spec()), _layout(spec)
        if found != wanted:
            raise RenderError(
                "output.wrong_layout", f"{written} holds {_layout_text(found)} instead of {_layout_text(wanted)}"
            )
        _verify_values(file, layers, spec, start=0 if whole else len(layers) - 1, written=written)
        if file.seek_subimage(0, 1) or file.seek_subimage(1, 0):
            raise RenderError("output.several_pictures", f"{written} holds several pictures instead of one")
    finally:
        file.close()


def _layout(spec: oiio.ImageSpec) -> tuple[tuple[int, ...], dict[str, str]]:
    """Return width, height, x and y of a picture, and the type of each channel by name."""
    formats = spec.channelformats or (spec.format,) * spec.nchannels
    channels = dict(zip(spec.channelnames, map(str, formats), strict=True))
    return (spec.width, spec.height, spec.x, spec.y), dict(sorted(channels.items()))


def _layout_text(contents: tuple[tuple[int, ...], dict[str, str]]) -> str:
    (width, height, *_), channels = contents
    return f"{width}×{height} of " + ", ".join(f"{name} ({kind})" for name, kind in channels.items())


def _verify_values(
    file: oiio.ImageInput, layers: np.ndarray, spec: oiio.ImageSpec, *, start: int, written: str
) -> None:
    """Raise RenderError if the rows of an open file, from row ``start`` on, differ from those of ``layers``."""
    formats = spec.channelformats or (spec.format,) * spec.nchannels
    order, layers, top = file.spec().channelnames, layers[start:], spec.y + start
    storage = "float" if layers.dtype.kind == "f" else str(layers.dtype)
    again = file.read_scanlines(0, 0, top, top + len(layers), 0, 0, spec.nchannels, storage)
    if again is None or file.has_error:
        raise RenderError("output.unreadable", f"{written} cannot be read back: {_error_text(file)}")
    again = again.reshape(layers.shape)
    for index, (name, kind) in enumerate(zip(spec.channelnames, formats, strict=True)):
        plane, found = layers[:, :, index], again[:, :, order.index(name)]
        expected = plane.astype(np.float16).astype(np.float32) if str(kind) == "half" else plane
        wrong = expected != found
        if expected.dtype.kind == "f":
            wrong &= ~(np.isnan(expected) & np.isnan(found))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise RenderError(
                "output.wrong_values",
                f"{written} does not hold the rendered values: channel {name} at x {column}, y {start + row} "
                f"is {found[row, column]} instead of {expected[row, column]}",
            )


def _seek_main_page(file: oiio.ImageInput) -> None:
    """Seek to the largest page of a TIFF that is neither a smaller copy nor a mask; the first of equally large ones."""
    pages: list[tuple[bool, bool, int]] = []
    while file.seek_subimage(len(pages), 0):
        spec = file.spec()
        kind = spec.get_int_attribute("tiff:subfiletype")
        is_mask = bool(kind & MASK_PAGE) or spec.get_int_attribute("tiff:PhotometricInterpretation") == MASK_PAGE
        pages.append((not is_mask, not kind & REDUCED_PAGE, spec.width * spec.height))
    file.geterror()  # discard the error that there is no further page
    file.seek_subimage(pages.index(max(pages)), 0)


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder; an OSError within the block, such as a full disk, names it."""
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX) as folder:
        try:
            yield Path(folder)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), folder) from error


def _error_text(source: Any) -> str:
    """Return the first line of OpenImageIO's error message, without the name of the temporary copy."""
    try:
        text = SCRATCH_NAME.sub("", source.geterror())
    except UnicodeDecodeError:  # the message quotes damaged text
        text = ""
    lines = [line.strip(' :"') for line in text.splitlines() if line.strip(' :"')]
    return lines[0][:200] if lines else "it is damaged"
