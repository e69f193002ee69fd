"""Everything that MLflow answered while an invocation was planned, as one value and one JSON file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dailies.core.errors import StoreError
from dailies.core.files import digest, read_json
from dailies.core.text import clean
from dailies.core.typed import OMITTED, Record, from_json, to_json
from dailies.store.entities import LoggedModel, Run, StoredFile
from dailies.store.registry import Registered

FORMAT = 1
"""The version of the file's format; a file of another version is ignored.

It must also change when the survey needs listings that earlier snapshots do not hold.
"""

LONGEST_REASON = 1000
"""Characters of the reason why a run is skipped. It may contain file names, which the store chooses."""

Stamp = tuple[str | int | None, ...]
"""A listing is valid as long as its stamp stays the same."""


@dataclass(frozen=True)
class Listing:
    """What is known of the files below one artifact location."""

    place: str
    """The location after ``artifact_remap``."""
    stamp: Stamp | None = None
    """None if the files may change at any time, as those of an unfinished run."""
    files: tuple[StoredFile, ...] = ()
    error: str | None = None
    """Why the location cannot be listed."""
    is_foreign: bool = False
    """Whether the error is that the store may not name this location."""
    moved: str | None = None
    """How to find the files, if the whole store was moved."""
    like_models: tuple[str, ...] | None = None
    """The files without a known ending whose first bytes are those of a model; None if first bytes are not read."""
    best: tuple[str, ...] | None = None
    """The checkpoints that the trainer marked as the best; None if that was not read."""

    def may_be_model(self, file: StoredFile) -> bool:
        """Return whether a file may be a model, judged by its first bytes if they were read."""
        return self.like_models is None or file.path in self.like_models


@dataclass(frozen=True)
class Skipped:
    """A run that is skipped, and why."""

    run_id: str
    run_name: str
    status: str
    reason: str
    kind: str
    """The reason in a few words, for counting."""

    @classmethod
    def of(cls, run: Run, reason: str, kind: str) -> "Skipped":
        """Skip a run, with the reason as one clean line of bounded length."""
        return cls(run.run_id, run.run_name, run.status, clean(reason)[:LONGEST_REASON], kind)


@dataclass(frozen=True)
class Snapshot:
    """The content of MLflow that a selection needs. Which models are rendered follows from it alone."""

    registered: tuple[Registered, ...] = ()
    """The registered models that the user names, in this order."""
    runs: tuple[Run, ...] = ()
    """The runs that the selection names, of any status, in MLflow's order."""
    logged: Mapping[str, tuple[LoggedModel, ...]] = field(default_factory=dict)
    """The logged models of each run, newest first, by run id."""
    listings: Mapping[str, Listing] = field(default_factory=dict)
    """The files of each artifact location that was listed, by its URI."""
    preferred: tuple[str, ...] | None = field(default=None, metadata=OMITTED)
    """The ids of the runs that ``max_runs`` takes for what was measured; None if it takes the first ones."""

    def logged_by(self, run: Run) -> tuple[LoggedModel, ...]:
        """Return the logged models of a run, newest first."""
        return self.logged.get(run.run_id, ())

    @property
    def digest(self) -> str:
        """The digest of everything in the snapshot."""
        return digest(to_json(self))


@dataclass(frozen=True, kw_only=True)
class SavedSnapshot(Record):
    """``snapshot.json``: a snapshot and what it was taken for."""

    format: int = FORMAT
    fingerprint: str
    """The digest of the snapshot, the configuration and the code that reads it."""
    selection: str
    """The digest of the settings that the snapshot was taken for."""
    models: int
    """How many models the selection finds in it."""
    snapshot: Snapshot
    unseen: tuple[Skipped, ...]
    """Deleted runs and those that the filter excludes. They are only reported."""

    @classmethod
    def load_if_there(cls, path: Path) -> "SavedSnapshot | None":
        """Read a snapshot; return None if there is none in this version's format."""
        value = read_json(path) if path.is_file() else {}
        return from_json(cls, value) if value.get("format") == FORMAT else None

    @classmethod
    def load_planned(cls, path: Path, fingerprint: str) -> "SavedSnapshot":
        """Read the snapshot with which the invocation was planned. Raise StoreError if it is missing."""
        saved = cls.load_if_there(path)
        if saved is None or saved.fingerprint != fingerprint:
            raise StoreError(
                "store.no_snapshot",
                f"{path} does not hold what MLflow answered when this invocation was planned. Start snakemake "
                "again while MLflow answers.",
            )
        return saved


@dataclass(frozen=True)
class StoreState(Record):
    """``store.json``: the state of a local store in which MLflow gave the answers of a snapshot."""

    state: str
    """The digest of the store's files, the selection and the code that asks."""
    fingerprint: str
    """That of the snapshot."""
