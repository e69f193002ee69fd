"""Frames between files and arrays: every common depth, RGB, shape (height, width, 3), no conversion of colour."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import OpenImageIO as oiio  # noqa: N813

from dailies.core.errors import RenderError, SequenceError
from dailies.frames import (
    bmp,
    dpx,
    png,
)
from dailies.frames import (
    oiio as codec,
)
from dailies.frames.attributes import (
    Attributes,
    attributes_of,
    density,
    exr_attributes,
    png_chunks,
    tiff_attributes,
)
from dailies.frames.channels import (
    PLAIN,
    Channels,
    depth_of,
    find_channels,
    float_type,
    narrowest,
    storage_of,
)
from dailies.frames.plain import Plain

if TYPE_CHECKING:
    import numpy as np


OUTPUT_DEPTHS = {"png": np.dtype("uint8"), "png16": np.dtype("uint16"), "exr": np.dtype("float32")}
"""The depth that an ``output_format`` asks for; the others keep the frame's own."""

FLOATS = {"half", "float", "double"}
"""How OpenImageIO calls floating-point numbers."""

LARGEST_HALF = float(np.finfo(np.float16).max)


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
    revision: str = ""
    """What was changed about reading such a file since frames were first rendered from it: part of a frame's key."""
    layer: str = ""
    """Of an EXR: which of its layers it is; empty where that is the one that is taken without asking."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded frame."""

    pixels: np.ndarray
    """``(height, width, 3)``: uint8, uint16 from 0 to 65535 whatever the bits of the file, or float32."""
    alpha: np.ndarray | None = None
    """``(height, width)``, of the same type."""
    grey: bool = False
    """Whether the file has one channel, which the three of ``pixels`` repeat."""
    attributes: Attributes = field(default_factory=Attributes)
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Of an EXR: further channels by name, float16 or float32."""


def inspect(data: bytes, name: str, *, layer: str | None = None) -> Header:
    """Decode a whole frame to be sure that it can be rendered, and describe it.

    ``layer`` names the layer of an EXR that is its picture, or is a glob, as ``channels.find_channels`` takes it.
    Raises SequenceError, naming the frame, when it cannot be decoded, is truncated or damaged, as far as its format
    lets one see that, or holds what is no colour.
    """
    if plain := _plain(data, name, layer):
        height, width = plain.values.shape[:2]
        return Header(width, height, plain.mode, plain.bits, floating=False, notes=plain.notes, revision=plain.revision)
    with codec.opened(data, name) as file:
        channels = find_channels(file, name, layer)
        spec = file.spec()
        depth = depth_of(spec, channels, name)
        codec.read(file, data, storage_of(spec), name)
        revision = _revision(file, data, spec)
        alpha = "A" if channels.alpha is not None else ""
        bits = data[24] if data.startswith(png.SIGNATURE) else spec.get_int_attribute("oiio:BitsPerSample")
        return Header(
            width=spec.width,
            height=spec.height,
            mode=("L" if len(channels.colour) == 1 else "RGB") + alpha,
            bit_depth=bits or 8 * narrowest(spec, channels),
            floating=depth.kind == "f",
            notes=tuple(_notes(file, data, spec, channels, name)),
            revision=revision,
            layer=channels.layer,
        )


def has_layer(data: bytes, name: str, layer: str) -> bool:
    """Tell whether a file holds a layer of that name, or that a glob is true of."""
    try:
        with codec.opened(data, name) as file:
            find_channels(file, name, layer)
    except SequenceError:
        return False
    return True


def decode(data: bytes, name: str, *, transfer: str | None = "clip", layer: str | None = None) -> Picture:
    """Give a frame with all that has to be written again; ``layer`` is what ``inspect`` is given, or has found.

    Values are those of the file: of 8 bits uint8; of 10, 12 and 16 bits uint16, expanded to 0 to 65535; of
    floating-point numbers float32. Of these, ``transfer`` ``clip`` clamps what a network is given to 0 to 1, and NaN
    to 0; ``None`` leaves them as they are. Palettes are expanded, CMYK is converted. Raises SequenceError as
    ``inspect`` does.
    """
    if plain := _plain(data, name, layer):
        return _picture_of(plain, data, name)
    quick = png.is_ordinary(data)
    with codec.opened(data, name, pixels=not quick) as file:
        channels = find_channels(file, name, layer)
        spec = file.spec()
        depth = depth_of(spec, channels, name)
        storage = storage_of(spec)
        values = codec.read_quickly(data, storage, name) if quick else codec.read(file, data, storage, name)
        colour = [values[:, :, index] for index in channels.colour]
        if list(channels.colour) == [0, 1, 2]:
            pixels = values[:, :, :3].astype(depth, copy=False)
        else:
            pixels = np.stack(colour if len(colour) == 3 else colour * 3, axis=2).astype(depth, copy=False)
        if depth.kind == "f" and transfer == "clip":
            np.minimum(np.fmax(pixels, 0, out=pixels), 1, out=pixels)  # fmax makes 0 of NaN
        return Picture(
            pixels=pixels,
            alpha=None if channels.alpha is None else values[:, :, channels.alpha].astype(depth, copy=False),
            grey=len(channels.colour) == 1,
            attributes=attributes_of(data, file, spec, channels),
            extra={
                spec.channelnames[index]: values[:, :, index].astype(float_type(spec, index))
                for index in channels.extra
            },
        )


def _plain(data: bytes, name: str, layer: str | None) -> Plain | None:
    """Return the picture of a kind that is read without OpenImageIO; None for the others. It has no layers."""
    reader = bmp.read if data.startswith(b"BM") else dpx.read if data.startswith((b"SDPX", b"XPDS")) else None
    picture = reader(data, name) if reader else None
    if picture and layer and not fnmatchcase(PLAIN, layer.casefold()):
        raise SequenceError(
            "frame.no_layer",
            f"frame {name} has no layer '{layer}'; its layers: {PLAIN}. Set layer to one of them or to none",
        )
    return picture


def _picture_of(plain: Plain, data: bytes, name: str) -> Picture:
    colours = plain.values[:, :, : plain.values.shape[2] - plain.has_alpha]
    return Picture(
        pixels=np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3))),
        alpha=plain.values[:, :, -1] if plain.has_alpha else None,
        grey=colours.shape[2] == 1,
        attributes=_attributes_of_plain(data, name),
    )


def _attributes_of_plain(data: bytes, name: str) -> Attributes:
    """Return what the header says of a picture that is read without OpenImageIO, which may not even open it."""
    if data.startswith(b"BM"):
        return density(*bmp.layout_of(data, name).resolution)
    try:
        with codec.opened(data, name) as file:
            return attributes_of(data, file, file.spec(), Channels((0,), None, (), ()))
    except SequenceError:
        return Attributes()


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


def encode(pixels: np.ndarray, picture: Picture, output_format: str = "auto", *, whole: bool = False) -> bytes:
    """Give the file of a rendered frame: lossless, of the depth and with the metadata of ``picture``, its source.

    ``pixels`` is ``(height, width, 3)``, or with a fourth channel that replaces the source's alpha; height and width
    may be a multiple of the source's. Alpha and further channels then repeat their values. A grey source comes back
    grey if all three channels agree. ``output_format``: ``auto`` (PNG of 8 or 16 bits, EXR of half floats), ``png``,
    ``png16``, ``exr``, or ``tiff`` of the source's depth.

    The header of the file is read again, of an EXR or TIFF its last row, too, and with ``whole`` all of it. Raises
    RenderError where it does not hold what was to be written.
    """
    dtype = output_dtype(picture, output_format)
    kind = output_format if output_format in {"exr", "tiff"} else "exr" if dtype.kind == "f" else "png"
    colour, alpha = pixels[:, :, :3], picture.alpha
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3]
    elif alpha is not None:
        alpha = _enlarged(alpha, pixels.shape)
    if kind != "tiff" and alpha is not None and picture.attributes.associated != (kind == "exr"):
        colour = reassociated(colour, alpha, associate=kind == "exr")
    colour = converted(colour, dtype)
    if picture.grey and (colour == colour[:, :, :1]).all():
        colour = colour[:, :, :1]
    layers = colour if alpha is None else np.dstack([colour, converted(alpha, dtype)])
    if kind == "png":
        data = png.encode(layers, carried=png_chunks(picture.attributes, channels=layers.shape[2]))
        _verify_png(data, layers)
        return data
    return (_exr if kind == "exr" else _tiff)(layers, picture, whole=whole)


def _verify_png(data: bytes, layers: np.ndarray) -> None:
    """Raise RenderError where a PNG does not say that it holds ``layers``, or has no end."""
    height, width, channels = layers.shape
    wanted = (width, height, 8 * layers.dtype.itemsize, png.COLOUR_TYPES[channels])
    found = struct.unpack_from(">IIBB", data, 16) if data.startswith(png.SIGNATURE) and len(data) > 26 else None
    if found != wanted or not data.endswith(png.chunk("IEND")):
        raise RenderError(
            "output.wrong_layout",
            f"the png file that was written holds {found} instead of {wanted} (width, height, bits, colour type)",
        )


def shown_as_it_is(data: bytes) -> bool:
    """Tell whether a browser shows exactly the values of a file.

    It is a PNG of 8 bits without alpha, which would mix it with what is behind, that says nothing of its colours, is
    not animated and not tagged as turned.
    """
    if not data.startswith(png.SIGNATURE) or data[24] > 8 or data[25] in png.SEE_THROUGH:
        return False
    return not any(kind in {*png.COLOUR, "tRNS", "acTL", "eXIf"} for kind, _ in png.chunks(data))


def _revision(file: oiio.ImageInput, data: bytes, spec: oiio.ImageSpec) -> str:
    """Return what was changed about reading or writing such a frame since frames were first rendered from it."""
    kind = file.format_name()
    if kind == "dpx":
        return dpx.revision(data)
    if kind == "tiff" and file.current_subimage():
        return "page"
    if kind == "tiff" and spec.nchannels > 1 and codec.is_white_at_0(spec) and spec.format == oiio.UINT8:
        return "alpha"
    is_palette = kind == "tiff" and spec.get_string_attribute("tiff:ColorSpace") == "palette"
    if is_palette and codec.has_bytes_palette(data, file.current_subimage()):
        return "palette"
    # was written to EXRs, which nobody could read
    return "texture" if kind == "openexr" and spec.get_string_attribute("textureformat") else ""


def _notes(file: oiio.ImageInput, data: bytes, spec: oiio.ImageSpec, channels: Channels, name: str) -> Iterator[str]:
    if channels.note:
        yield channels.note
    if channels.extra:
        listed = ", ".join(spec.channelnames[index] for index in channels.extra)
        yield f"channels {listed} are kept in EXR only"
    if channels.lost:
        yield f"channels {', '.join(spec.channelnames[index] for index in channels.lost)} are not kept"
    if spec.get_int_attribute("Orientation", 1) != 1:
        yield "tagged as turned or mirrored, rendered as stored"
    if codec.has_negatives(file, storage_of(spec), name):
        yield "values below 0 are black"
    kind, part = file.format_name(), file.current_subimage()
    if codec.is_white_at_0(spec) and str(spec.format) in FLOATS:
        yield "tagged as white where it is 0, which is done for integers only"
    if part or file.seek_subimage(1, 0) or codec.further_pictures(data):
        which = f"number {part + 1}{', the largest,' * (kind == 'tiff')}" if part else "the first"
        yield f"of several images in one file only {which} is rendered"


def _enlarged(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Give a plane of ``shape``'s height and width by repeating values: what is an id or a depth has no mean."""
    if plane.shape == shape[:2]:
        return plane
    rows, columns = (np.arange(new) * old // new for new, old in zip(shape[:2], plane.shape, strict=True))
    return plane[rows[:, None], columns]


def reassociated(colour: np.ndarray, alpha: np.ndarray, *, associate: bool) -> np.ndarray:
    """Multiply colours by alpha, as EXR has them, or divide them by it, as PNG has them."""
    colour, alpha = converted(colour, "float32"), converted(alpha, "float32")[:, :, None]
    return colour * alpha if associate else np.divide(colour, alpha, out=colour.copy(), where=alpha > 0)


def _exr(layers: np.ndarray, picture: Picture, *, whole: bool) -> bytes:
    """Give an EXR of half floats, with the further channels of its source in their own types."""
    height, width, count = layers.shape
    names = ("Y", "A")[:count] if count < 3 else ("R", "G", "B", "A")[:count]
    formats = [picture.attributes.alpha_type if name == "A" else "half" for name in names]
    extra = {name: plane for name, plane in picture.extra.items() if name not in names}
    formats += ["half" if plane.dtype == np.float16 else "float" for plane in extra.values()]
    if not max(layers.max(), -layers.min()) <= LARGEST_HALF:  # nor where one of them is no number
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
    for name, kind, value in exr_attributes(picture.attributes):
        spec.attribute(name, kind, value)
    spec.attribute("compression", "zip:1")
    return codec.written(layers, spec, ".exr", whole=whole)


def _tiff(layers: np.ndarray, picture: Picture, *, whole: bool) -> bytes:
    """Give a TIFF of the depth of ``layers``."""
    height, width, count = layers.shape
    spec = oiio.ImageSpec(width, height, count, "float" if layers.dtype.kind == "f" else str(layers.dtype))
    spec.channelnames = ("Y", "A") if count == 2 else spec.channelnames
    if count in {2, 4}:
        spec.alpha_channel = count - 1
    for name, kind, value in tiff_attributes(picture.attributes, count):
        spec.attribute(name, kind, value)
    spec.attribute("compression", "zip")
    spec.attribute("tiff:write_exif", 0)  # OpenImageIO 3.2.2 fails to write an empty one
    spec.attribute("oiio:UnassociatedAlpha", int(not picture.attributes.associated))
    return codec.written(layers, spec, ".tif", whole=whole)


def read_frame(path: Path, layer: str | None = None, *, transfer: str | None) -> "Picture":
    """Read a frame as float32 from 0 to 1: integers over their largest, floating-point numbers as ``transfer`` says.

    ``layer`` is the one of an EXR that is its picture.
    """

    picture = decode(path.read_bytes(), path.name, transfer=transfer, layer=layer)
    return replace(picture, pixels=converted(picture.pixels, "float32"), extra={})
