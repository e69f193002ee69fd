"""How far a training had come: the epoch and losses at which a trainer saved a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dailies.core.text import whole

LIGHTNING = "pytorch-lightning_version"
"""The key that identifies a checkpoint of PyTorch Lightning."""

ZERO_BASED = (1, 6)
"""The first version of Lightning whose ``epoch`` is the zero-based number of the current epoch, not a count."""


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a training; None for values that are unknown."""

    epoch: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None


def finished_epochs(outer: Mapping[str, Any]) -> int | None:
    """Return the number of epochs that Lightning had finished; None for a checkpoint of another trainer.

    ``outer`` is the plain mapping in a checkpoint. Lightning saves while the last epoch is still open, so its ``epoch``
    is one less than the count, except after training has ended. The progress of its loops resolves this. If the
    checkpoint has none, the version of Lightning decides.
    """
    if LIGHTNING not in outer:
        return None
    counted = _from_loops(outer.get("loops"))
    if counted is not None:
        return counted
    epoch = _whole(outer.get("epoch"))
    return None if epoch is None else epoch + (_version(outer[LIGHTNING]) >= ZERO_BASED)


def _from_loops(loops: Any) -> int | None:
    """Return the number of epochs whose batches were all trained, including one that is not closed yet."""
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
    except (RuntimeError, OverflowError):  # a tensor with several values, an integer too large for a float
        return None


def _version(text: Any) -> tuple[int, ...]:
    parts = str(text).split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ZERO_BASED
