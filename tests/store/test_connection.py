"""Timeouts and retries of requests to servers."""

import re

from dailies.store import connection
from helpers import REPOSITORY
from mlflow.telemetry.utils import is_telemetry_disabled

SERVERS = REPOSITORY / "docs" / "servers.md"


def test_the_page_on_servers_states_the_timeouts():
    tries = {3: "three", 4: "four"}[1 + int(connection.ENVIRONMENT["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])]
    timeout = connection.ENVIRONMENT["MLFLOW_HTTP_REQUEST_TIMEOUT"]
    page = re.sub(r"\s+", " ", SERVERS.read_text())

    assert (
        f"the first connection times out after {connection.CONNECT_SECONDS} s. Each request is tried up to {tries} "
        f"times, for at most {timeout} s each."
    ) in page


def test_an_unanswered_request_ends_within_minutes():
    """Four attempts of 30 s and pauses of 0, 2 and 4 s; MLflow's own defaults take half an hour."""
    tries, timeout = (int(connection.ENVIRONMENT[f"MLFLOW_HTTP_REQUEST_{n}"]) for n in ("MAX_RETRIES", "TIMEOUT"))
    pause = float(connection.ENVIRONMENT["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"])

    assert (1 + tries) * timeout + sum(pause * 2**number for number in range(1, tries)) < 130


def test_mlflow_sends_no_telemetry(monkeypatch):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)

    connection.set_environment_defaults()

    assert is_telemetry_disabled()
