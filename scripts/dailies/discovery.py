"""Discovery: which models there are, recorded one file per model, so that only what changed is rendered again."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from dailies import catalog, files, metrics, naming, registry
from dailies.catalog import Artifact, Choice, Facts, Names
from dailies.errors import AccessRefused, LocationRefused, StoreError, StoreUnreachable
from dailies.registry import Registered, Version
from dailies.store import EVALUATION, LoggedModel, Run, StoredFile, TrackingStore, open_store, uri_of
from dailies.tables import columns
from dailies.text import clean, redacted

log = logging.getLogger(__name__)

STEP = 64
"""Runs whose artifacts are listed together while looking for the first ``max_runs`` models."""

MEMORY, KNOWN = "listings.json", "known.json"

LONGEST_LABEL, MOST_LABELS = 200, 1000
"""Characters of an artifact's path as it is shown, and how many of those that were not chosen are."""

LONGEST_REASON = 1000
"""Characters of the reason why a run is passed over; it may name files, and the store names those."""

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


LOST, FOREIGN = "whose artifacts are lost", "whose artifacts are at a place that is not asked"
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
    runs = _runs(store, selection)
    passing = [run for run in runs if _passes(run, selection)]
    skipped = unfit + [
        _skip(run, f"its status is {run.status}, filter_status asks for {selection.status}", "with another status")
        for run in runs
        if not _passes(run, selection)
    ]
    logged = _logged(store, passing)
    limit = len(found) + (selection.max_runs or len(passing))
    for start in range(0, len(passing), STEP):
        group = [(run, logged.get(run.run_id, [])) for run in passing[start : start + STEP]]
        if len(found) < limit:
            listings.prepare({run.artifact_uri: _stamp(run) for run, _ in group})
            listings.prepare({model.artifact_uri: [model.updated] for _, models in group for model in models[:1]})
        for run, models in group:
            if len(found) >= limit:
                reason = f"beyond the first {selection.max_runs} models"
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


def _runs(store: TrackingStore, selection: Selection) -> list[Run]:
    if selection.run_ids:
        return store.runs_by_id(selection.run_ids)
    if not selection.experiments:
        return []
    experiments = store.experiments(selection.experiments)
    runs = store.runs(experiments, filter_string=selection.filter or "", order_by=selection.order_by)
    return [run for run in runs if EVALUATION not in run.tags]


def _passes(run: Run, selection: Selection) -> bool:
    return bool(selection.run_ids) or selection.status is None or run.status == selection.status


def _logged(store: TrackingStore, runs: Sequence[Run]) -> dict[str, list[LoggedModel]]:
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
        listings = Listings(store, recheck=config["recheck_artifacts"], remembered=_remembered(state))
        named = registry.registered(store, selection.models)
        runs = _runs(store, selection)
        passing = [run for run in runs if _passes(run, selection)]
        places = [(item.uri, item.run) for item in named] + [(run.artifact_uri, run) for run in passing]
        watched = [uri for uri, run in dict(places).items() if uri and listings.is_watched(uri, run)]
        listed = store.listings(watched)
        models = _logged(store, passing)
    except StoreUnreachable as error:
        known = _known(config, state)
        if known is None:
            raise
        return Standing(known["fingerprint"], _going_on(error, known))
    return Standing(
        files.digest(
            [
                _identity(config),
                _postponed(state),
                [asdict(item) for item in named],
                [asdict(run) for run in runs],
                [[asdict(model) for model in models[run_id]] for run_id in sorted(models)],
                [[uri, _plain(listed[uri])] for uri in sorted(listed)],
            ]
        )
    )


def refuse_nothing(config: Mapping[str, Any], state: Path) -> None:
    """Raise StoreError, with the reasons, when no run holds a model; ask only while no model is known."""
    if _known(config, state) is not None:
        return
    selection = Selection.from_config(config)
    store = open_store(config, state)
    listings = Listings(store, recheck=config["recheck_artifacts"], remembered=_remembered(state))
    seen = survey(store, replace(selection, max_runs=1), listings)
    if not seen.found:
        passed_over = [*seen.skipped, *_passed_over(store, selection, seen)]
        files.write_json(state / "skipped.json", [asdict(run) for run in passed_over])
        raise StoreError(_nothing_found(store, selection, passed_over))


def _plain(listed: tuple[StoredFile, ...] | StoreError) -> Any:
    return str(listed) if isinstance(listed, StoreError) else [asdict(file) for file in listed]


def _identity(config: Mapping[str, Any]) -> str:
    return files.digest([redacted(uri_of(config)), {key: config[key] for key in SELECTING}])


def _known(config: Mapping[str, Any], state: Path) -> dict[str, Any] | None:
    """Give what the last discovery of this very selection left, if it found models."""
    path = state / KNOWN
    known = files.read_json(path) if path.is_file() else {}
    return known if known.get("selection") == _identity(config) and known["models"] else None


def _postponed(state: Path) -> int:
    """Give how often changes were left for the next invocation, as the store did not answer when it was looked at."""
    path = state / KNOWN
    return files.read_json(path).get("postponed", 0) if path.is_file() else 0


def _remembered(state: Path) -> dict[str, Any]:
    path = state / MEMORY
    return files.read_json(path) if path.is_file() else {}


def _going_on(error: StoreUnreachable, known: Mapping[str, Any]) -> str:
    return f"{error}. Going on with the models already known: {len(known['models'])}"


def discover(config: Mapping[str, Any], *, fingerprint: str, state: Path, index: Path) -> None:
    """Find the models and record them below ``state``; write ``index``, the list of their names, last.

    ``models/{model}.json`` holds only what matters for rendering, ``runs/{model}.json`` the rest; a record that says
    the same as before is not touched. Runs that are passed over go to ``skipped.json``. When the store does not answer
    and models are known, their index is written again, and the next invocation looks again. Raises StoreError.
    """
    selection = Selection.from_config(config)
    try:
        store = open_store(config, state)
        listings = Listings(store, recheck=config["recheck_artifacts"], remembered=_remembered(state))
        seen = survey(store, selection, listings)
        passed_over = [*seen.skipped, *_passed_over(store, selection, seen)]
    except StoreUnreachable as error:
        known = _known(config, state)
        if known is None:
            raise
        warning = _going_on(error, known)
        log.warning("%s", warning)
        if known["fingerprint"] != fingerprint:
            # what changed was not looked at: the next invocation's fingerprint has to be another one
            known |= {"fingerprint": fingerprint, "postponed": _postponed(state) + 1, "warning": warning}
            files.write_json(state / KNOWN, known)
        files.write_json(index, known)
        return
    names = _record(seen.found, config["folder_name"], state)
    files.write_json(state / "skipped.json", [asdict(run) for run in passed_over])
    files.write_json(state / MEMORY, listings.memory)
    for run in passed_over:
        log.info("passed over: run %s (%s): %s", run.run_id, run.run_name, run.reason)
    known = {
        "fingerprint": fingerprint,
        "selection": _identity(config),
        "models": names,
        "reason": None if names else _nothing_found(store, selection, passed_over),
        "warning": _left_out(passed_over) if names else None,
        "postponed": _postponed(state),
    }
    files.write_json(state / KNOWN, known)
    files.write_json(index, known)
    log.info("%d models found, %d runs passed over", len(names), len(passed_over))


def _passed_over(store: TrackingStore, selection: Selection, seen: Survey) -> list[Skipped]:
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
    return f"no run with a model was found in {where} of {store.name}; {len(passed_over)} runs were seen{why}. " + (
        f"For the first of them, {first}" if first else "Each with its reason is in .dailies/skipped.json"
    )


class _Folders:
    """The folder names given so far: a model keeps its own, also when its run's best file is another one now."""

    def __init__(self, state: Path) -> None:
        self.taken: set[str] = set()
        self._by_identity: dict[tuple[str, str, str], str] = {}
        self._by_run: dict[str, str] = {}
        for path in sorted((state / "models").glob("*.json")):
            record, about = files.read_json(path), state / "runs" / path.name
            self.taken.add(path.stem)
            self._by_identity[record["run_id"], record["artifact"]["uri"], record["artifact"]["path"]] = path.stem
            if not (about.is_file() and files.read_json(about).get("registered_model")):
                self._by_run[record["run_id"]] = path.stem
        self._given: set[str] = set()

    def of(self, model: Found, template: str) -> str:
        """Give a model's folder name, the same as ever or a new one."""
        same_run = None if model.version else self._by_run.get(model.run.run_id)
        known = [self._by_identity.get(model.identity), same_run]
        name = next((name for name in known if name and name not in self._given), None) or self._new(model, template)
        self._given.add(name)
        self.taken.add(name)
        return name

    def _new(self, model: Found, template: str) -> str:
        run, version = model.run, model.version
        about = asdict(model.facts) | {"run_id": run.run_id, "run_name": run.run_name, "experiment": run.experiment}
        return naming.folder_name(
            template,
            about | {"start_time": run.start_time},
            self.taken,
            apart=f"{version.name}-{version.version}" if version else "",
        )


def _record(found: Sequence[Found], template: str, state: Path) -> list[str]:
    folders = _Folders(state)
    names = []
    for model in found:
        run, facts, choice, version = model.run, model.facts, model.choice, model.version
        name = folders.of(model, template)
        names.append(name)
        files.write_json_if_changed(
            state / "models" / f"{name}.json",
            {
                "run_id": run.run_id,
                "experiment_id": run.experiment_id,
                "architecture": facts.architecture,
                "artifact": asdict(choice.artifact),
                "hints": catalog.hints(run),
            },
        )
        files.write_json_if_changed(
            state / "runs" / f"{name}.json",
            {
                "run_id": run.run_id,
                "run_name": run.run_name,
                "experiment": run.experiment,
                "registered_model": version
                and {"name": clean(version.name), "version": version.version, "alias": version.alias},
                **asdict(facts),
                "status": run.status,
                "start_time": run.start_time,
                "params": dict(sorted(run.params.items())),
                "metrics": dict(sorted(run.metrics.items())),
                "tags": dict(sorted(run.tags.items())),
                "datasets": [dict(dataset) for dataset in run.datasets],
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
        artifact = Artifact.from_json(files.read_json(state / "models" / f"{name}.json")["artifact"])
        size = None if artifact.size is None else f"{artifact.size / 1e6:.1f} MB"
        facts = (run["architecture"], run["epoch"], run["train_loss"], run["val_loss"])
        values = (name, *facts, clean(artifact.label), size)
        rows.append(tuple("-" if value is None else str(value) for value in values))
    return columns(rows)
