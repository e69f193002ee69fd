"""Frames encoded and decoded with Pillow and OpenImageIO directly."""

import io
import tempfile
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813
from dailies.frames.image import Picture


def pixels(height=5, width=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(frame):
    """Return a picture without alpha and metadata."""
    return Picture(frame)


def written(array, suffix, *, depth=None, channels=None, types=None, window=None, **attributes):
    """Return a file written with OpenImageIO directly, such as DPX, EXR and deep TIFF."""
    height, width, count = array.shape
    spec = oiio.ImageSpec(width, height, count, depth or str(array.dtype))
    if channels:
        spec.channelnames = channels
    if types:
        spec.channelformats = tuple(oiio.TypeDesc(each) for each in types)
    if window:
        spec.x, spec.y, spec.full_x, spec.full_y, spec.full_width, spec.full_height = window
    for name, value in attributes.items():
        spec.attribute(name.replace("__", ":"), *(value if isinstance(value, list) else [value]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        file = oiio.ImageOutput.create(str(path))
        assert file.open(str(path), spec), file.geterror()
        assert file.write_image(array), file.geterror()
        file.close()
        return path.read_bytes()


def read_again(data, suffix):
    """Return header and values of a file read with OpenImageIO directly."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(data)
        file = oiio.ImageInput.open(str(path))
        return oiio.ImageSpec(file.spec()), file.read_image("float" if suffix == ".exr" else "unknown")


def colours(*shape, seed=0):
    """Return scene-referred floats: negative, above 1 and far above 1."""
    return np.random.default_rng(seed).normal(0.4, 3, shape).astype(np.float32)


CHANNELS = ["R", "G", "B", "A", "Z", "crypto.R", "crypto.G", "id"]

TYPES = ["half", "half", "half", "float", "half", "float", "float", "uint"]


def film(**more):
    """Return values and file of an EXR with a depth channel, an id matte, metadata and a larger display window."""
    values = colours(5, 7, 8).astype(np.float16).astype(np.float32)
    values[:, :, 5] = np.random.default_rng(1).random((5, 7))  # ids are floats whose every bit counts
    return values, written(
        values,
        ".exr",
        depth="float",
        channels=CHANNELS,
        types=TYPES,
        window=(3, 2, -1, 0, 20, 10),
        compression="piz",
        PixelAspectRatio=2.0,
        smpte__TimeCode=[oiio.TypeTimeCode, (0x01020304, 0)],
        chromaticities=[oiio.TypeDesc("float[8]"), (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)],
        worldToCamera=[oiio.TypeMatrix44, tuple(range(16))],
        owner="me",
        **more,
    )
