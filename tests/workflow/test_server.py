"""The workflow against a real MLflow server, and without it."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.studio import Studio, environment, jobs, kill_group
from helpers.weights import grey, grey_checkpoint

pytestmark = pytest.mark.scenarios


class Server:
    """An MLflow server on loopback, with a sqlite store and proxied artifacts, which can go away and come back."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it unless it is running; return when it answers."""
        if self._process:
            return
        store = ["--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}", "--serve-artifacts"]
        artifacts = ["--artifacts-destination", str(self._folder / "artifacts")]
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *store, *artifacts, *address],
                cwd=self._folder,
                env=environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process:
            kill_group(self._process)
        self._process = None

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=5).status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def server(one_server: Server) -> Server:
    """The module's server, running."""
    one_server.start()
    return one_server


def test_a_changed_run_of_a_server_is_noticed(server, tmp_path):
    studio = Studio(tmp_path, server.uri, experiment="changing")
    studio.config |= {"filter_status": "none", "compare": False}
    studio.add_frames(2)
    done = studio.add_run("done", grey_checkpoint(0.1))
    again = studio.add_run("again", grey_checkpoint(0.2))
    growing = studio.add_run("growing", grey_checkpoint(0.3), path="checkpoints/epoch_1.pth", status="RUNNING")

    studio.snakemake()
    for log in studio.output.glob("logs/download_*.log"):
        assert len(log.read_text().splitlines()) == 1, log.read_text()  # no progress bars

    assert [line["status"] for line in studio.summary()] == ["success"] * 3
    assert [studio.levels(run)[0] for run in (done, again, growing)] == [grey(0.1), grey(0.2), grey(0.3)]
    assert "Nothing to be done" in studio.snakemake("-n")

    before = studio.written(done)
    studio.client.update_run(again, status="RUNNING")
    studio.log_checkpoint(again, grey_checkpoint(0.4), path="checkpoints/best_model_v2.pth")
    studio.client.set_terminated(again)
    studio.log_checkpoint(growing, grey_checkpoint(0.5), path="checkpoints/epoch_2.pth")
    output = studio.snakemake()

    assert jobs(output, "infer") == sorted(studio.folder(run).name for run in (again, growing))
    assert [studio.levels(run)[0] for run in (done, again, growing)] == [grey(0.1), grey(0.4), grey(0.5)]
    assert studio.written(done) == before


def test_known_models_go_on_without_their_server(server, tmp_path):
    studio = Studio(tmp_path, server.uri, experiment="known")
    studio.config["compare"] = False
    studio.add_frames(2)
    run_id = studio.add_run("known", grey_checkpoint(0.1))
    studio.snakemake()
    about, before = studio.metadata(run_id), studio.written(run_id)
    warning = f"the MLflow server {server.uri} does not answer: [Errno 111] Connection refused."

    server.stop()
    (studio.folder(run_id) / "metadata.json").unlink()
    output = studio.snakemake()

    assert output.count(warning) == 1
    assert "Continuing with the models already known: 1" in output
    assert not jobs(output, "infer")
    assert studio.metadata(run_id) == about
    assert [line["status"] for line in studio.summary()] == ["success"]

    studio.add_frames(1, start=2)
    output = studio.snakemake(expect=1)

    assert f"dailies: 1 of 1 models failed: known ({run_id[:8]}) download_failed: {warning}" in output
    assert "Traceback" not in output
    assert [line["status"] for line in studio.summary()] == ["download_failed"]
    assert studio.written(run_id) == before


def test_nothing_known_and_no_server_is_one_error_within_seconds(studio):
    studio.add_frames(1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"

    started = time.monotonic()
    output = studio.snakemake(expect=1, mlflow_uri=uri)

    assert time.monotonic() - started < 10
    assert (
        f"dailies: the MLflow server {uri} does not answer: [Errno 111] Connection refused. Check mlflow_uri" in output
    )
    assert output.count("dailies: ") == 1
    assert "Traceback" not in output
