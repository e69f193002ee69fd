"""Download: a model's artifact, whole and verified, or a record of why not."""

import logging
import mmap
import re
import secrets
import shutil
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dailies import files, trial
from dailies.catalog import INDEX, WEIGHTS, Artifact
from dailies.entities import StoredFile
from dailies.errors import AccessRefused, ArtifactDamaged, ArtifactGone, DailiesError, DownloadError
from dailies.layout import Layout, Weights
from dailies.manifest import is_due
from dailies.state_records import (
    SUCCESS,
    DiscoveryIndex,
    ModelRecord,
    Outcome,
    PassedOver,
    Receipt,
    RunRecord,
    candidates,
    is_same_artifact,
    loading_digest,
)
from dailies.store import TrackingStore, open_store
from dailies.text import clean, counted, few, redacted

if TYPE_CHECKING:
    from dailies.config import Settings

log = logging.getLogger(__name__)

PAUSES = (1, 4, 15)
"""Seconds before the second, third and fourth try at a file."""

LONGEST_PATH, LONGEST_ERROR = 1000, 1000
"""Characters of an artifact's path, and of the reason of a failure."""

LARGEST_INDEX, MOST_EXTERNAL = 64 * 2**20, 10_000
"""Bytes of an index of a model in several files, and how many files an ONNX file may keep its weights in."""

ARCHIVES = (".zip", ".npz", ".whl", ".jar", ".egg", ".xlsx", ".docx", ".pptx")
"""Endings of zips that hold no network."""

PATIENCE, LOOK = 300, 1
"""Seconds without a sign of life from any render until a download no longer waits for one, and between two looks."""


@dataclass(frozen=True)
class Received:
    """An artifact that arrived."""

    sha256: str
    """Digest of the weights."""
    size: int
    """Bytes of all files."""
    files: tuple[str, ...]
    config_sha256: str | None
    """Digest of the ``config.json`` beside the weights."""


def receive(store: TrackingStore, artifact: Artifact, weights: Weights) -> Received:
    """Fetch an artifact into ``weights.whole``.

    The files appear all together, after their sizes and checksums were verified, with those that an index or an ONNX
    file among them names. Raises StoreError, DownloadError or OSError, and leaves no file, when one of them cannot be
    fetched whole.
    """
    draft, whole = weights.draft, weights.whole
    draft.mkdir(parents=True, exist_ok=True)
    try:
        listed = store.files(artifact.uri)
        stored = _wanted(store, artifact, listed)

        def bring(wanted: list[StoredFile]) -> None:
            for file in wanted:
                is_model = file.path == artifact.path or file.path.lower().endswith(WEIGHTS)
                _verify(_fetched(store, artifact.uri, file, draft), clean(file.path), is_model=is_model)

        bring(stored)
        named = _named_files(artifact, draft, listed)
        bring(named)
        stored += named
        files.persist_all(draft / file.path for file in stored)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)  # what was wrong is what is said
        raise
    draft.replace(whole)
    paths = [file.path for file in stored]
    own = [path for path in paths if path != artifact.config]
    is_one = own == [artifact.path]
    return Received(
        sha256=files.sha256_of(whole / own[0]) if is_one else files.sha256_of_files(whole, own),
        size=sum((whole / path).stat().st_size for path in paths),
        files=tuple(paths),
        config_sha256=files.sha256_of(whole / artifact.config) if artifact.config in paths else None,
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


def _named_files(artifact: Artifact, draft: Path, listed: Sequence[StoredFile]) -> list[StoredFile]:
    """Find the files that an index, or an ONNX file, says its weights are in, beside it and not fetched yet.

    Raises ArtifactDamaged where the index cannot be read, or names a file that the store does not list.
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
        parts = files.read_json(path)["weight_map"].values() if path.stat().st_size <= LARGEST_INDEX else None
        names = {name for name in parts if isinstance(name, str)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        names = set()
    if not names:
        raise ArtifactDamaged(
            "artifact.bad_index", f"{shown} is not the index of a model in several files: it has no weight_map"
        )
    return names


def _external(path: Path) -> set[str]:
    """Find the names in an ONNX file of the files that hold its weights, without building any of its messages."""
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
    """Fetch one file, again when the network fails or cuts it short; its size is that of the listing."""
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
            log.warning("%s; trying again in %d s", error, pause)
            time.sleep(pause)
    return path


def _verify(path: Path, name: str, *, is_model: bool = True) -> None:
    """Check the zip that torch writes: torch.load does not notice damage in it. Raises ArtifactDamaged.

    Whether a file is such a zip its content says; other archives beside a model are left alone.
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
            if declared > files.most_unpacked(size):
                return f"it declares to hold {declared:,} bytes in {size:,}, which no model does; it is not unpacked"
            broken = archive.testzip()
    except zipfile.BadZipFile as error:
        return f"it is cut short or overwritten ({clean(str(error))})"
    except Exception as error:  # what zipfile raises for flipped bytes in its tables: zlib.error, EOFError, …
        return f"its archive cannot be read ({type(error).__name__}: {clean(str(error))[:100]})"
    return broken and f"the checksum of {clean(broken)} is wrong"


def download(
    config: "Settings",
    *,
    layout: Layout,
    model: str,
    shards: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    loading: Mapping[str, Any] | None = None,
) -> None:
    """Fetch the artifact that a model's discovery record names, with a receipt.

    A failure that a user can act on concerns this model alone: the receipt's status is ``download_failed``. Where the
    ``shards`` are given, each with its frames' digest and its attempt, and none is due, nothing is fetched: the receipt
    is that of the last render.
    """
    if shards and not any(
        is_due(layout, model, name, **standing, settings=settings or {}, loading=loading or {})
        for name, standing in shards.items()
    ):
        last = Outcome.load(layout.attempt(model, next(iter(shards))))
        replace(last.artifact.receipt, status=last.status, error=last.error).save(layout.receipt(model))
        log.info("nothing to render, nothing is fetched")
        return
    _take_place(layout, model, config.models_on_disk)
    tries = _Candidates(config, layout=layout, model=model, loading=loading or {})
    tries.first_that_loads().save(layout.receipt(model))


class _Candidates:
    """The artifacts of a model's discovery record, which are fetched one by one until one of them holds a network.

    Where the record names a single one it is taken as it is.
    """

    def __init__(self, config: "Settings", *, layout: Layout, model: str, loading: Mapping[str, Any]) -> None:
        self._config = config
        self._layout = layout
        self._model = model
        self._record = ModelRecord.load(layout.record(model))
        self._weights = layout.weights(model)
        self._loading = loading
        self._artifacts = candidates(self._record, RunRecord.load_if_there(layout.run(model)))

    def first_that_loads(self) -> Receipt:
        """Return the receipt of the first artifact that holds a network, or of the very first where none does.

        Its ``tried`` names the other artifacts that were tried, if any, and why each of them holds no network. Their
        files are deleted.
        """
        receipts: list[Receipt] = []
        tried: list[PassedOver] = []
        for artifact in self._artifacts:
            receipt, reason = self._tried(artifact)
            if reason is None:
                shutil.rmtree(self._weights.first, ignore_errors=True)
                return replace(receipt, tried=tuple(tried))
            log.warning("%s is passed over: %s", clean(artifact.label)[:LONGEST_PATH], reason)
            receipts.append(receipt)
            tried.append(PassedOver(path=clean(artifact.label)[:LONGEST_PATH], reason=reason))
            self._put_aside(is_first=len(receipts) == 1)
        log.error("none of %s holds a network that can be built", counted(len(tried), "file"))
        first = self._weights.first
        if first.is_dir():
            first.replace(self._weights.whole)
        shutil.rmtree(self._weights.draft, ignore_errors=True)
        return replace(receipts[0], tried=tuple(tried[1:]))

    def _tried(self, artifact: Artifact) -> tuple[Receipt, str | None]:
        """Fetch an artifact; return its receipt, and why another one is to be tried, if so."""
        origin = {"uri": redacted(artifact.uri), "path": artifact.path}
        try:
            received = receive(open_store(self._config, self._layout.upgraded), artifact, self._weights)
        except (DailiesError, OSError) as error:
            reason = files.reason(error, self._weights.folder) if isinstance(error, OSError) else str(error)
            reason = redacted(clean(reason))[:LONGEST_ERROR]
            log.error("%s", reason)
            for folder in (self._weights.draft, self._weights.whole):
                shutil.rmtree(folder, ignore_errors=True)
            is_own = isinstance(error, ArtifactDamaged) or (
                isinstance(error, ArtifactGone) and artifact is not self._artifacts[0]
            )
            failed = Receipt(status="download_failed", error=reason, **origin)
            return failed, reason if is_own and len(self._artifacts) > 1 else None
        log.info("%s: %d bytes", clean(artifact.label)[:LONGEST_PATH], received.size)
        receipt = Receipt(status=SUCCESS, **origin, **vars(received))
        if len(self._artifacts) == 1 or self._is_known(receipt):
            return receipt, None
        verdict = trial.tried(
            self._weights.whole / artifact.path,
            model=self._model,
            record=self._record,
            loading=self._loading,
            trusted=trial.is_trusted(self._config.trust_code, self._record),
            params=trial.run_params(self._layout.run(self._model)),
        )
        if verdict.unknown:
            log.warning(
                "%s is taken without knowing that it holds a network, for it could not be tried: %s",
                clean(artifact.label)[:LONGEST_PATH],
                verdict.unknown,
            )
        return receipt, verdict.reason

    def _is_known(self, receipt: Receipt) -> bool:
        """Tell whether an earlier render loaded these very files with the same settings."""
        loading = loading_digest(self._record, self._loading)
        attempts = map(Outcome.load, self._layout.attempts(self._model).glob("*.json"))
        return any(
            last.model and last.loading == loading and is_same_artifact(last.artifact, receipt) for last in attempts
        )

    def _put_aside(self, *, is_first: bool) -> None:
        """Keep the files of the first artifact until all are tried, delete those of any other."""
        whole = self._weights.whole
        self._weights.draft.mkdir(exist_ok=True)  # what other downloads count as a model on the disk
        if is_first and whole.is_dir():
            whole.replace(self._weights.first)
        shutil.rmtree(whole, ignore_errors=True)


def _take_place(layout: Layout, model: str, most: int) -> None:
    """Make the folder of a model's download, as one of at most ``most`` models whose files are on the disk.

    While there are as many, wait for a render to end. A render that died leaves its model's files, so a download
    goes on where no frame was written for a while.
    """
    weights = layout.weights(model)
    shutil.rmtree(weights.folder, ignore_errors=True)
    selected = DiscoveryIndex.load(layout.index).models
    quiet, last = 0.0, None
    while True:
        weights.draft.mkdir(parents=True)
        present = sorted(name for name in selected if layout.weights(name).are_there)  # nobody renders the others
        if len(present) <= most or quiet >= PATIENCE:
            return
        # two downloads that take the last place at once both give it back: they look again at different times
        shutil.rmtree(weights.folder)
        if last is None:
            log.info("%d models are on the disk; waiting for one of them to be rendered", len(present) - 1)
        signs = [(name, _written(layout.manifests(name))) for name in present]
        quiet, last = 0.0 if signs != last else quiet, signs
        pause = LOOK * (1 + secrets.randbelow(1000) / 1000)
        time.sleep(pause)
        quiet += pause


def _written(manifests: Path) -> int:
    """Give when a model's last frame was written, in ns; 0 for none."""
    return max((path.stat().st_mtime_ns for path in manifests.glob("*.jsonl")), default=0)
