"""The catalog: what a run says of its model, and which of its artifacts is the one to render with."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from dailies.store import LoggedModel, Run, StoredFile, clean, matches

WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors", ".pt2")
"""Endings of files that hold a network's weights or a whole network."""

RANKS = (
    (re.compile(r"optim|sched|scaler|rng", re.IGNORECASE), 3),
    (re.compile(r"best", re.IGNORECASE), 0),
    (re.compile(r"last|final", re.IGNORECASE), 1),
)
"""The order in which a run's weights are preferred, by file name; a name that none matches has rank 2.

Within a rank the newest wins; where the store tells no times, the last in natural order.
"""

MLMODEL = "MLmodel"


@dataclass(frozen=True)
class Artifact:
    """The files to render with."""

    uri: str
    """The artifact location that holds them."""
    path: str
    """The weights' path below ``uri``, or the folder of an MLflow model ("" is the location itself)."""
    files: tuple[StoredFile, ...]
    """Every file that belongs to it, with paths below ``uri``."""

    @property
    def size(self) -> int | None:
        """Bytes in all; None where the store does not say."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(sizes)

    @property
    def is_weights(self) -> bool:
        """Whether it is a single file of weights, not an MLflow model folder."""
        return self.path.lower().endswith(WEIGHTS)

    @property
    def label(self) -> str:
        """How a user finds it: the path, or the last part of the location."""
        return self.path or PurePosixPath(self.uri).parent.name or self.uri


@dataclass(frozen=True)
class Choice:
    """The artifact chosen for a run, and those that were not."""

    artifact: Artifact
    others: tuple[str, ...] = ()


def candidates(run: Run, listing: Iterable[StoredFile]) -> list[Artifact]:
    """Give every artifact of a run that may be a model, best first: raw weights, then MLflow model folders."""
    stored = tuple(listing)
    folders = sorted(str(PurePosixPath(file.path).parent) for file in stored if file.path.endswith(f"/{MLMODEL}"))
    inside = tuple(f"{folder}/" for folder in folders)
    weights = [
        file for file in stored if file.path.lower().endswith(WEIGHTS) and not file.path.startswith(inside or ("\0",))
    ]
    ranked = sorted(weights, key=_natural_path, reverse=True)
    ranked = sorted(ranked, key=lambda file: (_rank(file.path), -(file.modified or 0)))
    return [Artifact(run.artifact_uri, file.path, (file,)) for file in ranked] + [
        Artifact(run.artifact_uri, folder, tuple(file for file in stored if file.path.startswith(f"{folder}/")))
        for folder in folders
    ]


def logged(model: LoggedModel, listing: Iterable[StoredFile]) -> Artifact:
    """Give the artifact of a logged model: its whole location."""
    return Artifact(model.artifact_uri, "", tuple(listing))


def choose(found: Sequence[Artifact], pattern: str | None) -> Choice | None:
    """Take the first candidate, or the first that ``pattern`` matches (by path or file name); None if there is none."""
    fitting = [artifact for artifact in found if pattern is None or matches(artifact.label, pattern)]
    if not fitting:
        return None
    return Choice(fitting[0], tuple(artifact.label for artifact in found if artifact is not fitting[0]))


def _rank(path: str) -> int:
    name = PurePosixPath(path).name
    return next((rank for pattern, rank in RANKS if pattern.search(name)), 2)


def _natural_path(file: StoredFile) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.path)]


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


def _first(run: Run, names: Iterable[str], read: Any) -> Any:
    values = (source[name] for name in names for source in (run.params, run.metrics, run.tags) if name in source)
    return next((value for value in map(read, values) if value is not None), None)


def word(value: Any) -> str | None:
    """Read a name from the store: one clean line, at most 100 characters; None for "", "none" and "null"."""
    text = clean(str(value))[:100]
    return None if text.lower() in {"", "none", "null", "nan"} else text


def number(value: Any) -> float | None:
    """Read a finite number, whatever type the store keeps it as."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) and abs(result) < 1e300 else None


def whole(value: Any) -> int | None:
    """Read a whole number at least 0, also from ``2e3`` or ``2500.0``."""
    result = number(value)
    return int(result) if result is not None and result >= 0 and result == int(result) else None
