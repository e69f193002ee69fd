"""Which runs of a snapshot hold a model, which of their artifacts it is, and why other runs are skipped."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from dailies.core.text import clean, counted, elided
from dailies.discovery import artifacts
from dailies.discovery.artifacts import Choice
from dailies.discovery.facts import FactNames, Facts, facts
from dailies.discovery.measured_order import MeasuredOrder
from dailies.discovery.snapshot import Listing, Skipped, Snapshot
from dailies.store.entities import Artifact, LoggedModel, Run, StoredFile
from dailies.store.registry import Registered, Version

if TYPE_CHECKING:
    from dailies.planning.config import Settings


LONGEST_LABEL, MOST_LABELS = 200, 1000
"""Characters of an artifact's path in a message, and how many artifacts that were not chosen are recorded."""

LONGEST_SHOWN = 450
"""Characters of a reason on the terminal; skipped.json has all of it."""

LOST, FOREIGN = "with missing artifacts", "with artifacts at a location that must not be read"
OTHER_STATUS = "with another status"
BEYOND = "beyond max_runs"
UNREAD = "with artifacts that cannot be read"
AMENDABLE = frozenset({LOST, FOREIGN, UNREAD})
"""The kinds of skipped runs that another setting or permission would bring back."""

MOST_LOGGED = 20
"""Logged models of a run that are listed for a checkpoint_pattern, newest first."""


@dataclass(frozen=True)
class Selection:
    """Which models to look for, according to the configuration."""

    models: tuple[str, ...]
    """Versions of registered models, whatever their run's experiment and status. They come first."""
    experiments: tuple[str, ...]
    status: str | None
    """MLflow's run status; None takes all."""
    filter: str | None
    order_by: str | None
    """An order in MLflow's syntax; None for the newest first."""
    max_runs: int | None
    """How many runs with a model are taken, in that order; None takes all, or those that the snapshot prefers."""
    run_ids: tuple[str, ...]
    """Only these runs, whatever their experiment and status."""
    checkpoint_pattern: str | None
    names: FactNames

    @classmethod
    def from_settings(cls, settings: "Settings") -> "Selection":
        """Return the part of the settings that selects models."""
        return cls(
            models=settings.models or (),
            experiments=settings.experiment_name or (),
            status=settings.filter_status,
            filter=settings.filter,
            order_by=settings.store_order,
            max_runs=None if MeasuredOrder.from_settings(settings) else settings.max_runs,
            run_ids=settings.run_ids or (),
            checkpoint_pattern=settings.checkpoint_pattern,
            names=FactNames(
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
    """The version of a registered model by which the user named it, if any."""

    @property
    def identity(self) -> tuple[str, str, str]:
        """What distinguishes it from every other model: one run may hold several."""
        return self.run.run_id, self.choice.artifact.uri, self.choice.artifact.path


@dataclass(frozen=True)
class Survey:
    """The models of a snapshot, and the skipped runs."""

    found: tuple[Found, ...]
    skipped: tuple[Skipped, ...]


def survey(snapshot: Snapshot, selection: Selection) -> Survey:
    """Find the registered models, then those of the other runs: ``max_runs``, or those that the snapshot prefers.

    MLflow is not contacted.
    """
    found, skipped = registered_models(snapshot.registered, snapshot.listings, selection)
    known = {model.identity: model for model in found}
    passing = [run for run in snapshot.runs if has_status(run, selection)]
    skipped += [
        Skipped.of(run, f"its status is {run.status}, filter_status asks for {selection.status}", OTHER_STATUS)
        for run in snapshot.runs
        if not has_status(run, selection)
    ]
    limit = len(found) + (selection.max_runs or len(passing))
    for run in passing:
        if len(found) >= limit:
            reason = f"beyond the first {counted(selection.max_runs or 0, 'model')}"
            skipped.append(Skipped.of(run, reason, BEYOND))
            continue
        model = choose(run, snapshot.logged_by(run), snapshot.listings, selection)
        if isinstance(model, Skipped):
            skipped.append(model)
        elif same := known.get(model.identity):
            skipped.append(Skipped.of(run, f"it is rendered as {same.version}", "rendered as a registered model"))
        elif snapshot.preferred is not None and run.run_id not in snapshot.preferred:
            skipped.append(Skipped.of(run, "max_runs takes others, by what was measured", BEYOND))
        else:
            found.append(model)
    return Survey(tuple(found), tuple(skipped))


def first_reason(skipped: Iterable[Skipped]) -> str | None:
    """Return the reason of the first run that another setting or permission would bring back, for the terminal."""
    return next((elided(run.reason, LONGEST_SHOWN) for run in skipped if run.kind in AMENDABLE), None)


def has_status(run: Run, selection: Selection) -> bool:
    """Return whether a run has the selected status. If the selection names runs by id, any status will do."""
    return bool(selection.run_ids) or selection.status is None or run.status == selection.status


def registered_models(
    registered: Sequence[Registered], listings: Mapping[str, Listing], selection: Selection
) -> tuple[list[Found], list[Skipped]]:
    """Return the registered models that hold files, without duplicates, and those that do not."""
    found: dict[tuple[str, str, str], Found] = {}
    skipped = []
    for item in registered:
        choice = _registered_choice(item, listings[item.uri])
        if isinstance(choice, Skipped):
            skipped.append(choice)
        else:
            model = Found(item.run, facts(item.run, selection.names), choice, item.version)
            found.setdefault(model.identity, model)
    return list(found.values()), skipped


def _registered_choice(item: Registered, listing: Listing) -> Choice | Skipped:
    if listing.error is not None:
        return Skipped.of(item.run, f"{item.version}: {listing.error}", _kind(listing))
    found = artifacts.registered(
        item.run, item.uri, item.path, listing.files, best=listing.best or (), looks_like_model=listing.may_be_model
    )
    if found:
        return Choice(found[0], alternatives=artifacts.alternatives(found[0], found[1:]))
    if listing.moved:
        return Skipped.of(item.run, f"{item.version}: {listing.moved}", LOST)
    there = _listed(listing.files)
    return Skipped.of(item.run, f"{item.version} holds no model; its artifacts: {there}", "without a model")


def _listed(listing: Sequence[StoredFile]) -> str:
    return ", ".join(clean(file.path)[:LONGEST_LABEL] for file in listing[:5]) or "none"


def _kind(listing: Listing) -> str:
    return FOREIGN if listing.is_foreign else UNREAD


def choose(
    run: Run, logged: Sequence[LoggedModel], listings: Mapping[str, Listing], selection: Selection
) -> Found | Skipped:
    """Choose the artifact of a run to render with, from the files of the run and of its newest logged models."""
    listing, pattern = listings[run.artifact_uri], selection.checkpoint_pattern
    if listing.error is not None:
        return Skipped.of(run, listing.error, _kind(listing))
    inside, unread = _inside(logged, listings, every=pattern is not None)
    found = artifacts.candidates(
        run,
        listing.files,
        [model for model in logged if inside.get(model.artifact_uri) != ()],
        inside=inside,
        best=listing.best or (),
        looks_like_model=listing.may_be_model,
    )
    matching = list(artifacts.matching(found, pattern))
    if pattern and not matching:
        places = {run.artifact_uri: listing.files} | inside
        matching = [each for uri, files in places.items() for each in artifacts.files_matching(uri, files, pattern)]
    # a logged model without files was not listed, or is empty or refused
    artifact = next((each for each in matching if each.files), None)
    if artifact:
        others = [each for each in matching if each is not artifact]
        shown = _shown(other for other in found if other != artifact)
        choice = Choice(artifact, shown, artifacts.alternatives(artifact, others))
        return Found(run, facts(run, selection.names), choice)
    if unread:
        return Skipped.of(run, unread.error or "", _kind(unread))
    moved = next((moved for uri in (run.artifact_uri, *inside) if (moved := listings[uri].moved)), None)
    return Skipped.of(run, *((moved, LOST) if moved else _why_none(found, listing.files, pattern)))


def _inside(
    logged: Sequence[LoggedModel], listings: Mapping[str, Listing], *, every: bool
) -> tuple[dict[str, tuple[StoredFile, ...]], Listing | None]:
    """Return the files of logged models by location, and the first listing that failed.

    Only the models up to the newest one that holds files are included, or ``every`` one.
    """
    found: dict[str, tuple[StoredFile, ...]] = {}
    unread: Listing | None = None
    for model in logged[:MOST_LOGGED] if every else logged:
        listing = listings[model.artifact_uri]
        found[model.artifact_uri] = listing.files
        if listing.error is not None:
            unread = unread or listing
        if listing.files and not every:
            break
    return found, unread


def _shown(others: Iterable[Artifact]) -> tuple[str, ...]:
    """Return the paths of the artifacts of a run that were not chosen."""
    return tuple(clean(other.label)[:LONGEST_LABEL] for other in islice(others, MOST_LABELS))


def _why_none(found: Sequence[Artifact], listing: Sequence[StoredFile], pattern: str | None) -> tuple[str, str]:
    """Return the reason why no artifact of a run was chosen, and its kind."""
    if found and pattern:
        labels = ", ".join(clean(artifact.label) for artifact in found[:5])
        return f"checkpoint_pattern {pattern} matches none of {labels}", "that match no checkpoint_pattern"
    return f"it holds no model; its artifacts: {_listed(listing)}", "without a model"
