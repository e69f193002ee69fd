"""Progress: how many epochs a trainer had finished when it saved a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dailies.core.text import whole

LIGHTNING = "pytorch-lightning_version"
"""The key by which a checkpoint of PyTorch Lightning is known."""

ZERO_BASED = (1, 6)
"""The first Lightning whose ``epoch`` is the number of the epoch that runs, from 0; before it was the count."""


@dataclass(frozen=True)
class Progress:
    """How far a training had come; None for what nobody says."""

    epoch: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None


def finished_epochs(outer: Mapping[str, Any]) -> int | None:
    """Return the number of epochs that Lightning had finished; None for a checkpoint of another trainer.

    ``outer`` is the plain mapping that a checkpoint file holds. Lightning saves while the last epoch is still open: its
    ``epoch`` is one less than the count, except after training has ended. The progress of its loops tells which; where
    the checkpoint has none, the version of Lightning does.
    """
    if LIGHTNING not in outer:
        return None
    counted = _from_loops(outer.get("loops"))
    if counted is not None:
        return counted
    epoch = _whole(outer.get("epoch"))
    return None if epoch is None else epoch + (_version(outer[LIGHTNING]) >= ZERO_BASED)


def _from_loops(loops: Any) -> int | None:
    """Count the epochs whose batches were all trained, also the one that was validated before it was closed."""
    fit = _inner(loops, "fit_loop")
    epochs = _inner(fit, "epoch_progress", "current")
    processed = _whole(epochs.get("processed"))
    if processed is None:
        return None
    progress = _inner(fit, "epoch_loop.batch_progress")
    ready, trained = (_whole(_inner(progress, "current").get(key)) for key in ("ready", "processed"))
    is_open = (_whole(epochs.get("ready")) or 0) > processed
    return processed + (is_open and progress.get("is_last_batch") is True and bool(ready) and ready == trained)


def _inner(value: Any, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _whole(value: Any) -> int | None:
    try:
        return None if value is None else whole(value)
    except (RuntimeError, OverflowError):  # a tensor of several values, an integer beyond all floats
        return None


def _version(text: Any) -> tuple[int, ...]:
    parts = str(text).split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ZERO_BASED
