"""Signatures: the input and output that a network expects, and where that is stated."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import yaml

from dailies.core.errors import LoadError
from dailies.core.text import clean
from dailies.core.typed import OMITTED, UNWRITTEN

PREFIX = "dailies."
"""Run params and tags with this prefix state the signature: ``dailies.value_range`` = ``[0, 1]``."""

COLOURS = frozenset({1, 3, 4})
"""The possible numbers of channels of an image: grey, RGB, or RGB and alpha."""

BUILT_IN = frozenset({"unet", "nafnet"})
"""The built-in architectures, which use the default value range; listed here because this module imports no torch."""

ASSUMED = "assumed"
"""Shown for a value range that nobody states."""

MOST_CHANNELS = 64
"""The largest number of input channels."""


@dataclass(frozen=True)
class Signature:
    """The input that a network expects, and the output that it returns."""

    channels: int = 3
    """Input channels: 1, 3 or 4 of the image, plus those of ``extra_channels``."""
    output_channels: int | None = None
    """Output channels: 1, 3 or 4; None: found by a trial run."""
    value_range: tuple[float, float] = (-1.0, 1.0)
    """The input values of black and white."""
    output_range: tuple[float, float] | None = None
    """The output values of black and white; None: the same as ``value_range``, or [0, 1] with mean and std."""
    mean: tuple[float, ...] | None = None
    """Subtracted from each channel in [0, 1], which is then divided by ``std``; replaces ``value_range``."""
    std: tuple[float, ...] | None = None
    channel_order: str = "rgb"
    """``rgb`` or ``bgr``, for input and output."""
    scale: int | None = None
    """Output pixels per input pixel along one axis; None: found by a trial run."""
    multiple: int = 32
    """Both sides of every input are multiples of this many pixels, and so are the offsets of tiles. It divides the
    sides of ``tile``."""
    least: tuple[int, int] = (1, 1)
    """Height and width, in pixels, to which smaller frames are padded."""
    most: tuple[int | None, int | None] = (None, None)
    """Height and width, in pixels, beyond which frames are rendered in tiles; None: no bound."""
    tile: tuple[int, int] | None = None
    """Height and width, in pixels, of every input; None: any size within the bounds."""
    half: bool = True
    """Whether it may run in half precision."""
    output: str | None = field(default=None, metadata=OMITTED)
    """The output that is the frame, if there are several: an index or a name, such as ``1`` or ``final``."""
    extra_channels: tuple[float, ...] | None = field(default=None, metadata=OMITTED)
    """Constants that fill the input channels after those of the image, in the network's own units."""
    stated: frozenset[str] = field(default=frozenset(), compare=False, metadata=UNWRITTEN)
    """The fields that the configuration, the run or the checkpoint sets; all others are derived or assumed."""

    @property
    def colours(self) -> int:
        """The channels of the image among the input channels: 1, 3 or 4 in a usable signature."""
        return self.channels - len(self.extra_channels or ())

    @property
    def states_range(self) -> bool:
        """Whether the configuration, the run or the checkpoint states the value range of the input."""
        return not self.stated.isdisjoint({"value_range", "mean"})

    @property
    def is_per_colour(self) -> bool:
        """Whether the network processes the three colours of a frame one by one."""
        return self.colours == 1 and self.output_channels in {None, 1}

    @property
    def black_and_white(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The input values of black and of white: one number for all channels, or one for each."""
        if self.mean is None or self.std is None:
            return self.value_range[:1], self.value_range[1:]
        pairs = list(zip(self.mean, self.std, strict=True))
        return tuple(-mean / std for mean, std in pairs), tuple((1 - mean) / std for mean, std in pairs)

    @property
    def effective_output_range(self) -> tuple[float, float]:
        """The output values of black and white, whether stated or not."""
        return self.output_range or ((0.0, 1.0) if self.mean is not None else self.value_range)


def resolve_signature(known: Signature, *sources: tuple[str, Mapping[str, Any]]) -> Signature:
    """Override the signature that the loader derived with those that are stated; the first source wins.

    Each source is a name for errors and a mapping of field names to raw values: numbers, lists or text.

    Raises:
        LoadError: a field is unknown, a value is not allowed, or fields contradict each other.
    """
    merged = known
    for source, fields in reversed(sources):
        merged = replace(merged, **{key: _read(key, value, source) for key, value in fields.items()})
    stated = known.stated.union(*(fields for _, fields in sources))
    merged = replace(merged, stated=stated)
    if merged.extra_channels and "channels" not in stated and merged.colours not in COLOURS:
        merged = replace(merged, channels=Signature.channels + len(merged.extra_channels))
    _check(merged)
    if merged.tile is None:
        return merged
    # tiles start on multiples of it; at least four of them fit into a tile, so that neighbours can overlap
    quarter = max(1, min(merged.tile) // 4)
    return replace(merged, multiple=math.gcd(merged.multiple, *merged.tile, 2 ** (quarter.bit_length() - 1)))


def known_range(
    signatures: Mapping[str, Mapping[str, Any]],
    run: Mapping[str, Any],
    *,
    architecture: str,
    folder: str,
    factories: str | Mapping[str, str],
) -> str:
    """Return, for a table, the value range of a model that is not loaded yet, or that it is assumed.

    Loading the checkpoint may reveal another one.

    Args:
        signatures: the key of this name in the configuration.
        run: the signature that the run states, as ``signature_hints`` returns it.
        architecture: the architecture of the run, else the configuration's default.
        folder: the name of the model's folder.
        factories: ``model_factory`` in the configuration; the networks that it builds have no default range.
    """
    name = architecture.lower()
    configured = overrides(signatures, architecture=name, folder=folder)
    try:
        found = resolve_signature(Signature(), ("signatures in the configuration", configured), ("the run", run))
    except LoadError:
        return "not valid"
    if found.states_range:
        return format_range(found.value_range) if found.mean is None else "mean and std"
    has_factory = isinstance(factories, str) or not {name, "*"}.isdisjoint(map(str.lower, factories))
    return ASSUMED if has_factory or name not in BUILT_IN else format_range(found.value_range)


def format_range(value_range: tuple[float, float]) -> str:
    """Return a value range as text: ``[0, 1]``."""
    return f"[{value_range[0]:g}, {value_range[1]:g}]"


def signature_hints(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of the signature that a run's params or tags state, as text."""
    return {name.removeprefix(PREFIX): text for name, text in texts.items() if name.startswith(PREFIX)}


def overrides(config: Mapping[str, Mapping[str, Any]], *, architecture: str, folder: str) -> dict[str, Any]:
    """Return the fields that ``signatures`` in the configuration sets for an architecture or a folder name.

    Its keys are shell patterns for either. A later pattern overrides an earlier one.
    """
    merged: dict[str, Any] = {}
    for pattern, fields in config.items():
        if fnmatchcase(architecture.lower(), pattern.lower()) or fnmatchcase(folder, pattern):
            merged |= fields
    return merged


def _read(key: str, value: Any, source: str) -> Any:
    if key not in FIELDS:
        raise LoadError(
            "model.unknown_signature_key",
            f"{source} sets {clean(key)[:60]}, which is not part of a signature; its keys: {', '.join(FIELDS)}",
        )
    allowed, read = FIELDS[key]
    try:
        return read(yaml.safe_load(value) if isinstance(value, str) and key not in TEXTS else value)
    except (TypeError, ValueError, KeyError, OverflowError, yaml.YAMLError):
        raise LoadError(
            "model.bad_signature_value", f"{source} sets {key} to '{clean(str(value))[:60]}'; allowed: {allowed}"
        ) from None


def _one_of(*allowed: Any) -> tuple[str, Callable[[Any], Any]]:
    by_text = {str(each).lower(): each for each in allowed}
    return " or ".join(map(str, allowed)), lambda value: by_text[str(value).lower()]


def _range(value: Any) -> tuple[float, float]:
    black, white = _numbers(value)
    if not black < white:
        raise ValueError
    return black, white


def _numbers(value: Any) -> tuple[float, ...]:
    numbers = tuple(map(float, value))
    if not all(map(math.isfinite, numbers)):
        raise ValueError
    return numbers


def _constants(value: Any) -> tuple[float, ...]:
    numbers = _numbers(value if isinstance(value, list | tuple) else [value])
    if not 1 <= len(numbers) < MOST_CHANNELS:
        raise ValueError
    return numbers


def _output(value: Any) -> str:
    """Read an index or a name as text. YAML would turn ``1.0``, the first image of the second output, into a number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    text = str(value).strip()
    if not (0 < len(text) <= 200 and text.isprintable()):
        raise ValueError
    return text


def _positive(value: Any, most: int = 8192) -> int:
    if isinstance(value, bool) or int(value) != value or not 1 <= value <= most:
        raise ValueError
    return int(value)


def _size(value: Any) -> tuple[int, int]:
    height, width = value if isinstance(value, list | tuple) else (value, value)
    return _positive(height), _positive(width)


RANGE = "two numbers, black and white, such as [-1, 1], [0, 1] or [0, 255]"
NUMBERS = "a list of one number per channel"
PIXELS = "a number of pixels from 1 to 8192"
SIZE = f"{PIXELS}, or a list of two, height and width"
CONSTANTS = "a list of numbers, one for each channel after those of the image, such as [0.06]"
OUTPUT = "an index or a name, such as 1, final or stages.0"

FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "channels": (f"a number from 1 to {MOST_CHANNELS}", partial(_positive, most=MOST_CHANNELS)),
    "output_channels": _one_of(1, 3, 4),
    "value_range": (RANGE, _range),
    "output_range": (RANGE, _range),
    "mean": (NUMBERS, _numbers),
    "std": (NUMBERS, _numbers),
    "channel_order": _one_of("rgb", "bgr"),
    "scale": _one_of(1, 2, 3, 4, 8),
    "multiple": (PIXELS, _positive),
    "least": (SIZE, _size),
    "most": (SIZE, _size),
    "tile": (SIZE, _size),
    "half": _one_of(True, False),
    "output": (OUTPUT, _output),
    "extra_channels": (CONSTANTS, _constants),
}
"""The allowed values of each field, in words, and the function that reads them."""

TEXTS = frozenset({"output"})
"""Fields whose text is not parsed as YAML."""


def _check(merged: Signature) -> None:
    if merged.extra_channels and merged.colours not in COLOURS:
        raise LoadError(
            "model.bad_extra_channels",
            f"channels is {merged.channels} and extra_channels has {len(merged.extra_channels)} numbers, which leaves "
            f"{merged.colours} channels for the image; allowed: 1, 3 or 4",
        )
    if (merged.mean is None) != (merged.std is None):
        raise LoadError("model.mean_without_std", "mean and std belong together; set both or neither")
    if merged.mean is not None and merged.std is not None:
        if merged.colours in COLOURS and not len(merged.mean) == len(merged.std) == merged.colours:
            raise LoadError(
                "model.wrong_mean_length",
                f"mean has {len(merged.mean)} numbers and std has {len(merged.std)}, but the network takes "
                f"{merged.colours} channels",
            )
        if min(merged.std) <= 0:
            raise LoadError("model.bad_std", "std must be above 0 in every channel")
