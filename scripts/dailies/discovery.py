"""Discovery: which models there are, recorded one file per model, so that only what changed is rendered again."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dailies import files, registry, sources
from dailies.entities import StoredFile
from dailies.errors import StoreError, StoreUnreachable
from dailies.layout import Layout
from dailies.records import record
from dailies.store import TrackingStore, open_store, uri_of
from dailies.survey import (
    AMENDABLE,
    Listings,
    Selection,
    Skipped,
    logged_models,
    passes,
    selected_runs,
    survey,
    unseen,
)
from dailies.text import clean, counted, redacted

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
class Standing:
    """How the store stands, as far as discovery can tell."""

    fingerprint: str
    """Changes when discovery has to run again."""
    warning: str | None = None
    """Set when the store does not answer and what is known of it is used instead."""


def standing(config: Mapping[str, Any], layout: Layout) -> Standing:
    """Ask the store, once and without downloading anything, whether anything changed since the last discovery.

    Raises StoreError when the store or an experiment does not exist, and StoreUnreachable when the store does not
    answer and nothing is known of this selection yet.
    """
    selection = Selection.from_config(config)
    try:
        store = open_store(config, layout.upgraded)
        listings = Listings(store, recheck=config["recheck_artifacts"], remembered=_remembered(layout))
        named = registry.registered(store, selection.models)
        runs = selected_runs(store, selection)
        passing = [run for run in runs if passes(run, selection)]
        places = [(item.uri, item.run) for item in named] + [(run.artifact_uri, run) for run in passing]
        watched = [uri for uri, run in dict(places).items() if uri and listings.is_watched(uri, run)]
        listed = store.listings(watched)
        models = logged_models(store, passing)
    except StoreUnreachable as error:
        known = _known(config, layout)
        if known is None:
            raise
        return Standing(known["fingerprint"], _going_on(error, known))
    return Standing(
        files.digest(
            [
                _identity(config),
                sources.digest(Path(__file__)),
                _postponed(layout),
                [asdict(item) for item in named],
                [asdict(run) for run in runs],
                [[asdict(model) for model in models[run_id]] for run_id in sorted(models)],
                [[uri, _plain(listed[uri])] for uri in sorted(listed)],
            ]
        )
    )


def refuse_nothing(config: Mapping[str, Any], layout: Layout) -> None:
    """Raise StoreError, with the reasons, when no run holds a model; ask only while no model is known."""
    if _known(config, layout) is not None:
        return
    selection = Selection.from_config(config)
    store = open_store(config, layout.upgraded)
    listings = Listings(store, recheck=config["recheck_artifacts"], remembered=_remembered(layout))
    seen = survey(store, replace(selection, max_runs=1), listings)
    if not seen.found:
        passed_over = [*seen.skipped, *unseen(store, selection, seen)]
        files.write_json(layout.skipped, [asdict(run) for run in passed_over])
        raise StoreError(_nothing_found(store, selection, passed_over))


def _plain(listed: tuple[StoredFile, ...] | StoreError) -> Any:
    return str(listed) if isinstance(listed, StoreError) else [asdict(file) for file in listed]


def _identity(config: Mapping[str, Any]) -> str:
    return files.digest([redacted(uri_of(config)), {key: config[key] for key in SELECTING}])


def _known(config: Mapping[str, Any], layout: Layout) -> dict[str, Any] | None:
    """Give what the last discovery of this very selection left, if it found models."""
    path = layout.known
    known = files.read_json(path) if path.is_file() else {}
    return known if known.get("selection") == _identity(config) and known["models"] else None


def _postponed(layout: Layout) -> int:
    """Give how often changes were left for the next invocation, as the store did not answer when it was looked at."""
    path = layout.known
    return files.read_json(path).get("postponed", 0) if path.is_file() else 0


def _remembered(layout: Layout) -> dict[str, Any]:
    path = layout.listings
    return files.read_json(path) if path.is_file() else {}


def _going_on(error: StoreUnreachable, known: Mapping[str, Any]) -> str:
    return f"{error}. Going on with the models already known: {len(known['models'])}"


def discover(config: Mapping[str, Any], *, fingerprint: str, layout: Layout) -> None:
    """Find the models and record them; write the index, the list of their names, last.

    The record of a model holds only what matters for rendering, that of its run the rest; a record that says
    the same as before is not touched. Runs that are passed over are recorded, too. When the store does not answer
    and models are known, their index is written again, and the next invocation looks again. Raises StoreError.
    """
    selection = Selection.from_config(config)
    try:
        store = open_store(config, layout.upgraded)
        listings = Listings(store, recheck=config["recheck_artifacts"], remembered=_remembered(layout))
        seen = survey(store, selection, listings)
        passed_over = [*seen.skipped, *unseen(store, selection, seen)]
    except StoreUnreachable as error:
        known = _known(config, layout)
        if known is None:
            raise
        warning = _going_on(error, known)
        log.warning("%s", warning)
        if known["fingerprint"] != fingerprint:
            # what changed was not looked at: the next invocation's fingerprint has to be another one
            known |= {"fingerprint": fingerprint, "postponed": _postponed(layout) + 1, "warning": warning}
            files.write_json(layout.known, known)
        files.write_json(layout.index, known)
        return
    names = record(seen.found, config["folder_name"], layout)
    files.write_json(layout.skipped, [asdict(run) for run in passed_over])
    files.write_json(layout.listings, listings.memory)
    for run in passed_over:
        log.info("passed over: run %s (%s): %s", run.run_id, run.run_name, run.reason)
    known = {
        "fingerprint": fingerprint,
        "selection": _identity(config),
        "models": names,
        "reason": None if names else _nothing_found(store, selection, passed_over),
        "warning": _left_out(passed_over) if names else None,
        "postponed": _postponed(layout),
    }
    files.write_json(layout.known, known)
    files.write_json(layout.index, known)
    log.info("%d models found, %d runs passed over", len(names), len(passed_over))


def _left_out(passed_over: Sequence[Skipped]) -> str | None:
    """Say how many runs are not rendered though they may hold models, which no filter asked for."""
    lost = [run for run in passed_over if run.kind in AMENDABLE]
    if not lost:
        return None
    return f"runs that are passed over, as their artifacts cannot be read: {len(lost)}. Of the first, {lost[0].reason}"


def _nothing_found(store: TrackingStore, selection: Selection, passed_over: Sequence[Skipped]) -> str:
    places = [*selection.models, *(["run_ids"] if selection.run_ids else selection.experiments)]
    where = " and ".join(clean(name) for name in places)
    kinds = Counter(run.kind for run in passed_over).most_common()
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds)
    first = next((run.reason for run in passed_over if run.kind in AMENDABLE), None)
    why = f": {counts}" if counts else ""
    seen = counted(len(passed_over), "run")
    return f"no run with a model was found in {where} of {store.name}, among {seen}{why}. " + (
        f"For the first of them, {first}" if first else "Each with its reason is in .dailies/skipped.json"
    )
