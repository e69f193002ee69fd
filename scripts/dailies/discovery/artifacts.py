"""Which artifacts of a run may be its model, and which is the best one to render with."""

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from dailies.core.files import sibling
from dailies.models import file_roles
from dailies.models.file_kinds import AFTER_MLFLOW, BY_CONTENT, INDEX, LARGEST_CONFIG, MLMODEL, ORDER, OWN, PART
from dailies.store.entities import CONFIG, Artifact, LoggedModel, Run, StoredFile

MOST_ALTERNATIVES, MOST_OF_FAMILY = 8, 2
"""The number of artifacts that are tried after the first one, and how many of them may differ only in epoch or step.

A second checkpoint of the same training helps if the first is damaged, but not if its network cannot be built.
"""


@dataclass(frozen=True)
class Choice:
    """The artifact chosen for a run, and those that were not."""

    artifact: Artifact
    others: tuple[str, ...] = ()
    alternatives: tuple[Artifact, ...] = ()
    """What to try, in this order, if the artifact turns out to hold no network."""


def _anything(_: StoredFile) -> bool:
    return True


def candidates(
    run: Run,
    listing: Sequence[StoredFile],
    logged: Iterable[LoggedModel] = (),
    *,
    inside: Mapping[str, Sequence[StoredFile]] | None = None,
    best: Collection[str] = (),
    looks_like_model: Callable[[StoredFile], bool] = _anything,
) -> list[Artifact]:
    """Return every artifact of a run that may be a model, best first.

    They are ordered by ``file_roles.rank`` and ``file_kinds.ORDER``. Files inside MLflow models come after the models
    themselves.

    Args:
        run: the run.
        listing: the files below its artifact location.
        logged: its logged models, newest first.
        inside: the files of those logged models that were listed, by location.
        best: the paths that the trainer marked as the best checkpoint.
        looks_like_model: returns whether a file without one of the ``WEIGHTS`` endings may be a model.
    """
    folders = sorted(str(PurePosixPath(file.path).parent) for file in listing if _name(file) == MLMODEL)
    prefixes = tuple("data/" if folder == "." else f"{folder}/" for folder in folders)
    groups = _Groups(best, looks_like_model)
    groups.add(run.artifact_uri, [file for file in listing if not file.path.startswith(prefixes)])
    inner = _Groups(best, looks_like_model)
    models = []
    for model in logged:
        files_of = tuple((inside or {}).get(model.artifact_uri, ()))
        models.append(Artifact(model.artifact_uri, "", files_of))
        inner.add(model.artifact_uri, _without_own_files(files_of, ["."]))
    models += [_folder(run, folder, listing) for folder in folders]
    inner.add(
        run.artifact_uri, _without_own_files([file for file in listing if file.path.startswith(prefixes)], folders)
    )
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
    """The candidates among files, ranked within groups: of known kinds, ONNX, any other kind, and unlikely ones."""

    def __init__(self, best: Collection[str], looks_like_model: Callable[[StoredFile], bool]) -> None:
        self._best, self._looks_like_model = best, looks_like_model
        self.known: list[Artifact] = []
        self.late: list[Artifact] = []
        self.by_content: list[Artifact] = []
        self.aside: list[Artifact] = []

    def add(self, uri: str, listing: Sequence[StoredFile]) -> None:
        """Add the files of an artifact location."""
        families = frozenset(file_roles.family(file.path) for file in listing)
        found = [file for file in _heads(listing) if _kind(file) < BY_CONTENT or self._may_be(file)]
        newest = sorted(sorted(found, key=_natural_path, reverse=True), key=lambda file: -(file.modified or 0))
        ranks = {file.path: self._rank(file.path, families) for file in found}
        by_path = {file.path: file for file in found}
        for rank in sorted({*ranks.values()}):
            # by kind, then newest first
            ranked = sorted((file for file in newest if ranks[file.path] == rank), key=_kind)
            for path in file_roles.averaged_first([file.path for file in ranked]):
                self._group(by_path[path], rank).append(artifact_of(uri, by_path[path], listing))

    def _may_be(self, file: StoredFile) -> bool:
        if file.size == 0 or not file_roles.may_hold_model(_head_name(file)):
            return False
        return INDEX.search(file.path) is not None or self._looks_like_model(
            file
        )  # an index is JSON, its parts are the model

    def _rank(self, path: str, families: Collection[str]) -> tuple[int, int]:
        if path in self._best:
            return -1, 0
        return file_roles.rank(path, families), file_roles.named_rank(path)

    def _group(self, file: StoredFile, rank: tuple[int, int]) -> list[Artifact]:
        if rank[0] == file_roles.AUXILIARY:
            return self.aside
        if _kind(file) == BY_CONTENT:
            return self.by_content
        return self.late if file.path.lower().endswith(AFTER_MLFLOW) else self.known


def _heads(listing: Iterable[StoredFile]) -> list[StoredFile]:
    """Return the files that represent a model: for a model in several files, its index, or else its first part."""
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


def needs_content(file: StoredFile) -> bool:
    """Return whether a file may be a model by its name, so that its content has to be checked."""
    path = file.path.lower()
    return (
        _kind(file) == BY_CONTENT
        and file.size != 0
        and not path.endswith(".json")
        and file_roles.may_hold_model(_head_name(file))
    )


def _is_part(path: str) -> bool:
    found = PART.search(PurePosixPath(path).name)
    return found is not None and int(found[2]) > 1


def _whole_name(path: str) -> str:
    """Return the path that a model in several files would have as a single file, from its index or one of its parts."""
    if index := INDEX.search(path):
        variant = index[2] or ""
        return f"{path[: index.start()]}{variant}.{index[1]}".lower()
    return PART.sub("", path).lower()


def _head_name(file: StoredFile) -> str:
    index = INDEX.search(file.path)
    return file.path[: index.end(1)] if index else file.path


def artifact_of(uri: str, file: StoredFile, listing: Iterable[StoredFile]) -> Artifact:
    """Return the artifact that a file represents: the file, its parts, and the files beside it that belong to it.

    These are the external weights of an ONNX model, as torch names them, and a ``config.json``. Other files to which an
    ONNX file or an index refers are found when it is downloaded.
    """
    others = tuple(other for other in listing if other.path != file.path)
    parts: tuple[StoredFile, ...] = ()
    if INDEX.search(file.path) or _is_part(file.path):
        whole_name = _whole_name(file.path)
        parts = tuple(other for other in others if _is_part(other.path) and _whole_name(other.path) == whole_name)
    config = sibling(file.path, CONFIG)
    beside = tuple(
        other
        for other in others
        if other.path == f"{file.path}.data" or (other.path == config and (other.size or 0) <= LARGEST_CONFIG)
    )
    return Artifact(uri, file.path, (file, *parts, *beside))


def _without_own_files(listing: Sequence[StoredFile], folders: Iterable[str]) -> list[StoredFile]:
    """Return a listing without the files that the flavours of the MLflow models in these folders load themselves."""
    prefixes = ["" if folder == "." else f"{folder}/" for folder in folders]

    def is_own(path: str) -> bool:
        return any(path.startswith(prefix) and OWN.fullmatch(path.removeprefix(prefix)) for prefix in prefixes)

    return [file for file in listing if not is_own(file.path)]


def alternatives(chosen: Artifact, following: Iterable[Artifact]) -> tuple[Artifact, ...]:
    """Return those of the ``following`` candidates that are worth trying if the chosen one holds no network."""
    families = Counter([_family(chosen)])
    kept: list[Artifact] = []
    for artifact in following:
        if families[_family(artifact)] < MOST_OF_FAMILY and len(kept) < MOST_ALTERNATIVES:
            families[_family(artifact)] += 1
            kept.append(artifact)
    return tuple(kept)


def _family(artifact: Artifact) -> str:
    return file_roles.family(artifact.path) if artifact.path else ""


def registered(
    run: Run,
    location: str,
    path: str,
    listing: Sequence[StoredFile],
    *,
    best: Collection[str] = (),
    looks_like_model: Callable[[StoredFile], bool] = _anything,
) -> list[Artifact]:
    """Return the candidates that a registered model names: a file, or a folder and the models in it, best first.

    ``path`` is below ``location``, whose files are in ``listing``.
    """
    inside = tuple(file for file in listing if not path or file.path == path or file.path.startswith(f"{path}/"))
    holder = replace(run, artifact_uri=location)
    if file := next((file for file in inside if file.path == path), None):
        return [artifact_of(location, file, listing)]
    if f"{path}/{MLMODEL}".lstrip("/") in {file.path for file in inside}:
        found = candidates(holder, inside, best=best, looks_like_model=looks_like_model)
        whole = Artifact(location, path, inside)
        return [whole, *(artifact for artifact in found if artifact.path != path)]
    return candidates(holder, inside, best=best, looks_like_model=looks_like_model)


def _folder(run: Run, folder: str, listing: Iterable[StoredFile]) -> Artifact:
    if folder == ".":
        return Artifact(run.artifact_uri, "", tuple(listing))
    return Artifact(run.artifact_uri, folder, tuple(file for file in listing if file.path.startswith(f"{folder}/")))


def matching(found: Iterable[Artifact], pattern: str | None) -> Iterator[Artifact]:
    """Yield the candidates whose path or file name matches a shell pattern; all of them without a pattern.

    A model in several files also matches by one of its parts.
    """
    for artifact in found:
        parts = [file.path for file in artifact.files if _is_part(file.path)] if artifact.is_weights else []
        if pattern is None or any(matches(path, pattern) for path in (artifact.label, *parts)):
            yield artifact


def matches(path: str, pattern: str) -> bool:
    """Return whether a shell pattern matches a path or the file name in it."""
    return any(fnmatch.fnmatchcase(name, pattern) for name in (path, PurePosixPath(path).name))


def files_matching(uri: str, listing: Sequence[StoredFile], pattern: str) -> list[Artifact]:
    """Return the files of any kind that match a pattern, best first, each with the files that belong to it."""
    found = sorted(
        (file for file in listing if file.size != 0 and matches(file.path, pattern)),
        key=lambda file: (file_roles.rank(file.path), _natural_path(file)),
    )
    return [artifact_of(uri, file, listing) for file in found]


def _name(file: StoredFile) -> str:
    return PurePosixPath(file.path).name


def _kind(file: StoredFile) -> int:
    """Return the position of a file's ending in ``ORDER``."""
    name = _head_name(file).lower()
    kinds = (number for number, (endings, _) in enumerate(ORDER[:-1]) if endings and name.endswith(endings))
    return next(kinds, BY_CONTENT)


def _natural_path(file: StoredFile) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", file.path)
    return [(len(part.lstrip("0")), part.lstrip("0")) if part.isdecimal() else (-1, part) for part in parts]
