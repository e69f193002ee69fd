"""Checkpoints: the weights and settings that a trainer saved, read without running code from the file."""

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
from numpy._core import multiarray
from torch import Tensor, nn

from dailies.core.errors import LoadError, UnknownKind
from dailies.core.text import listed, number, reason, shown, whole, word
from dailies.models import torch_files
from dailies.models.file_kinds import CONFIG_FILE, INDEX, PART, indexed_files
from dailies.models.inert import Inert, plain
from dailies.models.signature import PREFIX, signature_hints
from dailies.models.training_progress import TrainingProgress, finished_epochs
from dailies.models.weights import Group, groups, preference

log = logging.getLogger(__name__)

HARMLESS: list[Any] = [
    np.dtype,
    np.ndarray,
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefdSU"},
    *(
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for core in ("core", "_core")
        for function in (multiarray.scalar, multiarray._reconstruct)
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
"""Classes and functions that checkpoints commonly hold beside tensors, and whose unpickling runs no code.

The names cover NumPy 1 and 2, and Python before, in and after 3.13.
"""

HOLLOW = 64 * 2**20
"""The bytes by which a tensor may exceed its storage in the file, which it does by repeating values."""

PERMISSION_ADVICE = "set trust_code, to true or to the ids of runs or experiments, only if you trust whoever wrote it"
"""The advice in errors about files whose loading can run code."""

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
"""The keys under which trainers save the configuration of the network, in the order in which they are tried."""

CONFIG_NAME = re.compile(
    r"(^|_)(config|configuration|cfg|conf|args|arguments|kwargs|opt|opts|options|settings|(hyper_?)?param(eter)?s|hparams)$"
)
"""The end of keys, in lower case, under which trainers save settings."""

RUN_PARAMS = "the run's params model.*"
"""The source of the configuration if the file holds none and the run has params ``model.*``."""

EXACT = "model_config"
"""The key whose settings all belong to the network."""

ARCHITECTURE_KEYS = ("architecture", "arch")
"""The keys under which trainers save the architecture, beside the weights or in the configuration."""

BOOKKEEPING = re.compile(
    r"(?<![a-z])(epochs?|(global_|n_)?steps?|iters?|iterations?|loss(es)?|psnr|ssim|lpips|lr|best|versions?|date|time(stamp)?"
    r"|scores?|metrics?|seed|optim(izer)?|sched(uler)?|lr_schedulers?|scaler|rng|callbacks?|loops|hparams_name|commit|git"
    r"|history|states?|format|criterion|dailies|ema|decay)(?![a-z])",
    re.IGNORECASE,
)
"""Words in the keys of entries beside the weights that do not concern the network."""

FIRST_BYTES = {
    b"<": "a web page or XML",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"\x89HDF": "an HDF5 file, as Keras writes them",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "compressed with gzip",
}
"""Files that trainers, proxies and version control leave in place of a model, by their first bytes."""

EMPTY, CUT_SHORT = ": it is empty", ": it is cut short"

MOST_PARTS = 1000
"""The largest number of files that a model may be split into."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file of weights."""

    file: str
    """Its name, safe to show."""
    groups: tuple[Group, ...]
    """Every set of tensors in it."""
    config: Any = field(default_factory=dict)
    """The configuration of the network as the trainer saved it, usually a dict; empty if the file holds none."""
    config_from: str = ""
    """The source of ``config``: a key of the file, or words."""
    architecture: str | None = None
    """The architecture that the file states."""
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    """Epoch and losses in the file."""
    signature: Mapping[str, Any] = field(default_factory=dict)
    """The signature that the file states under ``dailies``."""
    notes: tuple[str, ...] = ()
    """Remarks for the user on how it was read."""
    needs: tuple[str, ...] = ()
    """The classes that unpickling the whole network in the file would import; empty if it holds none."""


def read_checkpoint(path: Path, *, trusted: bool = False) -> Checkpoint | nn.Module:
    """Read weights: a torch checkpoint of any layout and age, safetensors, or a model that is split into several files.

    The content decides which it is. With ``trusted``, code in the file may run, and a whole network that was pickled is
    returned as it is.

    Raises:
        UnknownKind: the file is damaged or holds no weights.
        LoadError: the file needs permission, or parts of the model are missing.
    """
    if INDEX.search(path.name):
        return _read_parts(path, _indexed_parts(path), trusted=trusted)
    if (part := PART.search(path.name)) and int(part[2]) > 1:
        return _read_parts(path, _numbered_parts(path, part), trusted=trusted)
    return _read_file(path, trusted=trusted)


def _read_file(path: Path, *, trusted: bool) -> Checkpoint | nn.Module:
    if _is_safetensors(path):
        return _read_safetensors(path)
    file = shown(path.name)
    found, names = _unpickle(path, trusted=trusted)
    if network := _whole_network(found):
        return network
    held = groups(found)
    if not held:
        if names:
            raise LoadError(
                "model.needs_permission",
                f"{file} needs {listed(names)} to be loaded, which can run code; {PERMISSION_ADVICE}",
            )
        raise UnknownKind(
            "model.no_tensors",
            f"{file} holds {_described(found)}, but no weights: it has no dict of tensors at any depth",
        )
    _check_storage(held, file)
    outer = plain({k: value for k, value in _entries(found).items() if not _is_state(k, value)})
    config, config_from = _config(outer, _config_file(path))
    return Checkpoint(
        file=file,
        groups=tuple(held),
        config=config,
        config_from=config_from,
        architecture=_architecture(outer) or _architecture(config) or _architecture(_any_config(outer)),
        progress=_progress(outer),
        signature=outer["dailies"] if isinstance(outer.get("dailies"), Mapping) else {},
        needs=tuple(names) if any(isinstance(each, Inert) and each.is_module for each in _shallow(found)) else (),
    )


def _shallow(found: Any) -> list[Any]:
    """Return an object and its entries, averaged networks and the usual keys first."""
    inside = sorted(_entries(found).items(), key=lambda item: preference(item[0]))
    return [found, *(value for _, value in inside)]


def _entries(found: Any) -> Mapping[str, Any]:
    return {str(key): value for key, value in found.items()} if isinstance(found, Mapping) else {}


def _whole_network(found: Any) -> nn.Module | None:
    """Return the network that a trusted file may hold instead of weights."""
    return next((each for each in _shallow(found) if isinstance(each, nn.Module)), None)


def _is_state(key: str, value: Any) -> bool:
    """Return whether an entry holds weights. Settings may hold a few tensors too, such as the mean of the data."""
    kinds = {isinstance(each, Tensor) for each in value.values()} if isinstance(value, Mapping) else {False}
    return kinds == {True} or (True in kinds and not CONFIG_NAME.search(_snake(key)))


def _snake(key: str) -> str:
    """Return a key in snake case: ``modelConfig`` as ``model_config``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[-. ]", "_", key).lower()


def _config(outer: Mapping[str, Any], beside: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the configuration of the network and its source.

    It is under a usual key, in ``config.json`` beside the weights (``beside``), or consists of the plain values in the
    file.
    """
    if outer.get(EXACT):
        return outer[EXACT], EXACT
    named = {_snake(key): key for key in reversed(list(outer))} | {key: key for key in outer}
    for key in (named[name] for name in CONFIG_KEYS if name in named):
        if given := _settings(outer[key]):
            return (given["model"], f"{key}.model") if isinstance(given.get("model"), Mapping) else (given, key)
    if beside:
        return beside, CONFIG_FILE
    values = {key: value for key, value in outer.items() if key not in CONFIG_KEYS and _is_setting(key, value)}
    match list(values.keys() - {*ARCHITECTURE_KEYS}):
        case []:
            return {}, ""
        case [key] if CONFIG_NAME.search(_snake(key)) and (given := _settings(values[key])):
            return given, key
    return values, "the values beside the weights"


def _settings(value: Any) -> Mapping[str, Any]:
    """Return settings that were saved as a dict, or as JSON or YAML text of one; else an empty dict."""
    if isinstance(value, str) and re.search(r"^\s*\{|\n", value) and "&" not in value:
        with suppress(yaml.YAMLError, ValueError, RecursionError):
            value = yaml.safe_load(value)
    return value if isinstance(value, Mapping) else {}


def _any_config(outer: Mapping[str, Any]) -> Any:
    return next((found for key in CONFIG_KEYS if (found := _settings(outer.get(key)))), {})


def _is_setting(key: str, value: Any) -> bool:
    """Return whether an entry beside the weights may be a setting of the network: plain, and not bookkeeping."""
    return not BOOKKEEPING.search(re.sub(r"(?<=[a-z])(?=[A-Z])|-", "_", key)) and _is_plain(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def _config_file(path: Path) -> Mapping[str, Any]:
    """Read ``config.json`` beside the weights, as Hugging Face's libraries write it; return {} if there is none."""
    try:
        found = json.loads((path.parent / CONFIG_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _architecture(settings: Any) -> str | None:
    if not isinstance(settings, Mapping):
        return None
    return next(filter(None, (_parsed(word, settings.get(key)) for key in ARCHITECTURE_KEYS)), None)


def _check_storage(held: Iterable[Group], file: str) -> None:
    """Raise LoadError for tensors that have far more values than the file holds, because they repeat a few."""
    for name, values in ((name, values) for group in held for name, values in group.tensors.items()):
        if values.is_meta:
            continue
        claimed = values.numel() * values.element_size()
        if claimed > values.untyped_storage().nbytes() + HOLLOW:
            raise LoadError(
                "model.oversized_tensor",
                f"{file} claims {claimed / 1e9:.1f} GB for {shown(name)}, far more than the file contains",
            )


def _progress(outer: Mapping[str, Any]) -> TrainingProgress:
    finished = finished_epochs(outer)
    return TrainingProgress(
        epoch=_parsed(whole, outer.get("epoch")) if finished is None else finished,
        train_loss=_parsed(number, outer.get("train_loss")),
        val_loss=_parsed(number, outer.get("val_loss")),
    )


def _parsed(parse: Callable[[Any], Any], value: Any) -> Any:
    try:
        return None if value is None else parse(value)
    except (RuntimeError, OverflowError):  # a tensor with several values, an integer too large for a float
        return None


def _is_safetensors(path: Path) -> bool:
    """Return whether a file is safetensors by its first bytes, or by its name, so that errors say what is wrong."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix.lower() == ".safetensors" or (start[8:] == b"{" and not start.startswith(b"PK"))


def _read_safetensors(path: Path) -> Checkpoint:
    file = shown(path.name)
    state, metadata = _open_safetensors(path)
    outer = {key: _from_text(text) for key, text in metadata.items() if not key.startswith(PREFIX)}
    if EXACT in metadata and not isinstance(outer[EXACT], Mapping):
        raise LoadError(
            "model.bad_config_metadata",
            f"the model_config in the metadata of {file} is not a dict in JSON: {shown(metadata[EXACT])}",
        )
    config, config_from = _config(outer, _config_file(path))
    return Checkpoint(
        file=file,
        groups=tuple(groups(state)),
        config=config,
        config_from=config_from,
        architecture=_architecture(outer) or _architecture(config),
        progress=_progress(outer),
        signature=signature_hints(metadata),
    )


def _open_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    file = shown(path.name)
    _check_header_length(path, file)
    try:
        with safe_open(path, framework="pt") as archive:
            state = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118, not a dict
            return state, dict(archive.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise LoadError(
            "model.damaged_safetensors", f"{file} is damaged or not a safetensors file: {shown(str(error))}"
        ) from error


def _from_text(text: str) -> Any:
    """Parse a value of safetensors' metadata, which may be JSON; return other text as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _indexed_parts(path: Path) -> list[str]:
    """Return the names of the files that an index lists."""
    file = shown(path.name)
    try:
        parts = indexed_files(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise LoadError(
            "model.bad_index", f"{file} is not an index of weights: it has no weight_map of names to files"
        ) from error
    if outside := [part for part in parts if Path(part).name != part]:
        raise LoadError("model.part_outside_folder", f"{file} names files outside of its folder: {listed(outside)}")
    return parts


def _numbered_parts(path: Path, part: re.Match[str]) -> list[str]:
    """Return the names of all files of a split model, from the name of one of them."""
    count, digits = int(part[2]), len(part[1])
    if count > MOST_PARTS:
        raise LoadError(
            "model.too_many_parts",
            f"{shown(path.name)} is one of {count} files; a model of more than {MOST_PARTS} files is not supported",
        )
    before, after = path.name[: part.start(1)], path.name[part.end(1) :]
    return [f"{before}{number:0{digits}}{after}" for number in range(1, count + 1)]


def _read_parts(path: Path, parts: Sequence[str], *, trusted: bool) -> Checkpoint:
    """Read a model that is split into several files in one folder.

    Raises:
        LoadError: files are missing, or one holds a whole network.
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
    config, config_from = _config({}, _config_file(path))
    return Checkpoint(file, tuple(groups(state)), config, config_from, _architecture(config))


def _check_header_length(path: Path, file: str) -> None:
    """Raise LoadError if the header of a safetensors file claims to be longer than the file."""
    with path.open("rb") as opened:
        start = opened.read(8)
    size = path.stat().st_size
    if len(start) < 8 or struct.unpack("<Q", start)[0] > size - 8:
        raise LoadError("model.damaged_safetensors", f"{file} is damaged or not a safetensors file{_start_of(path)}")


def _unpickle(path: Path, *, trusted: bool) -> tuple[Any, tuple[str, ...]]:
    """Load a file of ``torch.save`` onto the CPU; return also the names in it that are neither tensors nor plain data.

    torch's restricted reader is tried first. If it rejects the file, everything foreign is replaced by inert stand-ins.
    Only if the file is ``trusted``, and holds a whole network, no weights, or names that no checkpoint needs, it is
    unpickled, which runs its code.

    Raises:
        UnknownKind: the file is damaged, or ``torch.save`` did not write it.
        LoadError: the file needs permission, or its code fails.
    """
    file = shown(path.name)
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_stored(path)), ()
    except Exception:  # damaged files make torch raise nearly anything
        log.debug("torch's restricted reader rejects %s", file, exc_info=True)
    try:
        reading = torch_files.read(path)
    except torch_files.NotWrittenByTorch as error:
        damage = _start_of(path)
        if damage in {EMPTY, CUT_SHORT}:
            raise UnknownKind("model.damaged", f"{file} is damaged{damage}") from error
        raise UnknownKind("model.not_a_checkpoint", f"{file} is not a checkpoint that torch wrote{damage}") from error
    except torch_files.Damaged as error:
        raise UnknownKind("model.damaged", f"{file} is damaged{_start_of(path) or f': {shown(str(error))}'}") from error
    if not trusted:
        if reading.blocked:
            raise LoadError(
                "model.needs_permission",
                f"{file} needs {listed(reading.blocked)} to be loaded, which can run code; {PERMISSION_ADVICE}",
            )
        return reading.content, reading.names
    holds_network = any(isinstance(each, Inert) and each.is_module for each in _shallow(reading.content))
    if groups(reading.content) and not reading.blocked and not holds_network:
        return reading.content, reading.names
    named = reading.blocked or reading.names
    log.warning("%s needs %s to be loaded, which can run code; trust_code allows it", file, listed(named))
    try:
        return torch.load(path, map_location="cpu", weights_only=False), ()
    except Exception as error:  # code from the file
        log.exception("%s cannot be loaded", file)
        raise LoadError("model.unloadable", f"{file} cannot be loaded: {reason(error)}") from error


def _is_stored(path: Path) -> bool:
    """Return whether a file is a zip without compression, whose weights can be mapped into memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def _start_of(path: Path) -> str:
    """Return the end of an error about a file that is not a checkpoint: what its first bytes show, if anything."""
    with path.open("rb") as file:
        start = file.read(40)
    if not start:
        return EMPTY
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return CUT_SHORT
    if kind := next((text for first, text in FIRST_BYTES.items() if start.lstrip().startswith(first)), None):
        return f": it is {kind}"
    text = start[:20].decode("latin-1")
    return f": it begins with {text!r}" if text.isascii() and text.isprintable() else ""


def _described(found: Any) -> str:
    """Return a short description of an object from a file."""
    if isinstance(found, Mapping):
        return f"a dict with the keys {listed(map(repr, map(str, found)))}" if found else "an empty dict"
    return f"an object of type {type(found).__name__}"
