"""Checkpoints: what a trainer saved, read without running any code of its author."""

import json
import logging
import pathlib
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from dailies.core.errors import LoadError, UnknownKind
from dailies.core.text import listed, number, reason, shown, whole, word
from dailies.models import inert
from dailies.models.inert import Inert
from dailies.models.kinds import INDEX, PART
from dailies.models.progress import Progress, finished_epochs
from dailies.models.weights import Group, groups, preference

log = logging.getLogger(__name__)

HARMLESS = [
    np.dtype,
    np.ndarray,
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefdSU"},
    *(
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for core in ("core", "_core")
        for function in (np._core.multiarray.scalar, np._core.multiarray._reconstruct)
    ),
    *(
        (stand_in, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name, stand_in in (
            ("PosixPath", pathlib.PurePosixPath),
            ("PurePosixPath", pathlib.PurePosixPath),
            ("WindowsPath", pathlib.PureWindowsPath),
            ("PureWindowsPath", pathlib.PureWindowsPath),
        )
    ),
]
"""What checkpoints commonly hold beside tensors, and what runs no code when it is unpickled.

With the names that NumPy 1 and 2, and Python before, in and after 3.13, give them.
"""

HOLLOW = 64 * 2**20
"""Bytes that a tensor may have beyond what its file holds of it, by repeating values."""

TRUST = "set trust_code, to true or to the ids of runs or experiments, only if you trust whoever wrote it"
"""What to do about a file whose loading can run code."""

CONFIG_KEYS = (
    "model_config",
    "model_args",
    "hyper_parameters",
    "args",
    "opt",
    "cfg",
    "config",
    "hparams",
    "options",
    "model_kwargs",
)
"""Where trainers put what the network is built from, in the order in which it is looked for."""

CONFIG_NAME = re.compile(
    r"(^|_)(config|configuration|cfg|conf|args|arguments|kwargs|opt|opts|options|settings|(hyper_?)?param(eter)?s|hparams)$"
)
"""How the keys end, in small letters, under which trainers put settings."""

RUN_PARAMS = "the run's params model.*"
"""Where the configuration comes from if the file says nothing and the run has a section for it."""

EXACT = "model_config"
"""The key under which trainers keep the settings of the network alone."""

ARCHITECTURE_KEYS = ("architecture", "arch")
"""Where trainers name the architecture, beside the weights or in what the network is built from."""

BOOKKEEPING = re.compile(
    r"(?<![a-z])(epochs?|(global_|n_)?steps?|iters?|iterations?|loss(es)?|psnr|ssim|lpips|lr|best|versions?|date|time(stamp)?"
    r"|scores?|metrics?|seed|optim(izer)?|sched(uler)?|lr_schedulers?|scaler|rng|callbacks?|loops|hparams_name|commit|git"
    r"|history|states?|format|criterion|dailies|ema|decay)(?![a-z])",
    re.IGNORECASE,
)
"""What trainers keep beside the weights that says nothing of the network, as a word of a key."""

BEGINNINGS = {
    b"<": "a web page or XML",
    b"version https://git-lfs": "a pointer of Git LFS, not the file that it stands for",
    b"\x89HDF": "an HDF5 file, as Keras writes them",
    b"\x93NUMPY": "an array of NumPy",
    b"\x1f\x8b": "compressed with gzip",
}
"""What files are that trainers, proxies and version control leave in the place of a model, by their first bytes."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds."""

    file: str
    """Its name, safe to show."""
    groups: tuple[Group, ...]
    """Every set of tensors in it."""
    config: Any = field(default_factory=dict)
    """What to build the network from, as the trainer saved it, usually a dict; empty where the file does not say."""
    config_from: str = ""
    """Where ``config`` comes from: a key of the file, or in words."""
    architecture: str | None = None
    facts: Progress = field(default_factory=Progress)
    """Epoch and losses, as far as it tells them."""
    said: Mapping[str, Any] = field(default_factory=dict)
    """What it says of its signature, under ``dailies``."""
    notes: tuple[str, ...] = ()
    """What a user may want to know of how it was read."""
    needs: tuple[str, ...] = ()
    """What its author's code would have to provide, where it holds a whole network that was pickled."""


def read_checkpoint(path: Path, *, trusted: bool = False) -> Checkpoint | nn.Module:
    """Read a file of weights: a torch checkpoint of any layout and age, safetensors, or the index of several of them.

    The content decides which it is. ``trusted`` allows files whose loading can run code of their author; such a file
    may hold a whole network, which is returned as it is. Raises LoadError, saying what was found.
    """
    if INDEX.search(path.name):
        return _sharded(path, _indexed(path), trusted=trusted)
    if (part := PART.search(path.name)) and int(part[2]) > 1:
        return _sharded(path, _all_parts(path, part), trusted=trusted)
    return _read_file(path, trusted=trusted)


def _read_file(path: Path, *, trusted: bool) -> Checkpoint | nn.Module:
    if _is_safetensors(path):
        return _safetensors(path)
    file = shown(path.name)
    found, names = unpickled(path, trusted=trusted)
    if network := _whole(found):
        return network
    held = groups(found)
    if not held:
        if names:
            raise LoadError(
                "model.needs_permission", f"{file} needs {listed(names)} to be loaded, which can run code; {TRUST}"
            )
        raise UnknownKind(
            "model.no_tensors",
            f"{file} holds {described(found)}, but no weights: it has no dict of tensors at any depth",
        )
    _refuse_hollow(held, file)
    outer = inert.plain({k: value for k, value in _entries(found).items() if not _is_state(k, value)})
    config, config_from = _config(outer, _beside(path))
    return Checkpoint(
        file=file,
        groups=tuple(held),
        config=config,
        config_from=config_from,
        architecture=_architecture(outer) or _architecture(config) or _architecture(_any_config(outer)),
        facts=_facts(outer),
        said=outer["dailies"] if isinstance(outer.get("dailies"), Mapping) else {},
        needs=tuple(names) if any(isinstance(each, Inert) and each.is_module for each in _shallow(found)) else (),
    )


def _shallow(found: Any) -> list[Any]:
    """Return an object and what it holds one level below, averaged networks and the usual keys first."""
    inside = sorted(_entries(found).items(), key=lambda item: preference(item[0]))
    return [found, *(value for _, value in inside)]


def _entries(found: Any) -> Mapping[str, Any]:
    return {str(key): value for key, value in found.items()} if isinstance(found, Mapping) else {}


def _whole(found: Any) -> nn.Module | None:
    """Find the whole network that a trusted file may hold instead of weights."""
    return next((each for each in _shallow(found) if isinstance(each, nn.Module)), None)


def _is_state(key: str, value: Any) -> bool:
    """Whether an entry holds tensors; a few may be among settings: the mean of the data, the weights of classes."""
    kinds = {isinstance(each, Tensor) for each in value.values()} if isinstance(value, Mapping) else {False}
    return kinds == {True} or (True in kinds and not CONFIG_NAME.search(_snake(key)))


def _snake(key: str) -> str:
    """Write a key in small letters with underscores: ``modelConfig`` as ``model_config``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[-. ]", "_", key).lower()


def _config(outer: Mapping[str, Any], beside: Mapping[str, Any]) -> tuple[Any, str]:
    """Return what the network is built from, and where it was found: under a usual key, in ``config.json`` beside the
    weights, or as plain values beside them."""
    if outer.get(EXACT):
        return outer[EXACT], EXACT
    named = {_snake(key): key for key in reversed(outer)} | {key: key for key in outer}
    for key in (named[name] for name in CONFIG_KEYS if name in named):
        if given := _settings(outer[key]):
            return (given["model"], f"{key}.model") if isinstance(given.get("model"), Mapping) else (given, key)
    if beside:
        return beside, "config.json"
    values = {key: value for key, value in outer.items() if key not in CONFIG_KEYS and _is_setting(key, value)}
    match list(values.keys() - {*ARCHITECTURE_KEYS}):
        case []:
            return {}, ""
        case [key] if CONFIG_NAME.search(_snake(key)) and (given := _settings(values[key])):
            return given, key
    return values, "the values beside the weights"


def _settings(value: Any) -> Mapping[str, Any]:
    """Return settings that were saved as a dict, or as the text of one in JSON or YAML; else nothing."""
    if isinstance(value, str) and re.search(r"^\s*\{|\n", value) and "&" not in value:
        with suppress(yaml.YAMLError, ValueError, RecursionError):
            value = yaml.safe_load(value)
    return value if isinstance(value, Mapping) else {}


def _any_config(outer: Mapping[str, Any]) -> Any:
    return next((found for key in CONFIG_KEYS if (found := _settings(outer.get(key)))), {})


def _is_setting(key: str, value: Any) -> bool:
    """Whether an entry beside the weights may say how the network is built: a plain value, and no bookkeeping."""
    return not BOOKKEEPING.search(re.sub(r"(?<=[a-z])(?=[A-Z])|-", "_", key)) and _is_plain(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def _beside(path: Path) -> Mapping[str, Any]:
    """Read ``config.json`` beside the weights, as Hugging Face's libraries write it; nothing where there is none."""
    try:
        found = json.loads((path.parent / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _architecture(said: Any) -> str | None:
    if not isinstance(said, Mapping):
        return None
    return next(filter(None, (_told(word, said.get(key)) for key in ARCHITECTURE_KEYS)), None)


def _refuse_hollow(held: Iterable[Group], file: str) -> None:
    """Raise LoadError for tensors that claim far more values than the file holds: the same few, repeated."""
    for name, values in ((name, values) for group in held for name, values in group.tensors.items()):
        if values.is_meta:
            continue
        claimed = values.numel() * values.element_size()
        if claimed > values.untyped_storage().nbytes() + HOLLOW:
            raise LoadError(
                "model.oversized_tensor",
                f"{file} claims {claimed / 1e9:.1f} GB for {shown(name)}, far more than it holds",
            )


def _facts(outer: Mapping[str, Any]) -> Progress:
    finished = finished_epochs(outer)
    return Progress(
        epoch=_told(whole, outer.get("epoch")) if finished is None else finished,
        train_loss=_told(number, outer.get("train_loss")),
        val_loss=_told(number, outer.get("val_loss")),
    )


def _told(read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return None if value is None else read(value)
    except (RuntimeError, OverflowError):  # a tensor of several values, an integer beyond all floats
        return None


def _is_safetensors(path: Path) -> bool:
    """Whether a file is of safetensors by its first bytes, or by its name: then what is wrong with it is said."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix.lower() == ".safetensors" or (start[8:] == b"{" and not start.startswith(b"PK"))


def _safetensors(path: Path) -> Checkpoint:
    file = shown(path.name)
    state, about = _safe_tensors(path)
    outer = {key: _from_text(text) for key, text in about.items() if not key.startswith("dailies.")}
    if EXACT in about and not isinstance(outer[EXACT], Mapping):
        raise LoadError(
            "model.bad_config_metadata",
            f"the model_config in the metadata of {file} is not a dict in JSON: {shown(about[EXACT])}",
        )
    config, config_from = _config(outer, _beside(path))
    return Checkpoint(
        file=file,
        groups=tuple(groups(state)),
        config=config,
        config_from=config_from,
        architecture=_architecture(outer) or _architecture(config),
        facts=_facts(outer),
        said={key.removeprefix("dailies."): text for key, text in about.items() if key.startswith("dailies.")},
    )


def _safe_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a file of safetensors."""
    from safetensors import SafetensorError, safe_open

    file = shown(path.name)
    _refuse_long_header(path, file)
    try:
        with safe_open(path, framework="pt") as archive:
            state = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118, it is no dict
            return state, dict(archive.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise LoadError(
            "model.damaged_safetensors", f"{file} is damaged or not a safetensors file: {shown(str(error))}"
        ) from error


def _from_text(text: str) -> Any:
    """Read a value of safetensors' metadata, which holds texts only: JSON where it is some."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _indexed(path: Path) -> list[str]:
    """Return the names of the files that an index says a model's weights are in."""
    file = shown(path.name)
    try:
        parts = sorted({str(part) for part in json.loads(path.read_bytes())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LoadError(
            "model.bad_index", f"{file} is not an index of weights: it has no weight_map of names to files"
        ) from error
    if outside := [part for part in parts if Path(part).name != part]:
        raise LoadError("model.part_outside_folder", f"{file} names files outside of its folder: {listed(outside)}")
    return parts


def _all_parts(path: Path, part: re.Match[str]) -> list[str]:
    """Return the names of all files of a model that is kept in several, of which one is given."""
    count, digits = int(part[2]), len(part[1])
    if count > MOST_PARTS:
        raise LoadError(
            "model.too_many_parts",
            f"{shown(path.name)} is one of {count} files; a model of more than {MOST_PARTS} files is not supported",
        )
    before, after = path.name[: part.start(1)], path.name[part.end(1) :]
    return [f"{before}{number:0{digits}}{after}" for number in range(1, count + 1)]


MOST_PARTS = 1000
"""Files that a model may be kept in."""


def _sharded(path: Path, parts: Sequence[str], *, trusted: bool) -> Checkpoint:
    """Read the weights of a model that are in several files beside each other.

    Raises LoadError that names the files that are missing.
    """
    file = shown(path.name)
    if missing := [part for part in parts if not (path.parent / part).is_file()]:
        raise LoadError(
            "model.missing_parts",
            f"{len(missing)} of the {len(parts)} files of {file} are missing: {listed(missing)}",
        )
    state: dict[str, Tensor] = {}
    for part in parts:
        read = _read_file(path.parent / part, trusted=trusted)
        if not isinstance(read, Checkpoint):
            raise LoadError(
                "model.part_is_network",
                f"{shown(part)}, one of several files, holds a whole network instead of weights",
            )
        state |= read.groups[0].tensors if read.groups else {}
    config, config_from = _config({}, _beside(path))
    return Checkpoint(file, tuple(groups(state)), config, config_from, _architecture(config))


def _refuse_long_header(path: Path, file: str) -> None:
    with path.open("rb") as opened:
        start = opened.read(8)
    size = path.stat().st_size
    if len(start) < 8 or struct.unpack("<Q", start)[0] > size - 8:
        raise LoadError("model.damaged_safetensors", f"{file} is damaged or not a safetensors file{seen(path)}")


def unpickled(path: Path, *, trusted: bool = False) -> tuple[Any, tuple[str, ...]]:
    """Load what ``torch.save`` wrote, onto the CPU, and what it names that is neither a tensor nor plain data.

    torch's restricted reader comes first. What it refuses is read with inert stand-ins in the place of everything
    foreign. Only a ``trusted`` file that holds a whole network, no weights, or what no checkpoint has a reason to name
    is loaded as its author meant it, which runs code. Raises LoadError, naming what the file wants to call, where a
    file needs that and is not trusted.
    """
    file = shown(path.name)
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_stored(path)), ()
    except Exception:  # damaged files make torch raise nearly anything
        log.debug("torch's restricted reader refuses %s", file, exc_info=True)
    try:
        reading = inert.read(path)
    except inert.NotWrittenByTorch as error:
        damage = seen(path)
        if damage in {EMPTY, CUT_SHORT}:
            raise UnknownKind("model.damaged", f"{file} is damaged{damage}") from error
        raise UnknownKind("model.not_a_checkpoint", f"{file} is not a checkpoint that torch wrote{damage}") from error
    except inert.Damaged as error:
        raise UnknownKind("model.damaged", f"{file} is damaged{seen(path) or f': {shown(str(error))}'}") from error
    if not trusted:
        if reading.blocked:
            raise LoadError(
                "model.needs_permission",
                f"{file} needs {listed(reading.blocked)} to be loaded, which can run code; {TRUST}",
            )
        return reading.content, reading.names
    whole = any(isinstance(each, Inert) and each.is_module for each in _shallow(reading.content))
    if not (reading.blocked or whole or not groups(reading.content)):
        return reading.content, reading.names
    named = reading.blocked or reading.names
    log.warning("%s needs %s to be loaded, which can run code; trust_code allows it", file, listed(named))
    try:
        return torch.load(path, map_location="cpu", weights_only=False), ()
    except Exception as error:  # the author's own code
        log.exception("%s cannot be loaded", file)
        raise LoadError("model.unloadable", f"{file} cannot be loaded: {reason(error)}") from error


def _is_stored(path: Path) -> bool:
    """Tell whether weights can be used where they lie in the file, which saves reading them: a zip without packing."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


EMPTY, CUT_SHORT = ": it is empty", ": it is cut short"


def seen(path: Path) -> str:
    """Say what the first bytes of a file mean that is not a checkpoint; nothing when they mean nothing."""
    with path.open("rb") as file:
        start = file.read(40)
    if not start:
        return EMPTY
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return CUT_SHORT
    if meaning := next((text for beginning, text in BEGINNINGS.items() if start.lstrip().startswith(beginning)), None):
        return f": it is {meaning}"
    text = start[:20].decode("latin-1")
    return f": it begins with {text!r}" if text.isascii() and text.isprintable() else ""


def described(found: Any) -> str:
    """Say in a few words what an object from a file is."""
    if isinstance(found, Mapping):
        return f"a dict with the keys {listed(map(repr, map(str, found)))}" if found else "an empty dict"
    return f"an object of type {type(found).__name__}"
