"""Attributes: what a frame's file says beyond its pixels, and how much of it another format can say."""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import OpenImageIO as oiio  # noqa: N813

from dailies.frames import png
from dailies.frames.channels import Channels, is_float

PASSING = ("oiio:", "png:", "jpeg:", "bmp:", "webp:", "tiff:", "openexr:", "iccprofile:", "exif:", "gps:")
"""Metadata that describes a file and not the frame in it, by the beginning of its name in lower case."""

DROPPED = ("compression", "planarconfig", "orientation")
"""More of the same; an Orientation would turn rendered frames in some viewers and not in others."""

TEXT, NUMBER = oiio.TypeString, oiio.TypeFloat

STANDARD: Mapping[str, oiio.TypeDesc] = {
    name.lower(): kind
    for names, kind in (
        ("chromaticities", oiio.TypeDesc("float[8]")),
        ("adoptedNeutral cameraColorBalance screenWindowCenter", oiio.TypeVector2),
        ("sensorCenterOffset sensorOverallDimensions sensorAcquisitionRectangle", oiio.TypeVector2),
        ("worldToCamera worldToNDC worldToScreen", oiio.TypeMatrix44),
        ("smpte:TimeCode timeCode", oiio.TypeTimeCode),
        ("smpte:KeyCode keyCode", oiio.TypeKeyCode),
        ("FramesPerSecond captureRate", oiio.TypeRational),
        ("originalDataWindow", oiio.TypeBox2i),
        ("imageCounter", oiio.TypeInt),
        ("PixelAspectRatio XResolution YResolution xDensity ExposureTime expTime FNumber aperture", NUMBER),
        ("whiteLuminance utcOffset longitude latitude altitude focus isoSpeed screenWindowWidth", NUMBER),
        ("nominalFocalLength pinholeFocalLength effectiveFocalLength entrancePupilOffset tStop", NUMBER),
        ("cameraCCTSetting cameraTintSetting sensorPhotositePitch shutterAngle", NUMBER),
        ("DateTime capDate ImageDescription description comments Copyright owner Artist Software", TEXT),
        ("DocumentName ResolutionUnit renderingTransform lookModTransform reelName", TEXT),
        ("ascFramingDecisionList cameraMake cameraModel cameraSerialNumber cameraFirmwareVersion", TEXT),
        ("cameraUuid cameraLabel lensMake lensModel lensSerialNumber lensFirmwareVersion colorInteropID", TEXT),
    )
    for name in names.split()
}
"""Attributes that OpenEXR or OpenImageIO know and that describe the shot: the type that they must have.

https://openexr.com/en/latest/StandardAttributes.html
"""

STRUCTURE = frozenset(
    name
    for names in (
        "acesimagecontainerflag averagecolor channels chunkcount compression constantcolor datawindow deepimagestate",
        "displaywindow dwacompressionlevel envmap fovcot iccprofile idmanifest levelmode lineorder miplevels multiview",
        "maxsamplesperpixel name preview roundingmode textureformat tiles type version view wrapmodes",
        "zipcompressionlevel",
    )
    for name in names.split()
)
"""Attributes that describe how a file is laid out: they steer its writer, or readers believe them and not the file."""

PIXEL_ASPECTS = (1e-6, 1e6)
"""What OpenEXR takes for the ratio of a pixel's sides."""

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
            if not each.name.lower().startswith(PASSING) and each.name.lower() not in DROPPED
        ),
        chunks=tuple(png.chunk(kind, content) for kind, content in chunks if kind in png.CARRIED),
        window=window if exr and window != (0, 0, 0, 0, spec.width, spec.height) else None,
        associated=channels.alpha is not None and multiplied,
        alpha_type="float" if exr and channels.alpha is not None and is_float(spec, channels.alpha) else "half",
    )


def density(across: int, down: int) -> Attributes:
    """Return the attributes of a file that says how many pixels there are per metre; 0 where it does not."""
    if not (across and down):
        return Attributes()
    values = {"XResolution": across / 100, "YResolution": down / 100, "ResolutionUnit": "cm"}
    return Attributes(values=tuple((name, _parts(STANDARD[name.lower()]), value) for name, value in values.items()))


def exr_attributes(attributes: Attributes) -> Iterator[tuple[str, oiio.TypeDesc, Any]]:
    """Yield name, type and value of what an EXR is given of its source: none can change how it is laid out.

    Of the names that OpenEXR and OpenImageIO know, those of ``STANDARD`` pass where their type is right; other names
    are a user's own and mean nothing to either.
    """
    for name, kind, value in _sound(attributes):
        if name.lower() not in STRUCTURE and _is_of_its_type(name, kind):
            yield name, kind, value


def tiff_attributes(attributes: Attributes, channels: int) -> Iterator[tuple[str, oiio.TypeDesc, Any]]:
    """Yield name, type and value of what a TIFF of ``channels`` is given of its source."""
    for name, kind, value in _sound(attributes):
        fits = profile_fits(value, channels) if name == "ICCProfile" else _is_of_its_type(name, kind)
        if name in TIFF_HOLDS and fits:
            yield name, kind, value


def _is_of_its_type(name: str, kind: oiio.TypeDesc) -> bool:
    """Tell whether the value of an attribute is of the type that its name asks for; a user's own may be of any."""
    known = STANDARD.get(name.lower(), kind)
    return known.equivalent(kind) or (known == NUMBER and kind == oiio.TypeInt)


def _sound(attributes: Attributes) -> Iterator[tuple[str, oiio.TypeDesc, Any]]:
    """Yield attributes with their types, without sides of a pixel that no writer accepts."""
    values = {name: value for name, _, value in attributes.values}
    across, down = values.get("XResolution"), values.get("YResolution")
    uneven = bool(across and down) and not _is_aspect(_ratio(across, down))
    for name, kind, value in attributes.values:
        aspect = name.lower() in {"pixelaspectratio", "screenwindowwidth"}
        if (aspect and not _is_aspect(value)) or (uneven and name in {"XResolution", "YResolution"}):
            continue
        yield name, oiio.TypeDesc(*kind), value


def _ratio(across: Any, down: Any) -> Any:
    try:
        return across / down
    except TypeError:
        return None


def _is_aspect(value: Any) -> bool:
    smallest, largest = PIXEL_ASPECTS
    return isinstance(value, int | float) and smallest <= value <= largest


def png_chunks(attributes: Attributes, channels: int) -> list[bytes]:
    """Give the chunks of a PNG's source, or those that say the same as the metadata of another format."""
    values = {name: value for name, _, value in attributes.values if not isinstance(value, str)}
    profile = _profile(values.get("ICCProfile"))
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
    if values.get("PixelAspectRatio", 1) != 1 and png.has_aspect(values["PixelAspectRatio"]):
        found.append(png.chunk("pHYs", png.aspect(values["PixelAspectRatio"])))
    if "smpte:TimeCode" in values:
        digits = f"{values['smpte:TimeCode'][0] & 0x3F7F7F3F:08x}"  # what is masked are flags
        time = ":".join(digits[i : i + 2] for i in range(0, 8, 2))
        found.append(png.chunk("tEXt", f"smpte:TimeCode\0{time}".encode("latin-1")))
    return found


def profile_fits(profile: Any, channels: int) -> bool:
    """Tell whether an ICC profile is for this many channels: one for CMYK or grey is not for RGB."""
    return _profile(profile)[16:20] == (b"GRAY" if channels < 3 else b"RGB ")


def _profile(value: Any) -> bytes:
    """Return the bytes of an ICC profile; none where something else has its name."""
    try:
        return b"" if value is None or isinstance(value, str | int) else bytes(value)
    except (TypeError, ValueError):
        return b""


def _parts(kind: oiio.TypeDesc) -> tuple:
    """Give what a type is made of: it cannot be sent to another process itself, and some lose their name on the way."""
    return kind.basetype, kind.aggregate, kind.vecsemantics, kind.arraylen


def _readable(value: Any) -> Any:
    """Give a text that is not UTF-8 as the Latin-1 that it most likely is: it could not be written again."""
    if isinstance(value, str) and re.search("[\udc80-\udcff]", value):
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value
