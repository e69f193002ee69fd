"""Frames between files and arrays: every common depth, RGB, shape (height, width, 3), no conversion of colour."""

import io
import re
import struct
import tempfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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

DEPTHS = {
    "uint8": np.dtype("uint8"),
    "uint16": np.dtype("uint16"),
    "half": np.dtype("float32"),
    "float": np.dtype("float32"),
    "double": np.dtype("float32"),
}
"""How OpenImageIO calls the values of a file -> how they are handed to a network."""

OUTPUT_DEPTHS = {"png": np.dtype("uint8"), "png16": np.dtype("uint16"), "exr": np.dtype("float32")}
"""The depth that an ``output_format`` asks for; the others keep the frame's own."""

PASSING = ("oiio:", "png:", "jpeg:", "bmp:", "webp:", "tiff:", "openexr:", "ICCProfile:", "Exif:", "GPS:")
"""Metadata that is true of a file and not of the frame in it, by the beginning of its name."""

DROPPED = ("compression", "planarconfig", "Orientation")
"""More of it; an Orientation would turn rendered frames over in some viewers and not in others."""

TIFF_HOLDS = (
    *("ICCProfile", "XResolution", "YResolution", "ResolutionUnit", "PixelAspectRatio"),
    *("DateTime", "Software", "Artist", "Copyright", "ImageDescription", "DocumentName"),
)
"""Metadata that can be written to a TIFF; an EXR holds any."""

SCRATCH = "dailies-"
SCRATCH_NAME = re.compile(rf'\(?"?[^\s"(]*{SCRATCH}\w+/frame\.\w+"?\)?')
"""The name of the copy of a frame that OpenImageIO reads, as it stands in its messages."""

LARGEST_HALF = float(np.finfo(np.float16).max)

# many frames are read at once, and a render has its own count of threads; a bad header must not take all memory
oiio.attribute("threads", 1)
oiio.attribute("exr_threads", -1)
oiio.attribute("limits:imagesize_MB", 4096)


@dataclass(frozen=True)
class Header:
    """What a frame says of itself."""

    width: int
    height: int
    mode: str
    """L, LA, RGB or RGBA."""
    bit_depth: int
    """Bits per channel, as in the file."""
    floating: bool
    """Whether the values are floating-point numbers, which may lie outside 0 to 1."""
    notes: tuple[str, ...] = ()
    """What of the frame is not rendered, in words."""


@dataclass(frozen=True, eq=False)
class Attributes:
    """What a frame's file says beyond its pixels, to be written again."""

    values: tuple[tuple[str, str, Any], ...] = ()
    """Name, type and value as OpenImageIO has them."""
    chunks: tuple[bytes, ...] = ()
    """Of a PNG: the chunks themselves."""
    window: tuple[int, ...] | None = None
    """Of an EXR: x, y, and x, y, width, height of the display window, where they are not the frame's own size."""
    associated: bool = False
    """Whether colours are multiplied by alpha, as in EXR."""
    alpha_type: str = "half"
    """Of an EXR: the type of its alpha."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded frame."""

    pixels: np.ndarray
    """``(height, width, 3)``: uint8, uint16 from 0 to 65535 whatever the bits of the file, or float32."""
    alpha: np.ndarray | None = None
    """``(height, width)``, of the same type."""
    grey: bool = False
    """Whether the file has one channel, which the three of ``pixels`` repeat."""
    attributes: Attributes = Attributes()
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Of an EXR: further channels by name, float16 or float32."""


def inspect(data: bytes, name: str) -> Header:
    """Decode a whole frame to be sure that it can be rendered, and describe it.

    Raises SequenceError, naming the frame, when it cannot be decoded, is truncated or damaged, as far as its format
    lets one see that, or holds what is no colour.
    """
    with _opened(data, name) as file:
        spec = file.spec()
        channels = _channels(spec, name)
        _read(file, _storage(spec), name)
        alpha = "A" if channels.alpha is not None else ""
        depth = data[24] if data.startswith(png.SIGNATURE) else spec.get_int_attribute("oiio:BitsPerSample")
        return Header(
            width=spec.width,
            height=spec.height,
            mode=("L" if len(channels.colour) == 1 else "RGB") + alpha,
            bit_depth=depth or 8 * _narrowest(spec),
            floating=_depth(spec, name).kind == "f",
            notes=tuple(_notes(file, spec, channels)),
        )


def decode(data: bytes, name: str, *, transfer: str | None = "clip") -> Picture:
    """Give a frame with all that has to be written again.

    Values are those of the file: of 8 bits uint8; of 10, 12 and 16 bits uint16, expanded to 0 to 65535; of
    floating-point numbers float32. Of these, ``transfer`` ``clip`` clamps what a network is given to 0 to 1, and NaN
    to 0; ``None`` leaves them as they are. Palettes are expanded, CMYK is converted. Raises SequenceError as
    ``inspect`` does; but of a PNG that ``inspect`` was not asked about, the checksums of the chunks are all it checks.
    """
    quick = png.is_ordinary(data)
    with _opened(data, name, pixels=not quick) as file:
        spec = file.spec()
        channels = _channels(spec, name)
        depth = _depth(spec, name)
        values = _read_quickly(data, _storage(spec), name) if quick else _read(file, _storage(spec), name)
        colour = [values[:, :, index] for index in channels.colour]
        if spec.get_string_attribute("tiff:ColorSpace") == "palette":
            pixels = _pillow(data)
        elif list(channels.colour) == [0, 1, 2]:
            pixels = values[:, :, :3].astype(depth, copy=False)
        else:
            pixels = np.stack(colour if len(colour) == 3 else colour * 3, axis=2).astype(depth, copy=False)
        if depth.kind == "f" and transfer == "clip":
            np.minimum(np.fmax(pixels, 0, out=pixels), 1, out=pixels)  # fmax makes 0 of NaN
        return Picture(
            pixels=pixels,
            alpha=None if channels.alpha is None else values[:, :, channels.alpha].astype(depth, copy=False),
            grey=len(channels.colour) == 1,
            attributes=_attributes(data, file, spec, channels),
            extra={
                spec.channelnames[index]: values[:, :, index].astype(_float_type(spec, index))
                for index in channels.extra
            },
        )


def output_dtype(picture: Picture, output_format: str) -> np.dtype:
    """Give the type of values that a rendered frame is written with: uint8, uint16 or float32."""
    return OUTPUT_DEPTHS.get(output_format, picture.pixels.dtype)


def converted(pixels: np.ndarray, dtype: np.dtype | str) -> np.ndarray:
    """Give values of another depth: integers from 0 to their largest stand for 0 to 1, rounded to the nearest."""
    dtype = np.dtype(dtype)
    if pixels.dtype == dtype:
        return pixels
    if dtype.kind == "f":
        return np.divide(pixels, np.iinfo(pixels.dtype).max, dtype=dtype)
    if pixels.dtype.kind == "f":
        largest = np.iinfo(dtype).max
        return np.rint(np.clip(np.nan_to_num(pixels, nan=0), 0, 1) * np.float32(largest)).astype(dtype)
    if dtype.itemsize > pixels.dtype.itemsize:
        return pixels.astype(dtype) * dtype.type(257)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(dtype)


def encode(pixels: np.ndarray, picture: Picture, output_format: str = "auto", png_compression: str = "fast") -> bytes:
    """Give the file of a rendered frame: lossless, of the depth and with the metadata of ``picture``, its source.

    ``pixels`` is ``(height, width, 3)``, or with a fourth channel that replaces the source's alpha; height and width
    may be a multiple of the source's. Alpha and further channels then repeat their values. A grey source comes back
    grey if all three channels agree. ``output_format``: ``auto`` (PNG of 8 or 16 bits, EXR of half floats), ``png``,
    ``png16``, ``exr``, or ``tiff`` of the source's depth.
    """
    dtype = output_dtype(picture, output_format)
    kind = output_format if output_format in {"exr", "tiff"} else "exr" if dtype.kind == "f" else "png"
    colour, alpha = pixels[:, :, :3], picture.alpha
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3]
    elif alpha is not None:
        alpha = _enlarged(alpha, pixels.shape)
    if kind != "tiff" and alpha is not None and picture.attributes.associated != (kind == "exr"):
        colour = _reassociated(colour, alpha, associate=kind == "exr")
    colour = converted(colour, dtype)
    if picture.grey and (colour == colour[:, :, :1]).all():
        colour = colour[:, :, :1]
    layers = colour if alpha is None else np.dstack([colour, converted(alpha, dtype)])
    if kind == "png":
        carried = _png_chunks(picture.attributes, channels=layers.shape[2])
        return png.encode(layers, compression=png_compression, carried=carried)
    return (_exr if kind == "exr" else _tiff)(layers, picture)


def shown_as_it_is(data: bytes) -> bool:
    """Tell whether a browser shows exactly the values of a file: a PNG of 8 bits that says nothing of its colours."""
    if not data.startswith(png.SIGNATURE) or data[24] > 8:
        return False
    return not any(kind in png.COLOUR for kind, _ in png.chunks(data))


@dataclass(frozen=True)
class _Channels:
    """Which channels of a file are what, by number."""

    colour: tuple[int, ...]
    alpha: int | None
    extra: tuple[int, ...]
    """Those that can be written again."""
    lost: tuple[int, ...]


@contextmanager
def _opened(data: bytes, name: str, *, pixels: bool = True) -> Iterator[oiio.ImageInput]:
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


def _seek_picture(file: oiio.ImageInput) -> None:
    """Go to the first part of an EXR that has channels R, G and B; without one, stay at the first."""
    part = 0
    while file.format_name() == "openexr" and not set("rgb") <= {each.lower() for each in file.spec().channelnames}:
        part += 1
        if not file.seek_subimage(part, 0):
            file.seek_subimage(0, 0)
            break


def _read_quickly(data: bytes, storage: str, name: str) -> np.ndarray:
    """Give what ``_read`` gives of an ordinary PNG, in half the time: the last checksum is not looked at."""
    try:
        return png.decode(data)
    except ValueError:  # OpenImageIO accepts more, and says better what is wrong
        with _opened(data, name) as file:
            return _read(file, storage, name)


def _read(file: oiio.ImageInput, storage: str, name: str) -> np.ndarray:
    """Give all channels of a file as ``(height, width, channels)``."""
    values = file.read_image(storage)
    # of a damaged file it may give pixels and an error
    if file.has_error or values is None:
        raise SequenceError(f"frame {name} cannot be read: {_complaint(file)}")
    return values


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


def _channels(spec: oiio.ImageSpec, name: str) -> _Channels:
    """Find colour and alpha among the channels of a file; an EXR may keep them in a layer, and much else besides."""
    if spec.deep:
        raise SequenceError(f"frame {name} is a deep image; flatten it first")
    names = list(spec.channelnames)
    lower = [each.lower() for each in names]
    if {"ry", "by"} <= set(lower) or spec.get_string_attribute("tiff:ColorSpace") == "CIELAB":
        raise SequenceError(f"frame {name} holds lightness and two colour differences; convert it to RGB first")
    layers = [each[:-1] for each in lower if each.endswith("r") and {each[:-1] + c for c in "gb"} <= set(lower)]
    layers = [layer for layer in layers if not layer or layer.endswith(".")]
    layer = "" if "" in layers else layers[0] if len(layers) == 1 else None
    if layer is not None:
        colour = tuple(lower.index(layer + c) for c in "rgb")
    elif len(names) == 1 or "y" in lower[:1]:
        colour, layer = (0,), ""
    else:
        listed = ", ".join(names[:12])
        raise SequenceError(f"frame {name} has no channels R, G and B that are its picture; its channels: {listed}")
    alpha = lower.index(layer + "a") if layer + "a" in lower else None
    others = [index for index in range(len(names)) if index not in (*colour, alpha)]
    kept = tuple(index for index in others if str(_format(spec, index)) in {"half", "float"})
    return _Channels(colour, alpha, kept, tuple(index for index in others if index not in kept))


def _notes(file: oiio.ImageInput, spec: oiio.ImageSpec, channels: _Channels) -> Iterator[str]:
    if channels.extra:
        listed = ", ".join(spec.channelnames[index] for index in channels.extra)
        yield f"channels {listed} are kept in EXR only"
    if channels.lost:
        yield f"channels {', '.join(spec.channelnames[index] for index in channels.lost)} are not kept"
    if spec.get_int_attribute("Orientation", 1) != 1:
        yield "tagged as turned or mirrored, rendered as stored"
    part = file.current_subimage()
    if part or file.seek_subimage(1, 0):
        yield f"of several images in one file only {f'number {part + 1}' if part else 'the first'} is rendered"


def _format(spec: oiio.ImageSpec, index: int) -> oiio.TypeDesc:
    return spec.channelformats[index] if spec.channelformats else spec.format


def _float_type(spec: oiio.ImageSpec, index: int) -> type[np.floating]:
    return np.float16 if str(_format(spec, index)) == "half" else np.float32


def _narrowest(spec: oiio.ImageSpec) -> int:
    """Bytes of a colour value; ids and depths beside it may be wider."""
    return min(_format(spec, index).basesize() for index in range(spec.nchannels))


def _depth(spec: oiio.ImageSpec, name: str) -> np.dtype:
    kind = str(spec.format) if not spec.channelformats else "float"
    if kind not in DEPTHS:
        raise SequenceError(
            f"frame {name} holds values of type {kind}; allowed are 8 and 16 bits and floating-point numbers"
        )
    return DEPTHS[kind]


def _storage(spec: oiio.ImageSpec) -> str:
    return "float" if spec.channelformats else str(spec.format)


def _attributes(data: bytes, file: oiio.ImageInput, spec: oiio.ImageSpec, channels: _Channels) -> Attributes:
    display = (spec.full_x, spec.full_y, spec.full_width, spec.full_height)
    window = (spec.x, spec.y, *display)
    kind = file.format_name()
    exr = kind == "openexr"
    multiplied = exr or (kind == "tiff" and not spec.get_int_attribute("oiio:UnassociatedAlpha"))
    chunks = png.chunks(data) if data.startswith(png.SIGNATURE) else ()
    return Attributes(
        values=tuple(
            (each.name, str(each.type), _readable(each.value))
            for each in spec.extra_attribs
            if not each.name.startswith(PASSING) and each.name not in DROPPED
        ),
        chunks=tuple(png.chunk(kind, content) for kind, content in chunks if kind in png.CARRIED),
        window=window if exr and window != (0, 0, 0, 0, spec.width, spec.height) else None,
        associated=channels.alpha is not None and multiplied,
        alpha_type="float" if exr and channels.alpha is not None and _is_float(spec, channels.alpha) else "half",
    )


def _readable(value: Any) -> Any:
    """Give a text that is not UTF-8 as the Latin-1 that it most likely is: it could not be written again."""
    if isinstance(value, str) and re.search("[\udc80-\udcff]", value):
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value


def _is_float(spec: oiio.ImageSpec, index: int) -> bool:
    return str(_format(spec, index)) == "float"


def _pillow(data: bytes) -> np.ndarray:
    # OpenImageIO 3.2.2 gives some colours of a TIFF's palette one code value too dark
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _enlarged(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Give a plane of ``shape``'s height and width by repeating values: what is an id or a depth has no mean."""
    if plane.shape == shape[:2]:
        return plane
    rows, columns = (np.arange(new) * old // new for new, old in zip(shape[:2], plane.shape, strict=True))
    return plane[rows[:, None], columns]


def _reassociated(colour: np.ndarray, alpha: np.ndarray, *, associate: bool) -> np.ndarray:
    """Multiply colours by alpha, as EXR has them, or divide them by it, as PNG has them."""
    colour, alpha = converted(colour, "float32"), converted(alpha, "float32")[:, :, None]
    return colour * alpha if associate else np.divide(colour, alpha, out=colour.copy(), where=alpha > 0)


def _png_chunks(attributes: Attributes, channels: int) -> list[bytes]:
    """Give the chunks of a PNG's source, or those that say the same as the metadata of another format."""
    values = {name: value for name, _, value in attributes.values}
    profile = bytes(values.get("ICCProfile", b""))
    fits = _fits(profile, channels)
    if attributes.chunks:
        return [each for each in attributes.chunks if fits or each[4:8] != b"iCCP"]
    found = []
    if fits:
        found.append(png.chunk("iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    if "chromaticities" in values:
        red, green, blue, white = (values["chromaticities"][i : i + 2] for i in range(0, 8, 2))
        points = [round(each * 100_000) for point in (white, red, green, blue) for each in point]
        found.append(png.chunk("cHRM", struct.pack(">8i", *points)))
    if values.get("PixelAspectRatio", 1) not in {0, 1}:
        found.append(png.chunk("pHYs", png.aspect(values["PixelAspectRatio"])))
    if "smpte:TimeCode" in values:
        digits = f"{values['smpte:TimeCode'][0] & 0x3F7F7F3F:08x}"  # what is masked are flags
        time = ":".join(digits[i : i + 2] for i in range(0, 8, 2))
        found.append(png.chunk("tEXt", f"smpte:TimeCode\0{time}".encode("latin-1")))
    return found


def _fits(profile: Any, channels: int) -> bool:
    """Tell whether an ICC profile is for this many channels: one for CMYK or grey is not for RGB."""
    return bytes(profile)[16:20] == (b"GRAY" if channels < 3 else b"RGB ")


def _exr(layers: np.ndarray, picture: Picture) -> bytes:
    """Give an EXR of half floats, with the further channels of its source in their own types."""
    height, width, count = layers.shape
    names = ("Y", "A")[:count] if count < 3 else ("R", "G", "B", "A")[:count]
    formats = [picture.attributes.alpha_type if name == "A" else "half" for name in names]
    extra = {name: plane for name, plane in picture.extra.items() if name not in names}
    formats += ["half" if plane.dtype == np.float16 else "float" for plane in extra.values()]
    if max(layers.max(), -layers.min()) > LARGEST_HALF:
        layers = np.clip(layers, -LARGEST_HALF, LARGEST_HALF)
    if extra:
        planes = [_enlarged(plane, layers.shape)[:, :, None] for plane in extra.values()]
        layers = np.concatenate([layers, *planes], axis=2, dtype=np.float32)
    spec = oiio.ImageSpec(width, height, len(formats), "half")
    spec.channelnames = (*names, *extra)
    if set(formats) != {"half"}:
        spec.channelformats = tuple(oiio.TypeDesc(each) for each in formats)
    if picture.attributes.window:
        scale = width / picture.pixels.shape[1]
        spec.x, spec.y, *display = (round(each * scale) for each in picture.attributes.window)
        spec.full_x, spec.full_y, spec.full_width, spec.full_height = display
    for name, kind, value in picture.attributes.values:
        spec.attribute(name, oiio.TypeDesc(kind), value)
    spec.attribute("compression", "zip:1")
    return _written(layers, spec, ".exr")


def _tiff(layers: np.ndarray, picture: Picture) -> bytes:
    """Give a TIFF of the depth of ``layers``."""
    height, width, count = layers.shape
    spec = oiio.ImageSpec(width, height, count, "float" if layers.dtype.kind == "f" else str(layers.dtype))
    if count in {2, 4}:
        spec.alpha_channel = count - 1
    for name, kind, value in picture.attributes.values:
        if name in TIFF_HOLDS and (name != "ICCProfile" or _fits(value, count)):
            spec.attribute(name, oiio.TypeDesc(kind), value)
    spec.attribute("compression", "zip")
    spec.attribute("tiff:write_exif", 0)  # OpenImageIO 3.2.2 fails to write an empty one
    spec.attribute("oiio:UnassociatedAlpha", int(not picture.attributes.associated))
    return _written(layers, spec, ".tif")


def _written(layers: np.ndarray, spec: oiio.ImageSpec, suffix: str) -> bytes:
    if not spec.get_string_attribute("DateTime"):
        spec.attribute("DateTime", "")  # else the time of writing: the same frame would never give the same bytes
    with _scratch() as folder:
        path = folder / f"frame{suffix}"
        file = oiio.ImageOutput.create(str(path))
        done = file.open(str(path), spec) and file.write_image(np.ascontiguousarray(layers)) and file.close()
        if not done or file.has_error:
            raise OSError(0, _complaint(file))
        return path.read_bytes()
