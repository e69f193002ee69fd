"""Discovery: which models there are, recorded one file per model, so that only what changed is rendered again."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dailies import catalog, files, naming
from dailies.catalog import Choice, Facts, Names
from dailies.errors import StoreError, StoreUnreachable
from dailies.store import LoggedModel, Run, StoredFile, TrackingStore, clean
from dailies.tables import columns

log = logging.getLogger(__name__)

STEP = 64
"""Runs whose artifacts are listed together while looking for the first ``max_runs`` models."""


@dataclass(frozen=True)
class Selection:
    """Which models to look for, as the configuration says."""

    experiments: tuple[str, ...]
    status: str | None
    """MLflow's run status; None takes all."""
    filter: str | None
    order_by: str | None
    max_runs: int | None
    run_ids: tuple[str, ...]
    """Just these runs, whatever their experiment and status."""
    checkpoint_pattern: str | None
    names: Names

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Selection":
        """Take what concerns discovery from a validated configuration."""
        return cls(
            experiments=tuple(config["experiment_name"]),
            status=config["filter_status"],
            filter=config["filter"],
            order_by=config["order_by"],
            max_runs=config["max_runs"],
            run_ids=tuple(config["run_ids"] or ()),
            checkpoint_pattern=config["checkpoint_pattern"],
            names=Names(
                architecture=config["architecture_from"],
                epoch=config["epoch_from"],
                train_loss=config["train_loss_from"],
                val_loss=config["val_loss_from"],
            ),
        )


@dataclass(frozen=True)
class Found:
    """A model: a run and the artifact chosen from it."""

    run: Run
    facts: Facts
    choice: Choice


@dataclass(frozen=True)
class Skipped:
    """A run that is passed over, and why."""

    run_id: str
    run_name: str
    status: str
    reason: str
    kind: str
    """The reason in one or two words, for counting."""


@dataclass(frozen=True)
class Survey:
    """Everything discovery learned."""

    found: tuple[Found, ...]
    skipped: tuple[Skipped, ...]


class Listings:
    """The files below artifact locations: asked for in groups, and remembered while their stamp stays the same."""

    def __init__(self, store: TrackingStore, remembered: Mapping[str, Any]) -> None:
        self._store = store
        self._remembered = remembered
        self._listed: dict[str, tuple[StoredFile, ...] | StoreError] = {"": ()}
        self.memory: dict[str, Any] = {}
        """What to remember for the next time: location -> stamp and files."""

    def prepare(self, stamps: Mapping[str, Any]) -> None:
        """List the locations whose stamp is None or is not the remembered one."""
        for uri, stamp in stamps.items():
            entry = self._remembered.get(uri)
            if stamp is not None and entry and entry["stamp"] == stamp:
                self._listed[uri] = tuple(StoredFile(*file) for file in entry["files"])
                self.memory[uri] = entry
        missing = [uri for uri in stamps if uri not in self._listed]
        self._listed |= self._store.listings(missing)
        for uri in missing:
            listed = self._listed[uri]
            if stamps[uri] is not None and not isinstance(listed, StoreError):
                rows = [[file.path, file.size, file.modified] for file in listed]
                self.memory[uri] = {"stamp": stamps[uri], "files": rows}

    def of(self, uri: str) -> tuple[StoredFile, ...]:
        """Give a prepared listing. Raises StoreError where the store refused it."""
        listed = self._listed[uri]
        if isinstance(listed, StoreError):
            raise listed
        return listed


def survey(store: TrackingStore, selection: Selection, *, listings: Listings, recheck: bool) -> Survey:
    """Look at every run that the selection names, in order, until ``max_runs`` models are found.

    ``recheck`` lists the artifacts of every run anew; otherwise only of runs that are new, changed or RUNNING.
    """
    runs = _runs(store, selection)
    passing = [run for run in runs if _passes(run, selection)]
    skipped = [
        _skip(run, f"its status is {run.status}, filter_status asks for {selection.status}", "have another status")
        for run in runs
        if not _passes(run, selection)
    ]
    logged = _logged(store, passing)
    found: list[Found] = []
    limit = selection.max_runs or len(passing)
    for start in range(0, len(passing), STEP):
        group = passing[start : start + STEP] if len(found) < limit else []
        listings.prepare({run.artifact_uri: None if recheck else _stamp(run) for run in group if run.artifact_uri})
        for run in passing[start : start + STEP]:
            if len(found) >= limit:
                skipped.append(_skip(run, f"beyond the first {limit} models", "are beyond max_runs"))
                continue
            choice = _choice(store, run, logged.get(run.run_id, []), selection, listings, recheck=recheck)
            if isinstance(choice, Skipped):
                skipped.append(choice)
            else:
                found.append(Found(run, catalog.facts(run, selection.names), choice))
    return Survey(tuple(found), tuple(skipped))


def _runs(store: TrackingStore, selection: Selection) -> list[Run]:
    if selection.run_ids:
        return store.runs_by_id(selection.run_ids)
    experiments = store.experiments(selection.experiments)
    return store.runs(experiments, filter_string=selection.filter or "", order_by=selection.order_by)


def _passes(run: Run, selection: Selection) -> bool:
    return bool(selection.run_ids) or selection.status is None or run.status == selection.status


def _logged(store: TrackingStore, runs: Sequence[Run]) -> dict[str, list[LoggedModel]]:
    return store.logged_models(store.experiments(sorted({run.experiment for run in runs}))) if runs else {}


def _skip(run: Run, reason: str, kind: str) -> Skipped:
    return Skipped(run.run_id, clean(run.run_name)[:200], run.status, reason, kind)


def _stamp(run: Run) -> list[Any] | None:
    return None if run.status == "RUNNING" else [run.status, run.end_time]


def _choice(
    store: TrackingStore,
    run: Run,
    logged: Sequence[LoggedModel],
    selection: Selection,
    listings: Listings,
    *,
    recheck: bool,
) -> Choice | Skipped:
    try:
        listing = listings.of(run.artifact_uri)
        found = catalog.candidates(run, listing)
        if not any(artifact.is_weights for artifact in found):
            listings.prepare({model.artifact_uri: None if recheck else [model.updated] for model in logged})
            found = [catalog.logged(model, listings.of(model.artifact_uri)) for model in logged] + found
    except StoreUnreachable:
        raise
    except StoreError as error:
        return _skip(run, str(error), "have unreadable artifacts")
    choice = catalog.choose(found, selection.checkpoint_pattern)
    if choice is not None:
        return choice
    if found:
        labels = ", ".join(clean(artifact.label) for artifact in found[:5])
        reason = f"checkpoint_pattern {selection.checkpoint_pattern} matches none of {labels}"
        return _skip(run, reason, "match no checkpoint_pattern")
    if moved := store.moved(run.artifact_uri):
        return _skip(run, moved, "have lost their artifacts")
    names = ", ".join(clean(file.path) for file in listing[:5]) or "none"
    return _skip(run, f"it holds no model; its artifacts: {names}", "hold no model")


def open_store(config: Mapping[str, Any], state: Path) -> TrackingStore:
    """Open the store that a validated configuration names, else the one that MLFLOW_TRACKING_URI names."""
    uri = config["mlflow_uri"] or os.environ["MLFLOW_TRACKING_URI"]
    return TrackingStore(uri, private=state / "upgraded", artifact_remap=config["artifact_remap"])


def _recheck(config: Mapping[str, Any], store: TrackingStore) -> bool:
    wanted = config["recheck_artifacts"]
    return store.local if wanted == "auto" else bool(wanted)


@dataclass(frozen=True)
class Standing:
    """How the store stands, as far as discovery can tell."""

    fingerprint: str
    """Changes when discovery has to run again."""
    warning: str | None = None
    """Set when the store does not answer and what is known of it is used instead."""


def standing(config: Mapping[str, Any], state: Path) -> Standing:
    """Ask the store, once and without downloading anything, whether anything changed since the last discovery.

    Raises StoreError when the store or an experiment does not exist, and StoreUnreachable when the store does not
    answer and nothing is known of this selection yet.
    """
    selection = Selection.from_config(config)
    try:
        store = open_store(config, state)
        runs = _runs(store, selection)
        passing = [run for run in runs if _passes(run, selection)]
        watched = passing if _recheck(config, store) else [run for run in passing if run.status == "RUNNING"]
        listed = store.listings([run.artifact_uri for run in watched if run.artifact_uri])
        models = _logged(store, passing)
    except StoreUnreachable as error:
        known = _known(state, selection)
        if known is None:
            raise
        warning = f"{error}. Going on with the {len(known['models'])} models already known"
        return Standing(known["fingerprint"], warning)
    return Standing(
        files.digest(
            [
                _identity(selection),
                [asdict(run) for run in runs],
                [[asdict(model) for model in models[run_id]] for run_id in sorted(models)],
                [[uri, _plain(listed[uri])] for uri in sorted(listed)],
            ]
        )
    )


def _plain(listed: tuple[StoredFile, ...] | StoreError) -> Any:
    return str(listed) if isinstance(listed, StoreError) else [asdict(file) for file in listed]


def _identity(selection: Selection) -> str:
    return files.digest(asdict(selection))


def _known(state: Path, selection: Selection) -> dict[str, Any] | None:
    path = state / "known.json"
    known = files.read_json(path) if path.is_file() else {}
    return known if known.get("selection") == _identity(selection) and known["models"] else None


def discover(config: Mapping[str, Any], *, fingerprint: str, state: Path, index: Path) -> None:
    """Find the models and record them below ``state``; write ``index``, the list of their names, last.

    ``models/{model}.json`` holds only what matters for rendering, ``runs/{model}.json`` the rest; a record that says
    the same as before is not touched. Runs that are passed over go to ``skipped.json``. When the store stops
    answering, the index of an earlier discovery of the same selection is written again. Raises StoreError.
    """
    selection = Selection.from_config(config)
    try:
        store = open_store(config, state)
        memory = state / "listings.json"
        listings = Listings(store, files.read_json(memory) if memory.is_file() else {})
        seen = survey(store, selection, listings=listings, recheck=_recheck(config, store))
        passed_over = list(seen.skipped) + _passed_over(store, selection)
    except StoreUnreachable as error:
        known = _known(state, selection)
        if known is None:
            raise
        log.warning("%s. Going on with the %d models already known", error, len(known["models"]))
        files.write_json(index, known)
        return
    names = _record(seen.found, config["folder_name"], state)
    files.write_json(state / "skipped.json", [asdict(run) for run in passed_over])
    files.write_json(memory, listings.memory)
    for run in passed_over:
        log.info("passed over: run %s (%s): %s", run.run_id, run.run_name, run.reason)
    known = {
        "fingerprint": fingerprint,
        "selection": _identity(selection),
        "models": names,
        "reason": None if names else _nothing_found(store, selection, passed_over),
    }
    files.write_json(state / "known.json", known)
    files.write_json(index, known)
    log.info("%d models found, %d runs passed over", len(names), len(passed_over))


def _passed_over(store: TrackingStore, selection: Selection) -> list[Skipped]:
    if selection.run_ids:
        return []
    experiments = store.experiments(selection.experiments)
    skipped = [_skip(run, "it was deleted", "were deleted") for run in store.runs(experiments, deleted=True)]
    if selection.filter:
        passing = {run.run_id for run in store.runs(experiments, filter_string=selection.filter)}
        reason = f"the filter {selection.filter} leaves it out"
        others = (run for run in store.runs(experiments) if run.run_id not in passing)
        skipped += [_skip(run, reason, "are left out by the filter") for run in others]
    return skipped


def _nothing_found(store: TrackingStore, selection: Selection, passed_over: Sequence[Skipped]) -> str:
    where = " and ".join(clean(name) for name in selection.experiments)
    counts = ", ".join(f"{count} {kind}" for kind, count in Counter(run.kind for run in passed_over).most_common())
    first = next((run.reason for run in passed_over if run.kind == "have lost their artifacts"), None)
    why = f": {counts}" if counts else ""
    return f"no run with a model was found in {where} of {store.name}; {len(passed_over)} runs were seen{why}. " + (
        f"For the first of them, {first}" if first else "Each with its reason is in .dailies/skipped.json"
    )


def _record(found: Sequence[Found], template: str, state: Path) -> list[str]:
    models, runs = state / "models", state / "runs"
    given = {files.read_json(path)["run_id"]: path.stem for path in models.glob("*.json")}
    names = []
    for model in found:
        run, facts, choice = model.run, model.facts, model.choice
        name = given.get(run.run_id)
        if name is None:
            about = asdict(facts) | {"run_id": run.run_id, "run_name": run.run_name, "experiment": run.experiment}
            name = naming.folder_name(template, about | {"start_time": run.start_time}, given.values())
            given[run.run_id] = name
        names.append(name)
        files.write_json_if_changed(
            models / f"{name}.json",
            {"run_id": run.run_id, "architecture": facts.architecture, "artifact": asdict(choice.artifact)},
        )
        files.write_json_if_changed(
            runs / f"{name}.json",
            {
                "run_id": run.run_id,
                "run_name": clean(run.run_name),
                "experiment": run.experiment,
                **asdict(facts),
                "status": run.status,
                "start_time": run.start_time,
                "params": dict(sorted(run.params.items())),
                "metrics": dict(sorted(run.metrics.items())),
                "tags": dict(sorted(run.tags.items())),
                "not_chosen": list(choice.others),
            },
        )
    return names


def table(index: Path) -> str:
    """Lay out what would be rendered: one line per model, in order."""
    state = index.parent
    rows = [("model", "architecture", "epoch", "train loss", "val loss", "artifact", "size")]
    for name in files.read_json(index)["models"]:
        run = files.read_json(state / "runs" / f"{name}.json")
        artifact = files.read_json(state / "models" / f"{name}.json")["artifact"]
        sizes = [file["size"] for file in artifact["files"]]
        size = "?" if None in sizes else f"{sum(sizes) / 1e6:.1f} MB"
        label = clean(artifact["path"] or artifact["uri"].rstrip("/").rsplit("/", 2)[-2])
        values = (name, run["architecture"], run["epoch"], run["train_loss"], run["val_loss"], label, size)
        rows.append(tuple("-" if value is None else str(value) for value in values))
    return columns(rows)
