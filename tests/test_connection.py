"""What libraries say of artifact stores and servers, in words; nothing is asked here."""

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore import exceptions as botocore
from dailies import connection
from dailies.errors import AccessRefused, StoreError, StoreUnreachable, TransferBroken
from dailies.store import TrackingStore
from helpers import REPOSITORY
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, UNAUTHENTICATED

S3, ENDPOINT = "s3://bucket/1/run", "https://s3.studio"
KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
NO_KEYS = f"the artifact store s3://bucket asks for keys, and there are none here; set {KEYS}"
OTHER_KEYS = f"refuses the keys sent to it: they are wrong, or no longer valid; correct {KEYS}"
SILENT = "the artifact store s3://bucket does not answer ({}); check MLFLOW_S3_ENDPOINT_URL and the network"
NOT_THESE = "the artifact store s3://bucket does not let these keys list or read s3://bucket/1/run"
SERVERS = REPOSITORY / "docs" / "servers.md"


def of_s3(code: str, message: str, operation: str = "ListObjectsV2") -> Exception:
    return botocore.ClientError({"Error": {"Code": code, "Message": message}}, operation)


def explained(error: Exception, place: str | None = S3) -> StoreError:
    return connection.explained(error, "http://tracker", place=place)


@pytest.mark.parametrize(
    "error",
    [
        botocore.EndpointConnectionError(endpoint_url=ENDPOINT),
        botocore.ConnectTimeoutError(endpoint_url=ENDPOINT),
        botocore.ReadTimeoutError(endpoint_url=ENDPOINT),
        botocore.ConnectionClosedError(endpoint_url=ENDPOINT),
        botocore.ProxyConnectionError(proxy_url=ENDPOINT),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_artifact_store_that_does_not_answer(error):
    found = explained(error)

    assert type(found) is StoreUnreachable
    assert str(found) == SILENT.format(error)


@pytest.mark.parametrize(
    "error",
    [
        botocore.NoCredentialsError(),
        botocore.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
        botocore.ProfileNotFound(profile="studio"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_keys(error):
    assert (type(explained(error)), str(explained(error))) == (AccessRefused, NO_KEYS)


@pytest.mark.parametrize(
    "error",
    [
        of_s3("InvalidAccessKeyId", "The AWS Access Key Id you provided is unknown."),
        of_s3("SignatureDoesNotMatch", "Check your key."),
        of_s3("ExpiredToken", "Ask for another."),
        of_s3("InvalidToken", "It is malformed."),
        of_s3("InvalidClientTokenId", "It is unknown."),
        botocore.UnauthorizedSSOTokenError(),
        botocore.SSOTokenLoadError(error_msg="Token for studio does not exist"),
        # what MLflow hands on: the sentence, with a code of its own, or with none
        MlflowException("Something of keys", error_code=UNAUTHENTICATED),
        MlflowException("The AWS Access Key Id you provided does not exist in our records."),
        MlflowException("The request signature we calculated does not match the signature you provided."),
        MlflowException("The provided token has expired."),
        MlflowException("The security token included in the request is invalid."),
    ],
    ids=lambda error: str(error)[:40],
)
def test_keys_that_are_wrong_or_no_longer_valid(error):
    found = explained(error)

    assert type(found) is AccessRefused
    assert str(found) == f"the artifact store s3://bucket {OTHER_KEYS}"


@pytest.mark.parametrize(
    "error",
    [
        of_s3("AccessDenied", "No."),
        of_s3("403", "No.", "HeadObject"),
        of_s3("Other", "User: me is not authorized to perform: s3:ListBucket"),
        MlflowException("Access Denied"),
        MlflowException("Forbidden"),
        MlflowException("Something of rights", error_code=PERMISSION_DENIED),
    ],
    ids=lambda error: str(error)[:40],
)
def test_keys_that_may_not_read(error):
    assert (type(explained(error)), str(explained(error))) == (StoreError, NOT_THESE)


@pytest.mark.parametrize("error", [of_s3("NoSuchBucket", "No."), MlflowException("The bucket does not exist")])
def test_a_bucket_that_is_not_there(error):
    assert str(explained(error)) == (
        "the artifact store s3://bucket does not exist; if the files were moved, set artifact_remap; if it is not "
        "Amazon's, set MLFLOW_S3_ENDPOINT_URL"
    )


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (botocore.SSLError(endpoint_url=ENDPOINT, error="x"), StoreUnreachable, "set AWS_CA_BUNDLE to the file of its"),
        (Exception("IncompleteRead(3 bytes read)"), TransferBroken, "s3://bucket broke off: IncompleteRead(3 bytes"),
        (Exception("Slow down"), StoreError, "the artifact store s3://bucket says: Slow down"),
        (KeyError(), StoreError, "the artifact store s3://bucket says: KeyError"),
    ],
)
def test_other_trouble_with_an_artifact_store(error, kind, words):
    assert type(explained(error)) is kind
    assert words in str(explained(error))


@pytest.mark.parametrize(
    ("place", "keys"),
    [
        ("gs://bucket/1/run", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("wasbs://files@account.blob.core.windows.net/1/run", connection.AZURE),
        ("abfss://files@account.dfs.core.windows.net/1/run", connection.AZURE),
        ("dbfs:/1/run", "them"),
    ],
)
def test_what_is_said_of_a_store_that_is_not_s3_names_its_own_settings(place, keys):
    refused, missing, distrusted = (
        str(explained(Exception(text), place))
        for text in ("Token has been expired.", "The bucket does not exist.", "[SSL: CERTIFICATE_VERIFY_FAILED]")
    )

    assert refused.endswith(f"refuses the keys sent to it: they are wrong, or no longer valid; correct {keys}")
    assert missing.endswith("does not exist; if the files were moved, set artifact_remap")
    assert "set REQUESTS_CA_BUNDLE to the file of its certificate (.pem)" in distrusted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("certificate verify failed: certificate is not yet valid", "has expired, or is not valid yet"),
        ("certificate verify failed: certificate has expired", "has expired, or is not valid yet"),
        ("Hostname mismatch, certificate is not valid for 'tracker'", "is for another host than tracker"),
        ("IP address mismatch, certificate is not valid for '10.0.0.1'", "is for another host than tracker"),
        ("hostname 'tracker' doesn't match 'mlflow'", "is for another host than tracker"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate", "is not trusted; if your studio has"),
    ],
)
def test_a_certificate_that_is_not_accepted_in_the_middle(text, words):
    found = explained(MlflowException(f"Max retries exceeded (Caused by SSLError({text}))"), place=None)

    assert type(found) is StoreUnreachable
    assert str(found).startswith(f"the certificate of http://tracker {words}")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (MlflowException("API request failed with error code 401 != 200"), AccessRefused, "asks for a login"),
        (RestException({"error_code": "UNAUTHENTICATED", "message": "no"}), AccessRefused, "asks for a login"),
        (RestException({"error_code": "CUSTOMER_UNAUTHORIZED", "message": "no"}), AccessRefused, "asks for a login"),
        (Exception("407 Client Error: Proxy Authentication Required"), AccessRefused, "correct HTTPS_PROXY or HTTP_"),
        (Exception("403 Client Error: Forbidden"), StoreError, "(403: 403 Client Error: Forbidden); ask its"),
        (RestException({"error_code": "PERMISSION_DENIED", "message": "no"}), StoreError, "ask its administrator"),
        (MlflowException("API request to x failed with timeout. y"), StoreUnreachable, "does not answer (no answer in"),
        (MlflowException("Max retries exceeded: too many 504 error responses"), StoreUnreachable, "is in trouble (too"),
        (MlflowException("x ##### File best.pth ##### 404 Client Error: gone"), StoreError, "says: 404 Client Error"),
    ],
)
def test_what_a_server_refuses_or_does_not_do(monkeypatch, error, kind, words):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    found = explained(error, place=None)

    assert type(found) is kind
    assert words in str(found)


def test_the_login_is_the_first_of_those_that_requests_and_mlflow_look_at(monkeypatch, tmp_path):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    told = [connection.login("http://tracker")]
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
    told.append(connection.login("http://tracker"))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").touch()
    told.append(connection.login("http://tracker"))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    told.append(connection.login("http://tracker"))
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hush")
    told.append(connection.login("http://tracker"))
    told.append(connection.login("http://me:hush@tracker"))

    assert told == [
        None,
        "in MLFLOW_TRACKING_TOKEN",
        "in ~/.mlflow/credentials",
        "in ~/.mlflow/credentials",
        "in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        "in the address",
    ]


def test_secrets_are_masked_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "hush-1")
    monkeypatch.setenv("MY_API_KEY", "short")

    said = connection.masked("hush-1, Basic bWU6aHVzaA==, Bearer ab.c-d_e, s3://me:hush@host, short")

    assert said == "***, Basic ***, Bearer ***, s3://***@host, short"


def test_what_a_library_says_is_shortened():
    assert len(str(explained(Exception("x" * 10_000)))) < 600
    assert len(str(explained(Exception("x" * 10_000), place=None))) < 600


def test_the_page_on_servers_says_how_long_is_waited():
    tries = {3: "three", 4: "four"}[1 + int(connection.ENVIRONMENT["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])]
    said = re.sub(r"\s+", " ", SERVERS.read_text())

    assert (
        f"{connection.CONNECT_SECONDS} s for the first connection, and {tries} tries a question; a busy server (429, "
        f"503) up to {connection.LONGEST_WAIT} s a try"
    ) in said


def test_a_question_that_nobody_answers_ends_within_minutes():
    """Four tries of 30 s and pauses of 0, 2 and 4 s; MLflow's own would be 8 tries of 120 s and half an hour."""
    tries, timeout = (int(connection.ENVIRONMENT[f"MLFLOW_HTTP_REQUEST_{n}"]) for n in ("MAX_RETRIES", "TIMEOUT"))
    pause = float(connection.ENVIRONMENT["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"])

    assert (1 + tries) * timeout + sum(pause * 2**number for number in range(1, tries)) < 130


def test_mlflow_does_not_report_our_use_of_it():
    code = (
        "import os; os.environ.pop('MLFLOW_DISABLE_TELEMETRY', None); from dailies import connection; "
        "connection.set_out(); from mlflow.telemetry.utils import is_telemetry_disabled; print(is_telemetry_disabled())"
    )
    folder = Path(connection.__file__).parents[1]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder)}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["True"]


Answer = tuple[int, str, str]
"""Status, type and text."""


@pytest.fixture
def program() -> Iterator[Callable[..., str]]:
    """Start a program that gives one answer to every question, others at some paths; it is well. Give its address."""
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


def asked(uri: str, folder: Path) -> StoreError:
    """Ask for an experiment; return what is told instead."""
    with pytest.raises(StoreError) as caught:
        TrackingStore(uri, private=folder).experiments(["shot"])
    return caught.value


HTML, JSON, TEXT = "text/html", "application/json", "text/plain"
CHECK = "that is no answer of MLflow's: check mlflow_uri, its port, and whether a path belongs to it"
ARTIFACTS_ONLY = (
    "Endpoint: /api/2.0/mlflow/experiments/get-by-name disabled due to the mlflow server running in `--artifacts-only` "
    "mode. To enable tracking server functionality run `mlflow server` without `--artifacts-only`"
)
HOST = "Invalid Host header - possible DNS rebinding attack detected"


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (
            (405, JSON, '{"detail":"Method Not Allowed"}'),
            StoreError,
            f"{{}} answers 405, saying: Method Not Allowed; {CHECK}",
        ),
        ((404, JSON, '{"detail":"Not Found"}'), StoreError, f"{{}} answers 404, saying: Not Found; {CHECK}"),
        ((410, JSON, '{"message":"It moved"}'), StoreError, f"{{}} answers 410, saying: It moved; {CHECK}"),
        ((418, TEXT, "I want a cup"), StoreError, f"{{}} answers 418, saying: I want a cup; {CHECK}"),
        ((404, TEXT, ""), StoreError, f"{{}} answers 404, saying: nothing; {CHECK}"),
        ((200, TEXT, "Hello, I am Grafana"), StoreError, f"{{}} answers 200, saying: Hello, I am Grafana; {CHECK}"),
        ((200, JSON, "[]"), StoreError, f"{{}} answers 200, saying: []; {CHECK}"),
        (
            (200, JSON, '{"hello":"world"}'),
            StoreError,
            f"{{}} answers 200, saying: something else than an experiment; {CHECK}",
        ),
        (
            (400, JSON, '{"error_code":"INVALID_PARAMETER_VALUE","message":"No workspace"}'),
            StoreError,
            "MLflow at {} answers 400 and says: INVALID_PARAMETER_VALUE: No workspace",
        ),
        (
            (500, JSON, '{"error_code":"INTERNAL_ERROR","message":"the database\'s disk is full"}'),
            StoreUnreachable,
            "the MLflow server {} says 'the database's disk is full' and is in trouble (too many 500 error responses); "
            "try again later",
        ),
        (
            (502, HTML, "<html><h1>502 Bad Gateway</h1><hr>nginx</html>"),
            StoreUnreachable,
            "the MLflow server {} says '502 Bad Gateway nginx' and is in trouble (too many 502 error responses); "
            "try again later",
        ),
        (
            (503, TEXT, ""),
            StoreUnreachable,
            "the MLflow server {} is busy (too many 503 error responses); try again later",
        ),
        (
            (520, HTML, "<html><h1>Web server is down</h1></html>"),
            StoreUnreachable,
            "the MLflow server {} answers 520, saying: Web server is down; try again later",
        ),
        (
            (503, HTML, f"<!doctype html><title>503</title><p>{ARTIFACTS_ONLY}"),
            StoreError,
            "the MLflow server {} runs with --artifacts-only, so it knows no experiments; set mlflow_uri to the "
            f"tracking server (it answers 503: 503 {ARTIFACTS_ONLY})",
        ),
        (
            (403, TEXT, HOST),
            StoreError,
            f"the MLflow server {{}} does not answer to the host 127.0.0.1 (403: {HOST}); write the address by which "
            "it is known, or have it started with --allowed-hosts and this one",
        ),
        (
            (302, TEXT, ""),
            StoreError,
            "{} sends every question on to another address, as a login page before it does; ask for an address for "
            "programs, and check mlflow_uri",
        ),
    ],
)
def test_a_server_is_quoted_with_its_status(program, tmp_path, monkeypatch, answer, kind, sentence):
    monkeypatch.setattr("urllib3.util.retry.time.sleep", lambda seconds: None)
    monkeypatch.setattr("dailies.store.time.sleep", lambda seconds: None)
    uri = program(answer)

    error = asked(uri, tmp_path)

    assert (type(error), str(error)) == (kind, sentence.format(uri))


@pytest.mark.parametrize(
    ("given", "path", "there"),
    [("/studio", "version", ""), ("", "mlflow_version", "/mlflow"), ("/a/b/", "version", "")],
)
def test_where_mlflow_answers_instead_is_said(program, tmp_path, given, path, there):
    page = (404, HTML, "<html><h1>Not Found</h1></html>")
    uri = program(page, **{path: (200, TEXT, "3.17.2\n")})

    assert str(asked(uri + given, tmp_path)) == (
        f"{uri}{given} answers with a web page where MLflow's interface should be: a login page stands before it, or "
        "it is no MLflow server; check mlflow_uri, its port, and whether a path belongs to it, status 404; MLflow "
        f"3.17.2 answers at {uri}{there} (the page: Not Found)"
    )


@pytest.mark.parametrize("kind", [JSON, HTML])
def test_a_refused_login_is_quoted_with_its_status(program, tmp_path, monkeypatch, kind):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    uri = program((401, kind, '{"message":"token expired"}' if kind == JSON else "<p>token expired"))

    assert str(asked(uri, tmp_path)) == (
        f"the MLflow server {uri} asks for a login; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
        "or MLFLOW_TRACKING_TOKEN (401: token expired)"
    )


@pytest.mark.parametrize(
    ("first", "said"), [(b"SSH-2.0-OpenSSH_9.2\r\n", "says 'SSH-2.0-OpenSSH_9.2'"), (b"\x15\x03\x01\x00", "answers")]
)
def test_a_port_of_another_protocol_is_said_to_be_one(tmp_path, first, said):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            caller, _ = server.accept()
            with caller:
                caller.sendall(first)
                caller.recv(1000)

        threading.Thread(target=greet, daemon=True).start()
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"

        assert str(asked(uri, tmp_path)) == f"{uri} {said}, which is not HTTP; check mlflow_uri and its port"


def test_a_server_that_is_closed_says_why(program, tmp_path, monkeypatch):
    monkeypatch.setattr(connection.time, "sleep", lambda seconds: None)
    uri = program((503, TEXT, ""), health=(503, TEXT, "maintenance until 12:00"))

    assert str(asked(uri, tmp_path)) == (
        f"the MLflow server {uri} answers 503 Service Unavailable, saying: maintenance until 12:00; try again later"
    )
