"""Discovery: which models there are, recorded one file per model, so that only what changed is rendered again."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.core import files, sources
from dailies.core.errors import StoreError, StoreUnreachable
from dailies.core.text import clean, counted, redacted
from dailies.discovery import snapshot
from dailies.discovery.inventory import record
from dailies.discovery.questions import Questions
from dailies.discovery.selection import AMENDABLE, Selection, survey
from dailies.discovery.snapshot import Kept, Skipped, Snapshot
from dailies.state.layout import Layout
from dailies.store.tracking import open_store, uri_of

if TYPE_CHECKING:
    from dailies.planning.config import Settings


log = logging.getLogger(__name__)

SELECTING = (
    "models",
    "experiment_name",
    "filter_status",
    "filter",
    "order_by",
    "max_runs",
    "run_ids",
    "checkpoint_pattern",
    "artifact_remap",
    "allowed_artifact_schemes",
    "architecture_from",
    "epoch_from",
    "train_loss_from",
    "val_loss_from",
)
"""The settings that decide which models there are and what is known of them."""


@dataclass(frozen=True)
class Plan:
    """What discovery is planned with."""

    fingerprint: str
    """Changes when discovery has to run again."""
    warning: str | None = None
    """Set when the store does not answer and what is known of it is used instead."""


def plan(settings: "Settings", layout: Layout, *, dry_run: bool = False, afresh: bool = False) -> Plan:
    """Ask the store, once, and keep the answers as a snapshot, from which ``discover`` finds the models.

    Only what changed since the last snapshot is listed again, or everything when ``afresh``. A dry run writes no
    snapshot. When the store does not answer, the last snapshot of this selection stays and a warning is returned.
    Raises StoreError when the store or an experiment does not exist, and when no run holds a model; StoreUnreachable
    when the store does not answer and nothing is known of this selection yet.
    """
    selection, kept = Selection.from_settings(settings), Kept.load(layout.snapshot)
    known = _known(settings, layout, kept)
    if dry_run and known is None:  # discovery is due anyway; whether there is any model shows sooner
        selection = replace(selection, max_runs=1)
    earlier = kept.snapshot if kept and not afresh else None
    try:
        store = open_store(settings, layout.upgraded)
        questions = Questions(store, selection, recheck=settings.recheck_artifacts, earlier=earlier)
        taken = questions.snapshot()
        fingerprint = files.digest([_identity(settings), sources.digest(Path(__file__)), taken.digest])
        if kept and not afresh and kept.fingerprint == fingerprint:
            return Plan(fingerprint)
        unseen = questions.unseen(taken)
    except StoreUnreachable as error:
        if known is None:
            raise
        return Plan(
            known.fingerprint, f"{str(error).rstrip('.')}. Going on with the models already known: {known.models}"
        )
    seen = survey(taken, selection)
    if not seen.found:
        passed_over = (*seen.skipped, *unseen)
        _write_skipped(passed_over, layout)
        raise StoreError("store.no_model", _nothing_found(settings, selection, passed_over))
    if not dry_run:
        Kept(fingerprint, _identity(settings), len(seen.found), taken, unseen).save(layout.snapshot)
    return Plan(fingerprint)


@dataclass(frozen=True)
class _Known:
    """What an earlier invocation found with the same selection, if it found models."""

    fingerprint: str
    models: int


def _known(settings: "Settings", layout: Layout, kept: Kept | None) -> _Known | None:
    """Return what is known of this very selection, by the snapshot, or by the index that an earlier version left."""
    if kept:
        return _Known(kept.fingerprint, kept.models) if kept.selection == _identity(settings) else None
    index = files.read_json(layout.index) if layout.index.is_file() else {}
    is_same = index.get("selection") == _identity(settings) and index["models"]
    return _Known(index["fingerprint"], len(index["models"])) if is_same else None


def _identity(settings: "Settings") -> str:
    asked = settings.as_config()
    return files.digest([redacted(uri_of(settings)), {key: asked[key] for key in SELECTING}])


def discover(settings: "Settings", *, fingerprint: str, layout: Layout) -> None:
    """Find the models in the snapshot of ``fingerprint`` and record them; write their list last.

    ``models/{model}.json`` holds only what matters for rendering, ``runs/{model}.json`` the rest; a record that says
    the same as before is not touched. Runs that are passed over go to ``skipped.json``. MLflow is not asked. Raises
    StoreError where the snapshot is missing.
    """
    selection, kept = Selection.from_settings(settings), snapshot.load(layout.snapshot, fingerprint)
    seen = survey(kept.snapshot, selection)
    passed_over = (*seen.skipped, *kept.unseen)
    names = record(seen.found, settings.folder_name, layout)
    _write_skipped(passed_over, layout)
    for run in passed_over:
        log.info("passed over: run %s (%s): %s", run.run_id, run.run_name, run.reason)
    _report_unread(kept.snapshot)
    found = {
        "fingerprint": fingerprint,
        "selection": kept.selection,
        "models": names,
        "warning": _left_out(passed_over),
    }
    files.write_json(layout.index, found)
    log.info("%d models found, %d runs passed over", len(names), len(passed_over))


def _write_skipped(passed_over: Sequence[Skipped], layout: Layout) -> None:
    files.write_json(layout.skipped, [asdict(run) for run in passed_over])


def _report_unread(taken: Snapshot) -> None:
    """Log which logged models cannot be listed: their runs may hold other files."""
    for model in (model for models in taken.logged.values() for model in models):
        listing = taken.listings.get(model.artifact_uri)
        if listing and listing.error:
            log.warning("a logged model of run %s is left out: %s", model.run_id, listing.error)


def _left_out(passed_over: Sequence[Skipped]) -> str | None:
    """Say how many runs are not rendered though they may hold models, which no filter asked for."""
    lost = [run for run in passed_over if run.kind in AMENDABLE]
    if not lost:
        return None
    return f"runs that are passed over, as their artifacts cannot be read: {len(lost)}. Of the first, {lost[0].reason}"


def _nothing_found(settings: "Settings", selection: Selection, passed_over: Sequence[Skipped]) -> str:
    places = [*selection.models, *(["run_ids"] if selection.run_ids else selection.experiments)]
    where = " and ".join(clean(name) for name in places)
    kinds = Counter(run.kind for run in passed_over).most_common()
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds)
    first = next((run.reason for run in passed_over if run.kind in AMENDABLE), None)
    why = f": {counts}" if counts else ""
    seen = counted(len(passed_over), "run")
    return f"no run with a model was found in {where} of {redacted(uri_of(settings))}, among {seen}{why}. " + (
        f"For the first of them, {first}" if first else "Each with its reason is in .dailies/skipped.json"
    )
