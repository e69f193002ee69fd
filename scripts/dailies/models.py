"""Models: from a downloaded artifact to a network that is ready to render, and how it wants to be fed."""

import logging
import pathlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dailies.architectures import ARCHITECTURES
from dailies.catalog import number, whole, word
from dailies.errors import LoadError

log = logging.getLogger(__name__)

NAMED = 5
"""How many keys of each kind an error spells out."""

HARMLESS = [
    np.dtype,
    np.ndarray,
    np._core.multiarray.scalar,
    np._core.multiarray._reconstruct,
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"},
    pathlib.PosixPath,
    pathlib.PurePosixPath,
]
"""What checkpoints commonly hold beside tensors, and what runs no code when it is unpickled."""


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
    """Build the network that a downloaded artifact holds, on the CPU.

    Args:
        path: a file of weights, or the folder of an MLflow model.
        architecture: what the run says; the checkpoint's own word comes first.
        trust_pickle: load files whose loading can run code of their author.

    Raises:
        LoadError: saying what was found and what was expected.
    """
    if path.is_dir():
        raise LoadError(f"{path.name} is an MLflow model folder; only checkpoint files can be loaded")
    checkpoint = _unpickled(path, trust_pickle=trust_pickle)
    if not isinstance(checkpoint, dict) or "model_state_dict" not in checkpoint:
        raise LoadError(
            f"{path.name} holds {_described(checkpoint)}; a checkpoint must have 'model_state_dict', "
            "'model_config' and 'architecture'"
        )
    name = (word(checkpoint.get("architecture")) or architecture or "").lower()
    if name not in ARCHITECTURES:
        raise LoadError(
            f"{path.name} is of architecture '{name or 'unknown'}'; known architectures: {', '.join(ARCHITECTURES)}"
        )
    network = ARCHITECTURES[name](**(checkpoint.get("model_config") or {}))
    _fill(network, checkpoint["model_state_dict"], path.name)
    told = {
        "epoch": whole(checkpoint.get("epoch")),
        "train_loss": number(checkpoint.get("train_loss")),
        "val_loss": number(checkpoint.get("val_loss")),
    }
    return Model(
        network=network.eval().requires_grad_(False),
        architecture=name,
        facts={key: value for key, value in told.items() if value is not None},
    )


def _unpickled(path: Path, *, trust_pickle: bool) -> Any:
    if trust_pickle:
        log.warning("trust_pickle is set: %s is loaded and may run code of its author", path.name)
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as error:
        names = _unsafe(path)
        if names:
            raise LoadError(
                f"{path.name} needs {', '.join(names[:NAMED])} to be loaded, which can run code; "
                "set trust_pickle to true only if you trust whoever wrote it"
            ) from error
        raise LoadError(f"{path.name} is damaged or not a checkpoint that torch wrote") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, ImportError) as error:
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise LoadError(f"{path.name} is damaged or not a checkpoint that torch wrote: {first}") from error


def _unsafe(path: Path) -> list[str]:
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # any file at all may be here; that it is not a checkpoint is said by the caller
        return []


def _described(checkpoint: Any) -> str:
    if isinstance(checkpoint, dict):
        keys = [repr(str(key)[:40]) for key in checkpoint]
        more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
        return f"a dict with the keys {', '.join(keys[:NAMED])}{more}" if keys else "an empty dict"
    return f"a {type(checkpoint).__name__}"


def _fill(network: nn.Module, state: Any, name: str) -> None:
    if not isinstance(state, Mapping):
        raise LoadError(f"the 'model_state_dict' of {name} is a {type(state).__name__}, not a dict of tensors")
    expected = network.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [str(key) for key in state if key not in expected]
    reshaped = [
        f"{key} {_shape(state[key])} instead of {_shape(expected[key])}"
        for key in expected
        if key in state and _shape(state[key]) != _shape(expected[key])
    ]
    if missing or unexpected or reshaped:
        counts = [
            f"{len(keys)} {kind} ({', '.join(keys[:NAMED])}{', …' if len(keys) > NAMED else ''})"
            for kind, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
            if keys
        ]
        raise LoadError(f"the weights in {name} do not fit the network: {'; '.join(counts)}")
    network.load_state_dict(state)


def _shape(value: Any) -> str:
    return "×".join(map(str, value.shape)) or "scalar" if isinstance(value, torch.Tensor) else type(value).__name__
