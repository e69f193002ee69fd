"""Local stores: URIs with which MLflow reads a sqlite file or a folder without changing it, or writes to it."""

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
"""The folder that MLflow creates in a folder store when it opens one without it."""

DEFAULT_STORE = "MLFLOW_TRACKING_URI"

REGISTRY = "models"
"""The folder of a folder store that contains its registered models."""


def readable_sqlite(path: Path, private: Path) -> str:
    """Return the URI with which MLflow reads a sqlite store.

    A store of an older MLflow is copied to the folder ``private`` and the copy is upgraded. Raises StoreError if the
    file is not an MLflow store, or was written by a newer MLflow.
    """
    revision, newest = _revision(path), _migrations().get_current_head()
    if revision != newest:
        path = _upgraded_copy(path, revision, newest, private)
    # "sqlite+pysqlite": for "sqlite:///file:…" MLflow 3.17 creates a folder named "file:" in the working directory
    return f"sqlite+pysqlite:///{_read_only(path)}&uri=true"


def readable_folder(path: Path) -> str:
    """Return the URI with which MLflow reads a folder store.

    Raises StoreError if the folder is not an MLflow store, or is read-only and lacks a folder that MLflow would create.
    """
    _refuse_other_folder(path)
    if not (path / TRASH).is_dir() and not _is_writable(path):
        raise StoreError(
            "store.no_trash",
            f"MLflow cannot open the store {path}, because it has no folder {TRASH} and you may not create one there. "
            f"Ask its owner to create the empty folder {path / TRASH}.",
        )
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    return path.as_uri()


def writable_sqlite(path: Path) -> str:
    """Return the URI with which MLflow writes to a sqlite store.

    Raises StoreError if the file is not an MLflow store, is read-only, or belongs to another version of MLflow: opening
    it for writing would upgrade it.
    """
    revision, newest = _revision(path), _migrations().get_current_head()
    _refuse_newer(path, revision)
    if revision != newest:
        raise StoreError(
            "store.older_format",
            f"{path} belongs to an older MLflow, and writing to it would upgrade it, after which the older version "
            f"could not open it; upgrade it yourself (mlflow db upgrade sqlite:///{path}), or set mlflow_uri to the "
            "server that uses it",
        )
    _refuse_read_only(path)
    return f"sqlite+pysqlite:///{path.as_uri()}?mode=rw&uri=true"


def writable_folder(path: Path) -> str:
    """Return the URI with which MLflow writes to a folder store.

    Raises StoreError if the folder is not an MLflow store, or is read-only.
    """
    _refuse_other_folder(path)
    _refuse_read_only(path)
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    return path.as_uri()


def _refuse_other_folder(path: Path) -> None:
    if not any(path.glob("*/meta.yaml")):
        raise StoreError("store.not_mlflow", f"{path} is not an MLflow store: none of its folders contains a meta.yaml")


def _refuse_read_only(path: Path) -> None:
    if not _is_writable(path) or not os.access(path.parent, os.W_OK):
        raise StoreError(
            "store.read_only",
            f"you may not write to the MLflow store {path}; ask its owner for permission, or leave out write_back and "
            "promote",
        )


def _is_writable(path: Path) -> bool:
    # root may write anywhere, but the mode still shows what the owner intended
    return bool(path.stat().st_mode & 0o222) and os.access(path, os.W_OK)


@contextmanager
def as_default(uri: str) -> Iterator[None]:
    """Make ``uri`` MLflow's default store inside a ``with`` block.

    The registry of a folder store looks up logged models in the default store. Without one, MLflow 3.17 creates a store
    in the working directory.
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
    """Return sqlite's own URI for reading a file without creating others next to it."""
    with path.open("rb") as file:
        write_ahead = file.read(20)[18:] == b"\x02\x02"
    # a write-ahead database without its log has no writer; a plain read would leave an empty log behind
    no_writer = write_ahead and not _write_ahead_log(path).exists()
    return f"{path.as_uri()}?mode=ro{'&immutable=1' if no_writer else ''}"


def _write_ahead_log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _revision(path: Path) -> str:
    """Return the schema revision of a sqlite store. Raises StoreError if the file is not MLflow's or cannot be read."""
    try:
        with closing(sqlite3.connect(_read_only(path), uri=True)) as connection:
            connection.execute("SELECT experiment_id FROM experiments LIMIT 1")
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except (sqlite3.DatabaseError, OSError) as error:
        if not str(error).startswith(("no such table", "no such column", "file is not a database")):
            raise StoreError("store.unreadable", f"the MLflow store {path} cannot be read: {error}") from error
        rows = []
    if len(rows) != 1:
        raise StoreError("store.not_mlflow", f"{path} is not an MLflow store: it contains no MLflow tables")
    return rows[0][0]


@cache
def _migrations() -> "ScriptDirectory":
    import mlflow.store.db_migrations
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(mlflow.store.db_migrations.__file__).parent))


def _refuse_newer(path: Path, revision: str) -> None:
    if revision not in {script.revision for script in _migrations().walk_revisions()}:
        raise StoreError(
            "store.newer_format",
            f"{path} was written by a newer MLflow than the one installed here; install that version",
        )


def _upgraded_copy(path: Path, revision: str, newest: str | None, private: Path) -> Path:
    """Return the upgraded copy of a sqlite file, which is created unless it is up to date with the original.

    Several invocations may call it at once.
    """
    _refuse_newer(path, revision)
    stats = [place.stat() for place in (path, _write_ahead_log(path)) if place.exists()]
    state = [[stat.st_size, stat.st_mtime_ns] for stat in stats]
    copy = private.absolute() / f"{files.digest([str(path), state, newest])[:16]}.db"
    if copy.is_file():
        return copy
    log.warning("%s belongs to an older MLflow; an upgraded copy is read, and the file itself is not changed", path)
    private.mkdir(parents=True, exist_ok=True)
    draft = private / f"{secrets.token_hex(8)}.draft"
    try:
        with (
            closing(sqlite3.connect(_read_only(path), uri=True)) as source,
            closing(sqlite3.connect(draft)) as target,
        ):
            source.backup(target)
        # by its bare name: MLflow interprets "%" and "?" in a path
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
