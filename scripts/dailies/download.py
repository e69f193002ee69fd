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
from dailies.catalog import Artifact
from dailies.errors import DailiesError, DownloadError
from dailies.store import StoredFile, TrackingStore, clean, redacted

log = logging.getLogger(__name__)

PAUSES = (1, 4, 15)
"""Seconds before the second, third and fourth try at a file."""

ZIPPED = (".pth", ".pt", ".ckpt", ".pt2")
"""Endings of files that torch writes as zip archives; a zip's checksums find a flipped byte, torch.load does not."""

RECEIPT = "download.json"


def receive(store: TrackingStore, artifact: Artifact, folder: Path) -> dict[str, Any]:
    """Fetch an artifact into ``folder`` and give its receipt: status, error, uri, path, sha256, size, files.

    The files appear all together, after their sizes and checksums were verified, below ``folder/artifact``. A failure
    that concerns this model alone leaves a receipt with status ``download_failed`` and no files.
    """
    origin = {"uri": redacted(artifact.uri), "path": artifact.path}
    draft = folder / "draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        stored = _wanted(store, artifact)
        for file in stored:
            _fetch(store, artifact.uri, file, draft)
    except (DailiesError, OSError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        log.error("%s", error)
        return {"status": "download_failed", "error": redacted(clean(str(error))), **origin}
    draft.replace(folder / "artifact")
    paths = [file.path for file in stored]
    single = artifact.is_weights
    root = folder / "artifact"
    return {
        "status": "success",
        "error": None,
        **origin,
        "sha256": files.sha256_of(root / paths[0]) if single else files.sha256_of_files(root, paths),
        "size": sum((root / path).stat().st_size for path in paths),
        "files": paths,
    }


def _wanted(store: TrackingStore, artifact: Artifact) -> list[StoredFile]:
    listed = store.files(artifact.uri)
    if artifact.is_weights:
        stored = [file for file in listed if file.path == artifact.path]
    else:
        stored = [file for file in listed if not artifact.path or file.path.startswith(f"{artifact.path}/")]
    if not stored:
        there = ", ".join(clean(file.path) for file in listed[:5]) or "nothing"
        moved = store.moved(artifact.uri)
        raise DownloadError(moved or f"{clean(artifact.label)} is no longer in the store; found there: {there}")
    for file in stored:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts:
            raise DownloadError(f"the store names an artifact outside the run's folder: {clean(file.path)[:100]}")
    return stored


def _fetch(store: TrackingStore, uri: str, file: StoredFile, draft: Path) -> None:
    for pause in (*PAUSES, None):
        try:
            path = store.fetch(uri, file.path, draft)
            _verify(path, file)
        except (DailiesError, OSError) as error:
            if pause is None or isinstance(error, OSError):
                raise
            log.warning("%s; trying again in %d s", error, pause)
            time.sleep(pause)
        else:
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
            return


def _verify(path: Path, file: StoredFile) -> None:
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise DownloadError(f"{clean(file.path)} arrived with {size} bytes instead of {file.size}")
    if size == 0 and file.path.lower().endswith(ZIPPED):
        raise DownloadError(f"{clean(file.path)} is empty in the store")
    if file.path.lower().endswith(ZIPPED) and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (broken := archive.testzip()) is not None:
                raise DownloadError(f"{clean(file.path)} is damaged: the checksum of {clean(broken)} is wrong")


def download(config: Mapping[str, Any], *, record: Path, state: Path, folder: Path) -> None:
    """Fetch the artifact that a model's discovery record names into ``folder``, with its receipt."""
    from dailies.discovery import open_store

    described = files.read_json(record)["artifact"]
    artifact = Artifact(described["uri"], described["path"], tuple(StoredFile(**file) for file in described["files"]))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        receipt = receive(open_store(config, state), artifact, folder)
    except DailiesError as error:
        log.error("%s", error)
        receipt = {"status": "download_failed", "error": str(error), "uri": redacted(artifact.uri)}
    files.write_json(folder / RECEIPT, receipt)
    log.info("%s: %s, %s bytes", receipt["status"], clean(artifact.label), receipt.get("size"))
