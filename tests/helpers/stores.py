"""Real MLflow stores for tests: sqlite files and folders, a server, and a proxy before it that counts and fails."""

import atexit
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dailies.planning.config import Settings
from dailies.planning.validation import validated
from dailies.store.entities import Run
from dailies.store.tracking import TrackingStore
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _use_tracking_uri

from helpers import REPOSITORY

os.environ |= {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}

BEST = "checkpoints/best_model_unet.pth"


def configured(uri: str | None, **changes: Any) -> Settings:
    """Return the settings for a store."""
    return validated({"mlflow_uri": uri, "experiment_name": "exp"} | changes)


def runs_of(tracking: TrackingStore, *names: str, **question: Any) -> list[Run]:
    """Give the runs of experiments, of ``exp`` where none is named."""
    return tracking.runs(tracking.experiments(names or ["exp"]), **question)


class Shelf:
    """A store with one experiment, ``exp``, and what a training script does with it."""

    def __init__(self, root: Path, uri: str, *, experiment: str = "exp", location: str | None = None) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.uri = uri
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self.experiment = self.client.create_experiment(experiment, artifact_location=location)

    def run(
        self,
        name: str,
        *paths: str,
        status: str | None = "FINISHED",
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        experiment: str | None = None,
    ) -> str:
        """Log a run with artifacts whose content is their path; one without a status is still running."""
        run_id = self.client.create_run(experiment or self.experiment, run_name=name).info.run_id
        self.client.log_batch(
            run_id,
            params=[Param(key, value) for key, value in (params or {}).items()],
            metrics=[Metric(key, value, 1, 0) for key, value in (metrics or {}).items()],
            tags=[RunTag(key, value) for key, value in (tags or {}).items()],
        )
        for path in paths:
            self.log(run_id, path)
        if status:
            self.client.set_terminated(run_id, status=status)
        return run_id

    def log(self, run_id: str, path: str, content: bytes | None = None) -> None:
        local, folder = self._outbox(path, content)
        self.client.log_artifact(run_id, str(local), folder)

    def logged_model(self, run_id: str, *paths: str, name: str = "model", ready: bool = True) -> str:
        """Log a model as MLflow 3 does, beside its run."""
        model = self.client.create_logged_model(self.experiment, name=name, source_run_id=run_id)
        for path in paths:
            local, _ = self._outbox(path, None)
            self.client.log_model_artifact(model.model_id, str(local))
        status = LoggedModelStatus.READY if ready else LoggedModelStatus.FAILED
        self.client.finalize_logged_model(model.model_id, status)
        return model.model_id

    def register(self, name: str, source: str, *, run_id: str | None = None, alias: str | None = None) -> str:
        """Register a version of a model, whose registry comes into being with the first one; give its number."""
        model_id = source.removeprefix("models:/") if source.startswith("models:/m-") else None
        with _use_tracking_uri(self.uri):  # MLflow 3.17 looks for logged models there
            with suppress(MlflowException):
                self.client.create_registered_model(name)
            made = self.client.create_model_version(name, source, run_id=run_id, model_id=model_id)
            if alias:
                self.client.set_registered_model_alias(name, alias, made.version)
        return str(made.version)

    def _outbox(self, path: str, content: bytes | None) -> tuple[Path, str | None]:
        local = self.root / "outbox" / Path(path).name
        local.parent.mkdir(exist_ok=True)
        local.write_bytes(path.encode() if content is None else content)
        folder = str(Path(path).parent)
        return local, None if folder == "." else folder

    def stored(self, run_id: str, path: str = "") -> Path:
        """The file of an artifact on this disk."""
        return Path(urlsplit(self.client.get_run(run_id).info.artifact_uri).path) / path


@cache
def _empty_database() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="dailies-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


def sqlite_shelf(root: Path, name: str = "mlflow.db") -> Shelf:
    """Make a sqlite store with its artifacts beside it; an empty one is copied, as making one takes seconds."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(_empty_database(), root / name)
    return Shelf(root, f"sqlite:///{root / name}", location=(root / "artifacts").as_uri())


def folder_shelf(root: Path) -> Shelf:
    return Shelf(root, str(root / "mlruns"))


def mlflow2(root: Path) -> Path:
    """Unpack the stores that MLflow 2.19 made; their artifact locations are below /tmp/dailies-mlflow2."""
    with tarfile.open(REPOSITORY / "tests" / "fixtures" / "mlflow2.tar.gz") as archive:
        archive.extractall(root, filter="data")
    return root


def multiply(database: Path, run_id: str, count: int) -> list[str]:
    """Copy a run so many times within a sqlite store, in one transaction; each starts a millisecond later."""
    run_ids = [uuid.uuid4().hex for _ in range(count)]
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        for table in ("runs", "params", "tags", "latest_metrics"):
            rows = connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run_id,)).fetchall()
            for number, new in enumerate(run_ids, start=1):
                for row in rows:
                    copy = dict(row) | {"run_uuid": new}
                    if table == "runs":
                        copy["name"] = f"{row['name']}_{number}"
                        copy["artifact_uri"] = row["artifact_uri"].replace(run_id, new)
                        copy["start_time"] = row["start_time"] + number
                    marks = ", ".join("?" * len(copy))
                    connection.execute(f"INSERT INTO {table} ({', '.join(copy)}) VALUES ({marks})", [*copy.values()])
        connection.commit()
    return run_ids


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its bytes, every folder with None."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def forget_start(database: Path, run_id: str) -> None:
    """Take a run's start time out of a sqlite store."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE runs SET start_time = NULL WHERE run_uuid = ?", [run_id])
        connection.commit()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@cache
def server_folder() -> Path:
    """Where the server keeps its database and its artifacts."""
    return new_server_folder()


def new_server_folder() -> Path:
    """Make a folder with an empty database, which goes with this process."""
    root = Path(tempfile.mkdtemp(prefix="dailies-server-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    shutil.copy(_empty_database(), root / "mlflow.db")
    return root


@cache
def server() -> str:
    """Start ``mlflow server`` with proxied artifacts, once for all tests of this process; give its address."""
    return served(server_folder(), "--artifacts-destination", str(server_folder() / "files"))


def served(root: Path, *options: str, store: str | None = None, **environment: str) -> str:
    """Start ``mlflow server`` over a store, else the database in the folder, until this process ends; give its address.

    ``PYTHONPATH`` may name the folder of another MLflow.
    """
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    database = ["--backend-store-uri", store or f"sqlite:///{root / 'mlflow.db'}"]
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *address, *database, *options],
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=root,
            start_new_session=True,
        )
    atexit.register(process.wait)
    atexit.register(os.killpg, process.pid, signal.SIGKILL)  # a test process that lingers is ended, its servers are not
    uri = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while not _is_healthy(port):
        assert process.poll() is None, (root / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return uri


def _is_healthy(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
    except OSError:
        return False


def server_shelf(root: Path) -> Shelf:
    """An experiment of its own on the server; ``exp`` is taken by the first test, so its name is unique."""
    return Shelf(root, server(), experiment=f"exp_{uuid.uuid4().hex[:8]}")


Trouble = Callable[[str, str], tuple[Any, ...] | str | None]
"""From method and path to what goes wrong, or None.

A status and a value to answer, JSON or the bytes of a page, and headers, if any; with status 302 the value is the
address to go to instead. "drop" gives no answer, "cut" half a body of the length announced, "short" half a body that
seems to be whole.
"""


class Proxy:
    """Stands between a client and the server: keeps the requests, and fails as it is told.

    With ``tls`` it speaks TLS. With ``token`` it lets through who brings that one, as ``login`` (name and password).
    It may also be named as the client's own proxy (``HTTP_PROXY``).
    """

    def __init__(
        self,
        target: str,
        *,
        tls: ssl.SSLContext | None = None,
        token: str | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.trouble: Trouble = lambda method, path: None
        self.token, self.login = token, login
        self.requests: list[str] = []
        """Method, path and query of each request, in order."""
        self.headers: list[dict[str, str]] = []
        """The headers of each request, with small letters."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, urlsplit(target).netloc))
        self._server.handle_error = lambda request, address: None  # clients that go away, or trust no certificate
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        self.uri = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, request)) for request in self.requests)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(proxy: Proxy, target: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            proxy.requests.append(f"{self.command} {self.path}")
            proxy.headers.append({key.lower(): value for key, value in self.headers.items()})
            trouble = proxy.trouble(self.command, self.path)
            if trouble is None and proxy.token and self.headers.get("Authorization") != f"Bearer {proxy.token}":
                trouble = 401, {"error_code": "UNAUTHENTICATED", "message": "The access token is invalid"}
            self.close_connection = True
            if isinstance(trouble, tuple):
                self._trouble(*trouble)
            elif trouble != "drop":
                self._forward(body, trouble)

        do_POST = do_PUT = do_PATCH = do_HEAD = do_CONNECT = do_GET  # noqa: N815

        def _trouble(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
            headers = {"Location": value} if status == 302 else headers or {}
            if isinstance(value, bytes):
                self._answer(status, value, {"Content-Type": "text/html"} | headers)
            else:
                self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | headers)

        def _forward(self, body: bytes, trouble: str | None) -> None:
            with closing(http.client.HTTPConnection(target)) as connection:
                headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
                if proxy.login:
                    headers["Authorization"] = f"Basic {b64encode(':'.join(proxy.login).encode()).decode()}"
                connection.request(
                    self.command, urlsplit(self.path)._replace(scheme="", netloc="").geturl(), body, headers
                )
                answer = connection.getresponse()
                data = answer.read()
                kept = {
                    key: value
                    for key, value in answer.getheaders()
                    if key.lower() not in {"content-length", "transfer-encoding", "connection"}
                }
                size = answer.getheader("Content-Length") if self.command == "HEAD" else len(data)
                half = data[: len(data) // 2]
                if trouble == "short":
                    self._answer(answer.status, half, kept)
                else:
                    self._answer(answer.status, half if trouble == "cut" else data, kept, size=size)

        def _answer(self, status: int, data: bytes, headers: Mapping[str, str], size: Any = None) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data) if size is None else size))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            """Keep the tests quiet."""

    return Handler


@contextmanager
def proxied(target: str | None = None, **how: Any) -> Iterator[Proxy]:
    proxy = Proxy(target or server(), **how)
    try:
        yield proxy
    finally:
        proxy.close()


@contextmanager
def stranger() -> Iterator[Proxy]:
    """Another host than the server, which would list one file of weights to whoever asks; it keeps the requests."""
    proxy = Proxy("http://127.0.0.1:9")
    proxy.trouble = lambda method, path: (200, {"files": [{"path": "best.pth", "is_dir": False, "file_size": 3}]})
    try:
        yield proxy
    finally:
        proxy.close()


def relocate(run_id: str, location: str) -> None:
    """Let the server name another location for a run's artifacts."""
    with closing(sqlite3.connect(server_folder() / "mlflow.db")) as connection:
        connection.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", [location, run_id])
        connection.commit()


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """The JSON files of a folder by their names without ending; NaN and infinities are refused."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return {path.stem: json.loads(path.read_text(), parse_constant=refuse) for path in folder.glob("*.json")}
