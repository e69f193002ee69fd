"""Channels: which of a file's are its picture, which lie beside it, and of what type their values are."""

from dataclasses import dataclass

import numpy as np
import OpenImageIO as oiio  # noqa: N813

from dailies.errors import SequenceError

DEPTHS = {
    "uint8": np.dtype("uint8"),
    "uint16": np.dtype("uint16"),
    "half": np.dtype("float32"),
    "float": np.dtype("float32"),
    "double": np.dtype("float32"),
}
"""How OpenImageIO calls the values of a file -> how they are handed to a network."""

INTEGERS = {
    "int8": np.dtype("uint8"),
    "int16": np.dtype("uint16"),
    "int": np.dtype("uint16"),
    "uint": np.dtype("uint16"),
}
"""The same for more values of a TIFF: 0 is black, the largest is white, and what is negative is black, too."""

RAW = {32803: "the mosaic of a camera's sensor", 4: "a mask"}
"""What a TIFF may hold that is no picture, by its photometric interpretation."""


@dataclass(frozen=True)
class Channels:
    """Which channels of a file are what, by number."""

    colour: tuple[int, ...]
    alpha: int | None
    extra: tuple[int, ...]
    """Those that can be written again."""
    lost: tuple[int, ...]


def find_channels(spec: oiio.ImageSpec, name: str) -> Channels:
    """Find colour and alpha among the channels of a file; an EXR may keep them in a layer, and much else besides.

    Raises SequenceError where none are a picture in RGB or grey.
    """
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
    alpha = lower.index(layer + "a") if layer + "a" in lower and len(names) > 1 else None
    others = [index for index in range(len(names)) if index not in (*colour, alpha)]
    kept = tuple(index for index in others if str(_format(spec, index)) in {"half", "float"})
    return Channels(colour, alpha, kept, tuple(index for index in others if index not in kept))


def depth_of(spec: oiio.ImageSpec, channels: Channels, name: str) -> np.dtype:
    """Give the type of values that a network is handed; raise SequenceError where those of a file are no picture's."""
    kinds = {str(_format(spec, index)) for index in (*channels.colour, channels.alpha) if index is not None}
    photometric = spec.get_int_attribute("tiff:PhotometricInterpretation", -1)
    if photometric in RAW:
        raise SequenceError(f"frame {name} is a TIFF that holds {RAW[photometric]}, which is no picture")
    bits, whole = spec.get_int_attribute("oiio:BitsPerSample"), 8 * spec.format.basesize()
    depths = DEPTHS | INTEGERS if photometric >= 0 and bits == whole else DEPTHS
    if others := sorted(kinds - depths.keys()):
        raise SequenceError(
            f"frame {name} holds values of type {others[0]}; allowed are 8 and 16 bits and floating-point numbers"
        )
    if "double" in kinds and spec.tile_width:  # OpenImageIO 3.2.2 gives what was in memory before
        raise SequenceError(f"frame {name} holds tiles of 64-bit numbers; convert it to 32 bits first")
    return depths[min(kinds)]


def storage_of(spec: oiio.ImageSpec) -> str:
    """Name the type that holds the values of all channels, as OpenImageIO calls it."""
    return "float" if spec.channelformats else str(spec.format)


def float_type(spec: oiio.ImageSpec, index: int) -> type[np.floating]:
    """Give the type of a channel beside the picture, which is written again: float16 or float32."""
    return np.float16 if str(_format(spec, index)) == "half" else np.float32


def narrowest(spec: oiio.ImageSpec, channels: Channels) -> int:
    """Give the bytes of a colour value; what lies beside the picture may have more or less."""
    return min(_format(spec, index).basesize() for index in channels.colour)


def is_float(spec: oiio.ImageSpec, index: int) -> bool:
    """Tell whether the values of a channel are floats of 32 bits."""
    return str(_format(spec, index)) == "float"


def _format(spec: oiio.ImageSpec, index: int) -> oiio.TypeDesc:
    return spec.channelformats[index] if spec.channelformats else spec.format
