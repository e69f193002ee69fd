"""Decode the file of a frame to an RGB array and encode it, at every common depth and without colour conversion."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813

from dailies.core.errors import RenderError, SequenceError
from dailies.frames import bmp, dpx, frame_cache, png
from dailies.frames.attributes import (
    Attributes,
    exr_attributes,
    png_chunks,
    read_attributes,
    resolution_attributes,
    tiff_attributes,
)
from dailies.frames.channels import (
    UNNAMED_LAYER,
    Channels,
    dtype_of,
    float_dtype,
    sample_bytes,
    select_channels,
    storage_type,
)
from dailies.frames.oiio import (
    has_byte_palette,
    has_more_images,
    has_negatives,
    is_white_zero,
    open_image,
    read_channels,
    read_ordinary_png,
    write_image,
)
from dailies.frames.raster import Raster

OUTPUT_DTYPES: dict[str, np.dtype] = {"png": np.dtype("uint8"), "png16": np.dtype("uint16"), "exr": np.dtype("float32")}
"""``output_format`` -> dtype of the written values; other formats keep the dtype of the frame."""

FLOATS = {"half", "float", "double"}
"""OpenImageIO's names of floating-point types."""

LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Header:
    """Description of a frame's file."""

    width: int
    height: int
    mode: str
    """L, LA, RGB or RGBA."""
    bit_depth: int
    """Bits per channel, as in the file."""
    floating: bool
    """Whether the values are floating-point numbers, which may lie outside 0 to 1."""
    notes: tuple[str, ...] = ()
    """Remarks for the user, such as what of the frame is not rendered."""
    revision: str = ""
    """Part of a frame's key: names the change since the first release in how such a file is read; empty if none."""
    layer: str = ""
    """EXR only: the layer that is rendered; empty if it is the default one."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded frame."""

    pixels: np.ndarray
    """``(height, width, 3)``: uint8, uint16 that fills 0 to 65535 whatever the bits of the file, or float32."""
    alpha: np.ndarray | None = None
    """``(height, width)``, of the same dtype."""
    grey: bool = False
    """Whether the file has one channel, which all three channels of ``pixels`` repeat."""
    attributes: Attributes = field(default_factory=Attributes)
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    """EXR only: further channels by name, ``(height, width)``, float16 or float32."""
    is_finite: bool = True
    """False if ``read_frame`` found pixels that are infinite or NaN, which ``transfer: none`` lets through."""


def inspect(data: bytes, name: str, *, layer: str | None = None, digest: str | None = None) -> Header:
    """Decode a whole frame to make sure that it can be rendered, and return its description.

    ``layer`` is the name of the layer of an EXR that is its picture, or a glob; see ``channels.select_channels``.
    If there is a ``digest``, the values are added to the frame cache. Raises SequenceError, naming the frame, if it
    cannot be decoded, if it is truncated or damaged (as far as its format reveals that), or if it holds no colour.
    """
    if plain := _read_raster(data, name, layer):
        height, width = plain.values.shape[:2]
        return Header(width, height, plain.mode, plain.bits, floating=False, notes=plain.notes, revision=plain.revision)
    quick = png.is_ordinary(data)
    with open_image(data, name, pixels=not quick) as file:
        channels = select_channels(file, name, layer)
        spec = file.spec()
        depth = dtype_of(spec, channels, name)
        _values(file, data, spec, name, digest=digest)
        revision = _revision(file, data, spec)
        alpha = "A" if channels.alpha is not None else ""
        bits = data[24] if data.startswith(png.SIGNATURE) else spec.get_int_attribute("oiio:BitsPerSample")
        return Header(
            width=spec.width,
            height=spec.height,
            mode=("L" if len(channels.colour) == 1 else "RGB") + alpha,
            bit_depth=bits or 8 * sample_bytes(spec, channels),
            floating=depth.kind == "f",
            notes=tuple(_notes(file, data, spec, channels, name)),
            revision=revision,
            layer=channels.layer,
        )


def has_layer(data: bytes, name: str, layer: str) -> bool:
    """Return whether a file holds a layer that the name or glob ``layer`` matches."""
    try:
        with open_image(data, name) as file:
            select_channels(file, name, layer)
    except SequenceError:
        return False
    return True


def decode(
    data: bytes,
    name: str,
    *,
    transfer: str | None = "clip",
    layer: str | None = None,
    digest: str | None = None,
    owner: str = frame_cache.INPUTS,
) -> Picture:
    """Return a frame with everything that is copied to the rendered frame.

    Values are those of the file: uint8 for 8 bits; uint16, expanded to 0 to 65535, for 10, 12 and 16 bits; float32 for
    floating-point numbers. With ``transfer`` ``clip``, floating-point colours are clamped to 0 to 1 and NaN becomes 0;
    with ``None`` they stay as they are. Palettes are expanded and CMYK is converted. ``layer`` is the argument of
    ``inspect``, or the layer in its result. ``digest`` and ``owner`` identify the frame in the cache; see
    ``frame_cache.cached``. Raises SequenceError as ``inspect`` does.
    """
    if plain := _read_raster(data, name, layer):
        return _raster_picture(plain, data, name)
    quick = png.is_ordinary(data)
    with open_image(data, name, pixels=not quick) as file:
        channels = select_channels(file, name, layer)
        spec = file.spec()
        depth = dtype_of(spec, channels, name)
        values = _values(file, data, spec, name, digest=digest, owner=owner)
        colour = [values[:, :, index] for index in channels.colour]
        if list(channels.colour) == [0, 1, 2]:
            pixels = values[:, :, :3].astype(depth, copy=False)
        else:
            pixels = np.stack(colour if len(colour) == 3 else colour * 3, axis=2).astype(depth, copy=False)
        if depth.kind == "f" and transfer == "clip":
            np.minimum(np.fmax(pixels, 0, out=pixels), 1, out=pixels)  # fmax turns NaN into 0
        return Picture(
            pixels=pixels,
            alpha=None if channels.alpha is None else values[:, :, channels.alpha].astype(depth, copy=False),
            grey=len(channels.colour) == 1,
            attributes=read_attributes(data, file, spec, channels),
            extra={
                spec.channelnames[index]: values[:, :, index].astype(float_dtype(spec, index))
                for index in channels.extra
            },
        )


def _values(
    file: oiio.ImageInput,
    data: bytes,
    spec: oiio.ImageSpec,
    name: str,
    *,
    digest: str | None,
    owner: str = frame_cache.INPUTS,
) -> np.ndarray:
    """Return all channels of an open file; of an ordinary PNG, only the header has to be open."""
    read = partial(read_ordinary_png, data) if png.is_ordinary(data) else partial(read_channels, file, data)
    return frame_cache.cached(digest, partial(read, storage_type(spec), name), owner=owner)


def _read_raster(data: bytes, name: str, layer: str | None) -> Raster | None:
    """Return the picture of a file that is read without OpenImageIO; None for other files. It has no layers."""
    reader = bmp.read if data.startswith(b"BM") else dpx.read if data.startswith((b"SDPX", b"XPDS")) else None
    picture = reader(data, name) if reader else None
    if picture and layer and not fnmatchcase(UNNAMED_LAYER, layer.casefold()):
        raise SequenceError(
            "frame.no_layer",
            f"frame {name} has no layer '{layer}'; its layers: {UNNAMED_LAYER}. Set layer to one of them or to none",
        )
    return picture


def _raster_picture(plain: Raster, data: bytes, name: str) -> Picture:
    colours = plain.values[:, :, : plain.values.shape[2] - plain.has_alpha]
    return Picture(
        pixels=np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3))),
        alpha=plain.values[:, :, -1] if plain.has_alpha else None,
        grey=colours.shape[2] == 1,
        attributes=_raster_attributes(data, name),
    )


def _raster_attributes(data: bytes, name: str) -> Attributes:
    """Return the metadata of a file whose pixels are read without OpenImageIO, which may be unable to open it."""
    if data.startswith(b"BM"):
        return resolution_attributes(*bmp.read_layout(data, name).resolution)
    try:
        with open_image(data, name) as file:
            return read_attributes(data, file, file.spec(), Channels((0,), None, (), ()))
    except SequenceError:
        return Attributes()


def output_dtype(picture: Picture, output_format: str) -> np.dtype:
    """Return the dtype of the values of a rendered frame: uint8, uint16 or float32."""
    return OUTPUT_DTYPES.get(output_format, picture.pixels.dtype)


def convert_depth(pixels: np.ndarray, dtype: np.dtype | str) -> np.ndarray:
    """Convert values to uint8, uint16 or float32; 0 to the largest integer corresponds to 0 to 1.

    Integers are rounded to the nearest. Floating-point numbers outside 0 to 1 are clipped and NaN becomes 0.
    """
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
    """Return the losslessly encoded file of a rendered frame, with the depth and metadata of its source ``picture``.

    ``pixels`` is ``(height, width, 3)``, or ``(height, width, 4)`` to replace the source's alpha; uint8, uint16 or
    float32 from 0 to 1. Height and width may be a multiple of the source's; alpha and further channels are then
    enlarged by repeating values. If the source is grey and all three channels are equal, the file is grey.
    ``output_format`` is ``auto`` (PNG of 8 or 16 bits, EXR of half floats), ``png``, ``png16``, ``exr``, or ``tiff``
    with the depth of the source.

    The result is verified by reading back its header, for EXR and TIFF also the last row, and with ``whole`` all rows.
    Raises RenderError if it differs from what was to be written, and OSError if an EXR or TIFF cannot be written.
    """
    dtype = output_dtype(picture, output_format)
    kind = output_format if output_format in {"exr", "tiff"} else "exr" if dtype.kind == "f" else "png"
    colour, alpha = pixels[:, :, :3], picture.alpha
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3]
    elif alpha is not None:
        alpha = _repeat_to(alpha, pixels.shape)
    if kind != "tiff" and alpha is not None and picture.attributes.associated != (kind == "exr"):
        colour = reassociate(colour, alpha, associate=kind == "exr")
    colour = convert_depth(colour, dtype)
    if picture.grey and (colour == colour[:, :, :1]).all():
        colour = colour[:, :, :1]
    layers = colour if alpha is None else np.dstack([colour, convert_depth(alpha, dtype)])
    if kind == "png":
        data = png.encode(layers, carried=png_chunks(picture.attributes, channels=layers.shape[2]))
        _verify_png_header(data, layers)
        return data
    return (_encode_exr if kind == "exr" else _encode_tiff)(layers, picture, whole=whole)


def _verify_png_header(data: bytes, layers: np.ndarray) -> None:
    """Raise RenderError if the header of a PNG does not describe ``layers``, or if its end chunk is missing."""
    height, width, channels = layers.shape
    wanted = (width, height, 8 * layers.dtype.itemsize, png.COLOUR_TYPES[channels])
    found = struct.unpack_from(">IIBB", data, 16) if data.startswith(png.SIGNATURE) and len(data) > 26 else None
    if found != wanted or not data.endswith(png.chunk("IEND")):
        raise RenderError(
            "output.wrong_layout",
            f"the png file that was written holds {found} instead of {wanted} (width, height, bits, colour type)",
        )


def is_browser_exact(data: bytes) -> bool:
    """Return whether a browser shows exactly the values of a file.

    That is true of an 8-bit PNG without alpha (which would be blended with the background), without colour chunks,
    animation and orientation.
    """
    if not data.startswith(png.SIGNATURE) or data[24] > 8 or data[25] in png.TRANSPARENT_TYPES:
        return False
    return not any(kind in {*png.COLOUR_CHUNKS, "tRNS", "acTL", "eXIf"} for kind, _ in png.chunks(data))


def _revision(file: oiio.ImageInput, data: bytes, spec: oiio.ImageSpec) -> str:
    """Return the name of the change since the first release in how such a frame is read or written; empty if none."""
    kind = file.format_name()
    if kind == "dpx":
        return dpx.revision(data)
    if kind == "tiff" and file.current_subimage():
        return "page"
    if kind == "tiff" and spec.nchannels > 1 and is_white_zero(spec) and spec.format == oiio.UINT8:
        return "alpha"
    is_palette = kind == "tiff" and spec.get_string_attribute("tiff:ColorSpace") == "palette"
    if is_palette and has_byte_palette(data, file.current_subimage()):
        return "palette"
    # used to be copied to EXRs, which no reader could open
    return "texture" if kind == "openexr" and spec.get_string_attribute("textureformat") else ""


def _notes(file: oiio.ImageInput, data: bytes, spec: oiio.ImageSpec, channels: Channels, name: str) -> Iterator[str]:
    if channels.note:
        yield channels.note
    if channels.extra:
        listed = ", ".join(spec.channelnames[index] for index in channels.extra)
        yield f"channels {listed} are kept in EXR only"
    if channels.dropped:
        yield f"channels {', '.join(spec.channelnames[index] for index in channels.dropped)} are not kept"
    if spec.get_int_attribute("Orientation", 1) != 1:
        yield "tagged as rotated or mirrored, rendered as stored"
    if has_negatives(file, storage_type(spec), name):
        yield "values below 0 are black"
    kind, part = file.format_name(), file.current_subimage()
    if is_white_zero(spec) and str(spec.format) in FLOATS:
        yield "the tag that 0 is white is ignored, because the values are floating-point numbers"
    if part or file.seek_subimage(1, 0) or has_more_images(data):
        which = f"number {part + 1}{', the largest,' * (kind == 'tiff')}" if part else "the first"
        yield f"the file holds several images; only {which} is rendered"


def _repeat_to(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Enlarge a plane to the height and width of ``shape`` by repeating values, because ids cannot be interpolated."""
    if plane.shape == shape[:2]:
        return plane
    rows, columns = (np.arange(new) * old // new for new, old in zip(shape[:2], plane.shape, strict=True))
    return plane[rows[:, None], columns]


def reassociate(colour: np.ndarray, alpha: np.ndarray, *, associate: bool) -> np.ndarray:
    """Multiply colours by alpha, as EXR stores them, or divide by it, as PNG stores them; return float32."""
    colour, alpha = convert_depth(colour, "float32"), convert_depth(alpha, "float32")[:, :, None]
    return colour * alpha if associate else np.divide(colour, alpha, out=colour.copy(), where=alpha > 0)


def _encode_exr(layers: np.ndarray, picture: Picture, *, whole: bool) -> bytes:
    """Return an EXR of half floats; further channels of its source keep their types."""
    height, width, count = layers.shape
    names = ("Y", "A")[:count] if count < 3 else ("R", "G", "B", "A")[:count]
    formats = [picture.attributes.alpha_type if name == "A" else "half" for name in names]
    extra = {name: plane for name, plane in picture.extra.items() if name not in names}
    formats += ["half" if plane.dtype == np.float16 else "float" for plane in extra.values()]
    if not max(layers.max(), -layers.min()) <= LARGEST_HALF:  # also true of NaN
        layers = np.clip(layers, -LARGEST_HALF, LARGEST_HALF)
    if extra:
        planes = [_repeat_to(plane, layers.shape)[:, :, None] for plane in extra.values()]
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
    return write_image(layers, spec, ".exr", whole=whole)


def _encode_tiff(layers: np.ndarray, picture: Picture, *, whole: bool) -> bytes:
    """Return a TIFF with the depth of ``layers``."""
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
    return write_image(layers, spec, ".tif", whole=whole)


def read_frame(
    path: Path,
    layer: str | None = None,
    digest: str | None = None,
    owner: str = frame_cache.INPUTS,
    *,
    transfer: str | None,
) -> Picture:
    """Read a frame from a file as float32, without further channels.

    Integers are divided by the largest integer; floating-point numbers are treated as ``transfer`` says. The other
    arguments and the errors raised are those of ``decode``, in addition to OSError.
    """
    picture = decode(path.read_bytes(), path.name, transfer=transfer, layer=layer, digest=digest, owner=owner)
    is_finite = picture.pixels.dtype.kind != "f" or bool(np.isfinite(picture.pixels).all())
    return replace(picture, pixels=convert_depth(picture.pixels, "float32"), extra={}, is_finite=is_finite)
