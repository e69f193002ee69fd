"""Download an artifact into the folder of a model, and verify it."""

import logging
import mmap
import re
import shutil
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dailies.core.errors import AccessRefused, ArtifactDamaged, ArtifactGone, DailiesError, DownloadError
from dailies.core.files import persist_all, read_json, sha256_of, sha256_of_files, unpacked_limit
from dailies.core.text import clean, few
from dailies.models.kinds import INDEX, WEIGHTS, indexed_files
from dailies.state.layout import Weights
from dailies.store.entities import Artifact, StoredFile
from dailies.store.tracking import TrackingStore

log = logging.getLogger(__name__)

PAUSES = (1, 4, 15)
"""Seconds before the second, third and fourth attempt at a file."""

LONGEST_PATH, LONGEST_ERROR = 1000, 1000
"""Characters of an artifact's path, and of the reason for a failure."""

LARGEST_INDEX, MOST_EXTERNAL = 64 * 2**20, 10_000
"""Bytes of the index of a model in several files, and how many external files an ONNX file may have."""

ARCHIVES = (".zip", ".npz", ".whl", ".jar", ".egg", ".xlsx", ".docx", ".pptx")
"""Endings of zip files that hold no network."""


@dataclass(frozen=True)
class Received:
    """An artifact that was downloaded."""

    sha256: str
    """Digest of the weights."""
    size: int
    """Bytes of all files."""
    files: tuple[str, ...]
    config_sha256: str | None
    """Digest of the ``config.json`` beside the weights."""


def receive(store: TrackingStore, artifact: Artifact, weights: Weights) -> Received:
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

        def fetch(wanted: list[StoredFile]) -> None:
            for file in wanted:
                is_model = file.path == artifact.path or file.path.lower().endswith(WEIGHTS)
                _verify(_fetched(store, artifact.uri, file, draft), clean(file.path), is_model=is_model)

        fetch(stored)
        referenced = _referenced_files(artifact, draft, listed)
        fetch(referenced)
        stored += referenced
        persist_all(draft / file.path for file in stored)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)  # the error that matters is the first one
        raise
    draft.replace(whole)
    paths = [file.path for file in stored]
    own = [path for path in paths if path != artifact.config]
    is_one = own == [artifact.path]
    return Received(
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
    _refuse_names(stored)
    return stored


def _refuse_names(stored: Iterable[StoredFile]) -> None:
    for file in stored:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or "\0" in file.path:
            raise DownloadError(
                "artifact.outside_run",
                f"the store names an artifact outside the run's folder: {clean(file.path)[:100]}",
            )
        if not file.path.isprintable() or len(file.path) > LONGEST_PATH:
            raise DownloadError(
                "artifact.bad_name",
                f"the name of an artifact is too long or holds control characters: {clean(file.path)[:100]}; "
                "log it under another name",
            )


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
    _refuse_names(wanted)
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


def _fetched(store: TrackingStore, uri: str, file: StoredFile, draft: Path) -> Path:
    """Download one file, with retries if the network fails or the size differs from that of the listing."""
    for pause in (*PAUSES, None):
        try:
            path = store.fetch(uri, file.path, draft)
            size = path.stat().st_size
            if file.size not in {None, size}:
                raise DownloadError(
                    "artifact.wrong_size", f"{clean(file.path)} arrived with {size} bytes instead of {file.size}"
                )
            break
        except DailiesError as error:
            if pause is None or isinstance(error, AccessRefused):
                raise
            log.warning("%s; retrying in %d s", error, pause)
            time.sleep(pause)
    return path


def _verify(path: Path, name: str, *, is_model: bool = True) -> None:
    """Raise ArtifactDamaged if a file is empty, or a zip with a wrong checksum, which torch.load does not notice.

    Whether a file is a zip is decided by its content. Archives of other kinds beside a model are not checked.
    """
    if not is_model and path.name.lower().endswith(ARCHIVES):
        return
    with path.open("rb") as handle:
        start = handle.read(4)
    if not start and is_model:
        raise ArtifactDamaged("artifact.empty", f"{name} is empty in the store")
    is_zip = start == b"PK\x03\x04" or (is_model and zipfile.is_zipfile(path))
    if is_zip and (damage := _zip_damage(path)):
        raise ArtifactDamaged("artifact.damaged", f"{name} is damaged in the store: {damage}")


def _zip_damage(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            declared, size = sum(member.file_size for member in archive.infolist()), path.stat().st_size
            if declared > unpacked_limit(size):
                return f"it declares to hold {declared:,} bytes in {size:,}, which no model does; it is not unpacked"
            broken = archive.testzip()
    except zipfile.BadZipFile as error:
        return f"it is cut short or overwritten ({clean(str(error))})"
    except Exception as error:  # flipped bytes in its tables raise zlib.error, EOFError, …
        return f"its archive cannot be read ({type(error).__name__}: {clean(str(error))[:100]})"
    return broken and f"the checksum of {clean(broken)} is wrong"
