"""Download: a model's artifact, whole and verified, or a record of why not."""

import logging
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies.core import files
from dailies.core.errors import (
    ArtifactDamaged,
    ArtifactGone,
    DailiesError,
)
from dailies.core.text import (
    clean,
    counted,
    redacted,
)
from dailies.render import trial
from dailies.state import records
from dailies.state.attempts import is_due
from dailies.state.layout import Layout
from dailies.state.records import (
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
from dailies.store.entities import Artifact
from dailies.store.tracking import open_store

if TYPE_CHECKING:
    from dailies.planning.config import Settings


from dailies.state.fetch import LONGEST_ERROR, LONGEST_PATH, receive

log = logging.getLogger(__name__)

PATIENCE, LOOK = 300, 1
"""Seconds without a sign of life from any render until a download no longer waits for one, and between two looks."""


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
        verdict = trial.try_candidate(
            self._weights.whole / artifact.path,
            model=self._model,
            record=self._record,
            loading=self._loading,
            trusted=records.is_trusted(self._config.trust_code, self._record),
            params=records.run_params(self._layout.run(self._model)),
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
