"""Attributes: what a frame's file says beyond its pixels, and how much of it another format can say."""

import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import OpenImageIO as oiio  # noqa: N813

from dailies import png
from dailies.channels import Channels, is_float

PASSING = ("oiio:", "png:", "jpeg:", "bmp:", "webp:", "tiff:", "openexr:", "ICCProfile:", "Exif:", "GPS:")
"""Metadata that is true of a file and not of the frame in it, by the beginning of its name."""

DROPPED = ("compression", "planarconfig", "Orientation")
"""More of it; an Orientation would turn rendered frames over in some viewers and not in others."""

EXR_OWN = ("version", "preview", "envmap")
"""What OpenEXR means by these is no text: with one of a PNG's under such a name it could not read the file again."""

TIFF_HOLDS = (
    *("ICCProfile", "XResolution", "YResolution", "ResolutionUnit", "PixelAspectRatio"),
    *("DateTime", "Software", "Artist", "Copyright", "ImageDescription", "DocumentName"),
)
"""Metadata that can be written to a TIFF; an EXR holds any."""


@dataclass(frozen=True, eq=False)
class Attributes:
    """What a frame's file says beyond its pixels, to be written again."""

    values: tuple[tuple[str, tuple, Any], ...] = ()
    """Name, what makes up the type, and value, as OpenImageIO has them."""
    chunks: tuple[bytes, ...] = ()
    """Of a PNG: the chunks themselves."""
    window: tuple[int, ...] | None = None
    """Of an EXR: x, y, and x, y, width, height of the display window, where they are not the frame's own size."""
    associated: bool = False
    """Whether colours are multiplied by alpha, as in EXR."""
    alpha_type: str = "half"
    """Of an EXR: the type of its alpha."""


def attributes_of(data: bytes, file: oiio.ImageInput, spec: oiio.ImageSpec, channels: Channels) -> Attributes:
    """Give what is to be written again of an open file, whose bytes are ``data``, beside its channels."""
    display = (spec.full_x, spec.full_y, spec.full_width, spec.full_height)
    window = (spec.x, spec.y, *display)
    kind = file.format_name()
    exr = kind == "openexr"
    multiplied = exr or (kind == "tiff" and not spec.get_int_attribute("oiio:UnassociatedAlpha"))
    chunks = png.chunks(data) if data.startswith(png.SIGNATURE) else ()
    return Attributes(
        values=tuple(
            (each.name, _parts(each.type), _readable(each.value))
            for each in spec.extra_attribs
            if not each.name.startswith(PASSING) and each.name not in DROPPED
        ),
        chunks=tuple(png.chunk(kind, content) for kind, content in chunks if kind in png.CARRIED),
        window=window if exr and window != (0, 0, 0, 0, spec.width, spec.height) else None,
        associated=channels.alpha is not None and multiplied,
        alpha_type="float" if exr and channels.alpha is not None and is_float(spec, channels.alpha) else "half",
    )


def png_chunks(attributes: Attributes, channels: int) -> list[bytes]:
    """Give the chunks of a PNG's source, or those that say the same as the metadata of another format."""
    values = {name: value for name, _, value in attributes.values if not isinstance(value, str)}
    profile = bytes(values.get("ICCProfile", b""))
    fits = profile_fits(profile, channels)
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


def profile_fits(profile: Any, channels: int) -> bool:
    """Tell whether an ICC profile is for this many channels: one for CMYK or grey is not for RGB."""
    return not isinstance(profile, str) and bytes(profile)[16:20] == (b"GRAY" if channels < 3 else b"RGB ")


def _parts(kind: oiio.TypeDesc) -> tuple:
    """Give what a type is made of: it cannot be sent to another process itself, and some lose their name on the way."""
    return kind.basetype, kind.aggregate, kind.vecsemantics, kind.arraylen


def _readable(value: Any) -> Any:
    """Give a text that is not UTF-8 as the Latin-1 that it most likely is: it could not be written again."""
    if isinstance(value, str) and re.search("[\udc80-\udcff]", value):
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value
