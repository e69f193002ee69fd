"""The catalog: what a run says of its model, and which of its artifacts is the one to render with."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, TypeVar

from dailies import files
from dailies.entities import LoggedModel, Run, StoredFile
from dailies.text import clean

T = TypeVar("T")

ORDER = (
    ((".pth", ".pt", ".ckpt"), "checkpoint, or TorchScript"),
    ((".safetensors",), "safetensors"),
    ((".pt2",), "torch.export program"),
    ((), "MLflow model, flavour pytorch or onnx: logged models, the newest first, then folders"),
    ((".onnx",), "ONNX"),
)
"""The kinds of models that a run may hold, by the endings of their files, in the order in which they are preferred.

Among the kinds before MLflow's the name weighs more than the kind: see ``RANKS``. README.md shows this table.
"""

WEIGHTS = tuple(ending for endings, _ in ORDER for ending in endings)
"""Endings of files that hold a network's weights or a whole network."""

AFTER_MLFLOW = (".onnx",)
"""Endings of files that are taken only where a run holds no MLflow model."""

RANKS = (
    (re.compile(r"(?<![a-z])(optim(izer)?|sched(uler)?|(grad_?)?scaler|rng)s?(?![a-z])", re.IGNORECASE), 3),
    (re.compile(r"best", re.IGNORECASE), 0),
    (re.compile(r"(?<![a-z])(last|latest|final)", re.IGNORECASE), 1),
)
"""The order in which a run's files are preferred, by name; a name that none matches has rank 2.

Within a rank the kind decides, then the newest; where the store tells no times, the last in natural order.
"""

LAST_RESORT = 3
"""Files of this rank hold no network, as far as their name tells: they come after all others."""

MLMODEL = "MLmodel"

LONGEST_HINT, MOST_HINTS = (100, 500), 200
"""Characters of a hint's name and value, and how many of them a run may give."""

LAST_EPOCH = 10**9
"""No run is longer: a larger number is something else."""


@dataclass(frozen=True)
class Artifact:
    """The files to render with."""

    uri: str
    """The artifact location that holds them."""
    path: str
    """The weights' path below ``uri``, or the folder of an MLflow model ("" is the location itself)."""
    files: tuple[StoredFile, ...]
    """Every file that belongs to it, with paths below ``uri``; none as long as a logged model was not listed."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Artifact":
        """Read what ``dataclasses.asdict`` wrote."""
        return cls(value["uri"], value["path"], tuple(StoredFile(**file) for file in value["files"]))

    @property
    def size(self) -> int | None:
        """Bytes in all; None where the store does not say."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(sizes)

    @property
    def is_weights(self) -> bool:
        """Whether it is a file of weights, not an MLflow model folder; it may have a companion."""
        return any(file.path == self.path for file in self.files)

    @property
    def label(self) -> str:
        """How a user finds it: the path, or the last part of the location."""
        return self.path or PurePosixPath(self.uri).parent.name or self.uri


@dataclass(frozen=True)
class Choice:
    """The artifact chosen for a run, and those that were not."""

    artifact: Artifact
    others: tuple[str, ...] = ()


def candidates(run: Run, listing: Sequence[StoredFile], logged: Iterable[LoggedModel] = ()) -> list[Artifact]:
    """Give every artifact of a run that may be a model, best first.

    ``ORDER`` and ``RANKS`` say which is better. A file that belongs to the folder of an MLflow model is none by itself.
    """
    folders = sorted(str(PurePosixPath(file.path).parent) for file in listing if _name(file) == MLMODEL)
    inside = tuple("data/" if folder == "." else f"{folder}/" for folder in folders)
    weights = [file for file in listing if file.path.lower().endswith(WEIGHTS) and not file.path.startswith(inside)]
    newest = sorted(sorted(weights, key=_natural_path, reverse=True), key=lambda file: -(file.modified or 0))
    ranked = sorted(newest, key=_rank)
    first = [file for file in ranked if _rank(file)[0] < LAST_RESORT and not file.path.lower().endswith(AFTER_MLFLOW)]
    mlflow = [
        *(Artifact(model.artifact_uri, "", ()) for model in logged),
        *(_folder(run, folder, listing) for folder in folders),
    ]
    files_first, files_last = (
        [Artifact(run.artifact_uri, file.path, _with_companion(file, listing)) for file in group]
        for group in (first, [file for file in ranked if file not in first])
    )
    return [*files_first, *mlflow, *files_last]


def named(run: Run, location: str, path: str, listing: Iterable[StoredFile]) -> Artifact | None:
    """Give what a registry names below an artifact location: a file, an MLflow model folder, else the best in it."""
    inside = tuple(file for file in listing if not path or file.path == path or file.path.startswith(f"{path}/"))
    paths = {file.path for file in inside}
    if path in paths or f"{path}/{MLMODEL}".lstrip("/") in paths:
        return Artifact(location, path, inside)
    return next(iter(candidates(replace(run, artifact_uri=location), inside)), None)


def _with_companion(file: StoredFile, listing: Iterable[StoredFile]) -> tuple[StoredFile, ...]:
    """Give a file, and the one beside it that holds the weights of an ONNX model, as torch writes them."""
    return (file, *(other for other in listing if other.path == f"{file.path}.data"))


def _folder(run: Run, folder: str, listing: Iterable[StoredFile]) -> Artifact:
    if folder == ".":
        return Artifact(run.artifact_uri, "", tuple(listing))
    return Artifact(run.artifact_uri, folder, tuple(file for file in listing if file.path.startswith(f"{folder}/")))


def fitting(found: Iterable[Artifact], pattern: str | None) -> Iterator[Artifact]:
    """Give the candidates that a shell pattern matches, by path or by file name; all of them without a pattern."""
    for artifact in found:
        names = (artifact.label, PurePosixPath(artifact.label).name)
        if pattern is None or any(fnmatch.fnmatchcase(name, pattern) for name in names):
            yield artifact


def _name(file: StoredFile) -> str:
    return PurePosixPath(file.path).name


def _rank(file: StoredFile) -> tuple[int, int]:
    kind = next(number for number, (endings, _) in enumerate(ORDER) if file.path.lower().endswith(endings))
    return next((rank for pattern, rank in RANKS if pattern.search(_name(file))), 2), kind


def _natural_path(file: StoredFile) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", file.path)
    return [(len(part.lstrip("0")), part.lstrip("0")) if part.isdecimal() else (-1, part) for part in parts]


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


def word(value: Any) -> str | None:
    """Read a name from the store: one clean line, at most 100 characters; None for "", "none" and "null"."""
    text = clean(str(value))[:100]
    return None if text.lower() in {"", "none", "null", "nan"} else text


def number(value: Any) -> float | None:
    """Read a finite number, whatever type the store keeps it as."""
    try:
        return files.strict(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def whole(value: Any) -> int | None:
    """Read a whole number at least 0, also from ``2e3`` or ``2500.0``."""
    result = number(value)
    return int(result) if result is not None and 0 <= result <= LAST_EPOCH and result == int(result) else None
