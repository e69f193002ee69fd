"""Everything that an invocation asks MLflow, once, while it is planned."""

import logging
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from dailies.core.errors import AccessRefused, LocationRefused, StoreError, StoreUnreachable
from dailies.core.text import clean
from dailies.discovery import artifacts
from dailies.discovery.selection import (
    LONGEST_LABEL,
    MOST_LOGGED,
    Found,
    Selection,
    choose,
    has_status,
    registered_models,
)
from dailies.discovery.snapshot import Listing, Skipped, Snapshot, Stamp
from dailies.models import file_kinds, file_roles
from dailies.store import registry
from dailies.store.entities import EVALUATION, Experiment, LoggedModel, Run, StoredFile
from dailies.store.registry import Registered
from dailies.store.tracking import TrackingStore

log = logging.getLogger(__name__)

STEP = 64
"""Number of runs whose artifacts are listed at a time if ``max_runs`` is set; otherwise all are listed at once."""

ALIASES, BEST = "aliases.txt", re.compile(r"\bbest\b")
"""The file that PyTorch Lightning's MLFlowLogger writes beside a checkpoint, and the alias of the best one."""

LONGEST_ALIASES, MOST_ALIASES = 10_000, 64
"""Bytes of such a file, and how many of a run's are read, newest first."""

START = 512
"""Bytes at the start of a file that are read to see whether it may be a model."""


class Queries:
    """Queries a store for what a selection needs, without repetition, and reuses listings of an earlier snapshot."""

    def __init__(
        self,
        store: TrackingStore,
        selection: Selection,
        *,
        recheck: bool | str,
        earlier: Snapshot | None,
        is_unchanged: bool = False,
    ) -> None:
        """Prepare queries; ``recheck`` is the setting ``recheck_artifacts``.

        If the store ``is_unchanged`` since the ``earlier`` snapshot of the same selection, only artifacts are listed.
        """
        self._store = store
        self._selection = selection
        self._recheck = recheck
        self._answered = earlier if is_unchanged else None
        self._earlier = {each.place: each for each in (earlier.listings if earlier else {}).values()}
        self._listings: dict[str, Listing] = {"": Listing("", like_models=())}

    def snapshot(self) -> Snapshot:
        """Query registered models, runs and logged models, and list artifacts until ``max_runs`` models are found.

        Raise StoreError if something that the user names does not exist, StoreUnreachable or AccessRefused.
        """
        if self._answered and self._is_listed_as(self._answered):
            return self._answered
        registered, runs, logged = self._answers()
        passing = [run for run in runs if has_status(run, self._selection)]
        known = self._list_registered(registered)
        missing = self._selection.max_runs or len(passing)
        step = STEP if self._selection.max_runs else max(1, len(passing))
        for start in range(0, len(passing), step):
            group = passing[start : start + step]
            if missing <= 0:
                break
            self._list({run.artifact_uri: _stamp(run) for run in group})
            newest = [model for run in group for model in logged.get(run.run_id, ())[:1]]
            self._list({model.artifact_uri: (model.updated,) for model in newest})
            for run in group:
                if missing <= 0:
                    break
                missing -= self._is_new(run, logged.get(run.run_id, ()), known)
        return Snapshot(registered, runs, logged, dict(sorted(self._listings.items())))

    def _is_listed_as(self, snapshot: Snapshot) -> bool:
        """List the artifacts of a snapshot again; return whether they are unchanged.

        If a remote listing is out of date, return False and list nothing: the full query lists it anyway.
        """
        known = snapshot.listings
        if any(
            self._store.local_folder(uri) is None and not self._is_valid(uri, known[uri].stamp) for uri in known if uri
        ):
            return False
        self._list({uri: listing.stamp for uri, listing in known.items()})
        found, self._listings = self._listings, {"": self._listings[""]}
        return found == known

    def _answers(
        self,
    ) -> tuple[tuple[Registered, ...], tuple[Run, ...], Mapping[str, tuple[LoggedModel, ...]]]:
        """Return what only MLflow can answer: registered models, runs, and the logged models of the passing runs."""
        if answered := self._answered:
            return answered.registered, answered.runs, answered.logged
        registered = tuple(registry.registered(self._store, self._selection.models))
        runs = tuple(self._runs())
        return registered, runs, self._logged([run for run in runs if has_status(run, self._selection)])

    def unseen(self, snapshot: Snapshot) -> tuple[Skipped, ...]:
        """Query the runs of the experiments that are not in the snapshot: deleted, or excluded by the filter."""
        if self._selection.run_ids or not self._selection.experiments:
            return ()
        deleted = self._store.runs(self._experiments, deleted=True)
        skipped = [Skipped.of(run, "it was deleted", "deleted") for run in deleted]
        if self._selection.filter:
            known = {run.run_id for run in (*snapshot.runs, *(item.run for item in snapshot.registered))}
            reason = f"the filter {self._selection.filter} leaves it out"
            skipped += [
                Skipped.of(run, reason, "left out by the filter")
                for run in self._store.runs(self._experiments)
                if run.run_id not in known and EVALUATION not in run.tags
            ]
        return tuple(skipped)

    @cached_property
    def _experiments(self) -> list[Experiment]:
        return self._store.experiments(self._selection.experiments)

    def _runs(self) -> list[Run]:
        """Return the runs that the selection names by id, or else all runs of its experiments but evaluations."""
        if self._selection.run_ids:
            return self._store.runs_by_id(self._selection.run_ids)
        if not self._selection.experiments:
            return []
        runs = self._store.runs(
            self._experiments, filter_string=self._selection.filter or "", order_by=self._selection.order_by
        )
        return [run for run in runs if EVALUATION not in run.tags]

    def _logged(self, runs: Sequence[Run]) -> dict[str, tuple[LoggedModel, ...]]:
        if not runs:
            return {}
        found = self._store.logged_models(sorted({run.experiment_id for run in runs}))
        return {run_id: tuple(models) for run_id, models in sorted(found.items())}

    def _list_registered(self, registered: Sequence[Registered]) -> set[tuple[str, str, str]]:
        """List the files of the registered models; return the identities of those that hold a model."""
        self._list({item.uri: _stamp(item.run) if item.updated is None else (item.updated,) for item in registered})
        for item in registered:
            self._read_best(item.uri)
        found, _ = registered_models(registered, self._listings, self._selection)
        return {model.identity for model in found}

    def _is_new(self, run: Run, logged: Sequence[LoggedModel], known: Collection[tuple[str, str, str]]) -> bool:
        """List what the choice of a run's artifact needs; return whether the run holds a model not in ``known``."""
        if self._listings[run.artifact_uri].error is None:
            self._read_best(run.artifact_uri)
            every = self._selection.checkpoint_pattern is not None
            for model in logged[:MOST_LOGGED] if every else logged:
                self._list({model.artifact_uri: (model.updated,)})
                if self._listings[model.artifact_uri].files and not every:
                    break
        found = choose(run, logged, self._listings, self._selection)
        return isinstance(found, Found) and found.identity not in known

    def _list(self, stamps: Mapping[str, Stamp | None]) -> None:
        """List locations, except those that are listed already or whose earlier listing is still valid."""
        new = {uri: stamp for uri, stamp in stamps.items() if uri not in self._listings}
        for uri, stamp in new.items():
            if self._is_valid(uri, stamp):
                self._listings[uri] = self._known(uri)
        asked = {uri: stamp for uri, stamp in new.items() if uri not in self._listings}
        for uri, listed in self._store.listings(list(asked)).items():
            self._listings[uri] = self._listing(uri, asked[uri], listed)

    def _is_valid(self, uri: str, stamp: Stamp | None) -> bool:
        known = self._earlier.get(self._store.locations.place(uri))
        return (
            known is not None
            and known.error is None
            and stamp is not None
            and known.stamp == stamp
            and not self._is_rechecked(uri)
            and not self._store.locations.refusal(uri)
        )

    def _is_rechecked(self, uri: str) -> bool:
        return self._store.local_folder(uri) is not None if self._recheck == "auto" else bool(self._recheck)

    def _known(self, uri: str) -> Listing:
        return self._earlier[self._store.locations.place(uri)]

    def _listing(self, uri: str, stamp: Stamp | None, listed: tuple[StoredFile, ...] | StoreError) -> Listing:
        place = self._store.locations.place(uri)
        if isinstance(listed, StoreError):
            return Listing(place, stamp, error=str(listed), is_foreign=isinstance(listed, LocationRefused))
        known = self._earlier.get(place)
        if (
            known
            and known.error is None
            and known.files == listed
            and all(file.modified is not None for file in listed)
        ):
            return replace(known, stamp=stamp, moved=None if listed else self._store.moved(uri))
        return Listing(
            place,
            stamp,
            files=listed,
            moved=None if listed else self._store.moved(uri),
            like_models=self._like_models(uri, listed),
        )

    def _like_models(self, uri: str, listed: Iterable[StoredFile]) -> tuple[str, ...] | None:
        """Return the files without a known ending that begin like a model; None if the location is not on disk."""
        if self._store.local_folder(uri) is None:
            return None
        starts = (
            (file.path, self._store.beginning(uri, file.path, START))
            for file in listed
            if artifacts.needs_content(file)
        )
        return tuple(path for path, start in starts if start and file_roles.begins_like_model(start))

    def _read_best(self, uri: str) -> None:
        """If there are several checkpoints, read which of them Lightning's MLFlowLogger marked as the best.

        Several may be marked: each was the best when it was saved.
        """
        listing = self._listings[uri]
        by_alias = _aliased(listing.files)
        if listing.best is None and len(by_alias) > 1:
            found = [path for alias, paths in by_alias.items() if self._is_best(uri, alias) for path in paths]
            self._listings[uri] = replace(listing, best=tuple(found))

    def _is_best(self, uri: str, path: str) -> bool:
        try:
            with tempfile.TemporaryDirectory(prefix="dailies-") as folder:
                return BEST.search(self._store.fetch(uri, path, Path(folder)).read_text(errors="replace")) is not None
        except (StoreUnreachable, AccessRefused):
            raise
        except (StoreError, OSError) as error:
            log.warning("%s cannot be read, so it is ignored: %s", clean(path)[:LONGEST_LABEL], error)
            return False


def _stamp(run: Run) -> Stamp | None:
    return None if run.status == "RUNNING" else (run.status, run.end_time)


def _aliased(listing: Sequence[StoredFile]) -> dict[str, list[str]]:
    """Return the newest alias files that are not too large, each with the checkpoints beside it."""
    found = [file for file in listing if file.path.rpartition("/")[2] == ALIASES]
    small = [file for file in found if file.size is None or file.size <= LONGEST_ALIASES]
    newest = sorted(small, key=lambda file: -(file.modified or 0))[:MOST_ALIASES]
    by_alias: dict[str, list[str]] = {}
    for alias in newest:
        folder = alias.path.removesuffix(ALIASES)
        beside = (file.path for file in listing if file.path.startswith(folder))
        if weights := [path for path in beside if path.lower().endswith(file_kinds.WEIGHTS)]:
            by_alias[alias.path] = weights
    return by_alias
