"""Channels: which of a file's are its picture, which lie beside it, and of what type their values are."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import OpenImageIO as oiio  # noqa: N813

from dailies.core.errors import SequenceError
from dailies.core.text import few

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


COLOURS = (("r", "g", "b"), ("red", "green", "blue"))
"""How the colours of a layer are called, in small letters."""

ALPHAS = ("a", "alpha")

WHOLE_PICTURE = ("combined", "beauty", "rgba")
"""Names of the layer that is a renderer's whole picture, in the order in which they are looked for."""

LISTED = 12
"""Layers or channels that an error lists."""

PLAIN = "rgba"
"""What channels R, G, B and A without the name of a layer are called, as compositors call them."""


@dataclass(frozen=True)
class Channels:
    """Which channels of a file are what, by number."""

    colour: tuple[int, ...]
    alpha: int | None
    extra: tuple[int, ...]
    """Those that can be written again."""
    lost: tuple[int, ...]
    layer: str = ""
    """The layer they are of; empty where it is the one that is taken without asking, and always was."""
    note: str = ""
    """Which of several layers is rendered, in words."""


@dataclass(frozen=True)
class Layer:
    """Channels of an EXR that are one picture."""

    part: int
    """The number of the part of the file that holds it."""
    label: str
    """What that part is called; empty where it has no name."""
    prefix: str
    """What precedes the names of its channels, without the last dot."""
    view: str
    """Of a stereo file: left or right, as a rule."""
    colour: tuple[int, ...]
    """Numbers of red, green and blue in the part, or of the one channel that it has."""
    alpha: int | None

    @property
    def name(self) -> str:
        """What it is called in full."""
        inside = self.prefix == self.label or self.prefix.startswith(f"{self.label}.")
        parts = [self.prefix] if inside else [self.label, self.prefix]
        return ".".join(part for part in parts if part) or PLAIN

    @property
    def full_names(self) -> set[str]:
        """What it is called, in small letters, with and without its part and its view."""
        names = {self.name, self.prefix, self.label}
        return {each.casefold() for each in names | {each.removesuffix(f".{self.view}") for each in names} if each}

    @property
    def last_names(self) -> set[str]:
        """The last parts of its names: Combined of ViewLayer.Combined."""
        return {each.rpartition(".")[2] for each in self.full_names}


def find_channels(file: oiio.ImageInput, name: str, layer: str | None = None) -> Channels:
    """Find colour and alpha among the channels of a file, and go to the part of it that holds them.

    An EXR may keep several pictures, in layers, parts and views: ``layer`` is the name of one, or a glob. Without it
    plain R, G and B are taken, else a layer called Combined, beauty or rgba, else the only one with colours.

    Raises SequenceError where none are a picture in RGB or grey, or it is not plain which of several are.
    """
    specs = list(_parts(file))
    layers = [each for part, spec in enumerate(specs) if not spec.deep for each in _layers(spec, part)]
    coloured = [each for each in layers if len(each.colour) == len(COLOURS[0])]
    view = _default_view(specs, coloured)
    usual = _usual(coloured, view) or _grey(specs[0], among=coloured)
    taken = _asked_for(layers, layer, view, name) if layer else usual
    if taken is None:
        raise _refusal(specs[0], coloured, name)
    if len(specs) > 1:
        file.seek_subimage(taken.part, 0)
    spec = specs[taken.part]
    is_difference = len(taken.colour) == 1 and _is_difference(spec, taken.prefix)
    if is_difference or spec.get_string_attribute("tiff:ColorSpace") == "CIELAB":
        raise SequenceError(
            "frame.not_rgb", f"frame {name} holds lightness and two colour differences; convert it to RGB first"
        )
    others = [index for index in range(spec.nchannels) if index not in (*taken.colour, taken.alpha)]
    written = {"r", "g", "b"} | ({"a"} if taken.alpha is not None else set()) if len(taken.colour) > 1 else {"y", "a"}
    hiding = _hiding(taken, usual, coloured)
    kept = tuple(
        index
        for index in others
        if str(_format(spec, index)) in {"half", "float"}
        and spec.channelnames[index].lower() not in written
        and index not in hiding
    )
    return Channels(
        taken.colour,
        taken.alpha,
        kept,
        tuple(index for index in others if index not in kept),
        layer="" if taken == usual == _earlier(coloured, specs[0]) else taken.name,
        note=_note(taken, coloured, asked=bool(layer)),
    )


def _hiding(taken: Layer, usual: Layer | None, coloured: Iterable[Layer]) -> set[int]:
    """Return channels that would be taken for the picture if they were written beside the one channel of ``taken``."""
    if len(taken.colour) > 1 or usual is None or len(usual.colour) == 1:
        return set()
    return {index for layer in coloured if layer.part == taken.part for index in layer.colour}


def _parts(file: oiio.ImageInput) -> Iterator[oiio.ImageSpec]:
    """Give what is said of each part of an EXR, or of the picture of another file that is open."""
    if file.format_name() != "openexr":
        spec = oiio.ImageSpec(file.spec())
        if file.format_name() == "targa" and spec.nchannels == 2:
            spec.channelnames = ("Y", "A")  # which it calls R and G
        yield spec
        return
    part = 0
    while file.seek_subimage(part, 0):
        yield oiio.ImageSpec(file.spec())
        part += 1
    file.geterror()
    file.seek_subimage(0, 0)


def _layers(spec: oiio.ImageSpec, part: int) -> Iterator[Layer]:
    """Give the pictures in a part: layers with colours, with a luminance, or with nothing but one channel."""
    groups: dict[str, dict[str, int]] = {}
    for index, name in enumerate(spec.channelnames):
        prefix, _, channel = name.rpartition(".")
        groups.setdefault(prefix, {}).setdefault(channel.lower(), index)
    label = spec.get_string_attribute("oiio:subimagename")
    for prefix, channels in groups.items():
        alpha = next((channels[each] for each in ALPHAS if each in channels), None)
        view = _view(spec, prefix)
        colours = next((names for names in COLOURS if channels.keys() >= {*names}), None)
        if colours:
            yield Layer(part, label, prefix, view, tuple(channels[each] for each in colours), alpha)
        elif "y" in channels:
            yield Layer(part, label, prefix, view, (channels["y"],), alpha)
        elif len(channels) == 1:
            (only,) = channels.values()
            yield Layer(part, label, prefix or spec.channelnames[only], view, (only,), None)


def _view(spec: oiio.ImageSpec, prefix: str) -> str:
    """Name the view of channels: that of their part, or the one in their name; those without are the first's."""
    views = spec.getattribute("multiView") or ()
    if last := next((view for view in views if view == prefix.rpartition(".")[2]), ""):
        return last
    return spec.get_string_attribute("view") or (views[0] if views and not prefix else "")


def _default_view(specs: Sequence[oiio.ImageSpec], layers: Iterable[Layer]) -> str:
    views = specs[0].getattribute("multiView") or [layer.view for layer in layers if layer.view]
    return views[0] if views else ""


def _usual(layers: Sequence[Layer], view: str) -> Layer | None:
    """Return the layer that is plainly the picture; None where there is none, or where it could be several."""
    layers = [each for each in layers if each.view in {"", view}] or layers
    plain = [each for each in layers if not each.prefix]
    # mattes: their values are ids
    layers = plain or [each for each in layers if "crypto" not in each.prefix.lower()] or layers
    for name in WHOLE_PICTURE:
        for names in (lambda each: each.full_names, lambda each: each.last_names):
            if found := [each for each in layers if (each.prefix or each.label) and name in names(each)]:
                return found[0] if len(found) == 1 else None
    return plain[0] if plain else layers[0] if len(layers) == 1 else None


def _asked_for(layers: Sequence[Layer], asked: str, view: str, name: str) -> Layer:
    """Return the layer of that name, or that a glob is true of; raise SequenceError, which lists what there is."""
    if exact := next((each for each in layers if each.name == asked), None):
        return exact
    wanted = asked.casefold()

    def names(each: Layer) -> set[str]:
        return each.full_names | {each.view.casefold()} | (set() if each.prefix else {PLAIN})

    for matches in (
        lambda each: wanted in names(each),
        lambda each: wanted in each.last_names,
        lambda each: any(fnmatchcase(known, wanted) for known in names(each)),
        lambda each: any(fnmatchcase(known, wanted) for known in each.last_names),
    ):
        found = [each for each in layers if matches(each)]
        found = [each for each in found if len(each.colour) > 1] or found
        if taken := found[0] if len(found) == 1 else _usual(found, view):
            return taken
        if found:
            listed = few([each.name for each in found], most=LISTED)
            raise SequenceError(
                "frame.ambiguous_layer",
                f"frame {name} has several layers '{asked}': {listed}; set layer to one of them",
            )
    listed = few([each.name for each in layers], most=LISTED)
    advice = "Set layer to one of them or to none"
    raise SequenceError("frame.no_layer", f"frame {name} has no layer '{asked}'; its layers: {listed}. {advice}")


def _grey(spec: oiio.ImageSpec, among: Sequence[Layer] = ()) -> Layer | None:
    """Return the picture of a part that has a luminance before all others, or nothing but one channel."""
    lower = [each.lower() for each in spec.channelnames]
    if spec.deep or not ((len(lower) == 1 and not among) or "y" in lower[:1]):
        return None
    alpha = lower.index("a") if "a" in lower and len(lower) > 1 else None
    prefix = spec.channelnames[0].rpartition(".")[0]
    return Layer(0, spec.get_string_attribute("oiio:subimagename"), prefix, _view(spec, prefix), (0,), alpha)


def _is_difference(spec: oiio.ImageSpec, prefix: str) -> bool:
    lower = {each.lower() for each in spec.channelnames}
    start = f"{prefix.lower()}." if prefix else ""
    return {f"{start}ry", f"{start}by"} <= lower


def _earlier(layers: Sequence[Layer], first: oiio.ImageSpec) -> Layer | None:
    """Return what was rendered before there was a choice of layers: frames of it keep their keys."""
    plain = [each for each in layers if not each.prefix]
    layered = [each for each in layers if each.prefix and each.part == 0]
    return plain[0] if plain else layered[0] if len(layered) == 1 else _grey(first)


def _note(taken: Layer, layers: Sequence[Layer], *, asked: bool) -> str:
    """Say which of several layers is rendered; nothing where there is no choice but plain channels."""
    others = [each.name for each in layers if each != taken]
    if not (taken.prefix or asked or any(not each.prefix for each in layers if each != taken)):
        return ""
    beside = f", not {few(others)}" if others else ""
    return f"layer {taken.name} is rendered{beside}" + ("; set layer to choose another" if others and not asked else "")


def _refusal(spec: oiio.ImageSpec, layers: Sequence[Layer], name: str) -> SequenceError:
    if spec.deep and not layers:
        return SequenceError("frame.deep_image", f"frame {name} is a deep image; flatten it first")
    if layers:
        listed = few([each.name for each in layers], most=LISTED)
        return SequenceError(
            "frame.ambiguous_layer",
            f"frame {name} has several layers that could be its picture: {listed}; set layer to one of them",
        )
    if _is_difference(spec, ""):
        return SequenceError(
            "frame.not_rgb", f"frame {name} holds lightness and two colour differences; convert it to RGB first"
        )
    listed = few(spec.channelnames, most=LISTED)
    return SequenceError(
        "frame.no_colour", f"frame {name} has no channels R, G and B that are its picture; its channels: {listed}"
    )


def depth_of(spec: oiio.ImageSpec, channels: Channels, name: str) -> np.dtype:
    """Give the type of values that a network is handed; raise SequenceError where those of a file are no picture's."""
    kinds = {str(_format(spec, index)) for index in (*channels.colour, channels.alpha) if index is not None}
    photometric = spec.get_int_attribute("tiff:PhotometricInterpretation", -1)
    if photometric in RAW:
        raise SequenceError(
            "frame.not_a_picture", f"frame {name} is a TIFF that holds {RAW[photometric]}, which is not a picture"
        )
    bits, whole = spec.get_int_attribute("oiio:BitsPerSample"), 8 * spec.format.basesize()
    depths = DEPTHS | INTEGERS if photometric >= 0 and bits == whole else DEPTHS
    if others := sorted(kinds - depths.keys()):
        raise SequenceError(
            "frame.unsupported_depth",
            f"frame {name} holds values of type {others[0]}; allowed are 8 and 16 bits and floating-point numbers",
        )
    if "double" in kinds and spec.tile_width:  # OpenImageIO 3.2.2 gives what was in memory before
        raise SequenceError(
            "frame.tiles_of_64_bit", f"frame {name} holds tiles of 64-bit numbers; convert it to 32 bits first"
        )
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
