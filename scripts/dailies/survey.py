"""The survey: which runs of a store hold a model, which of their artifacts it is, and why others are passed over."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from dailies import catalog, metrics, registry
from dailies.catalog import Artifact, Choice, Facts, Names
from dailies.entities import EVALUATION, LoggedModel, Run, StoredFile
from dailies.errors import AccessRefused, LocationRefused, StoreError, StoreUnreachable
from dailies.registry import Registered, Version
from dailies.store import TrackingStore
from dailies.text import clean, counted

STEP = 64
"""Runs whose artifacts are listed together while looking for the first ``max_runs`` models."""

LONGEST_LABEL, MOST_LABELS = 200, 1000
"""Characters of an artifact's path as it is shown, and how many of those that were not chosen are."""

LONGEST_REASON = 1000
"""Characters of the reason why a run is passed over; it may name files, and the store names those."""

LOST, FOREIGN = "whose artifacts are lost", "whose artifacts are at a place that is not asked"
OTHER_STATUS = "with another status"
UNREAD = "with artifacts that cannot be read"
AMENDABLE = frozenset({LOST, FOREIGN, UNREAD})
"""Why runs are passed over that a setting, or a right, would bring back."""


@dataclass(frozen=True)
class Selection:
    """Which models to look for, as the configuration says."""

    models: tuple[str, ...]
    """Versions of registered models, whatever their run's experiment and status; they come first."""
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
            models=tuple(config["models"] or ()),
            experiments=tuple(config["experiment_name"] or ()),
            status=config["filter_status"],
            filter=config["filter"],
            order_by=None if metrics.is_order(config["order_by"]) else config["order_by"],
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
    version: Version | None = None
    """The registered model that it was asked for as."""

    @property
    def identity(self) -> tuple[str, str, str]:
        """What tells it from every other model: one run may hold several."""
        return self.run.run_id, self.choice.artifact.uri, self.choice.artifact.path


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
    """The files below artifact locations: asked for in groups, and remembered where asking is slow.

    What is remembered of a location holds as long as its stamp stays the same; a stamp of None never does.
    """

    def __init__(self, store: TrackingStore, *, recheck: bool | str, remembered: Mapping[str, Any]) -> None:
        """Take the setting ``recheck_artifacts``, and the ``memory`` that an earlier discovery left."""
        self._store = store
        self._recheck = recheck
        self._remembered = remembered
        self._listed: dict[str, tuple[StoredFile, ...] | StoreError] = {"": ()}
        self.memory: dict[str, Any] = {}
        """What to remember for the next time: location -> stamp and files; no stamp where listing it failed."""

    def is_watched(self, uri: str, run: Run) -> bool:
        """Tell whether a location of a run is listed anew by every invocation: it may change, or it costs nothing."""
        failed = self._remembered.get(self._store.locations.place(uri), {"stamp": ""})["stamp"] is None
        return failed or run.status == "RUNNING" or self._is_rechecked(uri)

    def _is_rechecked(self, uri: str) -> bool:
        return self._store.local_folder(uri) is not None if self._recheck == "auto" else bool(self._recheck)

    def prepare(self, stamps: Mapping[str, Any]) -> None:
        """List the locations that are not listed yet, unless what is remembered of them still holds."""
        lasting = {uri: stamp for uri, stamp in stamps.items() if stamp is not None and not self._is_rechecked(uri)}
        for uri, stamp in lasting.items():
            entry = self._remembered.get(self._store.locations.place(uri))
            if entry and entry["stamp"] == stamp and not self._store.locations.refusal(uri):
                self._listed[uri] = tuple(StoredFile(*file) for file in entry["files"])
        self._listed |= self._store.listings([uri for uri in stamps if uri not in self._listed])
        for uri, stamp in lasting.items():
            listed = self._listed[uri]
            failed = isinstance(listed, StoreError)
            rows = [] if failed else [[file.path, file.size, file.modified] for file in listed]
            self.memory[self._store.locations.place(uri)] = {"stamp": None if failed else stamp, "files": rows}

    def of(self, uri: str) -> tuple[StoredFile, ...]:
        """Give a prepared listing. Raises StoreError where the store refused it."""
        listed = self._listed[uri]
        if isinstance(listed, StoreError):
            raise listed
        return listed


def survey(store: TrackingStore, selection: Selection, listings: Listings) -> Survey:
    """Look at the registered models, then at every run that the selection names, until ``max_runs`` are found."""
    found, unfit = _named(store, registry.registered(store, selection.models), selection, listings)
    known = {model.identity: model for model in found}
    runs = selected_runs(store, selection)
    passing = [run for run in runs if passes(run, selection)]
    skipped = unfit + [
        _skip(run, f"its status is {run.status}, filter_status asks for {selection.status}", OTHER_STATUS)
        for run in runs
        if not passes(run, selection)
    ]
    logged = logged_models(store, passing)
    limit = len(found) + (selection.max_runs or len(passing))
    for start in range(0, len(passing), STEP):
        group = [(run, logged.get(run.run_id, [])) for run in passing[start : start + STEP]]
        if len(found) < limit:
            listings.prepare({run.artifact_uri: _stamp(run) for run, _ in group})
            listings.prepare({model.artifact_uri: [model.updated] for _, models in group for model in models[:1]})
        for run, models in group:
            if len(found) >= limit:
                reason = f"beyond the first {counted(selection.max_runs, 'model')}"
                skipped.append(_skip(run, reason, "beyond max_runs"))
                continue
            choice = _choice(store, run, models, selection, listings)
            if isinstance(choice, Skipped):
                skipped.append(choice)
                continue
            model = Found(run, catalog.facts(run, selection.names), choice)
            if same := known.get(model.identity):
                skipped.append(_skip(run, f"it is rendered as {same.version}", "rendered as a registered model"))
            else:
                found.append(model)
    return Survey(tuple(found), tuple(skipped))


def _named(
    store: TrackingStore, asked: Sequence[Registered], selection: Selection, listings: Listings
) -> tuple[list[Found], list[Skipped]]:
    """Give the registered models that hold files, each once, and those that do not."""
    listings.prepare({item.uri: _stamp(item.run) if item.updated is None else [item.updated] for item in asked})
    found: dict[tuple[str, str, str], Found] = {}
    skipped = []
    for item in asked:
        choice = _named_choice(store, item, listings)
        if isinstance(choice, Skipped):
            skipped.append(choice)
        else:
            model = Found(item.run, catalog.facts(item.run, selection.names), choice, item.version)
            found.setdefault(model.identity, model)
    return list(found.values()), skipped


def _named_choice(store: TrackingStore, item: Registered, listings: Listings) -> Choice | Skipped:
    try:
        listing = listings.of(item.uri)
    except StoreError as error:
        return _skip(item.run, f"{item.version}: {error}", _kind(error))
    if artifact := catalog.named(item.run, item.uri, item.path, listing):
        return Choice(artifact)
    if moved := store.moved(item.uri):
        return _skip(item.run, f"{item.version}: {moved}", LOST)
    return _skip(item.run, f"{item.version} holds no model; its artifacts: {_listed(listing)}", "without a model")


def _listed(listing: Sequence[StoredFile]) -> str:
    return ", ".join(clean(file.path)[:LONGEST_LABEL] for file in listing[:5]) or "none"


def selected_runs(store: TrackingStore, selection: Selection) -> list[Run]:
    """Give the runs that the selection names, of any status; of its experiments all but evaluations."""
    if selection.run_ids:
        return store.runs_by_id(selection.run_ids)
    if not selection.experiments:
        return []
    experiments = store.experiments(selection.experiments)
    runs = store.runs(experiments, filter_string=selection.filter or "", order_by=selection.order_by)
    return [run for run in runs if EVALUATION not in run.tags]


def passes(run: Run, selection: Selection) -> bool:
    """Tell whether a run has the status that the selection asks for; of runs asked for by id it asks for none."""
    return bool(selection.run_ids) or selection.status is None or run.status == selection.status


def logged_models(store: TrackingStore, runs: Sequence[Run]) -> dict[str, list[LoggedModel]]:
    """Give the logged models of the experiments that the runs are in, by the run that made them."""
    return store.logged_models(sorted({run.experiment_id for run in runs})) if runs else {}


def _skip(run: Run, reason: str, kind: str) -> Skipped:
    return Skipped(run.run_id, run.run_name, run.status, clean(reason)[:LONGEST_REASON], kind)


def _kind(error: StoreError) -> str:
    return FOREIGN if isinstance(error, LocationRefused) else UNREAD


def _stamp(run: Run) -> list[Any] | None:
    return None if run.status == "RUNNING" else [run.status, run.end_time]


def _choice(
    store: TrackingStore, run: Run, logged: Sequence[LoggedModel], selection: Selection, listings: Listings
) -> Choice | Skipped:
    stamps = {model.artifact_uri: [model.updated] for model in logged}
    try:
        found = catalog.candidates(run, listings.of(run.artifact_uri), logged)
        for artifact in catalog.fitting(found, selection.checkpoint_pattern):
            whole = artifact
            if not artifact.files and artifact.uri in stamps:
                listings.prepare({artifact.uri: stamps[artifact.uri]})
                whole = replace(artifact, files=listings.of(artifact.uri))
            if whole.files:
                return Choice(whole, _shown(other for other in found if other is not artifact))
    except (StoreUnreachable, AccessRefused):
        raise
    except StoreError as error:
        return _skip(run, str(error), _kind(error))
    return _skip(run, *_why_none(store, run, found, listings, selection.checkpoint_pattern))


def _shown(others: Iterable[Artifact]) -> tuple[str, ...]:
    """Name the first artifacts of a run that holds more."""
    return tuple(clean(other.label)[:LONGEST_LABEL] for other in islice(others, MOST_LABELS))


def _why_none(
    store: TrackingStore, run: Run, found: Sequence[Artifact], listings: Listings, pattern: str | None
) -> tuple[str, str]:
    """Say why no artifact of a run was chosen: the reason, and its kind."""
    for uri in (run.artifact_uri, *(artifact.uri for artifact in found)):
        if moved := store.moved(uri):
            return moved, LOST
    if found and pattern:
        labels = ", ".join(clean(artifact.label) for artifact in found[:5])
        return f"checkpoint_pattern {pattern} matches none of {labels}", "that match no checkpoint_pattern"
    return f"it holds no model; its artifacts: {_listed(listings.of(run.artifact_uri))}", "without a model"


def unseen(store: TrackingStore, selection: Selection, seen: Survey) -> list[Skipped]:
    """Give the runs of the experiments that the survey could not see: deleted, or left out by the filter."""
    if selection.run_ids or not selection.experiments:
        return []
    experiments = store.experiments(selection.experiments)
    skipped = [_skip(run, "it was deleted", "deleted") for run in store.runs(experiments, deleted=True)]
    if selection.filter:
        known = {run.run_id for run in seen.skipped} | {model.run.run_id for model in seen.found}
        reason = f"the filter {selection.filter} leaves it out"
        everything = (run for run in store.runs(experiments) if EVALUATION not in run.tags)
        others = (run for run in everything if run.run_id not in known)
        skipped += [_skip(run, reason, "left out by the filter") for run in others]
    return skipped
