"""Snapshot: everything that MLflow answered when an invocation was planned, as one value and one JSON file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dailies.core import files as files_module
from dailies.core.errors import StoreError
from dailies.core.text import clean
from dailies.store.entities import LoggedModel, Run, StoredFile
from dailies.store.registry import Registered, Version

FORMAT = 1
"""The version of the file's format; a file of another version is ignored.

It has to change, too, when the survey needs listings that earlier snapshots do not hold.
"""

LONGEST_REASON = 1000
"""Characters of the reason why a run is passed over; it may name files, and the store names those."""

Stamp = tuple[str | int | None, ...]
"""A listing that was taken under a stamp holds as long as the stamp stays the same."""


@dataclass(frozen=True)
class Listing:
    """What is known of the files below one artifact location."""

    place: str
    """The location after ``artifact_remap``."""
    stamp: Stamp | None = None
    """None where the files may change at any time, as those of a run that is still running."""
    files: tuple[StoredFile, ...] = ()
    error: str | None = None
    """Why the location cannot be listed."""
    is_foreign: bool = False
    """Whether the error is that the store must not name this location."""
    moved: str | None = None
    """How to find the files, where the whole store was moved."""
    like_models: tuple[str, ...] | None = None
    """The files without a known ending that begin like a model; None where first bytes are not read."""
    best: tuple[str, ...] | None = None
    """The checkpoints that the trainer calls the best; None where nobody asked."""

    def may_be_model(self, file: StoredFile) -> bool:
        """Tell whether the first bytes of a file allow that it is a model."""
        return self.like_models is None or file.path in self.like_models


@dataclass(frozen=True)
class Skipped:
    """A run that is passed over, and why."""

    run_id: str
    run_name: str
    status: str
    reason: str
    kind: str
    """The reason in one or two words, for counting."""

    @classmethod
    def of(cls, run: Run, reason: str, kind: str) -> "Skipped":
        """Pass over a run, with the reason as one clean line of bounded length."""
        return cls(run.run_id, run.run_name, run.status, clean(reason)[:LONGEST_REASON], kind)


@dataclass(frozen=True)
class Snapshot:
    """What MLflow holds of a selection. Which models are rendered follows from it alone."""

    registered: tuple[Registered, ...] = ()
    """The registered models that the user names, in this order."""
    runs: tuple[Run, ...] = ()
    """The runs that the selection names, of any status, in MLflow's order."""
    logged: Mapping[str, tuple[LoggedModel, ...]] = field(default_factory=dict)
    """The logged models of each run, the newest first."""
    listings: Mapping[str, Listing] = field(default_factory=dict)
    """The files of each artifact location that was looked at."""

    def logged_by(self, run: Run) -> tuple[LoggedModel, ...]:
        """Return the logged models of a run, the newest first."""
        return self.logged.get(run.run_id, ())

    @property
    def digest(self) -> str:
        """The digest of everything in the snapshot."""
        return files_module.digest(asdict(self))


@dataclass(frozen=True)
class Kept:
    """A snapshot as it is kept in the state folder."""

    fingerprint: str
    """The digest of the snapshot, the configuration and the code that reads it."""
    selection: str
    """The digest of the settings that the snapshot was taken for."""
    models: int
    """How many models the selection finds in it."""
    snapshot: Snapshot
    unseen: tuple[Skipped, ...]
    """Deleted runs and those that the filter leaves out: for the report, they decide nothing."""

    def save(self, path: Path) -> None:
        """Write the snapshot as JSON."""
        files_module.write_json(path, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> "Kept | None":
        """Read a snapshot; None where there is none of this format."""
        value = files_module.read_json(path) if path.is_file() else {}
        if value.get("format") != FORMAT:
            return None
        unseen = tuple(Skipped(**each) for each in value["unseen"])
        return cls(value["fingerprint"], value["selection"], value["models"], _snapshot(value["snapshot"]), unseen)


def load(path: Path, fingerprint: str) -> Kept:
    """Read the snapshot that an invocation planned with. Raises StoreError where it is missing."""
    kept = Kept.load(path)
    if kept is None or kept.fingerprint != fingerprint:
        raise StoreError(
            "store.no_snapshot",
            f"{path} does not hold what MLflow answered when this invocation was planned. Start snakemake "
            "again while MLflow answers.",
        )
    return kept


def _snapshot(value: Mapping[str, Any]) -> Snapshot:
    return Snapshot(
        registered=tuple(_registered(each) for each in value["registered"]),
        runs=tuple(_run(each) for each in value["runs"]),
        logged={key: tuple(LoggedModel(**each) for each in models) for key, models in value["logged"].items()},
        listings={uri: _listing(each) for uri, each in value["listings"].items()},
    )


def _registered(value: Mapping[str, Any]) -> Registered:
    return Registered(**{**value, "version": Version(**value["version"]), "run": _run(value["run"])})


def _run(value: Mapping[str, Any]) -> Run:
    return Run(**{**value, "datasets": tuple(value["datasets"])})


def _listing(value: Mapping[str, Any]) -> Listing:
    stored = tuple(StoredFile(**file) for file in value["files"])
    return Listing(
        **{
            **value,
            "files": stored,
            "stamp": _tuple(value["stamp"]),
            "like_models": _tuple(value["like_models"]),
            "best": _tuple(value["best"]),
        }
    )


def _tuple(value: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if value is None else tuple(value)
