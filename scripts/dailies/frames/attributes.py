"""Metadata of a frame's file, and the part of it that each output format can store."""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import OpenImageIO as oiio  # noqa: N813

from dailies.frames import png
from dailies.frames.channels import Channels, is_float32

FILE_PREFIXES = ("oiio:", "png:", "jpeg:", "bmp:", "webp:", "tiff:", "openexr:", "iccprofile:", "exif:", "gps:")
"""Prefixes, in lower case, of metadata that describes the file rather than the frame in it."""

FILE_KEYS = ("compression", "planarconfig", "orientation")
"""Further names of such metadata, in lower case.

A copied Orientation would rotate the rendered frames in some viewers and not in others.
"""

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
"""Attributes that OpenEXR or OpenImageIO define and that describe the shot, in lower case -> their required type.

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
"""Attributes that describe the layout of an EXR, in lower case.

They would change how the file is written, or readers would trust them over the file itself.
"""

PIXEL_ASPECT_RANGE = (1e-6, 1e6)
"""Smallest and largest pixel aspect ratio that OpenEXR accepts."""

TIFF_NAMES = (
    *("ICCProfile", "XResolution", "YResolution", "ResolutionUnit", "PixelAspectRatio"),
    *("DateTime", "Software", "Artist", "Copyright", "ImageDescription", "DocumentName"),
)
"""Metadata that can be written to a TIFF; an EXR can store any."""


@dataclass(frozen=True, eq=False)
class Attributes:
    """Metadata of a frame's file that is copied to the rendered frame."""

    values: tuple[tuple[str, tuple[Any, ...], Any], ...] = ()
    """Name, components of the type, and value, as read by OpenImageIO."""
    chunks: tuple[bytes, ...] = ()
    """PNG only: complete chunks."""
    window: tuple[int, ...] | None = None
    """EXR only: x and y of the data window, then x, y, width and height of the display window.

    None if the display window is exactly the frame.
    """
    associated: bool = False
    """Whether colours are multiplied by alpha, as in EXR."""
    alpha_type: str = "half"
    """EXR only: the type of its alpha channel, ``half`` or ``float``."""


def read_attributes(data: bytes, file: oiio.ImageInput, spec: oiio.ImageSpec, channels: Channels) -> Attributes:
    """Return the metadata of an open file, whose bytes are ``data``, that is copied to the rendered frame."""
    display = (spec.full_x, spec.full_y, spec.full_width, spec.full_height)
    window = (spec.x, spec.y, *display)
    kind = file.format_name()
    exr = kind == "openexr"
    multiplied = exr or (kind == "tiff" and not spec.get_int_attribute("oiio:UnassociatedAlpha"))
    chunks = png.chunks(data) if data.startswith(png.SIGNATURE) else ()
    return Attributes(
        values=tuple(
            (each.name, _type_parts(each.type), _decoded(each.value))
            for each in spec.extra_attribs
            if not each.name.lower().startswith(FILE_PREFIXES) and each.name.lower() not in FILE_KEYS
        ),
        chunks=tuple(png.chunk(kind, content) for kind, content in chunks if kind in png.CARRIED),
        window=window if exr and window != (0, 0, 0, 0, spec.width, spec.height) else None,
        associated=channels.alpha is not None and multiplied,
        alpha_type="float" if exr and channels.alpha is not None and is_float32(spec, channels.alpha) else "half",
    )


def resolution_attributes(across: int, down: int) -> Attributes:
    """Return the attributes of a file with a resolution in pixels per metre; 0 means that it states none."""
    if not (across and down):
        return Attributes()
    values = {"XResolution": across / 100, "YResolution": down / 100, "ResolutionUnit": "cm"}
    return Attributes(
        values=tuple((name, _type_parts(STANDARD[name.lower()]), value) for name, value in values.items())
    )


def exr_attributes(attributes: Attributes) -> Iterator[tuple[str, oiio.TypeDesc, Any]]:
    """Yield name, type and value of each attribute that is copied to an EXR; none can change its layout.

    A name in ``STANDARD`` passes only if its type is right. Names that neither OpenEXR nor OpenImageIO defines are the
    user's own and pass as they are.
    """
    for name, kind, value in _valid(attributes):
        if name.lower() not in STRUCTURE and _has_expected_type(name, kind):
            yield name, kind, value


def tiff_attributes(attributes: Attributes, channels: int) -> Iterator[tuple[str, oiio.TypeDesc, Any]]:
    """Yield name, type and value of each attribute that is copied to a TIFF with this many channels."""
    for name, kind, value in _valid(attributes):
        fits = _profile_fits(value, channels) if name == "ICCProfile" else _has_expected_type(name, kind)
        if name in TIFF_NAMES and fits:
            yield name, kind, value


def _has_expected_type(name: str, kind: oiio.TypeDesc) -> bool:
    """Return whether an attribute has the type that its name requires; a user's own may have any type."""
    known = STANDARD.get(name.lower(), kind)
    return known.equivalent(kind) or (known == NUMBER and kind == oiio.TypeInt)


def _valid(attributes: Attributes) -> Iterator[tuple[str, oiio.TypeDesc, Any]]:
    """Yield name, type and value of each attribute, without pixel aspect ratios that no writer accepts."""
    values = {name: value for name, _, value in attributes.values}
    across, down = values.get("XResolution"), values.get("YResolution")
    uneven = bool(across and down) and not _is_valid_aspect(_ratio(across, down))
    for name, kind, value in attributes.values:
        aspect = name.lower() in {"pixelaspectratio", "screenwindowwidth"}
        if (aspect and not _is_valid_aspect(value)) or (uneven and name in {"XResolution", "YResolution"}):
            continue
        yield name, oiio.TypeDesc(*kind), value


def _ratio(across: Any, down: Any) -> Any:
    try:
        return across / down
    except TypeError:
        return None


def _is_valid_aspect(value: Any) -> bool:
    smallest, largest = PIXEL_ASPECT_RANGE
    return isinstance(value, int | float) and smallest <= value <= largest


def png_chunks(attributes: Attributes, channels: int) -> list[bytes]:
    """Return the chunks that a rendered PNG copies from its source.

    For a source in another format, its metadata is converted to the equivalent chunks.
    """
    values = {name: value for name, _, value in attributes.values if not isinstance(value, str)}
    profile = _profile_bytes(values.get("ICCProfile"))
    fits = _profile_fits(profile, channels)
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
        digits = f"{values['smpte:TimeCode'][0] & 0x3F7F7F3F:08x}"  # the other bits are flags
        time = ":".join(digits[i : i + 2] for i in range(0, 8, 2))
        found.append(png.chunk("tEXt", f"smpte:TimeCode\0{time}".encode("latin-1")))
    return found


def _profile_fits(profile: Any, channels: int) -> bool:
    """Return whether an ICC profile is for this many channels; one for CMYK or grey does not fit RGB."""
    return _profile_bytes(profile)[16:20] == (b"GRAY" if channels < 3 else b"RGB ")


def _profile_bytes(value: Any) -> bytes:
    """Return the bytes of an ICC profile; empty if the value is anything else."""
    try:
        return b"" if value is None or isinstance(value, str | int) else bytes(value)
    except (TypeError, ValueError):
        return b""


def _type_parts(kind: oiio.TypeDesc) -> tuple[Any, ...]:
    """Return the components of a type, which itself cannot be pickled; copies of some types lose their name."""
    return kind.basetype, kind.aggregate, kind.vecsemantics, kind.arraylen


def _decoded(value: Any) -> Any:
    """Decode a text that is not UTF-8 as Latin-1, which it most likely is; as it is it could not be written."""
    if isinstance(value, str) and re.search("[\udc80-\udcff]", value):
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value
