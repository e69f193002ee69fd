"""Models: from a downloaded artifact to a network that is ready to render, and how it wants to be fed."""

import logging
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dailies.architectures import ARCHITECTURES
from dailies.catalog import number, whole, word
from dailies.errors import LoadError
from dailies.programs import is_program, open_program
from dailies.text import clean

log = logging.getLogger(__name__)

NAMED = 5
"""How many keys of each kind an error spells out."""

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


@dataclass(frozen=True)
class Signature:
    """How a network wants to be fed."""

    channels: int = 3
    value_range: tuple[float, float] = (-1.0, 1.0)
    """What black and white are to the network, on both of its sides."""
    scale: int = 1
    """Output pixels per input pixel along one axis."""
    multiple: int = 32
    """Both sides of what the network is given are multiples of this many pixels; tiles start on it too."""


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode, with what is known of it."""

    network: nn.Module
    """Takes float32 ``(1, channels, height, width)`` in ``signature.value_range`` and gives the same, scaled."""
    architecture: str
    signature: Signature = Signature()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Epoch and losses as the checkpoint tells them; only those that it tells."""


def load_model(path: Path, *, architecture: str | None = None, trust_pickle: bool = False) -> Model:
    """Build the network that a downloaded artifact holds, on the CPU, with float32 weights.

    Args:
        path: a file of weights, a program (TorchScript, torch.export, ONNX), or the folder of an MLflow model.
        architecture: what the run says; the checkpoint's own word comes first.
        trust_pickle: load files whose loading can run code of their author.

    Raises:
        LoadError: saying what was found and what was expected.
    """
    file = _shown(path.name)
    if path.is_dir():
        raise LoadError(f"{file} is an MLflow model folder; only checkpoint and program files can be loaded")
    if is_program(path):
        return _program(path, file, trust_pickle=trust_pickle)
    checkpoint = _unpickled(path, trust_pickle=trust_pickle)
    if not isinstance(checkpoint, dict) or "model_state_dict" not in checkpoint:
        raise LoadError(
            f"{file} holds {_described(checkpoint)}; a checkpoint must have 'model_state_dict', "
            "'model_config' and 'architecture'"
        )
    name = (word(checkpoint.get("architecture")) or architecture or "").lower()
    if name not in ARCHITECTURES:
        stated = f"is of architecture {name!r}" if name else "does not say of which architecture it is"
        raise LoadError(f"{file} {stated}; known architectures: {', '.join(ARCHITECTURES)}")
    network = _network(name, checkpoint.get("model_config") or {}, checkpoint["model_state_dict"], file)
    told = {
        "epoch": _told(whole, checkpoint.get("epoch")),
        "train_loss": _told(number, checkpoint.get("train_loss")),
        "val_loss": _told(number, checkpoint.get("val_loss")),
    }
    return Model(network, name, facts={key: value for key, value in told.items() if value is not None})


def _program(path: Path, file: str, *, trust_pickle: bool) -> Model:
    """Open a network that came with its own code: TorchScript, torch.export or ONNX."""
    program = open_program(path, trusted=trust_pickle)
    if program.channels not in {None, Signature.channels}:
        raise LoadError(f"{file} takes {program.channels} channels; only networks for RGB can be rendered")
    if program.size:
        height, width = program.size
        raise LoadError(
            f"{file} takes frames of {width}×{height} only; export it with dynamic height and width to render it"
        )
    return Model(program.network, program.kind, Signature(multiple=lcm(Signature.multiple, program.multiple)))


def _unpickled(path: Path, *, trust_pickle: bool) -> Any:
    file = _shown(path.name)
    if trust_pickle:
        log.warning("trust_pickle is set: %s is loaded and may run code of its author", file)
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except Exception as error:  # damaged files make torch raise nearly anything
        if names := _refused(path, error):
            raise LoadError(
                f"{file} needs {_few(names)} to be loaded, which can run code; "
                "set trust_pickle to true only if you trust whoever wrote it"
            ) from error
        raise LoadError(f"{file} is damaged or not a checkpoint that torch wrote{_seen(path)}") from error


def _refused(path: Path, error: Exception) -> list[str]:
    """Name what a file wants to call that is not allowed; nothing when that is not why it cannot be loaded."""
    if not isinstance(error, pickle.UnpicklingError):
        return []
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # only zip archives can be asked; of older files torch's message names the first
        return re.findall(r"GLOBAL (\S+) w", str(error))


def _seen(path: Path) -> str:
    """Say what a first look at a file shows that is not a checkpoint; nothing when it shows nothing."""
    with path.open("rb") as file:
        start = file.read(20).decode("latin-1")
    if not start:
        return ": it is empty"
    if start.startswith("PK") and not zipfile.is_zipfile(path):
        return ": it is cut short"
    return f": it begins with {start!r}" if start.isascii() and start.isprintable() else ""


def _described(checkpoint: Any) -> str:
    if isinstance(checkpoint, dict):
        return f"a dict with the keys {_few(map(repr, map(str, checkpoint)))}" if checkpoint else "an empty dict"
    return f"an object of type {type(checkpoint).__name__}"


def _network(name: str, config: Any, state: Any, file: str) -> nn.Module:
    """Build a network and give it the weights of a checkpoint, as float32, ready to render."""
    for key, value in (("model_config", config), ("model_state_dict", state)):
        if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value):
            raise LoadError(f"the {key!r} of {file} must be a dict with names as keys, not {_described(value)}")
    with torch.device("meta"):  # no memory, and no time for random weights: the checkpoint's take their place
        network = ARCHITECTURES[name](**config)
    expected = network.state_dict()
    _refuse_misfit(expected, state, file)
    network.load_state_dict({key: state[key].to(like.dtype) for key, like in expected.items()}, assign=True)
    return network.eval().requires_grad_(False)


def _refuse_misfit(expected: Mapping[str, torch.Tensor], state: Mapping[str, Any], file: str) -> None:
    misfits = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": [
            f"{key} {_shape(state[key])} instead of {_shape(like)}"
            for key, like in expected.items()
            if key in state and _shape(state[key]) != _shape(like)
        ],
        "without values": [key for key in expected if getattr(state.get(key), "is_meta", False)],
    }
    counts = [f"{len(keys)} {kind} ({_few(keys)})" for kind, keys in misfits.items() if keys]
    if counts:
        raise LoadError(f"the weights in {file} do not fit the network: {'; '.join(counts)}")


def _shape(value: Any) -> str:
    return "×".join(map(str, value.shape)) or "scalar" if isinstance(value, torch.Tensor) else type(value).__name__


def _told(read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except (RuntimeError, OverflowError):  # a tensor of several values, an integer beyond all floats
        return None


def _few(names: Iterable[str]) -> str:
    shown = [_shown(name) for name in names]
    return ", ".join(shown[:NAMED]) + (f" and {len(shown) - NAMED} more" if len(shown) > NAMED else "")


def _shown(text: str) -> str:
    """Make a text of the store safe to show: one line, no control characters, not long."""
    return clean(text)[:LONGEST]
