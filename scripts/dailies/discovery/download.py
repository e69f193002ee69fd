"""Download a model's artifact if one of its shards is due, trying its files until one holds a network."""

import logging
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies.core import files
from dailies.core.errors import ArtifactDamaged, ArtifactGone, DailiesError
from dailies.core.text import clean, counted, redacted
from dailies.frames.sequence import KNOCKOUT, split
from dailies.frames.sequence import load as load_sequence
from dailies.render import trial
from dailies.state import weights_folder
from dailies.state.due_shards import artifact_in_place, basis, is_due
from dailies.state.layout import Layout, Weights
from dailies.state.records import (
    SUCCESS,
    DiscoveryIndex,
    ModelRecord,
    Outcome,
    Receipt,
    RejectedFile,
    RunRecord,
    candidates,
    is_same_artifact,
    is_trusted,
    loading_digest,
    run_params,
)
from dailies.store.entities import Artifact
from dailies.store.tracking import open_store
from dailies.store.transfer import LONGEST_PATH

if TYPE_CHECKING:
    from dailies.planning.config import Settings


log = logging.getLogger(__name__)

PATIENCE, INTERVAL = 300, 1
"""Seconds without a new frame from any render until a download stops waiting, and between two checks."""

LONGEST_ERROR = 1000
"""Characters of the reason for a failure."""


def download(
    config: "Settings",
    *,
    layout: Layout,
    model: str,
    shards: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    loading: Mapping[str, Any] | None = None,
    forced: bool = False,
    receipt: Path | None = None,
) -> None:
    """Download the artifact that a model's discovery record names, and write a receipt.

    If that fails, the status in the receipt is ``download_failed``, and other models are not affected. If none of the
    ``shards`` is due, nothing is downloaded and the receipt repeats that of the last render. The same holds if all
    their frames are in place, because they were rendered as parts of other shards. The files of a finalist of a
    knockout are still on the disk after the first round, unless other models needed the room.

    Args:
        config: the settings of the invocation.
        layout: the paths below the output folder.
        model: the name of the model's folder.
        shards: ``frames`` (the digest) and ``attempt`` of each shard; without them, always download.
        settings: the settings on which every pixel depends.
        loading: the settings that decide which network an artifact becomes.
        forced: whether frames in place are rendered again.
        receipt: where to write the receipt, if not in its usual place.
    """
    receipt = receipt or layout.receipt(model)
    is_candidate = receipt == layout.candidate_receipt(model)
    settings, loading = settings or {}, loading or {}
    due = [
        name
        for name, state in (shards or {}).items()
        if is_due(layout, model, name, **state, settings=settings, loading=loading)
    ]
    if shards and not due:
        last = Outcome.load(layout.attempt(model, next(iter(shards))))
        replace(last.artifact.receipt, status=last.status, error=last.error).save(receipt)
        log.info("no shard is due, so nothing is downloaded")
        return
    if shards and not forced and layout.sequence.is_file():
        parts = split(load_sequence(layout.sequence), config.shard_frames, config.knockout_frames)
        wanted = [parts[name] for name in due if name in parts]
        artifact = artifact_in_place(layout, model, wanted, settings=settings, loading=loading)
        if artifact and len(wanted) == len(due):
            artifact.receipt.save(receipt)
            log.info("all frames are in place, so nothing is downloaded")
            return
    if not is_candidate and (kept := _kept_receipt(layout, model, settings, loading)):
        kept.save(receipt)
        log.info("the files are still on the disk after the first round of the knockout")
        return
    _wait_for_space(layout, model, config.models_on_disk, evicts=is_candidate)
    artifacts = _Candidates(config, layout=layout, model=model, loading=loading)
    artifacts.first_that_loads().save(receipt)


def _kept_receipt(
    layout: Layout, model: str, settings: Mapping[str, Any], loading: Mapping[str, Any]
) -> Receipt | None:
    """Return the receipt of the files that the first round of a knockout left on the disk; None if it left none."""
    receipt = Receipt.load_if_there(layout.candidate_receipt(model))
    last = Outcome.load_if_there(layout.attempt(model, KNOCKOUT))
    if receipt is None or last is None or receipt.status != SUCCESS or not layout.weights(model).whole.is_dir():
        return None
    is_current = last.basis == basis(layout.record(model), last.input.digest, settings, loading)
    return receipt if is_current and is_same_artifact(last.artifact, receipt) else None


class _Candidates:
    """The artifacts that may be a model, downloaded one after another until one holds a network.

    If there is only one, it is not tried.
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
        """Return the receipt of the first artifact that holds a network, or of the very first if none does.

        Its ``tried`` names the artifacts that were rejected, with reasons. Their files are deleted.
        """
        receipts: list[Receipt] = []
        tried: list[RejectedFile] = []
        for artifact in self._artifacts:
            receipt, reason = self._try(artifact)
            if reason is None:
                shutil.rmtree(self._weights.first, ignore_errors=True)
                return replace(receipt, tried=tuple(tried))
            log.warning("%s is rejected: %s", clean(artifact.label)[:LONGEST_PATH], reason)
            receipts.append(receipt)
            tried.append(RejectedFile(path=clean(artifact.label)[:LONGEST_PATH], reason=reason))
            self._put_aside(is_first=len(receipts) == 1)
        log.error("none of %s holds a network that can be built", counted(len(tried), "file"))
        first = self._weights.first
        if first.is_dir():
            first.replace(self._weights.whole)
        shutil.rmtree(self._weights.draft, ignore_errors=True)
        return replace(receipts[0], tried=tuple(tried[1:]))

    def _try(self, artifact: Artifact) -> tuple[Receipt, str | None]:
        """Download an artifact; return its receipt, and why the next one should be tried, if so."""
        uri, path = redacted(artifact.uri), artifact.path
        try:
            downloaded = weights_folder.fill(open_store(self._config, self._layout.upgraded), artifact, self._weights)
        except (DailiesError, OSError) as error:
            reason = files.reason(error, self._weights.folder) if isinstance(error, OSError) else str(error)
            reason = redacted(clean(reason))[:LONGEST_ERROR]
            log.error("%s", reason)
            for folder in (self._weights.draft, self._weights.whole):
                shutil.rmtree(folder, ignore_errors=True)
            is_own = isinstance(error, ArtifactDamaged) or (
                isinstance(error, ArtifactGone) and artifact is not self._artifacts[0]
            )
            failed = Receipt(status="download_failed", error=reason, uri=uri, path=path)
            return failed, reason if is_own and len(self._artifacts) > 1 else None
        log.info("%s: %d bytes", clean(artifact.label)[:LONGEST_PATH], downloaded.size)
        receipt = Receipt(status=SUCCESS, uri=uri, path=path, **vars(downloaded))
        if len(self._artifacts) == 1 or self._is_known(receipt):
            return receipt, None
        verdict = trial.try_candidate(
            self._weights.whole / artifact.path,
            model=self._model,
            record=self._record,
            loading=self._loading,
            trusted=is_trusted(self._config.trust_code, self._record),
            params=run_params(self._layout.run(self._model)),
        )
        if verdict.unknown:
            log.warning(
                "%s could not be tried, so it may not hold a network: %s",
                clean(artifact.label)[:LONGEST_PATH],
                verdict.unknown,
            )
        return receipt, verdict.reason

    def _is_known(self, receipt: Receipt) -> bool:
        """Return whether an earlier render loaded the same files with the same settings."""
        loading = loading_digest(self._record, self._loading)
        attempts = map(Outcome.load, self._layout.attempts(self._model).glob("*.json"))
        return any(
            last.model and last.loading == loading and is_same_artifact(last.artifact, receipt) for last in attempts
        )

    def _put_aside(self, *, is_first: bool) -> None:
        """Keep the files of the first artifact until all are tried; delete those of any other."""
        whole = self._weights.whole
        self._weights.draft.mkdir(exist_ok=True)  # counts as a model on the disk
        if is_first and whole.is_dir():
            whole.replace(self._weights.first)
        shutil.rmtree(whole, ignore_errors=True)


def _wait_for_space(layout: Layout, model: str, limit: int, *, evicts: bool = False) -> None:
    """Create the download folder once fewer than ``limit`` models are on disk; block until then.

    With ``evicts``, files are deleted of models that have rendered the first round of a knockout, and wait for its
    decision: nothing else would make room before it. Finalists among them are downloaded again.

    A killed render leaves its model's files behind, so the wait ends if no frame was written for a while.
    """
    weights = layout.weights(model)
    _delete(weights)
    selected = DiscoveryIndex.load(layout.index).models
    quiet, last = 0.0, None
    while True:
        weights.draft.mkdir(parents=True)
        present = sorted(name for name in selected if layout.weights(name).are_on_disk)  # others are not rendered
        if len(present) > limit and evicts:
            others = _evict(layout, [name for name in present if name != model], len(present) - limit)
            present = [*others, model]
        if len(present) <= limit or quiet >= PATIENCE:
            return
        # two downloads that take the last place at once both release it, and check again at different times
        _delete(weights)
        if last is None:
            log.info("%d models are on the disk; waiting until one of them is rendered", len(present) - 1)
        progress = [(name, _last_written(layout.manifests(name))) for name in present]
        quiet, last = 0.0 if progress != last else quiet, progress
        pause = INTERVAL * (1 + secrets.randbelow(1000) / 1000)
        time.sleep(pause)
        quiet += pause


def _delete(weights: Weights) -> None:
    """Delete all files of a model, and its folder unless that holds a receipt."""
    weights.discard()
    with suppress(OSError):
        weights.folder.rmdir()


def _evict(layout: Layout, present: Sequence[str], excess: int) -> list[str]:
    """Delete the files of up to ``excess`` models that wait for a decision, failed ones first; return the others."""
    waiting = {name: outcome for name in present if (outcome := _first_round(layout, name))}
    evicted = sorted(waiting, key=lambda name: waiting[name].status == SUCCESS)[:excess]
    for name in evicted:
        layout.weights(name).discard()
        log.info("the files of %s, which waits for the decision of the knockout, make room", name)
    return [name for name in present if name not in evicted]


def _first_round(layout: Layout, model: str) -> Outcome | None:
    """Return the outcome of a model's first round if that ended after its last download; None if it is to come."""
    receipt, outcome = layout.candidate_receipt(model), layout.outcome(model, KNOCKOUT)
    try:
        has_ended = outcome.stat().st_mtime_ns > receipt.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    return Outcome.load_if_there(outcome) if has_ended else None


def _last_written(manifests: Path) -> int:
    """Return when the last frame of a model was written, in ns; 0 if none was."""
    return max((path.stat().st_mtime_ns for path in manifests.glob("*.jsonl")), default=0)
