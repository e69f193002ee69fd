"""Stores on disk: how MLflow is made to read a sqlite file or a folder without changing it, and to write to one."""

import logging
import os
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.core import files
from dailies.core.errors import StoreError
from dailies.core.text import clean

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory


log = logging.getLogger(__name__)

TRASH = ".trash"
"""The folder that MLflow makes in a folder store, when it is not there, on opening it."""

DEFAULT_STORE = "MLFLOW_TRACKING_URI"

REGISTRY = "models"
"""The folder of a folder store that holds its registered models."""


def readable_sqlite(path: Path, private: Path) -> str:
    """Give the URI with which MLflow reads a sqlite store; one of an older MLflow is upgraded in a private copy.

    Raises StoreError when the file is not an MLflow store, or one of a newer MLflow.
    """
    revision, newest = _revision(path), _migrations().get_current_head()
    if revision != newest:
        path = _upgraded(path, revision, newest, private)
    # "sqlite+pysqlite": for "sqlite:///file:…" MLflow 3.17 makes a folder named "file:" in the working directory
    return f"sqlite+pysqlite:///{_read_only(path)}&uri=true"


def readable_folder(path: Path) -> str:
    """Return the URI with which MLflow reads a folder store.

    Raises StoreError when the folder is none, or when it is read-only and lacks the folder that MLflow would make.
    """
    _refuse_other_folder(path)
    if not (path / TRASH).is_dir() and not _is_writable(path):
        raise StoreError(
            "store.no_trash",
            f"the MLflow store {path} has no folder {TRASH}, without which MLflow cannot open it, and is read-only for "
            f"you. Have an empty folder {path / TRASH} made.",
        )
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    return path.as_uri()


def writable_sqlite(path: Path) -> str:
    """Give the URI with which MLflow writes to a sqlite store.

    Raises StoreError when the file is not an MLflow store, is read-only, or is one of another MLflow: opening it to
    write would upgrade it.
    """
    revision, newest = _revision(path), _migrations().get_current_head()
    _refuse_newer(path, revision)
    if revision != newest:
        raise StoreError(
            "store.older_format",
            f"{path} is of an older MLflow: writing to it would upgrade it, and the older one could not open it any "
            f"more; upgrade it yourself (mlflow db upgrade sqlite:///{path}), or set mlflow_uri to the server that "
            "uses it",
        )
    _refuse_read_only(path)
    return f"sqlite+pysqlite:///{path.as_uri()}?mode=rw&uri=true"


def writable_folder(path: Path) -> str:
    """Give the URI with which MLflow writes to a folder store. Raises StoreError when it is none, or is read-only."""
    _refuse_other_folder(path)
    _refuse_read_only(path)
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    return path.as_uri()


def _refuse_other_folder(path: Path) -> None:
    if not any(path.glob("*/meta.yaml")):
        raise StoreError("store.not_mlflow", f"{path} is not an MLflow store: no folder in it holds a meta.yaml")


def _refuse_read_only(path: Path) -> None:
    if not _is_writable(path) or not os.access(path.parent, os.W_OK):
        raise StoreError(
            "store.read_only",
            f"the MLflow store {path} is read-only for you: get the right to write to it, or leave it be",
        )


def _is_writable(path: Path) -> bool:
    # of root the system lets every write pass: the bits still say what is meant
    return bool(path.stat().st_mode & 0o222) and os.access(path, os.W_OK)


@contextmanager
def as_default(uri: str) -> Iterator[None]:
    """Let MLflow take ``uri`` for its default store meanwhile.

    The registry of a folder store looks up logged models there, and MLflow 3.17 would make a store in the working
    directory for it.
    """
    before = os.environ.get(DEFAULT_STORE)
    os.environ[DEFAULT_STORE] = uri
    try:
        yield
    finally:
        del os.environ[DEFAULT_STORE]
        if before is not None:
            os.environ[DEFAULT_STORE] = before


def _read_only(path: Path) -> str:
    """Give sqlite's own URI for reading a file and leaving none beside it."""
    with path.open("rb") as file:
        write_ahead = file.read(20)[18:] == b"\x02\x02"
    # a write-ahead file without its log has no writer; reading it the usual way would leave an empty log there
    alone = write_ahead and not _write_ahead_log(path).exists()
    return f"{path.as_uri()}?mode=ro{'&immutable=1' if alone else ''}"


def _write_ahead_log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _revision(path: Path) -> str:
    """Give the revision of a sqlite store's tables. Raises StoreError when it is not MLflow's or cannot be read."""
    try:
        with closing(sqlite3.connect(_read_only(path), uri=True)) as connection:
            connection.execute("SELECT experiment_id FROM experiments LIMIT 1")
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except (sqlite3.DatabaseError, OSError) as error:
        if not str(error).startswith(("no such table", "no such column", "file is not a database")):
            raise StoreError("store.unreadable", f"the MLflow store {path} cannot be read: {error}") from error
        rows = []
    if len(rows) != 1:
        raise StoreError("store.not_mlflow", f"{path} is not an MLflow store: it holds no MLflow tables")
    return rows[0][0]


@cache
def _migrations() -> "ScriptDirectory":
    import mlflow.store.db_migrations
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(mlflow.store.db_migrations.__file__).parent))


def _refuse_newer(path: Path, revision: str) -> None:
    if revision not in {script.revision for script in _migrations().walk_revisions()}:
        raise StoreError(
            "store.newer_format", f"{path} was made by a newer MLflow than the one installed here; install that version"
        )


def _upgraded(path: Path, revision: str, newest: str, private: Path) -> Path:
    """Copy a sqlite file and let MLflow upgrade the copy; a copy that is up to date with the original is kept.

    Several invocations may do so at once.
    """
    _refuse_newer(path, revision)
    stats = [place.stat() for place in (path, _write_ahead_log(path)) if place.exists()]
    state = [[stat.st_size, stat.st_mtime_ns] for stat in stats]
    copy = private.absolute() / f"{files.digest([str(path), state, newest])[:16]}.db"
    if copy.is_file():
        return copy
    log.warning("%s is of an older MLflow: a copy of it is upgraded and read, the file itself is not touched", path)
    private.mkdir(parents=True, exist_ok=True)
    draft = private / f"{secrets.token_hex(8)}.draft"
    try:
        with (
            closing(sqlite3.connect(_read_only(path), uri=True)) as source,
            closing(sqlite3.connect(draft)) as target,
        ):
            source.backup(target)
        # by its bare name: MLflow takes a "%" or a "?" in a path for something else
        command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{draft.name}"]
        done = subprocess.run(command, cwd=private, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StoreError(
                "store.upgrade_failed",
                f"the copy of {path} cannot be upgraded to this MLflow: {clean(done.stderr[-300:])}",
            )
        draft.replace(copy)
    finally:
        draft.unlink(missing_ok=True)
    for old in set(private.glob("*.db")) - {copy}:
        old.unlink(missing_ok=True)
    return copy
