"""Ask MLflow what it holds, once per invocation, and save its answers as the snapshot that ``discover`` reads."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.core import code_digest, files
from dailies.core.errors import StoreError, StoreUnreachable
from dailies.core.text import clean, counted, redacted
from dailies.core.typed import save_all
from dailies.discovery.measured_order import MeasuredOrder, caution
from dailies.discovery.queries import Queries
from dailies.discovery.selection import Selection, first_reason, survey
from dailies.discovery.snapshot import SavedSnapshot, Skipped, Snapshot, StoreState
from dailies.state.layout import Layout
from dailies.state.records import DiscoveryIndex
from dailies.store.tracking import TrackingStore, open_store, uri_of

if TYPE_CHECKING:
    from dailies.planning.config import Settings


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
"""The settings that determine which models are found and what is known of them."""


CODE = tuple(Path(__file__).with_name(name) for name in ("discover.py", "queries.py"))
"""Discovery runs again if one of these modules, or a module that they import, changes."""


@dataclass(frozen=True)
class CurrentSnapshot:
    """The snapshot that ``discover`` reads."""

    fingerprint: str
    """Changes when discovery must run again, of which it is a parameter."""
    warning: str | None = None
    """Set if the store does not answer and the models already known are used instead."""
    note: str | None = None
    """How ``max_runs`` chose by what was measured, and which runs have no place in that order, if it left any out."""


def take_snapshot(
    settings: "Settings", layout: Layout, *, dry_run: bool = False, afresh: bool = False
) -> CurrentSnapshot:
    """Ask the store once, save the answers as a snapshot, and return its fingerprint.

    If the store does not answer, the last snapshot of the same selection stays in use and the result has a warning.

    Args:
        settings: the settings of the invocation.
        layout: the paths below the output folder.
        dry_run: whether to save nothing.
        afresh: whether to list all artifacts again, and not only those that may have changed since the last snapshot.

    Raises:
        StoreError: if the store or an experiment does not exist, or no run holds a model.
        StoreUnreachable: if the store does not answer and nothing is known of this selection yet.
    """
    selection, saved = Selection.from_settings(settings), SavedSnapshot.load_if_there(layout.snapshot)
    known = _known(settings, layout, saved)
    if dry_run and known is None:  # discovery is due anyway; one model is enough to know that there are some
        selection = replace(selection, max_runs=1)
    earlier = saved.snapshot if saved and not afresh else None
    try:
        store = open_store(settings, layout.upgraded)
        code = [code_digest.digest(path) for path in CODE]
        state = _state(store, settings, code)  # before MLflow is asked: a change meanwhile is found the next time
        is_unchanged = saved is not None and state is not None and state == _known_state(layout, saved)
        queries = Queries(
            store, selection, recheck=settings.recheck_artifacts, earlier=earlier, is_unchanged=is_unchanged
        )
        snapshot = queries.snapshot()
        note = None
        if (order := MeasuredOrder.from_settings(settings)) and selection.max_runs is None:
            snapshot, note = _preferring(snapshot, selection, order, settings, layout)
        if saved and is_unchanged and snapshot == saved.snapshot:
            fingerprint = saved.fingerprint
        else:
            fingerprint = files.digest([_selection_digest(settings), code, snapshot.digest])
        answer = None if dry_run or state is None or store.leaves_out_runs else StoreState(state, fingerprint)
        if saved and not afresh and saved.fingerprint == fingerprint:
            if answer:
                answer.save_if_changed(layout.store_state)
            return CurrentSnapshot(fingerprint, note=note)
        unseen = queries.unseen(snapshot)
    except StoreUnreachable as error:
        if known is None:
            raise
        return CurrentSnapshot(
            known.fingerprint, f"{str(error).rstrip('.')}. Continuing with the models already known: {known.models}"
        )
    surveyed = survey(snapshot, selection)
    if not surveyed.found:
        skipped = (*surveyed.skipped, *unseen)
        save_all(skipped, layout.skipped)
        raise StoreError("store.no_model", _nothing_found(settings, selection, skipped))
    if not dry_run:
        SavedSnapshot(
            fingerprint=fingerprint,
            selection=_selection_digest(settings),
            models=len(surveyed.found),
            snapshot=snapshot,
            unseen=unseen,
        ).save(layout.snapshot)
        if answer:
            answer.save_if_changed(layout.store_state)
    return CurrentSnapshot(fingerprint, note=note)


def _state(store: TrackingStore, settings: "Settings", code: Sequence[str]) -> str | None:
    """Return a digest of everything on which MLflow's answers depend; None if the store does not show its changes."""
    state = store.state
    return None if state is None else files.digest([state, _selection_digest(settings), code, version("mlflow")])


def _known_state(layout: Layout, saved: SavedSnapshot) -> str | None:
    """Return the state of the store in which MLflow gave the answers of a snapshot; None if it is not known."""
    known = StoreState.load_if_there(layout.store_state)
    return known.state if known and known.fingerprint == saved.fingerprint else None


def _preferring(
    snapshot: Snapshot, selection: Selection, order: MeasuredOrder, settings: "Settings", layout: Layout
) -> tuple[Snapshot, str | None]:
    """Return a snapshot with the runs that the order prefers, and a sentence on those that it leaves out.

    The measured values themselves are no part of it: it changes only if they let another run in.
    """
    runs = [model.run.run_id for model in survey(snapshot, selection).found if model.version is None]
    known = order.known_means(runs, settings, layout)
    taken = order.best(runs, known.means)
    note = caution(order, taken=taken, left=[run for run in runs if run not in taken], known=known)
    return replace(snapshot, preferred=taken), note


@dataclass(frozen=True)
class _Known:
    """What an earlier invocation found with the same selection, if it found models."""

    fingerprint: str
    models: int


def _known(settings: "Settings", layout: Layout, saved: SavedSnapshot | None) -> _Known | None:
    """Return what the snapshot, or else the index that an earlier version wrote, knows of the same selection."""
    selection = _selection_digest(settings)
    if saved:
        return _Known(saved.fingerprint, saved.models) if saved.selection == selection else None
    index = DiscoveryIndex.load_if_there(layout.index)
    if index is None or index.selection != selection or not index.models:
        return None
    return _Known(index.fingerprint, len(index.models))


def _selection_digest(settings: "Settings") -> str:
    config = settings.as_config()
    return files.digest([redacted(uri_of(settings)), {key: config[key] for key in SELECTING}])


def _nothing_found(settings: "Settings", selection: Selection, skipped: Sequence[Skipped]) -> str:
    places = [*selection.models, *(["run_ids"] if selection.run_ids else selection.experiments)]
    where = " and ".join(clean(name) for name in places)
    kinds = Counter(run.kind for run in skipped).most_common()
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds)
    first = first_reason(skipped)
    why = f": {counts}" if counts else ""
    seen = counted(len(skipped), "run")
    return f"no run with a model was found in {where} of {redacted(uri_of(settings))}, among {seen}{why}. " + (
        f"For the first of them, {first}" if first else "Each with its reason is in .dailies/skipped.json"
    )
