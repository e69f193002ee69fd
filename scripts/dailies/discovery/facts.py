"""Facts: what a run says of its model, and its hints for rendering."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dailies.core.text import clean, number, whole, word
from dailies.store.entities import Run

T = TypeVar("T")

LONGEST_HINT, MOST_HINTS = (100, 500), 200
"""Characters of a hint's name and value, and how many of them a run may give."""


@dataclass(frozen=True)
class Names:
    """Where a run may say what: names of params, metrics or tags, tried in order."""

    architecture: Sequence[str]
    epoch: Sequence[str]
    train_loss: Sequence[str]
    val_loss: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """What a run says of its model; None for what it does not say, or says as NaN, infinity or nonsense."""

    architecture: str | None
    epoch: int | None
    train_loss: float | None
    val_loss: float | None


def facts(run: Run, names: Names) -> Facts:
    """Read architecture, epoch and losses from a run's params, metrics and tags."""
    return Facts(
        architecture=_first(run, names.architecture, word),
        epoch=_first(run, names.epoch, whole),
        train_loss=_first(run, names.train_loss, number),
        val_loss=_first(run, names.val_loss, number),
    )


TRAINING_FRAMES = "dailies.training_frames"
"""A param or tag that says nothing for rendering, in spite of its name."""


def hints(run: Run) -> dict[str, str]:
    """Give what a run says for rendering: params ``model.*``, params and tags ``dailies.*``; a tag beats a param.

    What is too long, or too much, is left out whole: a part of it would say something else.
    """
    said = {key: value for key, value in run.params.items() if key.startswith(("model.", "dailies."))}
    said |= {key: value for key, value in run.tags.items() if key.startswith("dailies.")}
    said.pop(TRAINING_FRAMES, None)
    lines = {clean(key): clean(str(value)) for key, value in sorted(said.items())}
    short = [key for key, value in lines.items() if len(key) <= LONGEST_HINT[0] and len(value) <= LONGEST_HINT[1]]
    kept = sorted(short, key=lambda key: (not key.startswith("dailies."), key))[:MOST_HINTS]
    return {key: lines[key] for key in sorted(kept)}


def _first(run: Run, names: Iterable[str], read: Callable[[Any], T | None]) -> T | None:
    values = (source[name] for name in names for source in (run.params, run.metrics, run.tags) if name in source)
    return next((value for value in map(read, values) if value is not None), None)
