"""Checkpoints: what a trainer saved, read without running any code of its author."""

import json
import logging
import pathlib
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dailies.catalog import number, whole, word
from dailies.errors import LoadError, UnknownKind
from dailies.text import clean, few

log = logging.getLogger(__name__)

LONGEST = 100
"""Characters of a file name or key that an error shows."""

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

TRUST = "set trust_pickle, to true or to the ids of runs or experiments, only if you trust whoever wrote it"
"""What to do about a file whose loading can run code."""

EMA_KEYS = ("params_ema", "ema_state_dict", "model_ema", "state_dict_ema", "ema")
STATE_KEYS = ("model_state_dict", "state_dict", "model", "params", "network", "net", "generator", "weights")
"""Where trainers put the weights, in the order in which they are looked for; averaged (EMA) weights come first."""

CONFIG_KEYS = ("model_config", "hyper_parameters", "model_args", "config")
"""Where trainers put what the network is built from."""

ARCHITECTURE_KEYS = ("architecture", "arch")
"""Where trainers name the architecture, beside the weights or in what the network is built from."""

EMA_PREFIXES = ("ema_model.", "model_ema.", "ema.")
PREFIXES = (*EMA_PREFIXES, "_orig_mod.", "module.", "model.", "net.", "network.", "generator.")
"""What wrappers (torch.compile, DataParallel, Lightning, GAN trainers) put before every name of a weight.

Averaged weights come first: where several would fit, they are taken.
"""

BEGINNINGS = {
    b"<": "a web page or XML",
    b"version https://git-lfs": "a pointer of Git LFS, not the file that it stands for",
    b"\x89HDF": "an HDF5 file, as Keras writes them",
    b"\x93NUMPY": "an array of NumPy",
    b"\x1f\x8b": "compressed with gzip",
}
"""What files are that trainers, proxies and version control leave in the place of a model, by their first bytes."""

WRAPPERS = 3
"""How many wrappers around each other are looked through."""


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a network, and what is said of it beside them."""

    file: str
    """Its name, safe to show."""
    state: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    """What to build the network from; empty where the checkpoint does not say."""
    is_config_guessed: bool = False
    """Whether ``config`` may hold more than the network's own settings, such as a learning rate."""
    architecture: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Epoch and losses; only those that it tells."""
    said: Mapping[str, Any] = field(default_factory=dict)
    """What it says of its signature, under ``dailies``."""
    notes: tuple[str, ...] = ()
    """What a user may want to know of how it was read."""


def read_checkpoint(path: Path, *, trusted: bool = False) -> Checkpoint | nn.Module:
    """Read a file of weights: a torch checkpoint of any common layout, or safetensors.

    ``trusted`` allows files whose loading can run code of their author; such a file may hold a whole network, which
    is given as it is. Raises LoadError, saying what was found.
    """
    if path.suffix.lower() == ".safetensors":
        return _safetensors(path)
    found = unpickled(path, trusted=trusted)
    file = shown(path.name)
    if network := _whole(found):
        return network
    state, key = _weights(found)
    if state is None:
        raise UnknownKind(
            f"{file} holds {described(found)}, and no weights: a dict of tensors, by itself or as one of "
            f"{', '.join(STATE_KEYS)}"
        )
    _refuse_hollow(state, file)
    outer = found if key else {}
    config = _config(outer, file)
    built_from = config["model"] if isinstance(config.get("model"), Mapping) else config
    return Checkpoint(
        file=file,
        state=state,
        config={str(name): value for name, value in built_from.items() if name not in ARCHITECTURE_KEYS},
        is_config_guessed="model_config" not in outer and built_from is config,
        architecture=_architecture(outer) or _architecture(built_from) or _architecture(config),
        facts=_facts(outer),
        said=outer["dailies"] if isinstance(outer.get("dailies"), Mapping) else {},
        notes=(f"averaged weights ({key}) are used",) if key in EMA_KEYS else (),
    )


def _whole(found: Any) -> nn.Module | None:
    """Find the whole network that a trusted file may hold instead of weights."""
    inside = [found, *(found.get(key) for key in (*EMA_KEYS, *STATE_KEYS))] if isinstance(found, Mapping) else [found]
    return next((each for each in inside if isinstance(each, nn.Module)), None)


def _config(outer: Mapping[str, Any], file: str) -> Mapping[str, Any]:
    given = outer.get("model_config") or {}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise LoadError(f"the model_config of {file} must be a dict with names as keys, not {described(given)}")
    return next((outer[name] for name in CONFIG_KEYS if isinstance(outer.get(name), Mapping)), {})


def _architecture(said: Mapping[str, Any]) -> str | None:
    return next(filter(None, (_told(word, said.get(key)) for key in ARCHITECTURE_KEYS)), None)


def _refuse_hollow(state: Mapping[str, Tensor], file: str) -> None:
    """Raise LoadError for tensors that claim far more values than the file holds: the same few, repeated."""
    for name, values in state.items():
        if not isinstance(values, Tensor) or values.is_meta:
            continue
        claimed = values.numel() * values.element_size()
        if claimed > values.untyped_storage().nbytes() + HOLLOW:
            raise LoadError(f"{file} claims {claimed / 1e9:.1f} GB for {shown(name)}, far more than it holds")


def _weights(found: Any) -> tuple[Mapping[str, Any] | None, str | None]:
    """Find the dict of tensors, and the key it was under; no key when the whole file is one."""
    if not isinstance(found, Mapping):
        return None, None
    for key in (*EMA_KEYS, *STATE_KEYS):
        inner = found.get(key)
        state = inner["state_dict"] if isinstance(inner, Mapping) and "state_dict" in inner else inner
        if _is_state(state):
            return state, key
    tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    return (tensors, None) if _is_state(found) else (None, None)


def _is_state(value: Any) -> bool:
    """Tell weights from an optimizer's or a scheduler's state: those hold few tensors, or numbers as keys."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return False
    return sum(isinstance(each, Tensor) for each in value.values()) * 2 > len(value)


def _facts(outer: Mapping[str, Any]) -> dict[str, Any]:
    told = {
        "epoch": _told(whole, outer.get("epoch")),
        "train_loss": _told(number, outer.get("train_loss")),
        "val_loss": _told(number, outer.get("val_loss")),
    }
    return {key: value for key, value in told.items() if value is not None}


def _told(read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return None if value is None else read(value)
    except (RuntimeError, OverflowError):  # a tensor of several values, an integer beyond all floats
        return None


def _safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    file = shown(path.name)
    _refuse_long_header(path, file)
    try:
        with safe_open(path, framework="pt") as archive:
            state = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118, it is no dict
            about = dict(archive.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise LoadError(f"{file} is damaged or not a safetensors file: {shown(str(error))}") from error
    try:
        config = json.loads(next((about[key] for key in CONFIG_KEYS if key in about), "{}"))
    except ValueError as error:
        raise LoadError(f"the model_config in the metadata of {file} is not JSON: {shown(str(error))}") from error
    built_from = config if isinstance(config, dict) else {}
    return Checkpoint(
        file=file,
        state=state,
        config={name: value for name, value in built_from.items() if name not in ARCHITECTURE_KEYS},
        architecture=_architecture(about) or _architecture(built_from),
        facts=_facts(about),
        said={key.removeprefix("dailies."): text for key, text in about.items() if key.startswith("dailies.")},
    )


def _refuse_long_header(path: Path, file: str) -> None:
    with path.open("rb") as opened:
        start = opened.read(8)
    size = path.stat().st_size
    if len(start) < 8 or struct.unpack("<Q", start)[0] > size - 8:
        raise LoadError(f"{file} is damaged or not a safetensors file{seen(path)}")


def unpickled(path: Path, *, trusted: bool = False) -> Any:
    """Load what ``torch.save`` wrote, onto the CPU; only tensors and harmless values unless ``trusted``.

    Raises LoadError, naming what the file wants to call, when loading it could run code.
    """
    file = shown(path.name)
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_stored(path))
    except Exception as error:  # damaged files make torch raise nearly anything
        names = _refused(path, error)
        if not names:
            raise UnknownKind(f"{file} is damaged or not a checkpoint that torch wrote{seen(path)}") from error
        needed, cause = f"{file} needs {listed(names)} to be loaded, which can run code", error
    if not trusted:
        raise LoadError(f"{needed}; {TRUST}") from cause
    log.warning("%s; trust_pickle allows it", needed)
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # the author's own code
        log.exception("%s cannot be loaded", file)
        advice = "; name the folder of its code in python_path" if isinstance(error, ImportError) else ""
        raise LoadError(f"{file} cannot be loaded: {shown(f'{type(error).__name__}: {error}')}{advice}") from error


def _is_stored(path: Path) -> bool:
    """Tell whether weights can be used where they lie in the file, which saves reading them: a zip without packing."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def _refused(path: Path, error: Exception) -> list[str]:
    """Name what a file wants to call that is not allowed; nothing when that is not why it cannot be loaded."""
    if not isinstance(error, pickle.UnpicklingError):
        return []
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # only zip archives can be asked; of older files torch's message names the first
        return re.findall(r"GLOBAL (\S+) w", str(error))


def seen(path: Path) -> str:
    """Say what the first bytes of a file mean that is not a checkpoint; nothing when they mean nothing."""
    with path.open("rb") as file:
        start = file.read(40)
    if not start:
        return ": it is empty"
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return ": it is cut short"
    if meaning := next((text for beginning, text in BEGINNINGS.items() if start.lstrip().startswith(beginning)), None):
        return f": it is {meaning}"
    text = start[:20].decode("latin-1")
    return f": it begins with {text!r}" if text.isascii() and text.isprintable() else ""


def described(found: Any) -> str:
    """Say in a few words what an object from a file is."""
    if isinstance(found, Mapping):
        return f"a dict with the keys {listed(map(repr, map(str, found)))}" if found else "an empty dict"
    return f"an object of type {type(found).__name__}"


def fitted(checkpoint: Checkpoint, expected: Mapping[str, Tensor]) -> Checkpoint:
    """Strip the prefixes of wrappers from the weights' names, where that makes them fit a network's own.

    ``expected`` is the network's state dict, on any device. Raises LoadError that counts and names what is missing,
    unexpected, of another shape, or without values.
    """
    best = max(strippings(checkpoint.state), key=lambda state: _closeness(state, expected))
    misfits = {
        "missing": [key for key in expected if key not in best],
        "unexpected": [key for key in best if key not in expected],
        "of another shape": [
            f"{key} {_shape(best[key])} instead of {_shape(like)}"
            for key, like in expected.items()
            if key in best and _shape(best[key]) != _shape(like)
        ],
        "without values": [key for key in expected if getattr(best.get(key), "is_meta", False)],
    }
    counts = [f"{len(keys)} {kind} ({listed(keys)})" for kind, keys in misfits.items() if keys]
    if counts:
        raise LoadError(f"the weights in {checkpoint.file} do not fit the network: {'; '.join(counts)}")
    return replace(checkpoint, state=best, notes=checkpoint.notes + _averaged(checkpoint.state, best))


def _closeness(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[int, int]:
    """Weigh how well names fit: those in common, then how few are left over."""
    common = len(expected.keys() & state.keys())
    return common, common - len(state)


def _averaged(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> tuple[str, ...]:
    some = next(iter(after), "")
    prefix = next((name[: len(name) - len(some)] for name, values in before.items() if values is after.get(some)), "")
    return (f"averaged weights ({prefix}*) are used",) if any(each in prefix for each in EMA_PREFIXES) else ()


def strippings(state: Mapping[str, Any], depth: int = WRAPPERS) -> list[Mapping[str, Any]]:
    """Give the weights as they are, and what lies under each prefix, and under each prefix below that.

    A generator's weights may lie beside a discriminator's or a loss's: what has not the prefix is left out.
    """
    found = [state]
    for prefix in PREFIXES if depth else ():
        if inner := {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}:
            found += strippings(inner, depth - 1)
    return found


def _shape(value: Any) -> str:
    return "×".join(map(str, value.shape)) or "scalar" if isinstance(value, Tensor) else type(value).__name__


def listed(names: Iterable[str]) -> str:
    """List the first few names of the store, safe to show, and count the rest."""
    return few(map(shown, names))


def shown(text: str) -> str:
    """Make a text of the store safe to show: one line, no control characters, not long."""
    return clean(text)[:LONGEST]
