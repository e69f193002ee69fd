"""Channels of a file: which ones are its picture, which ones accompany it, and the types of their values."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import OpenImageIO as oiio  # noqa: N813

from dailies.core.errors import SequenceError
from dailies.core.text import few

DTYPES: dict[str, np.dtype] = {
    "uint8": np.dtype("uint8"),
    "uint16": np.dtype("uint16"),
    "half": np.dtype("float32"),
    "float": np.dtype("float32"),
    "double": np.dtype("float32"),
}
"""OpenImageIO's name of a value type -> the dtype in which values are passed to a network."""

INTEGER_DTYPES: dict[str, np.dtype] = {
    "int8": np.dtype("uint8"),
    "int16": np.dtype("uint16"),
    "int": np.dtype("uint16"),
    "uint": np.dtype("uint16"),
}
"""Further types that a TIFF may have: the largest value is white; 0 and negative values are black."""

NOT_PICTURES = {32803: "the mosaic of a camera's sensor", 4: "a mask"}
"""Contents of a TIFF that are not a picture, by photometric interpretation."""

COLOUR_NAMES = (("r", "g", "b"), ("red", "green", "blue"))
"""Names of a layer's colour channels, in lower case."""

ALPHA_NAMES = ("a", "alpha")

MAIN_LAYERS = ("combined", "beauty", "rgba")
"""Names that renderers give the layer with the complete picture, in order of preference."""

MAX_LISTED = 12
"""How many layers or channels an error message lists."""

UNNAMED_LAYER = "rgba"
"""Name of the layer whose channels R, G, B and A have no prefix; compositors use the same name."""


@dataclass(frozen=True)
class Channels:
    """Roles of a file's channels, by index."""

    colour: tuple[int, ...]
    """Red, green and blue, or the only channel of a grey picture."""
    alpha: int | None
    extra: tuple[int, ...]
    """Further channels, which are copied to a rendered EXR."""
    dropped: tuple[int, ...]
    """Further channels, which cannot be copied."""
    layer: str = ""
    """Name of their layer; empty if it is the layer that every release selected by default."""
    note: str = ""
    """A sentence that names the rendered layer; empty if there was no choice."""


@dataclass(frozen=True)
class Layer:
    """Channels of an EXR that form one picture."""

    part: int
    """Index of the part that holds it."""
    label: str
    """Name of the part; empty if it has none."""
    prefix: str
    """Prefix of the channels' names, without the trailing dot."""
    view: str
    """View in a stereo file, usually left or right; empty if it has none."""
    colour: tuple[int, ...]
    """Indices of red, green and blue in the part, or of its only channel."""
    alpha: int | None
    """Index of alpha in the part."""

    @property
    def name(self) -> str:
        """The full name: part, layer and view, separated by dots."""
        inside = self.prefix == self.label or self.prefix.startswith(f"{self.label}.")
        parts = [self.prefix] if inside else [self.label, self.prefix]
        return ".".join(part for part in parts if part) or UNNAMED_LAYER

    @property
    def full_names(self) -> set[str]:
        """Its names in lower case, with and without part and view."""
        names = {self.name, self.prefix, self.label}
        return {each.casefold() for each in names | {each.removesuffix(f".{self.view}") for each in names} if each}

    @property
    def last_names(self) -> set[str]:
        """The last components of its names, such as ``combined`` for ViewLayer.Combined."""
        return {each.rpartition(".")[2] for each in self.full_names}


def select_channels(file: oiio.ImageInput, name: str, layer: str | None = None) -> Channels:
    """Select the colour and alpha channels of a file, and seek to the part that holds them.

    An EXR may hold several pictures, in layers, parts and views; ``layer`` is the name of one, or a glob. Without
    ``layer``, channels R, G and B without a prefix are selected, else a layer named Combined, beauty or rgba, else the
    only layer with colours.

    Raises SequenceError if the file holds no RGB or grey picture, or if the choice between several is ambiguous.
    """
    specs = list(_parts(file))
    layers = [each for part, spec in enumerate(specs) if not spec.deep for each in _find_layers(spec, part)]
    coloured = [each for each in layers if len(each.colour) == len(COLOUR_NAMES[0])]
    view = _default_view(specs, coloured)
    default = _default_layer(coloured, view) or _grey_layer(specs[0], among=coloured)
    selected = _matching_layer(layers, layer, view, name) if layer else default
    if selected is None:
        raise _no_picture(specs[0], coloured, name)
    if len(specs) > 1:
        file.seek_subimage(selected.part, 0)
    spec = specs[selected.part]
    is_difference = len(selected.colour) == 1 and _is_luma_chroma(spec, selected.prefix)
    if is_difference or spec.get_string_attribute("tiff:ColorSpace") == "CIELAB":
        raise SequenceError(
            "frame.not_rgb", f"frame {name} holds lightness and colour differences instead of RGB; convert it to RGB"
        )
    others = [index for index in range(spec.nchannels) if index not in (*selected.colour, selected.alpha)]
    written = (
        {"r", "g", "b"} | ({"a"} if selected.alpha is not None else set()) if len(selected.colour) > 1 else {"y", "a"}
    )
    ambiguous = _ambiguous_if_written(selected, default, coloured)
    extra = tuple(
        index
        for index in others
        if str(_format(spec, index)) in {"half", "float"}
        and spec.channelnames[index].lower() not in written
        and index not in ambiguous
    )
    return Channels(
        selected.colour,
        selected.alpha,
        extra,
        tuple(index for index in others if index not in extra),
        layer="" if selected == default == _first_release_layer(coloured, specs[0]) else selected.name,
        note=_note(selected, coloured, asked=bool(layer)),
    )


def _ambiguous_if_written(selected: Layer, default: Layer | None, coloured: Iterable[Layer]) -> set[int]:
    """Return channels that a reader would take for the picture if they were copied beside a single-channel layer."""
    if len(selected.colour) > 1 or default is None or len(default.colour) == 1:
        return set()
    return {index for layer in coloured if layer.part == selected.part for index in layer.colour}


def _parts(file: oiio.ImageInput) -> Iterator[oiio.ImageSpec]:
    """Yield the header of each part of an EXR, or the one header of a file of another format."""
    if file.format_name() != "openexr":
        spec = oiio.ImageSpec(file.spec())
        if file.format_name() == "targa" and spec.nchannels == 2:
            spec.channelnames = ("Y", "A")  # OpenImageIO names them R and G
        yield spec
        return
    part = 0
    while file.seek_subimage(part, 0):
        yield oiio.ImageSpec(file.spec())
        part += 1
    file.geterror()
    file.seek_subimage(0, 0)


def _find_layers(spec: oiio.ImageSpec, part: int) -> Iterator[Layer]:
    """Yield the layers in a part that are a picture: those with colours, with luminance, or with a single channel."""
    groups: dict[str, dict[str, int]] = {}
    for index, name in enumerate(spec.channelnames):
        prefix, _, channel = name.rpartition(".")
        groups.setdefault(prefix, {}).setdefault(channel.lower(), index)
    label = spec.get_string_attribute("oiio:subimagename")
    for prefix, channels in groups.items():
        alpha = next((channels[each] for each in ALPHA_NAMES if each in channels), None)
        view = _view(spec, prefix)
        colours = next((names for names in COLOUR_NAMES if channels.keys() >= {*names}), None)
        if colours:
            yield Layer(part, label, prefix, view, tuple(channels[each] for each in colours), alpha)
        elif "y" in channels:
            yield Layer(part, label, prefix, view, (channels["y"],), alpha)
        elif len(channels) == 1:
            (only,) = channels.values()
            yield Layer(part, label, prefix or spec.channelnames[only], view, (only,), None)


def _view(spec: oiio.ImageSpec, prefix: str) -> str:
    """Return the view of channels: the one in their names, else that of their part, else the file's first view."""
    views = spec.getattribute("multiView") or ()
    if last := next((view for view in views if view == prefix.rpartition(".")[2]), ""):
        return last
    return spec.get_string_attribute("view") or (views[0] if views and not prefix else "")


def _default_view(specs: Sequence[oiio.ImageSpec], layers: Iterable[Layer]) -> str:
    views = specs[0].getattribute("multiView") or [layer.view for layer in layers if layer.view]
    return views[0] if views else ""


def _default_layer(layers: Sequence[Layer], view: str) -> Layer | None:
    """Return the layer that is unambiguously the picture; None if there is none, or if several could be."""
    layers = [each for each in layers if each.view in {"", view}] or layers
    plain = [each for each in layers if not each.prefix]
    # Cryptomattes hold ids
    layers = plain or [each for each in layers if "crypto" not in each.prefix.lower()] or layers
    for name in MAIN_LAYERS:
        for names in (lambda each: each.full_names, lambda each: each.last_names):
            if found := [each for each in layers if (each.prefix or each.label) and name in names(each)]:
                return found[0] if len(found) == 1 else None
    return plain[0] if plain else layers[0] if len(layers) == 1 else None


def _matching_layer(layers: Sequence[Layer], asked: str, view: str, name: str) -> Layer:
    """Return the layer that a name or glob matches; raise SequenceError, listing candidates, unless there is one."""
    if exact := next((each for each in layers if each.name == asked), None):
        return exact
    wanted = asked.casefold()

    def names(each: Layer) -> set[str]:
        return each.full_names | {each.view.casefold()} | (set() if each.prefix else {UNNAMED_LAYER})

    for matches in (
        lambda each: wanted in names(each),
        lambda each: wanted in each.last_names,
        lambda each: any(fnmatchcase(known, wanted) for known in names(each)),
        lambda each: any(fnmatchcase(known, wanted) for known in each.last_names),
    ):
        found = [each for each in layers if matches(each)]
        found = [each for each in found if len(each.colour) > 1] or found
        if selected := found[0] if len(found) == 1 else _default_layer(found, view):
            return selected
        if found:
            listed = few([each.name for each in found], most=MAX_LISTED)
            raise SequenceError(
                "frame.ambiguous_layer",
                f"several layers of frame {name} match '{asked}': {listed}; set layer to one of them",
            )
    listed = few([each.name for each in layers], most=MAX_LISTED)
    advice = "Set layer to one of them or to none"
    raise SequenceError("frame.no_layer", f"frame {name} has no layer '{asked}'; its layers: {listed}. {advice}")


def _grey_layer(spec: oiio.ImageSpec, among: Sequence[Layer] = ()) -> Layer | None:
    """Return the layer of a part whose first channel is luminance, or that has a single channel; None if neither."""
    lower = [each.lower() for each in spec.channelnames]
    if spec.deep or not ((len(lower) == 1 and not among) or "y" in lower[:1]):
        return None
    alpha = lower.index("a") if "a" in lower and len(lower) > 1 else None
    prefix = spec.channelnames[0].rpartition(".")[0]
    return Layer(0, spec.get_string_attribute("oiio:subimagename"), prefix, _view(spec, prefix), (0,), alpha)


def _is_luma_chroma(spec: oiio.ImageSpec, prefix: str) -> bool:
    """Return whether a layer of an EXR stores luminance and chroma (channels RY and BY)."""
    lower = {each.lower() for each in spec.channelnames}
    start = f"{prefix.lower()}." if prefix else ""
    return {f"{start}ry", f"{start}by"} <= lower


def _first_release_layer(layers: Sequence[Layer], first: oiio.ImageSpec) -> Layer | None:
    """Return the layer that was rendered before layers could be selected; its frames keep their keys."""
    plain = [each for each in layers if not each.prefix]
    layered = [each for each in layers if each.prefix and each.part == 0]
    return plain[0] if plain else layered[0] if len(layered) == 1 else _grey_layer(first)


def _note(selected: Layer, layers: Sequence[Layer], *, asked: bool) -> str:
    """Return a sentence that names the rendered layer; empty if the only choice was channels without a prefix."""
    others = [each.name for each in layers if each != selected]
    if not (selected.prefix or asked or any(not each.prefix for each in layers if each != selected)):
        return ""
    beside = f", not {few(others)}" if others else ""
    return f"layer {selected.name} is rendered{beside}" + (
        "; set layer to choose another" if others and not asked else ""
    )


def _no_picture(spec: oiio.ImageSpec, layers: Sequence[Layer], name: str) -> SequenceError:
    """Return the error for a file of which no layer can be selected."""
    if spec.deep and not layers:
        return SequenceError("frame.deep_image", f"frame {name} is a deep image; flatten it first")
    if layers:
        listed = few([each.name for each in layers], most=MAX_LISTED)
        return SequenceError(
            "frame.ambiguous_layer",
            f"frame {name} has several layers that could be its picture: {listed}; set layer to one of them",
        )
    if _is_luma_chroma(spec, ""):
        return SequenceError(
            "frame.not_rgb", f"frame {name} holds lightness and colour differences instead of RGB; convert it to RGB"
        )
    listed = few(spec.channelnames, most=MAX_LISTED)
    return SequenceError(
        "frame.no_colour", f"frame {name} has neither channels R, G and B nor a grey picture; its channels: {listed}"
    )


def dtype_of(spec: oiio.ImageSpec, channels: Channels, name: str) -> np.dtype:
    """Return the dtype in which values are passed to a network: uint8, uint16 or float32.

    Raises SequenceError if the file is not a picture or its value type is unsupported.
    """
    kinds = {str(_format(spec, index)) for index in (*channels.colour, channels.alpha) if index is not None}
    photometric = spec.get_int_attribute("tiff:PhotometricInterpretation", -1)
    if photometric in NOT_PICTURES:
        raise SequenceError(
            "frame.not_a_picture",
            f"frame {name} is a TIFF that holds {NOT_PICTURES[photometric]}, which is not a picture",
        )
    bits, whole = spec.get_int_attribute("oiio:BitsPerSample"), 8 * spec.format.basesize()
    depths = DTYPES | INTEGER_DTYPES if photometric >= 0 and bits == whole else DTYPES
    if others := sorted(kinds - depths.keys()):
        raise SequenceError(
            "frame.unsupported_depth",
            f"frame {name} holds values of type {others[0]}; supported are 8 and 16 bits and floating-point numbers",
        )
    if "double" in kinds and spec.tile_width:  # OpenImageIO 3.2.2 returns uninitialised memory
        raise SequenceError(
            "frame.tiles_of_64_bit", f"frame {name} holds tiles of 64-bit numbers; convert it to 32-bit floats"
        )
    return depths[min(kinds)]


def storage_type(spec: oiio.ImageSpec) -> str:
    """Return OpenImageIO's name of a type that holds the values of all channels."""
    return "float" if spec.channelformats else str(spec.format)


def float_dtype(spec: oiio.ImageSpec, index: int) -> type[np.floating]:
    """Return the dtype of a further channel, which is copied: float16 or float32."""
    return np.float16 if str(_format(spec, index)) == "half" else np.float32


def sample_bytes(spec: oiio.ImageSpec, channels: Channels) -> int:
    """Return the bytes of the smallest colour sample; further channels may have other sizes."""
    return min(_format(spec, index).basesize() for index in channels.colour)


def is_float32(spec: oiio.ImageSpec, index: int) -> bool:
    """Return whether the values of a channel are 32-bit floats."""
    return str(_format(spec, index)) == "float"


def _format(spec: oiio.ImageSpec, index: int) -> oiio.TypeDesc:
    return spec.channelformats[index] if spec.channelformats else spec.format
