"""Download: a model's artifact, whole and verified, or a record of why not."""

import logging
import secrets
import shutil
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from dailies import files
from dailies.cache import ModelCache
from dailies.catalog import WEIGHTS, Artifact
from dailies.entities import StoredFile
from dailies.errors import AccessRefused, DailiesError, DownloadError
from dailies.manifest import is_due
from dailies.store import TrackingStore, open_store
from dailies.text import clean, redacted

log = logging.getLogger(__name__)

PAUSES = (1, 4, 15)
"""Seconds before the second, third and fourth try at a file."""

LONGEST_PATH, LONGEST_ERROR = 1000, 1000
"""Characters of an artifact's path, and of the reason of a failure."""

RECEIPT, DRAFT, WHOLE = "download.json", "draft", "artifact"
"""What lies in a model's folder of weights: how its download went, files that are on their way, files that arrived."""

PATIENCE, LOOK = 300, 1
"""Seconds without a sign of life from any render until a download no longer waits for one, and between two looks."""


def receive(store: TrackingStore, artifact: Artifact, folder: Path, cache: ModelCache | None = None) -> dict[str, Any]:
    """Fetch an artifact into ``folder / "artifact"`` and give its sha256, size and files.

    The files appear all together, after their sizes and checksums were verified. The store is asked what there is
    also where the ``cache`` has it: a model that was deleted, or may not be read, is not served from there. Raises
    StoreError, DownloadError or OSError, and leaves no file, when one of them cannot be fetched whole.
    """
    draft, whole = folder / DRAFT, folder / WHOLE
    draft.mkdir(parents=True, exist_ok=True)
    try:
        stored = _wanted(store, artifact)
        key = cache and store.local_folder(artifact.uri) is None and cache.key(store.name, artifact.uri, stored)
        if not (key and cache.fetch(key, stored, draft)):
            for file in stored:
                _verify(_fetched(store, artifact.uri, file, draft), clean(file.path))
            if key:
                cache.keep(key, stored, draft)
        files.persist_all(draft / file.path for file in stored)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)  # what was wrong is what is said
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
    for pause in (*PAUSES, None):
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


def download(
    config: Mapping[str, Any],
    *,
    record: Path,
    state: Path,
    folder: Path,
    shards: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    loading: Mapping[str, Any] | None = None,
) -> None:
    """Fetch the artifact that a model's discovery record names into ``folder``, with a receipt.

    The receipt has status, error, uri and path, and after success what ``receive`` gives. A failure that a user can
    act on concerns this model alone: its status is ``download_failed``. Where the ``shards`` are given, each with its
    frames' digest and its attempt, and none is due, nothing is fetched: the receipt is that of the last render.
    """
    if shards and not any(
        is_due(state, record.stem, name, **standing, settings=settings or {}, loading=loading or {})
        for name, standing in shards.items()
    ):
        last = files.read_json(state / "attempts" / record.stem / f"{next(iter(shards))}.json")
        files.write_json(folder / RECEIPT, {"status": last["status"], "error": last["error"], **last["artifact"]})
        log.info("nothing to render, nothing is fetched")
        return
    _take_place(folder, state, config["models_on_disk"])
    artifact = Artifact.from_json(files.read_json(record)["artifact"])
    origin = {"uri": redacted(artifact.uri), "path": artifact.path}
    try:
        cache = ModelCache(Path(config["model_cache"])) if config["model_cache"] else None
        received = receive(open_store(config, state), artifact, folder, cache)
        receipt = {"status": "success", "error": None, **origin, **received}
        log.info("%s: %d bytes", clean(artifact.label)[:LONGEST_PATH], receipt["size"])
    except (DailiesError, OSError) as error:
        reason = files.reason(error, folder) if isinstance(error, OSError) else str(error)
        receipt = {"status": "download_failed", "error": redacted(clean(reason))[:LONGEST_ERROR], **origin}
        log.error("%s", receipt["error"])
        discard(folder)
    files.write_json(folder / RECEIPT, receipt)


def discard(folder: Path) -> None:
    """Delete a model's files, which are rendered; the receipt stays, for other shards of the model depend on it."""
    for name in (DRAFT, WHOLE):
        shutil.rmtree(folder / name, ignore_errors=True)


def _take_place(folder: Path, state: Path, most: int) -> None:
    """Make the folder of a download, as one of at most ``most`` models whose files are on the disk.

    While there are as many, wait for a render to end. A render that died leaves its model's files, so a download
    goes on where no frame was written for a while.
    """
    shutil.rmtree(folder, ignore_errors=True)
    selected = files.read_json(state / "discovery.json")["models"]
    quiet, last = 0.0, None
    while True:
        (folder / DRAFT).mkdir(parents=True)
        present = {path.parent for name in (DRAFT, WHOLE) for path in folder.parent.glob(f"*/{name}")}
        present = {model for model in present if model.name in selected}  # nobody renders the others
        if len(present) <= most or quiet >= PATIENCE:
            return
        # two downloads that take the last place at once both give it back: they look again at different times
        shutil.rmtree(folder)
        if last is None:
            log.info("%d models are on the disk; waiting for one of them to be rendered", len(present) - 1)
        signs = sorted((model.name, _written(state / "frames" / model.name)) for model in present)
        quiet, last = 0.0 if signs != last else quiet, signs
        pause = LOOK * (1 + secrets.randbelow(1000) / 1000)
        time.sleep(pause)
        quiet += pause


def _written(manifests: Path) -> int:
    """Give when a model's last frame was written, in ns; 0 for none."""
    return max((path.stat().st_mtime_ns for path in manifests.glob("*.jsonl")), default=0)
