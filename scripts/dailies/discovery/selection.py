"""The survey: which runs of a snapshot hold a model, which of their artifacts it is, and why others are passed over."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from dailies.core.text import clean, counted
from dailies.discovery import artifacts
from dailies.discovery import facts as facts_module
from dailies.discovery.artifacts import Choice
from dailies.discovery.facts import Facts, Names
from dailies.discovery.snapshot import Listing, Skipped, Snapshot
from dailies.measure import metrics
from dailies.store.entities import Artifact, LoggedModel, Run, StoredFile
from dailies.store.registry import Registered, Version

if TYPE_CHECKING:
    from dailies.planning.config import Settings


LONGEST_LABEL, MOST_LABELS = 200, 1000
"""Characters of an artifact's path as it is shown, and how many of those that were not chosen are."""

LOST, FOREIGN = "whose artifacts are lost", "whose artifacts are at a place that is not asked"
OTHER_STATUS = "with another status"
UNREAD = "with artifacts that cannot be read"
AMENDABLE = frozenset({LOST, FOREIGN, UNREAD})
"""Why runs are passed over that a setting, or a right, would bring back."""

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
            order_by=None if metrics.is_own_order(settings.order_by) else settings.order_by,
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
class Survey:
    """The models of a snapshot, and the runs that are passed over."""

    found: tuple[Found, ...]
    skipped: tuple[Skipped, ...]


def survey(snapshot: Snapshot, selection: Selection) -> Survey:
    """Return the registered models, then those of the runs, until ``max_runs`` are found; nothing is asked."""
    found, skipped = named_models(snapshot.registered, snapshot.listings, selection)
    known = {model.identity: model for model in found}
    passing = [run for run in snapshot.runs if passes(run, selection)]
    skipped += [
        Skipped.of(run, f"its status is {run.status}, filter_status asks for {selection.status}", OTHER_STATUS)
        for run in snapshot.runs
        if not passes(run, selection)
    ]
    limit = len(found) + (selection.max_runs or len(passing))
    for run in passing:
        if len(found) >= limit:
            reason = f"beyond the first {counted(selection.max_runs, 'model')}"
            skipped.append(Skipped.of(run, reason, "beyond max_runs"))
            continue
        model = chosen(run, snapshot.logged_by(run), snapshot.listings, selection)
        if isinstance(model, Skipped):
            skipped.append(model)
        elif same := known.get(model.identity):
            skipped.append(Skipped.of(run, f"it is rendered as {same.version}", "rendered as a registered model"))
        else:
            found.append(model)
    return Survey(tuple(found), tuple(skipped))


def passes(run: Run, selection: Selection) -> bool:
    """Tell whether a run has the status that the selection asks for; of runs asked for by id it asks for none."""
    return bool(selection.run_ids) or selection.status is None or run.status == selection.status


def named_models(
    registered: Sequence[Registered], listings: Mapping[str, Listing], selection: Selection
) -> tuple[list[Found], list[Skipped]]:
    """Return the registered models that hold files, each once, and those that do not."""
    found: dict[tuple[str, str, str], Found] = {}
    skipped = []
    for item in registered:
        choice = _named_choice(item, listings[item.uri])
        if isinstance(choice, Skipped):
            skipped.append(choice)
        else:
            model = Found(item.run, facts_module.facts(item.run, selection.names), choice, item.version)
            found.setdefault(model.identity, model)
    return list(found.values()), skipped


def _named_choice(item: Registered, listing: Listing) -> Choice | Skipped:
    if listing.error is not None:
        return Skipped.of(item.run, f"{item.version}: {listing.error}", _kind(listing))
    found = artifacts.named(
        item.run, item.uri, item.path, listing.files, best=listing.best or (), looks=listing.may_be_model
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


def chosen(
    run: Run, logged: Sequence[LoggedModel], listings: Mapping[str, Listing], selection: Selection
) -> Found | Skipped:
    """Choose the artifact of a run to render with, by the listings of the run and of its newest logged models."""
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
        looks=listing.may_be_model,
    )
    fitting = list(artifacts.fitting(found, pattern))
    if pattern and not fitting:
        places = {run.artifact_uri: listing.files} | inside
        fitting = [each for uri, files in places.items() for each in artifacts.asked_for(uri, files, pattern)]
    # an artifact without files is a logged model that was not listed: all before it were empty or refused
    artifact = next((each for each in fitting if each.files), None)
    if artifact:
        others = [each for each in fitting if each is not artifact]
        shown = _shown(other for other in found if other != artifact)
        choice = Choice(artifact, shown, artifacts.alternatives(artifact, others))
        return Found(run, facts_module.facts(run, selection.names), choice)
    if unread:
        return Skipped.of(run, unread.error, _kind(unread))
    moved = [listings[uri].moved for uri in (run.artifact_uri, *inside) if listings[uri].moved]
    return Skipped.of(run, *((moved[0], LOST) if moved else _why_none(found, listing.files, pattern)))


def _inside(
    logged: Sequence[LoggedModel], listings: Mapping[str, Listing], *, every: bool
) -> tuple[dict[str, tuple[StoredFile, ...]], Listing | None]:
    """Return the files of logged models by location: the newest that holds files, or ``every`` one; and what failed."""
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
    """Name the first artifacts of a run that holds more."""
    return tuple(clean(other.label)[:LONGEST_LABEL] for other in islice(others, MOST_LABELS))


def _why_none(found: Sequence[Artifact], listing: Sequence[StoredFile], pattern: str | None) -> tuple[str, str]:
    """Say why no artifact of a run was chosen: the reason, and its kind."""
    if found and pattern:
        labels = ", ".join(clean(artifact.label) for artifact in found[:5])
        return f"checkpoint_pattern {pattern} matches none of {labels}", "that match no checkpoint_pattern"
    return f"it holds no model; its artifacts: {_listed(listing)}", "without a model"
