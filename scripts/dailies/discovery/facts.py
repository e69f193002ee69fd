"""What a run states about its model: architecture, epoch, losses, and hints for rendering."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dailies.core.text import clean, number, whole, word
from dailies.store.entities import Run

T = TypeVar("T")

LONGEST_HINT, MOST_HINTS = (100, 500), 200
"""Characters of a hint's name and of its value, and the number of hints of a run."""


@dataclass(frozen=True)
class FactNames:
    """The names of params, metrics or tags that may hold each fact, in the order in which they are tried."""

    architecture: Sequence[str]
    epoch: Sequence[str]
    train_loss: Sequence[str]
    val_loss: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """What a run states about its model. A fact that is missing, NaN, infinite or malformed is None."""

    architecture: str | None
    epoch: int | None
    train_loss: float | None
    val_loss: float | None


def facts(run: Run, names: FactNames) -> Facts:
    """Return architecture, epoch and losses from a run's params, metrics and tags."""
    return Facts(
        architecture=_first(run, names.architecture, word),
        epoch=_first(run, names.epoch, whole),
        train_loss=_first(run, names.train_loss, number),
        val_loss=_first(run, names.val_loss, number),
    )


TRAINING_FRAMES = "dailies.training_frames"
"""A param or tag that is not a hint for rendering although it has the prefix of one."""


def hints(run: Run) -> dict[str, str]:
    """Return a run's params ``model.*``, and its params and tags ``dailies.*``; a tag takes precedence over a param.

    Hints that are too long or too many are omitted, not cut: a part of one would mean something else.
    """
    found = {key: value for key, value in run.params.items() if key.startswith(("model.", "dailies."))}
    found |= {key: value for key, value in run.tags.items() if key.startswith("dailies.")}
    found.pop(TRAINING_FRAMES, None)
    lines = {clean(key): clean(str(value)) for key, value in sorted(found.items())}
    short = [key for key, value in lines.items() if len(key) <= LONGEST_HINT[0] and len(value) <= LONGEST_HINT[1]]
    kept = sorted(short, key=lambda key: (not key.startswith("dailies."), key))[:MOST_HINTS]
    return {key: lines[key] for key in sorted(kept)}


def _first(run: Run, names: Iterable[str], read: Callable[[Any], T | None]) -> T | None:
    values = (source[name] for name in names for source in (run.params, run.metrics, run.tags) if name in source)
    return next((value for value in map(read, values) if value is not None), None)
