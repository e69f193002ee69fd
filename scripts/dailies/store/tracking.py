"""The tracking store, opened for reading: experiments, runs, logged models and artifacts."""

import errno
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, cached_property, partial
from importlib.util import find_spec
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from dailies.core.errors import AccessRefused, LocationRefused, StoreError, StoreUnreachable, TransferBroken
from dailies.core.text import clean, few, redacted
from dailies.store import changes, connection, failures, local
from dailies.store.entities import LONGEST_NAME, Experiment, LoggedModel, Run, StoredFile, read_run
from dailies.store.locations import Locations, path_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from dailies.planning.config import Settings


log = logging.getLogger(__name__)

T = TypeVar("T")

PAGE, MODELS_PAGE = 5000, 50
"""Runs and logged models per request. Without paging MLflow silently stops at 1000; 50 is the API's limit."""

DEPTH, ENTRIES = 6, 10_000
"""How many levels and entries of a run's artifacts are listed, so that a listing with a loop ends."""

STARTED = "attributes.start_time >= 0"
"""The search expression that excludes runs without a start time."""

TOO_MANY = "more than %d artifacts below %s; the rest is ignored"

LISTERS = 16
"""Concurrent artifact listings; more gained little over HTTP."""

PROBED = ("dbruntime", "pyspark", "IPython")
"""Modules that MLflow tries to import before each request; searching for them takes a quarter of our CPU time."""

NAMED = 20
"""How many experiments an error lists."""

PAUSES = (1, 3)
"""Seconds before the second and third attempt at a request whose response was cut short."""


class TrackingStore:
    """A tracking store that is never changed.

    Whatever MLflow raises becomes a StoreError with secrets masked. StoreUnreachable means that a server does not
    answer, AccessRefused that it rejects the login.
    """

    leaves_out_runs = False
    """Whether MLflow could not list some of the runs, of which there was a warning."""

    def __init__(
        self,
        uri: str,
        *,
        private: Path,
        artifact_remap: Mapping[str, str] | None = None,
        allowed_schemes: Collection[str] = (),
    ) -> None:
        """Open ``uri``: ``http(s)://``, ``sqlite:///`` or a folder.

        ``private`` is our own folder for the upgraded copy of an old sqlite file. ``artifact_remap`` maps old prefixes
        of artifact locations to new ones. ``allowed_schemes`` are the schemes that a location may have besides the
        store's own. Raises StoreError if the store does not exist, and StoreUnreachable if a server does not answer
        within seconds.
        """
        self.name = redacted(uri)
        self._uri = uri
        self._private = private
        self._experiments: dict[str, Experiment] = {}
        connection.set_environment_defaults()
        try:
            self._remote = urlsplit(uri).scheme in {"http", "https"}
            if self._remote:
                connection.check_health(uri)
        except ValueError as error:  # from urllib, or from urllib3 through requests
            raise StoreError(
                "store.bad_address", f"{self.name} is not a valid address ({error}); correct mlflow_uri"
            ) from None
        self.locations = Locations(uri if self._remote else None, allowed_schemes, dict(artifact_remap or {}))
        if not self._remote:
            _refuse_missing(uri)

    @cached_property
    def _client(self) -> "MlflowClient":
        # created on first use: a download from a local folder needs no client, and importing mlflow takes seconds
        uri = self._uri
        if file := _sqlite_file(uri):
            uri = local.readable_sqlite(file, self._private)
        elif folder := self._folder:
            uri = local.readable_folder(folder)
        from mlflow import MlflowClient

        return self._ask(lambda: MlflowClient(tracking_uri=uri, registry_uri=uri))

    def experiments(self, names: Sequence[str]) -> list[Experiment]:
        """Return experiments by name. Raises StoreError, listing those that exist, if one is missing."""
        found = []
        for name in names:
            what = f"experiment '{clean(name)}'"
            experiment = self.ask(methodcaller("get_experiment_by_name", name), what=what)
            if experiment is not None and not experiment.experiment_id:
                said = f"the MLflow server {self.name} answered a request for an experiment with something else"
                raise failures.not_mlflow(said)
            if experiment is None or experiment.lifecycle_stage != "active":
                deleted = " (it was deleted)" if experiment is not None else ""
                raise StoreError(
                    "store.no_experiment",
                    f"{what} does not exist in {self.name}{deleted}; "
                    f"experiments {'that you may read ' if self._remote else ''}there: {self._experiment_names()}",
                )
            found.append(Experiment(experiment.experiment_id, experiment.name))
        return found

    def _experiment_names(self) -> str:
        pages = self.pages(lambda client, token: client.search_experiments(max_results=1000, page_token=token))
        return few(sorted(clean(experiment.name)[:LONGEST_NAME] for experiment in pages), NAMED)

    def runs(
        self,
        experiments: list[Experiment],
        *,
        filter_string: str = "",
        order_by: str | None = None,
        deleted: bool = False,
    ) -> list[Run]:
        """Return every run of the experiments that matches an MLflow search expression, in MLflow's order.

        ``deleted`` selects deleted runs instead of active ones. Raises StoreError if MLflow rejects the expression or
        the order.
        """
        try:
            return self._search(experiments, filter_string, order_by, deleted=deleted)
        except StoreError as error:
            if error_code(error) == "INVALID_PARAMETER_VALUE":
                keys = {"filter": filter_string, "order_by": order_by}
                given = " or ".join(f"{key} {clean(value)}" for key, value in keys.items() if value)
                raise StoreError("store.bad_search", f"MLflow rejects {given}. {error}") from error
            if "start_time cannot be None" not in str(error) and "too many 500" not in str(error):
                raise
        # one run without a start time makes MLflow 3.17 fail the whole search, on a server with status 500
        started = " and ".join(filter(None, (STARTED, filter_string)))
        found = self._search(experiments, started, order_by, deleted=deleted)
        self.leaves_out_runs = True
        log.warning("MLflow cannot list the runs of %s that have no start time; they are skipped", self.name)
        return found

    def _search(
        self, experiments: list[Experiment], filter_string: str, order_by: str | None, *, deleted: bool
    ) -> list[Run]:
        from mlflow.entities import ViewType

        by_id = {experiment.experiment_id: experiment for experiment in experiments}
        pages = self.pages(
            lambda client, token: client.search_runs(
                list(by_id),
                filter_string=filter_string,
                run_view_type=ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY,
                max_results=PAGE,
                order_by=[order_by] if order_by else None,
                page_token=token,
            )
        )
        return [read_run(run, by_id[run.info.experiment_id]) for run in pages]

    def runs_by_id(self, run_ids: Iterable[str]) -> list[Run]:
        """Return these runs in this order, without duplicates. Raises StoreError if one is missing or deleted."""
        found = []
        for run_id in dict.fromkeys(run_ids):
            run = self.run(run_id)
            if run is None:
                raise StoreError("store.no_run", f"run {clean(run_id)[:64]} of run_ids does not exist in {self.name}")
            if run.deleted:
                raise StoreError(
                    "store.run_deleted", f"run {run_id} of run_ids was deleted; restore it or remove it from run_ids"
                )
            found.append(run)
        return found

    def run(self, run_id: str) -> Run | None:
        """Return one run, even a deleted one; None if the store has no such run."""
        try:
            run = self.ask(lambda client: client.get_run(run_id), what=f"run {clean(run_id)[:64]}")
        except StoreError as error:
            if error_code(error) in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                return None
            raise
        key = run.info.experiment_id
        if key not in self._experiments:
            self._experiments[key] = Experiment(key, self.ask(lambda client: client.get_experiment(key)).name)
        return read_run(run, self._experiments[key])

    @property
    def has_registry(self) -> bool:
        """Whether the store can have registered models. Asking a folder store that has none would create a folder."""
        return self._folder is None or (self._folder / local.REGISTRY).is_dir()

    @property
    def state(self) -> str | None:
        """A digest that changes with whatever is written to a local store, artifacts aside; MLflow is not imported.

        None for a server, and while the digest might miss a change that follows at once.
        """
        if file := self._file:
            return changes.sqlite_state(file)
        return changes.folder_state(self._folder) if self._folder else None

    @property
    def _file(self) -> Path | None:
        return None if self._remote else _sqlite_file(self._uri)

    @property
    def _folder(self) -> Path | None:
        return None if self._remote or _sqlite_file(self._uri) else _store_folder(self._uri)

    def logged_models(self, experiment_ids: Sequence[str]) -> dict[str, list[LoggedModel]]:
        """Return the experiments' logged models that are ready, by the id of the run that logged them, newest first.

        A server older than MLflow 3 has none.
        """
        pages = self.pages(
            lambda client, token: client.search_logged_models(
                list(experiment_ids), max_results=MODELS_PAGE, page_token=token
            )
        )
        try:
            found = [model for model in pages if model.source_run_id and str(model.status) == "READY"]
        except StoreError as error:
            if error_code(error) in {"ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"}:
                return {}
            raise
        models: dict[str, list[LoggedModel]] = {}
        for model in sorted(found, key=lambda model: (-model.last_updated_timestamp, model.model_id)):
            models.setdefault(model.source_run_id, []).append(
                LoggedModel(
                    model_id=model.model_id,
                    run_id=model.source_run_id,
                    name=clean(model.name)[:LONGEST_NAME],
                    artifact_uri=model.artifact_location,
                    updated=model.last_updated_timestamp,
                )
            )
        return models

    def listings(self, artifact_uris: list[str]) -> dict[str, tuple[StoredFile, ...] | StoreError]:
        """List the files below several artifact locations concurrently; one that cannot be listed maps to its error.

        Raises StoreUnreachable or AccessRefused, because these concern all locations of the server.
        """

        def listed(uri: str) -> tuple[StoredFile, ...] | StoreError:
            try:
                return self.files(uri)
            except (StoreUnreachable, AccessRefused):
                raise
            except StoreError as error:
                return error

        near = {uri: listed(uri) for uri in artifact_uris if self.local_folder(uri) is not None}
        far = [uri for uri in artifact_uris if uri not in near]
        with _absent_known(), ThreadPoolExecutor(max_workers=LISTERS) as pool:
            return near | dict(zip(far, pool.map(listed, far), strict=True))

    def files(self, artifact_uri: str) -> tuple[StoredFile, ...]:
        """Return the files below an artifact location, sorted by path, to a bounded depth and number.

        If the location must not be read, raises LocationRefused without accessing it. Raises StoreError if it cannot
        be listed.
        """
        self._check_allowed(artifact_uri)
        folder = self.local_folder(artifact_uri)
        listed = self._remote_files(artifact_uri) if folder is None else _local_files(folder)
        return tuple(sorted(listed, key=lambda file: file.path))

    def _remote_files(self, artifact_uri: str) -> Iterator[StoredFile]:
        repository = self._repository(artifact_uri)
        what, place = "a run's artifacts", self._direct_place(artifact_uri)
        folders: list[tuple[str | None, int]] = [(None, 1)]
        seen = 0
        while folders:
            parent, depth = folders.pop()
            for entry in self._ask(partial(repository.list_artifacts, parent), what=what, place=place):
                seen += 1
                if seen > ENTRIES:
                    log.warning(TOO_MANY, ENTRIES, redacted(clean(artifact_uri))[:LONGEST_NAME])
                    return
                if not entry.is_dir:
                    yield StoredFile(entry.path, entry.file_size)
                elif depth < DEPTH:
                    folders.append((entry.path, depth + 1))

    def fetch(self, artifact_uri: str, path: str, folder: Path) -> Path:
        """Copy one artifact file to its own path below ``folder`` and return the copy.

        Raises StoreError or OSError. After a failed or truncated transfer, the caller removes the remains.
        """
        self._check_allowed(artifact_uri)
        source = self.local_folder(artifact_uri)
        if source is None:
            return self._fetch_remote(artifact_uri, path, folder)
        if link := next((step for step in _steps(source, path) if step.is_symlink()), None):
            raise StoreError(
                "artifact.symbolic_link",
                f"{clean(str(link))} is a symbolic link, which is not followed; log the file itself",
            )
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(source / path, target, follow_symlinks=False))

    def beginning(self, artifact_uri: str, path: str, size: int) -> bytes | None:
        """Return the first ``size`` bytes of a local file, b"" if it cannot be read; return None for a remote file."""
        folder = self.local_folder(artifact_uri)
        if folder is None:
            return None
        try:
            with (folder / path).open("rb") as file:
                return file.read(size)
        except OSError:
            return b""

    def _fetch_remote(self, artifact_uri: str, path: str, folder: Path) -> Path:
        from mlflow.utils.uri import validate_path_within_directory

        repository = self._repository(artifact_uri)
        target = folder / path

        def download() -> None:  # not download_artifacts, which lists again and keeps only the texts of exceptions
            validate_path_within_directory(str(folder), str(target))
            target.parent.mkdir(parents=True, exist_ok=True)
            repository._download_file(path, str(target))

        try:
            self._ask(download, what="a run's artifacts", place=self._direct_place(artifact_uri), pauses=())
        except StoreError as error:
            if isinstance(cause := error.__cause__, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise cause from None
            raise
        return target

    @cache  # noqa: B019 - one object per process
    def local_folder(self, artifact_uri: str) -> Path | None:
        """Return the local folder of an artifact location, remapped; None if the location is not local."""
        return self.locations.folder(artifact_uri)

    def _check_allowed(self, artifact_uri: str) -> None:
        if refusal := self.locations.refusal(artifact_uri):
            raise LocationRefused(
                "artifact.location_refused", f"{self.name} names an artifact location that must not be read: {refusal}"
            )

    def moved(self, artifact_uri: str) -> str | None:
        """Return a hint if a local artifact location and the folders of its run and experiment are missing, else None.

        MLflow creates the folder with the first artifact, so a missing one alone means nothing.
        """
        folder = self.local_folder(artifact_uri)
        if folder is None or any(place.exists() for place in (folder, *folder.parents[:2])):
            return None
        return (
            f"its artifacts were at {folder}, which does not exist; if the store was moved, "
            f"set artifact_remap, for example {{{folder.parent.parent}: /where/it/is/now}}"
        )

    def _repository(self, artifact_uri: str) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        tracking_uri, place = self._client.tracking_uri, self.locations.place(artifact_uri)
        connection.require_package(place)
        return self._ask(
            lambda: get_artifact_repository(place, tracking_uri=tracking_uri), place=self._direct_place(artifact_uri)
        )

    def _direct_place(self, artifact_uri: str) -> str | None:
        """Return where an artifact location is, remapped; None if the tracking server itself serves it."""
        place = self.locations.place(artifact_uri)
        return None if urlsplit(place).scheme in {"http", "https", "mlflow-artifacts"} else place

    def ask(self, request: Callable[["MlflowClient"], T], *, what: str = "this") -> T:
        """Return the result of a request to MLflow. Raises StoreError, which names ``what`` was requested."""
        if not self._folder:
            return self._ask(lambda: request(self._client), what=what)
        client = self._client
        with local.as_default(client.tracking_uri):
            return self._ask(lambda: request(client), what=what)

    def pages(self, page: Callable[["MlflowClient", str | None], Any]) -> Iterator[Any]:
        """Yield the items of a paged request, which takes the client and the token of a page."""
        token = None
        while True:
            result = self.ask(_with_token(page, token))
            yield from result
            token = result.token
            if not token:
                return

    def _ask(
        self,
        request: Callable[[], T],
        *,
        what: str = "this",
        place: str | None = None,
        pauses: Sequence[float] = PAUSES,
    ) -> T:
        """Make a request, and retry if the response was cut short. See ``failures.store_error`` for the arguments."""
        for pause in pauses:
            try:
                return self._ask_once(request, what, place)
            except TransferBroken as error:
                log.warning("%s Retrying in %d s.", error, pause)
                time.sleep(pause)
        return self._ask_once(request, what, place)

    def _ask_once(self, request: Callable[[], T], what: str, place: str | None) -> T:
        try:
            return request()
        except StoreError:
            raise
        except Exception as error:  # MLflow passes on whatever its drivers, stores and parsers raise
            raise failures.store_error(error, self._uri, what=what, place=place) from error


def open_store(settings: "Settings", private: Path) -> TrackingStore:
    """Open the store of the settings (or of MLFLOW_TRACKING_URI) for reading.

    ``private`` is the folder for the upgraded copy of an old sqlite file. Raises StoreError, as TrackingStore does.
    """
    return TrackingStore(
        uri_of(settings),
        private=private,
        artifact_remap=settings.artifact_remap,
        allowed_schemes=settings.allowed_artifact_schemes,
    )


def uri_of(settings: "Settings") -> str:
    """Return the URI of the store in the settings or, without one, MLFLOW_TRACKING_URI."""
    return settings.mlflow_uri or os.environ["MLFLOW_TRACKING_URI"]


def error_code(error: StoreError) -> str | None:
    """Return MLflow's own error code for the exception that caused a StoreError."""
    return getattr(error.__cause__, "error_code", None)


@contextmanager
def _absent_known() -> Iterator[None]:
    """Let every import of a module of ``PROBED`` that is not installed fail at once inside a ``with`` block."""
    absent = [name for name in PROBED if name not in sys.modules and find_spec(name) is None]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None marks a module that does not exist
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def _with_token(
    page: Callable[["MlflowClient", str | None], Any], token: str | None
) -> Callable[["MlflowClient"], Any]:
    return lambda client: page(client, token)


def _sqlite_file(uri: str) -> Path | None:
    match = re.match(r"sqlite(?:\+\w+)?:///([^?]+)", uri)
    return Path(match[1]).resolve() if match else None  # sqlite keeps its other files beside the target of a link


def _store_folder(uri: str) -> Path | None:
    path = path_of(uri)
    return None if urlsplit(path).scheme else Path(path).absolute()


def _refuse_missing(uri: str) -> None:
    file, folder = _sqlite_file(uri), _store_folder(uri)
    if file is None and folder is None:
        raise StoreError(
            "store.unsupported_uri",
            f"{redacted(uri)} cannot be opened without changing it; set mlflow_uri to the http(s):// address of an "
            "MLflow server, to sqlite:/// and a file, or to a folder",
        )
    if not ((file and file.is_file()) or (folder and folder.is_dir())):
        raise StoreError(
            "store.missing", f"the MLflow store {file or folder} does not exist; set mlflow_uri to your store or server"
        )


def _steps(folder: Path, path: str) -> Iterator[Path]:
    """Yield each step on the way from a folder to a path below it, the last one included."""
    for part in Path(path).parts:
        folder = folder / part
        yield folder


def _local_files(folder: Path) -> Iterator[StoredFile]:
    seen, prefix = 0, os.path.join(folder, "")  # noqa: PTH118 - a Path has no separator at its end
    folders = [(folder, 1)] if folder.is_dir() else []
    while folders:
        parent, depth = folders.pop()
        for entry in _entries(parent):
            seen += 1
            if seen > ENTRIES:
                log.warning(TOO_MANY, ENTRIES, clean(str(folder)))
                return
            if entry.is_dir(follow_symlinks=False):
                if depth < DEPTH:
                    folders.append((Path(entry.path), depth + 1))
            elif entry.is_file(follow_symlinks=False):
                stat = entry.stat()
                path = entry.path.removeprefix(prefix).replace(os.sep, "/")
                yield StoredFile(path, stat.st_size, stat.st_mtime_ns)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError as error:
        raise StoreError(
            "artifact.unreadable", f"the artifacts in {folder} cannot be read: {error.strerror}"
        ) from error
