"""The catalog: what a run says of its model, and which of its artifacts is the one to render with."""

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, TypeVar

from dailies import files, roles
from dailies.entities import LoggedModel, Run, StoredFile
from dailies.text import clean

T = TypeVar("T")

ORDER = (
    ((".pth", ".pt", ".ckpt"), "checkpoint, or TorchScript"),
    ((".safetensors",), "safetensors"),
    ((".pt2",), "torch.export program"),
    ((), "MLflow model, flavour pytorch or onnx: logged models, the newest first, then folders; then files in them"),
    ((".onnx",), "ONNX"),
    (
        (".pth.tar", ".bin", ".pkl", ".model", ".weights", "…"),
        "any of these, also with another ending or with none, as its content says",
    ),
)
"""The kinds of models that a run may hold, by the endings of their files, in the order in which they are preferred.

Among the kinds before MLflow's the name weighs more than the kind: see ``roles.rank``. docs/models.md shows this table.
"""

WEIGHTS = tuple(ending for endings, _ in ORDER[:-1] for ending in endings)
"""Endings of files that hold a network's weights or a whole network."""

AFTER_MLFLOW = (".onnx",)
"""Endings of files that are taken only where a run holds no MLflow model."""

BY_CONTENT = len(ORDER) - 1
"""The kind of files whose ending is none of ``WEIGHTS``."""

MLMODEL = "MLmodel"

CONFIG, LARGEST_CONFIG = "config.json", 2**20
"""The file beside weights that says what their network is built from, and the bytes of the largest that is taken."""

INDEX = re.compile(r"\.(safetensors|bin|pt|pth|ckpt)\.index(\.\w+)?\.json$", re.IGNORECASE)
"""How the name of the file ends that says in which of its parts a model's weights are."""

PART = re.compile(r"-(\d{3,})-of-(\d{3,})(?=\.)", re.IGNORECASE)
"""What tells the parts of a model from each other: ``model-00001-of-00002.safetensors``."""

OWN = re.compile(r"data/model\.(pth|pt|pt2)|model\.onnx|python_model\.pkl")
"""Files of an MLflow model, below its folder, that its flavours load themselves."""

MOST_ALTERNATIVES, MOST_OF_FAMILY = 8, 2
"""How many artifacts are tried beside the first one, and how many of those differ in an epoch or a step alone.

Where one of them is damaged the next one helps; where the network is not the one that was expected, none does.
"""

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

    @property
    def config(self) -> str | None:
        """The path of the ``config.json`` that lies beside weights, and is no part of them."""
        beside = roles.beside(self.path, CONFIG)
        is_there = self.is_weights and self.path != beside and any(file.path == beside for file in self.files)
        return beside if is_there else None


@dataclass(frozen=True)
class Choice:
    """The artifact chosen for a run, and those that were not."""

    artifact: Artifact
    others: tuple[str, ...] = ()
    alternatives: tuple[Artifact, ...] = ()
    """What to try, in this order, where the artifact turns out to hold no network."""


def _anything(_: StoredFile) -> bool:
    return True


def candidates(
    run: Run,
    listing: Sequence[StoredFile],
    logged: Iterable[LoggedModel] = (),
    *,
    inside: Mapping[str, Sequence[StoredFile]] | None = None,
    best: Collection[str] = (),
    looks: Callable[[StoredFile], bool] = _anything,
) -> list[Artifact]:
    """Return every artifact of a run that may be a model, best first.

    ``ORDER`` and ``roles.rank`` say which is better. Files in the folders of MLflow models come after all of these.

    Args:
        run: the run.
        listing: the files below its artifact location.
        logged: its logged models, the newest first.
        inside: the files of those logged models that were listed, by their location.
        best: paths that the trainer says are the best checkpoint.
        looks: tells of a file with none of the ``WEIGHTS`` endings whether it can be a model.
    """
    folders = sorted(str(PurePosixPath(file.path).parent) for file in listing if _name(file) == MLMODEL)
    prefixes = tuple("data/" if folder == "." else f"{folder}/" for folder in folders)
    groups = _Groups(best, looks)
    groups.add(run.artifact_uri, [file for file in listing if not file.path.startswith(prefixes)])
    inner = _Groups(best, looks)
    models = []
    for model in logged:
        files_of = tuple((inside or {}).get(model.artifact_uri, ()))
        models.append(Artifact(model.artifact_uri, "", files_of))
        inner.add(model.artifact_uri, _not_own(files_of, ["."]))
    models += [_folder(run, folder, listing) for folder in folders]
    inner.add(run.artifact_uri, _not_own([file for file in listing if file.path.startswith(prefixes)], folders))
    return [
        *groups.known,
        *models,
        *inner.known,
        *inner.late,
        *groups.late,
        *groups.by_content,
        *inner.by_content,
        *groups.aside,
        *inner.aside,
    ]


class _Groups:
    """The candidates among files, ranked within groups: of known kinds, ONNX, any other, and those set aside."""

    def __init__(self, best: Collection[str], looks: Callable[[StoredFile], bool]) -> None:
        self._best, self._looks = best, looks
        self.known: list[Artifact] = []
        self.late: list[Artifact] = []
        self.by_content: list[Artifact] = []
        self.aside: list[Artifact] = []

    def add(self, uri: str, listing: Sequence[StoredFile]) -> None:
        """Add the files of an artifact location."""
        families = frozenset(roles.family(file.path) for file in listing)
        found = [file for file in _heads(listing) if _kind(file) < BY_CONTENT or self._may_be(file)]
        newest = sorted(sorted(found, key=_natural_path, reverse=True), key=lambda file: -(file.modified or 0))
        ranks = {file.path: self._rank(file.path, families) for file in found}
        by_path = {file.path: file for file in found}
        for rank in sorted({*ranks.values()}):
            # sorted by kind, the newest first
            ranked = sorted((file for file in newest if ranks[file.path] == rank), key=_kind)
            for path in roles.averaged_first([file.path for file in ranked]):
                self._group(by_path[path], rank).append(artifact_of(uri, by_path[path], listing))

    def _may_be(self, file: StoredFile) -> bool:
        if file.size == 0 or not roles.may_hold_model(_head_name(file)):
            return False
        return INDEX.search(file.path) is not None or self._looks(file)  # an index is JSON, its parts are the model

    def _rank(self, path: str, families: Collection[str]) -> tuple[int, int]:
        if path in self._best:
            return -1, 0
        return roles.rank(path, families), roles.named_rank(path)

    def _group(self, file: StoredFile, rank: tuple[int, int]) -> list[Artifact]:
        if rank[0] == roles.ASIDE:
            return self.aside
        if _kind(file) == BY_CONTENT:
            return self.by_content
        return self.late if file.path.lower().endswith(AFTER_MLFLOW) else self.known


def _heads(listing: Iterable[StoredFile]) -> list[StoredFile]:
    """Return the files that may stand for a model: of one in several files its index, else its first part."""
    files_found = sorted((file for file in listing if _name(file)), key=lambda file: file.path)
    indexed = {_whole_name(file.path) for file in files_found if INDEX.search(file.path)}
    heads, seen = [], set(indexed)
    for file in files_found:
        if _is_part(file.path):
            if (whole_name := _whole_name(file.path)) in seen:
                continue
            seen.add(whole_name)
        if _kind(file) < BY_CONTENT or INDEX.search(file.path) or not file.path.lower().endswith(".json"):
            heads.append(file)
    return heads


def is_unnamed(file: StoredFile) -> bool:
    """Tell whether a file may be a model by its name, and only its content can say so."""
    path = file.path.lower()
    return (
        _kind(file) == BY_CONTENT
        and file.size != 0
        and not path.endswith(".json")
        and roles.may_hold_model(_head_name(file))
    )


def _is_part(path: str) -> bool:
    found = PART.search(PurePosixPath(path).name)
    return found is not None and int(found[2]) > 1


def _whole_name(path: str) -> str:
    """Return the path that a model in several files would have as one, from its index or from a part of it."""
    if index := INDEX.search(path):
        variant = index[2] or ""
        return f"{path[: index.start()]}{variant}.{index[1]}".lower()
    return PART.sub("", path).lower()


def _head_name(file: StoredFile) -> str:
    index = INDEX.search(file.path)
    return file.path[: index.end(1)] if index else file.path


def artifact_of(uri: str, file: StoredFile, listing: Iterable[StoredFile]) -> Artifact:
    """Return the artifact that a file stands for: itself, its parts, and what belongs to it in the same folder.

    That is the file of an ONNX model's weights, as torch names it, and a ``config.json``. Other files that an ONNX file
    or an index names are found when it is downloaded.
    """
    others = tuple(other for other in listing if other.path != file.path)
    parts: tuple[StoredFile, ...] = ()
    if INDEX.search(file.path) or _is_part(file.path):
        whole_name = _whole_name(file.path)
        parts = tuple(other for other in others if _is_part(other.path) and _whole_name(other.path) == whole_name)
    config = roles.beside(file.path, CONFIG)
    beside = tuple(
        other
        for other in others
        if other.path == f"{file.path}.data" or (other.path == config and (other.size or 0) <= LARGEST_CONFIG)
    )
    return Artifact(uri, file.path, (file, *parts, *beside))


def _not_own(listing: Sequence[StoredFile], folders: Iterable[str]) -> list[StoredFile]:
    """Leave out the files that the flavours of the MLflow models in these folders load themselves."""
    prefixes = ["" if folder == "." else f"{folder}/" for folder in folders]

    def is_own(path: str) -> bool:
        return any(path.startswith(prefix) and OWN.fullmatch(path.removeprefix(prefix)) for prefix in prefixes)

    return [file for file in listing if not is_own(file.path)]


def alternatives(chosen: Artifact, following: Iterable[Artifact]) -> tuple[Artifact, ...]:
    """Return the few of the following candidates that are worth trying where the chosen one holds no network."""
    families = Counter([_family(chosen)])
    kept: list[Artifact] = []
    for artifact in following:
        if families[_family(artifact)] < MOST_OF_FAMILY and len(kept) < MOST_ALTERNATIVES:
            families[_family(artifact)] += 1
            kept.append(artifact)
    return tuple(kept)


def _family(artifact: Artifact) -> str:
    return roles.family(artifact.path) if artifact.path else ""


def named(
    run: Run,
    location: str,
    path: str,
    listing: Sequence[StoredFile],
    *,
    best: Collection[str] = (),
    looks: Callable[[StoredFile], bool] = _anything,
) -> list[Artifact]:
    """Return what a registry names below an artifact location: a file, or a folder and the models in it, best first."""
    inside = tuple(file for file in listing if not path or file.path == path or file.path.startswith(f"{path}/"))
    holder = replace(run, artifact_uri=location)
    if file := next((file for file in inside if file.path == path), None):
        return [artifact_of(location, file, listing)]
    if f"{path}/{MLMODEL}".lstrip("/") in {file.path for file in inside}:
        found = candidates(holder, inside, best=best, looks=looks)
        whole = Artifact(location, path, inside)
        return [whole, *(artifact for artifact in found if artifact.path != path)]
    return candidates(holder, inside, best=best, looks=looks)


def _folder(run: Run, folder: str, listing: Iterable[StoredFile]) -> Artifact:
    if folder == ".":
        return Artifact(run.artifact_uri, "", tuple(listing))
    return Artifact(run.artifact_uri, folder, tuple(file for file in listing if file.path.startswith(f"{folder}/")))


def fitting(found: Iterable[Artifact], pattern: str | None) -> Iterator[Artifact]:
    """Yield the candidates that a shell pattern matches, by path or by file name; all of them without a pattern.

    A model in several files is matched also by one of its parts.
    """
    for artifact in found:
        parts = [file.path for file in artifact.files if _is_part(file.path)] if artifact.is_weights else []
        if pattern is None or any(matches(path, pattern) for path in (artifact.label, *parts)):
            yield artifact


def matches(path: str, pattern: str) -> bool:
    """Tell whether a shell pattern matches a path or the name at its end."""
    return any(fnmatch.fnmatchcase(name, pattern) for name in (path, PurePosixPath(path).name))


def asked_for(uri: str, listing: Sequence[StoredFile], pattern: str) -> list[Artifact]:
    """Return the files of any name that a pattern matches, best first, each with what belongs to it."""
    found = sorted(
        (file for file in listing if file.size != 0 and matches(file.path, pattern)),
        key=lambda file: (roles.rank(file.path), _natural_path(file)),
    )
    return [artifact_of(uri, file, listing) for file in found]


def _name(file: StoredFile) -> str:
    return PurePosixPath(file.path).name


def _kind(file: StoredFile) -> int:
    """Return the place of a file's ending in ``ORDER``."""
    name = _head_name(file).lower()
    kinds = (number for number, (endings, _) in enumerate(ORDER[:-1]) if endings and name.endswith(endings))
    return next(kinds, BY_CONTENT)


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
