"""Signatures: how a network wants to be fed, and who may say so."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

import yaml

from dailies.core.errors import LoadError
from dailies.core.text import clean
from dailies.core.typed import OMITTED, UNWRITTEN, to_json

if TYPE_CHECKING:
    from dailies.planning.config import Settings


PREFIX = "dailies."
"""Run params and tags that begin with it speak of the signature: ``dailies.value_range`` = ``[0, 1]``."""

COLOURS = frozenset({1, 3, 4})
"""How many channels a picture may have: grey, RGB, or RGB and alpha."""

BUILT_IN = frozenset({"unet", "nafnet"})
"""The architectures that come with this program, whose range of values is the default; named here without torch."""

ASSUMED = "assumed"
"""What is said of a value range that nobody says."""

MOST_CHANNELS = 64
"""How many channels a network's input may have."""


@dataclass(frozen=True)
class Signature:
    """How a network wants to be fed, and what it answers."""

    channels: int = 3
    """Channels of its input: 1, 3 or 4 of a picture, and those of ``extra_channels``."""
    output_channels: int | None = None
    """Channels of its output: 1, 3 or 4; None: what a first try shows."""
    value_range: tuple[float, float] = (-1.0, 1.0)
    """What black and white are to it."""
    output_range: tuple[float, float] | None = None
    """What black and white are in its answer; None: the same as ``value_range``, or [0, 1] with mean and std."""
    mean: tuple[float, ...] | None = None
    """Subtracted from each channel of [0, 1] before it is divided by ``std``; takes the place of ``value_range``."""
    std: tuple[float, ...] | None = None
    channel_order: str = "rgb"
    """``rgb`` or ``bgr``, on both sides."""
    scale: int | None = None
    """Output pixels per input pixel along one axis; None: what a first try shows."""
    multiple: int = 32
    """Both sides of what the network is given are multiples of this many pixels; tiles start on it too. It divides
    the sides of ``tile``."""
    least: tuple[int, int] = (1, 1)
    """Height and width, in pixels, to which smaller frames are padded."""
    most: tuple[int | None, int | None] = (None, None)
    """Height and width, in pixels, beyond which frames are rendered in tiles; None: no bound."""
    tile: tuple[int, int] | None = None
    """Height and width, in pixels, of the one size that the network is given; None: any within the bounds."""
    half: bool = True
    """Whether it may run in half precision."""
    output: str | None = field(default=None, metadata=OMITTED)
    """Which of its outputs is the frame, where it answers several: an index or a name, such as ``1`` or ``final``."""
    extra_channels: tuple[float, ...] | None = field(default=None, metadata=OMITTED)
    """Constants that the network gets after the channels of the picture, one channel each, as its own numbers."""
    told: frozenset[str] = field(default=frozenset(), compare=False, metadata=UNWRITTEN)
    """Names of the fields that the configuration, the run or the checkpoint sets; all others are known or assumed."""

    @property
    def colours(self) -> int:
        """The channels of a picture among the network's: 1, 3 or 4 in a signature that can be used."""
        return self.channels - len(self.extra_channels or ())

    @property
    def tells_range(self) -> bool:
        """Whether the configuration, the run or the checkpoint says what black and white are to the network."""
        return not self.told.isdisjoint({"value_range", "mean"})

    @property
    def is_per_colour(self) -> bool:
        """Whether a frame's three colours go through the network one by one."""
        return self.colours == 1 and self.output_channels in {None, 1}

    @property
    def ends(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What black and white are to the network: one number for all channels, or one for each."""
        if self.mean is None or self.std is None:
            return self.value_range[:1], self.value_range[1:]
        pairs = list(zip(self.mean, self.std, strict=True))
        return tuple(-mean / std for mean, std in pairs), tuple((1 - mean) / std for mean, std in pairs)

    @property
    def answer_range(self) -> tuple[float, float]:
        """What black and white are in the network's answer."""
        return self.output_range or ((0.0, 1.0) if self.mean is not None else self.value_range)


def signature(known: Signature, *sources: tuple[str, Mapping[str, Any]]) -> Signature:
    """Refine what the loader knows by what others say, the first source weighing most.

    Each source is a name for errors and a mapping of field names to values, as they come: numbers, lists or text.
    Raises LoadError that names the source, the field and what is allowed.
    """
    merged = known
    for where, said in reversed(sources):
        merged = replace(merged, **{key: _read(key, value, where) for key, value in said.items()})
    told = known.told.union(*(said for _, said in sources))
    merged = replace(merged, told=told)
    if merged.extra_channels and "channels" not in told and merged.colours not in COLOURS:
        merged = replace(merged, channels=Signature.channels + len(merged.extra_channels))
    _check(merged)
    if merged.tile is None:
        return merged
    # tiles start on multiples of it: at least four places in a tile, so that neighbours can overlap
    quarter = max(1, min(merged.tile) // 4)
    return replace(merged, multiple=math.gcd(merged.multiple, *merged.tile, 2 ** (quarter.bit_length() - 1)))


def as_record(signature: Signature) -> dict[str, Any]:
    """Return a signature as records hold it: a field that came later than they did only where it says something.

    The key of a frame depends on it, so a new field must not change the record of a network that does not use it.
    """
    return to_json(signature)


def range_of(architecture: str | None, folder: str, run: Mapping[str, Any], settings: "Settings") -> str:
    """Return in a few words which value range is known before a model is loaded: its own, or that it is assumed.

    ``run`` is what the run's params and tags say, ``settings`` the configuration. The checkpoint may say more.
    """
    name = (architecture or settings.default_architecture or "").lower()
    said = overrides(settings.signatures, architecture=name, folder=folder)
    try:
        found = signature(Signature(), ("signatures in the configuration", said), ("the run", run))
    except LoadError:
        return "not valid"
    if not found.tells_range:
        factories = settings.model_factory or {}
        is_users = isinstance(factories, str) or not {name, "*"}.isdisjoint(map(str.lower, factories))
        return ASSUMED if is_users or name not in BUILT_IN else written(found.value_range)
    return written(found.value_range) if found.mean is None else "mean and std"


def written(value_range: tuple[float, float]) -> str:
    return f"[{value_range[0]:g}, {value_range[1]:g}]"


def told_by(texts: Mapping[str, str]) -> dict[str, str]:
    """Pick what a run's params or tags say of the signature, by field name."""
    return {name.removeprefix(PREFIX): text for name, text in texts.items() if name.startswith(PREFIX)}


def overrides(config: Mapping[str, Mapping[str, Any]], *, architecture: str, folder: str) -> dict[str, Any]:
    """Give what the configuration says for an architecture or a folder name; both are matched as shell patterns.

    A later pattern of the configuration weighs more than an earlier one.
    """
    merged: dict[str, Any] = {}
    for pattern, said in config.items():
        if fnmatchcase(architecture.lower(), pattern.lower()) or fnmatchcase(folder, pattern):
            merged |= said
    return merged


def _read(key: str, value: Any, where: str) -> Any:
    if key not in FIELDS:
        raise LoadError(
            "model.unknown_signature_key",
            f"{where} sets {clean(key)[:60]}, which is not part of a signature; its keys: {', '.join(FIELDS)}",
        )
    allowed, read = FIELDS[key]
    try:
        return read(yaml.safe_load(value) if isinstance(value, str) and key not in TEXTS else value)
    except (TypeError, ValueError, KeyError, OverflowError, yaml.YAMLError):
        raise LoadError(
            "model.bad_signature_value", f"{where} says that {key} is '{clean(str(value))[:60]}'; allowed: {allowed}"
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
    """Read an index or a name as text; YAML takes ``1.0``, the first image of the second output, for a number."""
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

CONSTANTS = "a list of numbers, one for each channel after those of the picture, such as [0.06]"
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
"""What each field of a signature may be, in words, and how it is read."""

TEXTS = frozenset({"output"})
"""Fields whose text means itself and is not read as YAML."""


def _check(merged: Signature) -> None:
    if merged.extra_channels and merged.colours not in COLOURS:
        raise LoadError(
            "model.bad_extra_channels",
            f"channels is {merged.channels} and extra_channels has {len(merged.extra_channels)} numbers, which leaves "
            f"{merged.colours} channels for the picture; allowed: 1, 3 or 4",
        )
    if (merged.mean is None) != (merged.std is None):
        raise LoadError("model.mean_without_std", "mean and std belong together; give both or neither")
    if merged.mean is not None and merged.std is not None:
        if merged.colours in COLOURS and not len(merged.mean) == len(merged.std) == merged.colours:
            raise LoadError(
                "model.wrong_mean_length",
                f"mean has {len(merged.mean)} numbers and std has {len(merged.std)}, but the network takes "
                f"{merged.colours} channels",
            )
        if min(merged.std) <= 0:
            raise LoadError("model.bad_std", "std must be above 0 in every channel")
