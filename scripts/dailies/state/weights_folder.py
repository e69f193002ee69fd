"""Fill the folder of a model's weights: which files its artifact consists of, their download and their digests."""

import mmap
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dailies.core.errors import ArtifactDamaged, ArtifactGone
from dailies.core.files import persist_all, read_json, sha256_of, sha256_of_files
from dailies.core.text import clean, few
from dailies.models.file_kinds import INDEX, WEIGHTS, indexed_files
from dailies.state.layout import Weights
from dailies.store.entities import Artifact, StoredFile
from dailies.store.tracking import TrackingStore
from dailies.store.transfer import LONGEST_PATH, refuse_names, transfer

LARGEST_INDEX, MOST_EXTERNAL = 64 * 2**20, 10_000
"""Bytes of the index of a model in several files, and how many external files an ONNX file may have."""


@dataclass(frozen=True)
class DownloadedArtifact:
    """An artifact whose files were all downloaded and verified."""

    sha256: str
    """Digest of the weights."""
    size: int
    """Bytes of all files."""
    files: tuple[str, ...]
    config_sha256: str | None
    """Digest of the ``config.json`` beside the weights."""


def fill(store: TrackingStore, artifact: Artifact, weights: Weights) -> DownloadedArtifact:
    """Download an artifact into ``weights.whole``.

    All files appear there at once, after their sizes and checksums were verified, including those to which an index or
    an ONNX file among them refers. If one cannot be downloaded, raise StoreError, DownloadError or OSError and leave
    no file.
    """
    draft, whole = weights.draft, weights.whole
    draft.mkdir(parents=True, exist_ok=True)
    try:
        listed = store.files(artifact.uri)
        stored = _wanted(store, artifact, listed)

        def download(wanted: list[StoredFile]) -> None:
            for file in wanted:
                is_model = file.path == artifact.path or file.path.lower().endswith(WEIGHTS)
                transfer(store, artifact.uri, file, draft, is_model=is_model)

        download(stored)
        referenced = _referenced_files(artifact, draft, listed)
        download(referenced)
        stored += referenced
        persist_all(draft / file.path for file in stored)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)  # the error that matters is the first one
        raise
    draft.replace(whole)
    paths = [file.path for file in stored]
    own = [path for path in paths if path != artifact.config]
    is_one = own == [artifact.path]
    return DownloadedArtifact(
        sha256=sha256_of(whole / own[0]) if is_one else sha256_of_files(whole, own),
        size=sum((whole / path).stat().st_size for path in paths),
        files=tuple(paths),
        config_sha256=sha256_of(whole / artifact.config) if artifact.config in paths else None,
    )


def _wanted(store: TrackingStore, artifact: Artifact, listed: Sequence[StoredFile]) -> list[StoredFile]:
    if artifact.is_weights:
        paths = {file.path for file in artifact.files}
        stored = [file for file in listed if file.path in paths]
    else:
        stored = [file for file in listed if not artifact.path or file.path.startswith(f"{artifact.path}/")]
    if not stored or (artifact.is_weights and artifact.path not in {file.path for file in stored}):
        there = ", ".join(clean(file.path) for file in listed[:5]) or "nothing"
        moved = store.moved(artifact.uri)
        raise ArtifactGone(
            "artifact.gone", moved or f"{clean(artifact.label)[:200]} is no longer in the store; found there: {there}"
        )
    refuse_names(stored)
    return stored


def _referenced_files(artifact: Artifact, draft: Path, listed: Sequence[StoredFile]) -> list[StoredFile]:
    """Return the files beside an index or an ONNX file that hold its weights and are not downloaded yet.

    Raise ArtifactDamaged if the index cannot be read, or names a file that the store does not list.
    """
    if not artifact.is_weights:
        return []
    path, folder = draft / artifact.path, artifact.path.rpartition("/")[0]
    there = {file.path: file for file in listed}
    if INDEX.search(artifact.path):
        names = _indexed(path, clean(artifact.path))
        missing = sorted(name for name in names if _beside(folder, name) not in there)
        if missing:
            raise ArtifactDamaged(
                "artifact.missing_parts",
                f"{clean(artifact.path)} is the index of a model in several files, of which the store does not hold "
                f"{few(map(clean, missing))}; log them beside it",
            )
    else:
        names = {name for name in _external(path) if _beside(folder, name) in there}
    wanted = [there[_beside(folder, name)] for name in sorted(names)]
    refuse_names(wanted)
    return [file for file in wanted if not (draft / file.path).exists()]


def _beside(folder: str, name: str) -> str:
    return f"{folder}/{name}".lstrip("/")


def _indexed(path: Path, shown: str) -> set[str]:
    try:
        return set(indexed_files(read_json(path) if path.stat().st_size <= LARGEST_INDEX else None))
    except (ValueError, RecursionError) as error:
        raise ArtifactDamaged(
            "artifact.bad_index", f"{shown} is not the index of a model in several files: it has no weight_map"
        ) from error


def _external(path: Path) -> set[str]:
    """Return the names of the external files of an ONNX file, found by their bytes, without parsing its messages."""
    with path.open("rb") as file:
        if not re.match(rb"\x08[\x01-\x1f]", file.read(2)):
            return set()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # a message of two texts, the first of them "location", the second up to 127 bytes long, or longer
            found = re.finditer(rb"\x0a\x08location\x12(?:([\x00-\x7f])|([\x80-\xff])([\x01-\x7f]))", data)
            names = set()
            for match in found:
                length = match[1][0] if match[1] else (match[2][0] & 0x7F) | match[3][0] << 7
                names.add(data[match.end() : match.end() + min(length, LONGEST_PATH)].decode("utf-8", "replace"))
                if len(names) > MOST_EXTERNAL:
                    break
            return names
