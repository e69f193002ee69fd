"""The tracking store: read MLflow's experiments, runs, models and artifacts, and never change them.

The only module that imports mlflow.
"""

import fnmatch
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from dailies import files
from dailies.errors import StoreError, StoreUnreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

T = TypeVar("T")

PAGE = 5000
"""Runs per request; MLflow's own default silently stops at 1000."""

DEPTH, ENTRIES = 6, 10_000
"""How deep and how far a run's artifacts are walked: a listing that loops must end."""

LISTERS = 16
"""Artifact listings under way at once; more gained little over HTTP and nothing on disk."""

CONNECT_SECONDS, ANSWER_SECONDS = 3, 8
"""How long a server may take to accept a connection, and to send a first answer, before it counts as unreachable."""

HTTP_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""MLflow's own defaults take four minutes to notice a dead server; what the user sets is kept."""


@dataclass(frozen=True)
class StoredFile:
    """A file among the artifacts."""

    path: str
    """Relative to the artifact location, with forward slashes."""
    size: int | None
    """Bytes; None where the store does not say."""
    modified: int | None = None
    """Modification time in ns, known for local stores only."""


@dataclass(frozen=True)
class Run:
    """An MLflow run."""

    run_id: str
    run_name: str
    experiment: str
    status: str
    start_time: int | None
    """Milliseconds since 1970."""
    end_time: int | None
    """Milliseconds since 1970."""
    artifact_uri: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    """The user's own tags; MLflow's (``mlflow.…``) are left out."""


@dataclass(frozen=True)
class LoggedModel:
    """A model that MLflow 3 keeps beside its run."""

    model_id: str
    run_id: str
    name: str
    artifact_uri: str
    status: str
    updated: int
    """Milliseconds since 1970."""


@dataclass(frozen=True)
class Experiment:
    """An MLflow experiment."""

    experiment_id: str
    name: str


class TrackingStore:
    """A tracking store, opened for reading. Every error is a StoreError in words; secrets in it are masked."""

    def __init__(self, uri: str, *, private: Path, artifact_remap: Mapping[str, str] | None = None) -> None:
        """Open ``uri``: ``http(s)://``, ``sqlite:///``, a folder, or any other URI that MLflow knows.

        ``private`` is a folder of our own for the upgraded copy of an old sqlite file. ``artifact_remap`` maps old
        prefixes of artifact locations to new ones. Raises StoreError when the store does not exist and
        StoreUnreachable when a server does not answer within seconds.
        """
        self.name = redacted(uri)
        self.remote = urlsplit(uri).scheme in {"http", "https"}
        self.local = urlsplit(uri).scheme in {"", "file", "sqlite"}
        self._remap = dict(artifact_remap or {})
        self._private = private
        self._uri = uri
        if self.remote:
            for name, value in HTTP_DEFAULTS.items():
                os.environ.setdefault(name, value)
            _knock(uri, self.name)
        elif uri.startswith("sqlite:"):
            _refuse_missing(_sqlite_file(uri), Path.is_file)
        elif self.local:
            _refuse_missing(_store_folder(uri), Path.is_dir)

    @cached_property
    def _client(self) -> "MlflowClient":
        # made on the first question: a download from a local folder asks none, and importing mlflow takes seconds
        uri = self._uri
        if uri.startswith("sqlite:"):
            uri = _readable_sqlite(_sqlite_file(uri), self._private)
        elif self.local:
            uri = _readable_folder(_store_folder(uri))
        from mlflow import MlflowClient

        return self._ask(lambda: MlflowClient(tracking_uri=uri, registry_uri=uri))

    def experiments(self, names: Sequence[str]) -> list[Experiment]:
        """Find experiments by name. Raises StoreError, listing those that exist, for one that does not."""
        found = []
        for name in names:
            experiment = self._ask(lambda name=name: self._client.get_experiment_by_name(name))
            if experiment is None or experiment.lifecycle_stage != "active":
                existing = ", ".join(sorted(self._experiment_names())) or "none"
                deleted = " (it was deleted)" if experiment is not None else ""
                raise StoreError(
                    f"experiment '{clean(name)}' does not exist in {self.name}{deleted}; experiments there: {existing}"
                )
            found.append(Experiment(experiment.experiment_id, experiment.name))
        return found

    def _experiment_names(self) -> list[str]:
        pages = self._pages(lambda token: self._client.search_experiments(max_results=1000, page_token=token))
        return [clean(experiment.name) for experiment in pages]

    def runs(
        self,
        experiments: list[Experiment],
        *,
        filter_string: str = "",
        order_by: str | None = None,
        deleted: bool = False,
    ) -> list[Run]:
        """Give every run of the experiments that passes an MLflow search expression, in MLflow's order.

        ``deleted`` asks for the deleted runs instead of the active ones. Raises StoreError when MLflow does not
        accept the expression or the order.
        """
        from mlflow.entities import ViewType

        names = {experiment.experiment_id: experiment.name for experiment in experiments}
        pages = self._pages(
            lambda token: self._client.search_runs(
                list(names),
                filter_string=filter_string,
                run_view_type=ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY,
                max_results=PAGE,
                order_by=[order_by] if order_by else None,
                page_token=token,
            )
        )
        return [_run(run, names[run.info.experiment_id]) for run in pages]

    def runs_by_id(self, run_ids: Iterable[str]) -> list[Run]:
        """Give just these runs, in this order. Raises StoreError, naming it, for one that is not there."""
        found = []
        for run_id in run_ids:
            try:
                run = self._ask(lambda run_id=run_id: self._client.get_run(run_id))
                experiment = self._ask(lambda run=run: self._client.get_experiment(run.info.experiment_id))
            except StoreUnreachable:
                raise
            except StoreError as error:
                raise StoreError(f"run {clean(run_id)[:64]} of run_ids is not in {self.name} ({error})") from error
            if run.info.lifecycle_stage != "active":
                raise StoreError(f"run {run_id} of run_ids was deleted; restore it or take it out of run_ids")
            found.append(_run(run, experiment.name))
        return found

    def logged_models(self, experiments: list[Experiment]) -> dict[str, list[LoggedModel]]:
        """Give the logged models of the experiments that are ready, newest first, by the run that made them.

        A server older than MLflow 3 has none.
        """
        from mlflow.exceptions import MlflowException

        ids = [experiment.experiment_id for experiment in experiments]
        try:
            found = list(
                self._pages(
                    lambda token: self._client.search_logged_models(ids, max_results=50, page_token=token), raw=True
                )
            )
        except MlflowException as error:
            if error.error_code in {"ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"} or "404" in str(error):
                return {}
            raise self._explained(error) from error
        models: dict[str, list[LoggedModel]] = {}
        for model in sorted(found, key=lambda model: (-model.last_updated_timestamp, model.model_id)):
            if model.source_run_id and str(model.status) == "READY":
                models.setdefault(model.source_run_id, []).append(
                    LoggedModel(
                        model_id=model.model_id,
                        run_id=model.source_run_id,
                        name=model.name,
                        artifact_uri=model.artifact_location,
                        status=str(model.status),
                        updated=model.last_updated_timestamp,
                    )
                )
        return models

    def listings(self, artifact_uris: list[str]) -> dict[str, tuple[StoredFile, ...] | StoreError]:
        """List the files below several artifact locations at once; one that cannot be listed gives its error."""

        def listed(uri: str) -> tuple[StoredFile, ...] | StoreError:
            try:
                return self.files(uri)
            except StoreUnreachable:
                raise
            except StoreError as error:
                return error

        if self.local or len(artifact_uris) < 2:
            return {uri: listed(uri) for uri in artifact_uris}
        with ThreadPoolExecutor(max_workers=LISTERS) as pool:
            return dict(zip(artifact_uris, pool.map(listed, artifact_uris), strict=True))

    def files(self, artifact_uri: str) -> tuple[StoredFile, ...]:
        """List the files below an artifact location, sorted by path, to a bounded depth and number."""
        folder = self.local_folder(artifact_uri)
        if folder is not None:
            return tuple(sorted(_files_below(folder), key=lambda file: file.path))
        repository = self._repository(artifact_uri)
        found: list[StoredFile] = []
        folders: list[tuple[str | None, int]] = [(None, 1)]
        seen = 0
        while folders:
            parent, depth = folders.pop()
            for entry in self._ask(lambda parent=parent: repository.list_artifacts(parent)):
                seen += 1
                if seen > ENTRIES:
                    log.warning("more than %d artifacts in one place, the rest is not looked at", ENTRIES)
                    return tuple(sorted(found, key=lambda file: file.path))
                if not entry.is_dir:
                    found.append(StoredFile(entry.path, entry.file_size))
                elif depth < DEPTH:
                    folders.append((entry.path, depth + 1))
        return tuple(sorted(found, key=lambda file: file.path))

    def fetch(self, artifact_uri: str, path: str, folder: Path) -> Path:
        """Copy one artifact file below ``folder``, under its own path; return where it is.

        Raises StoreError; what a broken transfer leaves behind is for the caller to check and remove.
        """
        source = self.local_folder(artifact_uri)
        if source is None:
            repository = self._repository(artifact_uri)
            return Path(self._ask(lambda: repository.download_artifacts(path, dst_path=str(folder))))
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(source / path, target, follow_symlinks=False))

    def local_folder(self, artifact_uri: str) -> Path | None:
        """Give the folder of an artifact location on this machine's disks, remapped; None for any other place.

        Raises StoreError, naming ``artifact_remap``, when a folder that once existed is gone as a whole.
        """
        uri = self._remapped(artifact_uri)
        parts = urlsplit(uri)
        if parts.scheme not in {"", "file"} or not uri:
            return None
        return Path(unquote(parts.path)) if parts.scheme else Path(uri)

    def moved(self, artifact_uri: str) -> str | None:
        """Say how to find an artifact location whose local folder and its parent no longer exist; None if it does."""
        folder = self.local_folder(artifact_uri)
        if folder is None or folder.exists() or folder.parent.exists():
            return None
        return (
            f"its artifacts were at {folder}, which no longer exists; if the store was moved, "
            f"set artifact_remap, for example {{{folder.parent.parent}: /where/it/is/now}}"
        )

    def _remapped(self, artifact_uri: str) -> str:
        for old, new in sorted(self._remap.items(), key=lambda item: -len(item[0])):
            for prefix in (old.rstrip("/"), "file://" + old.rstrip("/")):
                if artifact_uri == prefix or artifact_uri.startswith(prefix + "/"):
                    return new.rstrip("/") + artifact_uri[len(prefix) :]
        return artifact_uri

    def _repository(self, artifact_uri: str) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return self._ask(lambda: get_artifact_repository(self._remapped(artifact_uri), tracking_uri=self._uri))

    def _pages(self, page: Callable[[str | None], Any], *, raw: bool = False) -> Iterator[Any]:
        token = None
        while True:
            result = page(token) if raw else self._ask(lambda token=token: page(token))
            yield from result
            token = result.token
            if not token:
                return

    def _ask(self, question: Callable[[], T]) -> T:
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            return question()
        except (MlflowException, RequestException, OSError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> StoreError:
        text = redacted(clean(str(error)))[:500]
        if "Max retries exceeded" in text or "timed out" in text.lower() or "Connection" in type(error).__name__:
            return StoreUnreachable(f"the MLflow server {self.name} does not answer: {text}")
        return StoreError(f"MLflow at {self.name} says: {text}")


def _run(run: Any, experiment: str) -> Run:
    return Run(
        run_id=run.info.run_id,
        run_name=run.info.run_name or "",
        experiment=experiment,
        status=run.info.status,
        start_time=run.info.start_time,
        end_time=run.info.end_time,
        artifact_uri=run.info.artifact_uri or "",
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags={name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")},
    )


def _knock(uri: str, name: str) -> None:
    """Ask a server for its health, once. Raises StoreUnreachable, saying why, when nothing useful answers."""
    import requests

    verify: bool | str = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true":
        verify = False
    try:
        answer = requests.get(uri.rstrip("/") + "/health", timeout=(CONNECT_SECONDS, ANSWER_SECONDS), verify=verify)
    except requests.exceptions.SSLError as error:
        raise StoreUnreachable(
            f"the certificate of {name} is not trusted; set MLFLOW_TRACKING_SERVER_CERT_PATH to your authority's "
            f"certificate file ({redacted(str(error))[:200]})"
        ) from None
    except requests.exceptions.RequestException as error:
        reason = (
            "no answer in time" if isinstance(error, requests.exceptions.Timeout) else "connection refused or no route"
        )
        raise StoreUnreachable(
            f"the MLflow server {name} does not answer ({reason}); check mlflow_uri, the network, or start the server"
        ) from None
    if answer.status_code >= 500:
        raise StoreUnreachable(
            f"the MLflow server {name} answers {answer.status_code} {answer.reason}; try again later"
        )


def _sqlite_file(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///").split("?", maxsplit=1)[0]).absolute()


def _store_folder(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri).absolute()


def _refuse_missing(path: Path, is_there: Callable[[Path], bool]) -> None:
    if not is_there(path):
        raise StoreError(f"the MLflow store {path} does not exist; set mlflow_uri to your store or server")


def _readable_sqlite(path: Path, private: Path) -> str:
    """Give a read-only URI for a sqlite store; one of an older MLflow is upgraded in a copy below ``private``."""
    revision = _revision(path)
    if revision is None:
        raise StoreError(f"{path} is not an MLflow store: it holds no MLflow tables")
    if revision != _current_revision():
        path = _upgraded(path, private)
    # "sqlite+pysqlite": for "sqlite:///file:…" MLflow 3.17 makes a folder named "file:" in the working directory
    return f"sqlite+pysqlite:///file:{path}?mode=ro&uri=true"


def _readable_folder(path: Path) -> str:
    if not any(path.glob("*/meta.yaml")):
        raise StoreError(f"{path} is not an MLflow store: no folder in it holds a meta.yaml")
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    return path.as_uri()


def _revision(path: Path) -> str | None:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError:
        return None
    return row[0] if row else None


def _current_revision() -> str:
    import mlflow.store.db_migrations
    from alembic.script import ScriptDirectory

    migrations = Path(mlflow.store.db_migrations.__file__).parent
    return ScriptDirectory(str(migrations)).get_current_head()


def _upgraded(path: Path, private: Path) -> Path:
    """Copy a sqlite file and let MLflow upgrade the copy; a copy that is up to date with the original is kept."""
    stat = path.stat()
    copy = private / f"{files.digest([str(path), stat.st_size, stat.st_mtime_ns, _current_revision()])[:16]}.db"
    if copy.is_file():
        return copy
    private.mkdir(parents=True, exist_ok=True)
    log.warning("%s is of an older MLflow: a copy of it is upgraded and read, the file itself is not touched", path)
    draft = copy.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as source, sqlite3.connect(draft) as target:
        source.backup(target)
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{draft}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StoreError(f"{path} is of an MLflow too old to be upgraded: {done.stderr.strip().splitlines()[-1][:300]}")
    for old in private.glob("*.db"):
        old.unlink()
    draft.replace(copy)
    return copy


def _files_below(folder: Path) -> Iterator[StoredFile]:
    seen = 0
    folders = [(folder, 1)]
    while folders:
        parent, depth = folders.pop()
        if not parent.is_dir():
            continue
        for entry in os.scandir(parent):
            seen += 1
            if seen > ENTRIES:
                log.warning("more than %d artifacts below %s, the rest is not looked at", ENTRIES, folder)
                return
            if entry.is_dir(follow_symlinks=False):
                if depth < DEPTH:
                    folders.append((Path(entry.path), depth + 1))
            elif entry.is_file(follow_symlinks=False):
                stat = entry.stat()
                yield StoredFile(Path(entry.path).relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns)


def redacted(text: str) -> str:
    """Mask user names and passwords in every URL of a text."""
    return re.sub(r"(?<=://)[^/\s@]+@", "***@", text)


def clean(text: str) -> str:
    """Make a text from the store safe to show: one line, no control characters or escape codes."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def matches(path: str, pattern: str) -> bool:
    """Tell whether a path, or its last part, matches a shell pattern."""
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path.rsplit("/", 1)[-1], pattern)
