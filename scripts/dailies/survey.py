"""The survey: which runs of a store hold a model, which of their artifacts it is, and why others are passed over."""

import logging
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies import catalog, metrics, registry, roles
from dailies.catalog import Artifact, Choice, Facts, Names
from dailies.entities import EVALUATION, LoggedModel, Run, StoredFile
from dailies.errors import AccessRefused, LocationRefused, StoreError, StoreUnreachable
from dailies.registry import Registered, Version
from dailies.store import TrackingStore
from dailies.text import clean, counted

if TYPE_CHECKING:
    from dailies.config import Settings

log = logging.getLogger(__name__)

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

ALIASES, BEST = "aliases.txt", re.compile(r"\bbest\b")
"""The file that MLFlowLogger of PyTorch Lightning writes beside a checkpoint, and the word in it for the best one."""

LONGEST_ALIASES, MOST_ALIASES = 10_000, 64
"""Bytes of such a file, and how many of a run's are read, the newest first."""

START = 512
"""Bytes of a file that are read to tell whether it can be a model."""

MOST_LOGGED = 20
"""Logged models of a run that are listed for a checkpoint_pattern, the newest first."""


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
    def from_settings(cls, settings: "Settings") -> "Selection":
        """Take what concerns discovery from the settings."""
        return cls(
            models=settings.models or (),
            experiments=settings.experiment_name or (),
            status=settings.filter_status,
            filter=settings.filter,
            order_by=None if metrics.is_order(settings.order_by) else settings.order_by,
            max_runs=settings.max_runs,
            run_ids=settings.run_ids or (),
            checkpoint_pattern=settings.checkpoint_pattern,
            names=Names(
                architecture=settings.architecture_from,
                epoch=settings.epoch_from,
                train_loss=settings.train_loss_from,
                val_loss=settings.val_loss_from,
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
        self._recalled: set[str] = set()
        """Locations whose files are remembered, not listed anew."""
        self.memory: dict[str, Any] = {}
        """What to remember for the next time: location -> stamp and files; no stamp where listing it failed.

        And, where a trainer says which checkpoints are the best, their paths.
        """

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
                self._recalled.add(uri)
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

    def best(self, uri: str) -> frozenset[str]:
        """Return the checkpoints of a prepared listing that Lightning's MLFlowLogger calls the best.

        It is asked only where there are several. More than one may have been the best when it was saved.
        """
        by_alias = _aliased(self.of(uri))
        if len(by_alias) < 2:
            return frozenset()
        place = self._store.locations.place(uri)
        if uri in self._recalled and "best" in self._remembered[place]:
            found = self._remembered[place]["best"]
        else:
            found = [path for alias, paths in by_alias.items() if self._says_best(uri, alias) for path in paths]
        if place in self.memory:
            self.memory[place]["best"] = found
        return frozenset(found)

    def _says_best(self, uri: str, path: str) -> bool:
        try:
            with tempfile.TemporaryDirectory(prefix="dailies-") as folder:
                return BEST.search(self._store.fetch(uri, path, Path(folder)).read_text(errors="replace")) is not None
        except (StoreUnreachable, AccessRefused):
            raise
        except (StoreError, OSError) as error:
            log.warning("%s cannot be read, so it does not count: %s", clean(path)[:LONGEST_LABEL], error)
            return False

    def looks(self, uri: str, file: StoredFile) -> bool:
        """Tell by its first bytes whether a file may be a model; of a store that is not on disk they are not known."""
        start = self._store.beginning(uri, file.path, START)
        return start is None or roles.begins_like_model(start)


def _aliased(listing: Sequence[StoredFile]) -> dict[str, list[str]]:
    """Return the newest files of aliases that are not too large, each with the checkpoints beside it."""
    found = [file for file in listing if file.path.rpartition("/")[2] == ALIASES]
    small = [file for file in found if file.size is None or file.size <= LONGEST_ALIASES]
    newest = sorted(small, key=lambda file: -(file.modified or 0))[:MOST_ALIASES]
    by_alias: dict[str, list[str]] = {}
    for alias in newest:
        folder = alias.path.removesuffix(ALIASES)
        beside = (file.path for file in listing if file.path.startswith(folder))
        if weights := [path for path in beside if path.lower().endswith(catalog.WEIGHTS)]:
            by_alias[alias.path] = weights
    return by_alias


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
    found = catalog.named(
        item.run,
        item.uri,
        item.path,
        listing,
        best=listings.best(item.uri),
        looks=lambda file: listings.looks(item.uri, file),
    )
    if found:
        return Choice(found[0], alternatives=catalog.alternatives(found[0], found[1:]))
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
    pattern = selection.checkpoint_pattern
    try:
        listing = listings.of(run.artifact_uri)
        inside, unread = _inside(logged, listings, every=pattern is not None)
        found = catalog.candidates(
            run,
            listing,
            [model for model in logged if inside.get(model.artifact_uri) != ()],
            inside=inside,
            best=listings.best(run.artifact_uri),
            looks=lambda file: listings.looks(run.artifact_uri, file),
        )
        fitting = list(catalog.fitting(found, pattern))
        if pattern and not fitting:
            places = {run.artifact_uri: listing} | inside
            fitting = [each for uri, files in places.items() for each in catalog.asked_for(uri, files, pattern)]
        # an artifact without files is a logged model that was not listed: all before it were empty or refused
        chosen = next((artifact for artifact in fitting if artifact.files), None)
        if chosen:
            others = [artifact for artifact in fitting if artifact is not chosen]
            shown = _shown(other for other in found if other != chosen)
            return Choice(chosen, shown, catalog.alternatives(chosen, others))
        if unread:
            raise unread
    except (StoreUnreachable, AccessRefused):
        raise
    except StoreError as error:
        return _skip(run, str(error), _kind(error))
    places = [run.artifact_uri, *(model.artifact_uri for model in logged)]
    return _skip(run, *_why_none(store, places, found, listings.of(run.artifact_uri), pattern))


def _inside(
    logged: Sequence[LoggedModel], listings: Listings, *, every: bool
) -> tuple[dict[str, tuple[StoredFile, ...]], StoreError | None]:
    """List logged models by their location: the newest that holds files, or ``every`` one; and what was refused."""
    found: dict[str, tuple[StoredFile, ...]] = {}
    refused: StoreError | None = None
    for model in logged[:MOST_LOGGED] if every else logged:
        uri = model.artifact_uri
        try:
            listings.prepare({uri: [model.updated]})
            found[uri] = listings.of(uri)
        except (StoreUnreachable, AccessRefused):
            raise
        except StoreError as error:
            found[uri], refused = (), refused or error
            log.warning("a logged model of run %s is left out: %s", model.run_id, error)
        if found[uri] and not every:
            break
    return found, refused


def _shown(others: Iterable[Artifact]) -> tuple[str, ...]:
    """Name the first artifacts of a run that holds more."""
    return tuple(clean(other.label)[:LONGEST_LABEL] for other in islice(others, MOST_LABELS))


def _why_none(
    store: TrackingStore,
    places: Iterable[str],
    found: Sequence[Artifact],
    listing: Sequence[StoredFile],
    pattern: str | None,
) -> tuple[str, str]:
    """Say why no artifact of a run was chosen: the reason, and its kind."""
    for uri in places:
        if moved := store.moved(uri):
            return moved, LOST
    if found and pattern:
        labels = ", ".join(clean(artifact.label) for artifact in found[:5])
        return f"checkpoint_pattern {pattern} matches none of {labels}", "that match no checkpoint_pattern"
    return f"it holds no model; its artifacts: {_listed(listing)}", "without a model"


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
