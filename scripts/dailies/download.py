"""Download: a model's artifact, whole and verified, or a record of why not."""

import logging
import os
import shutil
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from dailies import files
from dailies.catalog import WEIGHTS, Artifact
from dailies.errors import AccessRefused, DailiesError, DownloadError
from dailies.store import StoredFile, TrackingStore
from dailies.text import clean, redacted

log = logging.getLogger(__name__)

PAUSES = (1, 4, 15)
"""Seconds before the second, third and fourth try at a file that comes over a network."""

LONGEST_PATH, LONGEST_ERROR = 1000, 1000
"""Characters of an artifact's path, and of the reason of a failure."""

RECEIPT = "download.json"


def receive(store: TrackingStore, artifact: Artifact, folder: Path) -> dict[str, Any]:
    """Fetch an artifact into ``folder / "artifact"`` and give its sha256, size and files.

    The files appear all together, after their sizes and checksums were verified. Raises StoreError, DownloadError or
    OSError, and leaves no file, when one of them cannot be fetched whole.
    """
    draft, whole = folder / "draft", folder / "artifact"
    draft.mkdir(parents=True)
    try:
        stored = _wanted(store, artifact)
        for file in stored:
            _verify(_fetched(store, artifact.uri, file, draft), clean(file.path))
    except BaseException:
        shutil.rmtree(draft)
        raise
    draft.replace(whole)
    paths = [file.path for file in stored]
    return {
        "sha256": files.sha256_of(whole / paths[0])
        if paths == [artifact.path]
        else files.sha256_of_files(whole, paths),
        "size": sum((whole / path).stat().st_size for path in paths),
        "files": paths,
    }


def _wanted(store: TrackingStore, artifact: Artifact) -> list[StoredFile]:
    listed = store.files(artifact.uri)
    if artifact.is_weights:
        paths = {file.path for file in artifact.files}
        stored = [file for file in listed if file.path in paths]
    else:
        stored = [file for file in listed if not artifact.path or file.path.startswith(f"{artifact.path}/")]
    if not stored:
        there = ", ".join(clean(file.path) for file in listed[:5]) or "nothing"
        moved = store.moved(artifact.uri)
        raise DownloadError(moved or f"{clean(artifact.label)[:200]} is no longer in the store; found there: {there}")
    for file in stored:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or "\0" in file.path:
            raise DownloadError(f"the store names an artifact outside the run's folder: {clean(file.path)[:100]}")
        if not file.path.isprintable() or len(file.path) > LONGEST_PATH:
            raise DownloadError(
                f"the name of an artifact is too long or holds control characters: {clean(file.path)[:100]}; "
                "log it under another name"
            )
    return stored


def _fetched(store: TrackingStore, uri: str, file: StoredFile, draft: Path) -> Path:
    """Fetch one file, again when the network fails or cuts it short; its size is that of the listing."""
    pauses = PAUSES if store.local_folder(uri) is None else ()
    for pause in (*pauses, None):
        try:
            path = store.fetch(uri, file.path, draft)
            size = path.stat().st_size
            if file.size not in {None, size}:
                raise DownloadError(f"{clean(file.path)} arrived with {size} bytes instead of {file.size}")
            break
        except DailiesError as error:
            if pause is None or isinstance(error, AccessRefused):
                raise
            log.warning("%s; trying again in %d s", error, pause)
            time.sleep(pause)
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
    return path


def _verify(path: Path, name: str) -> None:
    """Check the zip that torch writes: torch.load does not notice damage in it. Raises DownloadError."""
    if not path.name.lower().endswith(WEIGHTS):
        return
    with path.open("rb") as handle:
        start = handle.read(4)
    if not start:
        raise DownloadError(f"{name} is empty in the store")
    if (start == b"PK\x03\x04" or zipfile.is_zipfile(path)) and (damage := _zip_damage(path)):
        raise DownloadError(f"{name} is damaged in the store: {damage}")


def _zip_damage(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            declared, size = sum(member.file_size for member in archive.infolist()), path.stat().st_size
            if declared > files.most_unpacked(size):
                return f"it declares to hold {declared:,} bytes in {size:,}, which no model does; it is not unpacked"
            broken = archive.testzip()
    except zipfile.BadZipFile as error:
        return f"it is cut short or overwritten ({clean(str(error))})"
    except Exception as error:  # what zipfile raises for flipped bytes in its tables: zlib.error, EOFError, …
        return f"its archive cannot be read ({type(error).__name__}: {clean(str(error))[:100]})"
    return broken and f"the checksum of {clean(broken)} is wrong"


def download(config: Mapping[str, Any], *, record: Path, state: Path, folder: Path) -> None:
    """Fetch the artifact that a model's discovery record names into ``folder``, with a receipt.

    The receipt has status, error, uri and path, and after success what ``receive`` gives. A failure that a user can
    act on concerns this model alone: its status is ``download_failed``.
    """
    from dailies.discovery import open_store

    artifact = Artifact.from_json(files.read_json(record)["artifact"])
    origin = {"uri": redacted(artifact.uri), "path": artifact.path}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        receipt = {"status": "success", "error": None, **origin, **receive(open_store(config, state), artifact, folder)}
        log.info("%s: %d bytes", clean(artifact.label)[:LONGEST_PATH], receipt["size"])
    except (DailiesError, OSError) as error:
        receipt = {"status": "download_failed", "error": redacted(clean(str(error)))[:LONGEST_ERROR], **origin}
        log.error("%s", receipt["error"])
    files.write_json(folder / RECEIPT, receipt)
