"""Discovery: which models there are, recorded one file per model, so that only what changed is rendered again."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dailies import files, snapshot, sources
from dailies.errors import StoreError, StoreUnreachable
from dailies.questions import Questions
from dailies.records import record
from dailies.snapshot import Kept, Skipped, Snapshot
from dailies.store import open_store, uri_of
from dailies.survey import AMENDABLE, Selection, survey
from dailies.text import clean, counted, redacted

log = logging.getLogger(__name__)

INDEX = "discovery.json"

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


def plan(config: Mapping[str, Any], state: Path, *, dry_run: bool = False, afresh: bool = False) -> Plan:
    """Ask the store, once, and keep the answers in ``state`` as a snapshot, from which ``discover`` finds the models.

    Only what changed since the last snapshot is listed again, or everything when ``afresh``. A dry run writes no
    snapshot. When the store does not answer, the last snapshot of this selection stays and a warning is returned.
    Raises StoreError when the store or an experiment does not exist, and when no run holds a model; StoreUnreachable
    when the store does not answer and nothing is known of this selection yet.
    """
    selection, kept = Selection.from_config(config), Kept.load(state)
    known = _known(config, state, kept)
    if dry_run and known is None:  # discovery is due anyway; whether there is any model shows sooner
        selection = replace(selection, max_runs=1)
    earlier = kept.snapshot if kept and not afresh else None
    try:
        store = open_store(config, state)
        questions = Questions(store, selection, recheck=config["recheck_artifacts"], earlier=earlier)
        taken = questions.snapshot()
        fingerprint = files.digest([_identity(config), sources.digest(Path(__file__)), taken.digest])
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
        _write_skipped(passed_over, state)
        raise StoreError("store.no_model", _nothing_found(config, selection, passed_over))
    if not dry_run:
        Kept(fingerprint, _identity(config), len(seen.found), taken, unseen).save(state)
    return Plan(fingerprint)


@dataclass(frozen=True)
class _Known:
    """What an earlier invocation found with the same selection, if it found models."""

    fingerprint: str
    models: int


def _known(config: Mapping[str, Any], state: Path, kept: Kept | None) -> _Known | None:
    """Return what is known of this very selection, by the snapshot, or by the index that an earlier version left."""
    if kept:
        return _Known(kept.fingerprint, kept.models) if kept.selection == _identity(config) else None
    index = files.read_json(state / INDEX) if (state / INDEX).is_file() else {}
    is_same = index.get("selection") == _identity(config) and index["models"]
    return _Known(index["fingerprint"], len(index["models"])) if is_same else None


def _identity(config: Mapping[str, Any]) -> str:
    return files.digest([redacted(uri_of(config)), {key: config[key] for key in SELECTING}])


def discover(config: Mapping[str, Any], *, fingerprint: str, state: Path, index: Path) -> None:
    """Find the models in the snapshot of ``fingerprint`` and record them below ``state``; write their list last.

    ``models/{model}.json`` holds only what matters for rendering, ``runs/{model}.json`` the rest; a record that says
    the same as before is not touched. Runs that are passed over go to ``skipped.json``. MLflow is not asked. Raises
    StoreError where the snapshot is missing.
    """
    selection, kept = Selection.from_config(config), snapshot.load(state, fingerprint)
    seen = survey(kept.snapshot, selection)
    passed_over = (*seen.skipped, *kept.unseen)
    names = record(seen.found, config["folder_name"], state)
    _write_skipped(passed_over, state)
    for run in passed_over:
        log.info("passed over: run %s (%s): %s", run.run_id, run.run_name, run.reason)
    _report_unread(kept.snapshot)
    found = {
        "fingerprint": fingerprint,
        "selection": kept.selection,
        "models": names,
        "warning": _left_out(passed_over),
    }
    files.write_json(index, found)
    log.info("%d models found, %d runs passed over", len(names), len(passed_over))


def _write_skipped(passed_over: Sequence[Skipped], state: Path) -> None:
    files.write_json(state / "skipped.json", [asdict(run) for run in passed_over])


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


def _nothing_found(config: Mapping[str, Any], selection: Selection, passed_over: Sequence[Skipped]) -> str:
    places = [*selection.models, *(["run_ids"] if selection.run_ids else selection.experiments)]
    where = " and ".join(clean(name) for name in places)
    kinds = Counter(run.kind for run in passed_over).most_common()
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds)
    first = next((run.reason for run in passed_over if run.kind in AMENDABLE), None)
    why = f": {counts}" if counts else ""
    seen = counted(len(passed_over), "run")
    return f"no run with a model was found in {where} of {redacted(uri_of(config))}, among {seen}{why}. " + (
        f"For the first of them, {first}" if first else "Each with its reason is in .dailies/skipped.json"
    )
