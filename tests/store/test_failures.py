"""Errors of servers and artifact stores: exceptions of libraries, and the responses of a small HTTP server."""

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore import exceptions as botocore
from dailies.core.errors import AccessRefused, StoreError, StoreUnreachable, TransferBroken
from dailies.store import failures
from dailies.store.tracking import TrackingStore
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, PERMISSION_DENIED, UNAUTHENTICATED
from requests import Response, exceptions

S3, ENDPOINT = "s3://bucket/1/run", "https://s3.studio"
LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def of_s3(code: str, message: str, status: int = 403) -> Exception:
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.ClientError(answer, "ListObjectsV2")


def of_http(status: int, reason: str) -> Exception:
    response = Response()
    response.status_code, response.reason = status, reason
    return exceptions.HTTPError(f"{status} Client Error: {reason}", response=response)


def handed_on(error: Exception, code: int | None = None) -> Exception:
    """Return the exception that MLflow raises from one of botocore."""
    try:
        try:
            raise error
        except Exception:
            raise MlflowException("Failed to list artifacts: No.", error_code=code or INTERNAL_ERROR)  # noqa: B904
    except MlflowException as raised:
        return raised


def error_of(error: Exception, place: str | None = S3) -> StoreError:
    return failures.store_error(error, "http://tracker", place=place)


@pytest.mark.parametrize(
    ("error", "kind", "code", "setting"),
    [
        (botocore.EndpointConnectionError(endpoint_url=ENDPOINT), StoreUnreachable, "unreachable", "S3_ENDPOINT_URL"),
        (botocore.ConnectTimeoutError(endpoint_url=ENDPOINT), StoreUnreachable, "unreachable", "S3_ENDPOINT_URL"),
        (botocore.ReadTimeoutError(endpoint_url=ENDPOINT), StoreUnreachable, "unreachable", "S3_ENDPOINT_URL"),
        (botocore.ConnectionClosedError(endpoint_url=ENDPOINT), StoreUnreachable, "unreachable", "S3_ENDPOINT_URL"),
        (botocore.ProxyConnectionError(proxy_url=ENDPOINT), StoreUnreachable, "unreachable", "S3_ENDPOINT_URL"),
        (botocore.SSLError(endpoint_url=ENDPOINT, error="x"), StoreUnreachable, "unreachable", "AWS_CA_BUNDLE"),
        (botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2), TransferBroken, "cut_short", "1 read"),
        (botocore.NoCredentialsError(), AccessRefused, "keys_refused", "AWS_ACCESS_KEY_ID"),
        (botocore.PartialCredentialsError(provider="env", cred_var="x"), AccessRefused, "keys_refused", "AWS_PROFILE"),
        (botocore.ProfileNotFound(profile="studio"), AccessRefused, "keys_refused", "AWS_PROFILE"),
        (botocore.UnauthorizedSSOTokenError(), AccessRefused, "keys_refused", "AWS_PROFILE"),
        (
            of_s3("InvalidAccessKeyId", "It is unknown."),
            AccessRefused,
            "keys_refused",
            "answers 403: An error occurred",
        ),
        (handed_on(of_s3("SignatureDoesNotMatch", "No.")), AccessRefused, "keys_refused", "AWS_SECRET_ACCESS_KEY"),
        (handed_on(of_s3("ExpiredToken", "No.", 400)), AccessRefused, "keys_refused", "answers 400: Failed to list"),
        (of_s3("AccessDenied", "No."), StoreError, "permission_denied", "answers 403"),
        (MlflowException("No.", error_code=PERMISSION_DENIED), StoreError, "permission_denied", "AWS_PROFILE"),
        (of_s3("NoSuchBucket", "No.", 404), StoreError, "failed", "artifact_remap"),
        (Exception("Slow down"), StoreError, "failed", "the artifact store s3://bucket says: Slow down."),
        (KeyError(), StoreError, "failed", "the artifact store s3://bucket says: KeyError."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_of_an_artifact_store_names_a_setting(error, kind, code, setting):
    found = error_of(error)

    assert (type(found), found.code) == (kind, f"artifact_store.{code}")
    assert "the artifact store s3://bucket" in str(found)
    assert setting in str(found)


@pytest.mark.parametrize(
    ("error", "kind", "code", "words"),
    [
        (RestException({"error_code": "UNAUTHENTICATED", "message": "no"}), AccessRefused, "login_refused", LOGIN[2]),
        (RestException({"error_code": "CUSTOMER_UNAUTHORIZED", "message": "no"}), AccessRefused, "login_refused", "no"),
        (of_http(407, "Proxy Authentication Required"), StoreUnreachable, "proxy", "HTTPS_PROXY"),
        (of_http(403, "Forbidden"), StoreError, "permission_denied", "answers 403: 403 Client Error: Forbidden"),
        (of_http(404, "Not Found"), StoreError, "failed", "answers 404"),
        (RestException({"error_code": "PERMISSION_DENIED", "message": "no"}), StoreError, "permission_denied", "READ"),
        (MlflowException("no", error_code=UNAUTHENTICATED), AccessRefused, "login_refused", "answers 401"),
        (KeyError("files"), StoreError, "failed", "says: 'files'"),
        (exceptions.ReadTimeout("slow"), StoreUnreachable, "unreachable", "MLFLOW_HTTP_REQUEST_TIMEOUT"),
        (exceptions.SSLError("hostname mismatch"), StoreUnreachable, "certificate", "TRACKING_SERVER_CERT_PATH"),
        (exceptions.RetryError("too many 504 error responses"), StoreUnreachable, "unreachable", "too many 504"),
    ],
)
def test_an_error_of_a_server_has_its_code(error, kind, code, words):
    found = error_of(error, place=None)

    assert (type(found), found.code) == (kind, f"store.{code}")
    assert "the MLflow server http://tracker" in str(found)
    assert words in str(found)


def test_secrets_are_masked_anywhere_in_a_text(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "hush-1")
    monkeypatch.setenv("MY_API_KEY", "short")

    text = failures.quoted("hush-1, Basic bWU6aHVzaA==, Bearer ab.c-d_e, s3://me:hush@host, short")

    assert text == "***, Basic ***, Bearer ***, s3://***@host, short"


def test_the_text_of_a_library_is_shortened():
    assert len(str(error_of(Exception("x" * 10_000)))) < 600
    assert len(str(error_of(Exception("x" * 10_000), place=None))) < 600


Answer = tuple[int, str, str]
"""Status, type and text."""


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start healthy servers that send one answer to every request, or another at some paths; return their addresses."""
    servers = []

    def start(answer: Answer, **paths: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.strip("/").replace("/", "_")
                status, kind, text = paths.get(name, (200, "text/plain", "OK") if name == "health" else answer)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text)))
                if 300 < status < 400:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=[0.02], daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def error_from(uri: str, folder: Path) -> StoreError:
    """Ask for an experiment and return the error."""
    with pytest.raises(StoreError) as caught:
        TrackingStore(uri, private=folder).experiments(["shot"])
    return caught.value


HTML, JSON, TEXT = "text/html", "application/json", "text/plain"
ARTIFACTS_ONLY = "disabled due to the mlflow server running in `--artifacts-only` mode"
HOST = "Invalid Host header - possible DNS rebinding attack detected"


@pytest.mark.parametrize(
    ("answer", "kind", "code", "words"),
    [
        ((405, JSON, '{"detail":"Method Not Allowed"}'), StoreError, "not_mlflow", "Method Not Allowed"),
        ((404, JSON, '{"detail":"Not Found"}'), StoreError, "not_mlflow", "Not Found"),
        ((418, TEXT, "I want a cup"), StoreError, "not_mlflow", "I want a cup"),
        ((404, HTML, "<html><h1>No page</h1></html>"), StoreError, "not_mlflow", "answers 404: No page."),
        ((200, TEXT, "Hello, I am Grafana"), StoreError, "not_mlflow", "Hello, I am Grafana"),
        ((200, HTML, "<p>Please sign in"), StoreError, "not_mlflow", "login page"),
        ((200, JSON, "[]"), StoreError, "not_mlflow", "mlflow_uri"),
        ((200, JSON, '{"hello":"world"}'), StoreError, "not_mlflow", "mlflow_uri"),
        ((302, TEXT, ""), StoreError, "not_mlflow", "redirects"),
        (
            (400, JSON, '{"error_code":"INVALID_PARAMETER_VALUE","message":"No workspace"}'),
            StoreError,
            "failed",
            "No w",
        ),
        (
            (500, JSON, '{"error_code":"INTERNAL_ERROR","message":"disk full"}'),
            StoreUnreachable,
            "unreachable",
            "disk f",
        ),
        ((502, HTML, "<html><h1>Bad Gateway</h1><hr>nginx"), StoreUnreachable, "unreachable", "Bad Gateway nginx"),
        ((503, TEXT, ""), StoreUnreachable, "unreachable", "Service Unavailable"),
        ((503, HTML, f"<p>{ARTIFACTS_ONLY}"), StoreUnreachable, "unreachable", ARTIFACTS_ONLY),
        ((520, HTML, "<h1>Web server is down</h1>"), StoreUnreachable, "unreachable", "Web server is down"),
        ((401, JSON, '{"message":"token expired"}'), AccessRefused, "login_refused", "token expired"),
        ((401, HTML, "<p>token expired"), AccessRefused, "login_refused", "MLFLOW_TRACKING_TOKEN"),
        ((403, TEXT, HOST), StoreError, "permission_denied", HOST),
    ],
)
def test_a_server_is_quoted_with_its_status(serve, tmp_path, monkeypatch, answer, kind, code, words):
    monkeypatch.setattr("urllib3.util.retry.time.sleep", lambda seconds: None)
    monkeypatch.setattr("dailies.store.tracking.time.sleep", lambda seconds: None)
    uri = serve(answer)

    error = error_from(uri, tmp_path)

    assert (type(error), error.code) == (kind, f"store.{code}")
    assert uri in str(error)
    assert words in str(error)
    if answer[0] not in {200, 302}:
        assert f"answers {answer[0]}" in str(error)


@pytest.mark.parametrize("first", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00"])
def test_a_port_of_another_protocol_is_no_mlflow(tmp_path, first):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            caller, _ = server.accept()
            with caller:
                caller.sendall(first)
                caller.recv(1000)

        threading.Thread(target=greet, daemon=True).start()
        error = error_from(f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path)

    assert (type(error), error.code) == (StoreUnreachable, "store.unreachable")
    assert "mlflow_uri" in str(error)
    assert first.decode(errors="replace").strip().isprintable() <= (
        first.decode(errors="replace").strip() in str(error)
    )
