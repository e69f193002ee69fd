"""MLflow with a login and TLS, artifacts in an S3 that checks keys, and everything that can go wrong in between."""

import uuid
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from dailies.core.errors import AccessRefused, DownloadError, StoreError, StoreUnreachable, TransferBroken
from dailies.state.layout import Layout, Weights
from dailies.state.weights_folder import fill
from dailies.store import connection, transfer
from dailies.store.connection import PACKAGES
from dailies.store.entities import Artifact, StoredFile
from dailies.store.tracking import TrackingStore
from helpers.certificates import Authority
from helpers.guarded import ADMIN, BARE, BUCKET, READER, STRANGER, guarded, logged_in, login
from helpers.raising import check
from helpers.scenes import Scene
from helpers.stores import BEST, Shelf, black_hole, configured, free_port, proxied
from mlflow.store.artifact.s3_artifact_repo import _cached_get_s3_client

pytestmark = pytest.mark.s3

PAIR = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
WRONG = READER[0], "not-the-password"
CONTENT = bytes(range(256)) * 4096


@pytest.fixture(scope="module", autouse=True)
def _bare():
    """Remove logins and keys of this machine and of other tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in BARE.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def _forgetful():
    """Forget the cached clients of boto3 and MLflow, which have the keys of the previous test."""
    yield
    connection.set_s3_timeouts.cache_clear()
    _cached_get_s3_client.cache_clear()


class Shelves:
    """Two experiments of one run each that the reader may read: one with proxied artifacts, one directly in S3."""

    def __init__(self, root: Path) -> None:
        server = guarded()
        self.names = {place: f"{place}_{uuid.uuid4().hex[:8]}" for place in ("proxied", "direct")}
        self.uris = {}
        self.runs = {}
        with logged_in(ADMIN, **server.keys):
            for place, name in self.names.items():
                location = f"s3://{BUCKET}/{name}" if place == "direct" else None
                shelf = Shelf(root, server.uri, experiment=name, location=location)
                self.runs[place] = shelf.run("a")
                shelf.log(self.runs[place], BEST, CONTENT)
                self.uris[place] = shelf.client.get_run(self.runs[place]).info.artifact_uri
                server.show(shelf.experiment)


@pytest.fixture(scope="module")
def shelves(tmp_path_factory):
    return Shelves(tmp_path_factory.mktemp("shelves"))


@pytest.fixture
def as_user(monkeypatch):
    """Set the variables of a login, if any, and others."""

    def set_login(pair=None, **variables):
        for name, value in ((login(pair) if pair else {}) | variables).items():
            monkeypatch.setenv(name, value)

    return set_login


@pytest.fixture
def open_store(tmp_path):
    return lambda uri=None: TrackingStore(
        uri or guarded().uri, private=tmp_path / "private", allowed_schemes=("s3", "gs", "wasbs", "abfss")
    )


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def refusal(question, kind=StoreError, code=None, *names):
    """Return the text of the error that a question raises; check it, and that it shows no password."""
    with pytest.raises(kind) as error:
        question()
    assert type(error.value) is kind
    check(error.value, code or error.value.code, *names)
    text = str(error.value)
    assert len(text) < 700
    assert not any(pair[1] in text for pair in (ADMIN, READER, STRANGER, WRONG))
    return text


def files_of(tracking, shelves, place):
    return [(file.path, file.size) for file in tracking.files(shelves.uris[place])]


@pytest.mark.parametrize("place", ["proxied", "direct"])
def test_the_right_login_reads_runs_and_artifacts(shelves, as_user, open_store, place):
    as_user(READER, **(guarded().keys if place == "direct" else {}))
    tracking = open_store()

    (run,) = tracking.runs(tracking.experiments([shelves.names[place]]))

    assert (run.run_id, run.artifact_uri) == (shelves.runs[place], shelves.uris[place])
    assert run.artifact_uri.startswith("s3://" if place == "direct" else "mlflow-artifacts:/")
    assert files_of(tracking, shelves, place) == [(BEST, len(CONTENT))]


@pytest.mark.parametrize("variables", [login(WRONG), {}, {"MLFLOW_TRACKING_USERNAME": READER[0]}])
def test_a_rejected_login_names_the_variables(shelves, as_user, open_store, variables):
    as_user(**variables)
    tracking = open_store()
    questions = (
        lambda: tracking.experiments([shelves.names["proxied"]]),
        lambda: tracking.runs_by_id([shelves.runs["proxied"]]),
        lambda: tracking.listings([shelves.uris["proxied"]]),
        lambda: tracking.logged_models(["1"]),
    )

    for question in questions:
        refusal(
            question, AccessRefused, "store.login_refused", guarded().uri, "answers 401", PAIR, "MLFLOW_TRACKING_TOKEN"
        )


def test_netrc_is_named_because_it_takes_precedence(shelves, as_user, open_store, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {WRONG[0]} password {WRONG[1]}\n")
    as_user(READER, NETRC=str(netrc))

    question = lambda: open_store().experiments([shelves.names["proxied"]])  # noqa: E731
    refusal(question, AccessRefused, "store.login_refused", "~/.netrc")


def test_a_deleted_user_is_refused(shelves, as_user, open_store, monkeypatch):
    leaver = f"leaver_{uuid.uuid4().hex[:8]}", "the-leavers-password"
    with logged_in(ADMIN) as users:
        users(guarded().uri).create_user(*leaver)
    as_user(leaver)
    tracking = open_store()
    refusal(lambda: tracking.experiments([shelves.names["proxied"]]), code="store.permission_denied")
    with logged_in(ADMIN) as users:
        users(guarded().uri).delete_user(leaver[0])

    question = lambda: tracking.experiments([shelves.names["proxied"]])  # noqa: E731
    refusal(question, AccessRefused, "store.login_refused", "You are not authenticated")


def test_a_missing_permission_is_not_an_empty_experiment(shelves, as_user, open_store):
    as_user(STRANGER)
    tracking, name, run_id = open_store(), shelves.names["proxied"], shelves.runs["proxied"]

    for what, question in (
        (f"experiment '{name}'", lambda: tracking.experiments([name])),
        (f"run {run_id}", lambda: tracking.runs_by_id([run_id])),
        ("a run's artifacts", lambda: tracking.files(shelves.uris["proxied"])),
    ):
        said = (guarded().uri, "answers 403", "Permission denied", f"You may not read {what}", "READ")
        refusal(question, StoreError, "store.permission_denied", *said)
    text = refusal(lambda: tracking.experiments(["misspelled"]))
    assert text.endswith("there: none")


def test_a_token_opens_a_server_behind_tls_with_an_authority_of_its_own(
    shelves, as_user, open_store, authority, tmp_path
):
    behind = {"token": "the-right-token", "login": READER, "tls": authority.server()}
    with proxied(guarded().uri, **behind) as proxy:
        as_user(MLFLOW_TRACKING_TOKEN="the-right-token", MLFLOW_TRACKING_SERVER_CERT_PATH=str(authority.path))
        tracking = open_store(proxy.uri)
        assert [run.run_id for run in tracking.runs(tracking.experiments([shelves.names["proxied"]]))] == [
            shelves.runs["proxied"]
        ]
        fill(tracking, artifact_at(shelves.uris["proxied"]), Weights(tmp_path / "weights"))
        assert (tmp_path / "weights" / "artifact" / BEST).read_bytes() == CONTENT

        proxy.token = "the-next-token"
        text = refusal(lambda: tracking.experiments([shelves.names["proxied"]]), AccessRefused, "store.login_refused")
        assert "MLFLOW_TRACKING_TOKEN" in text
        assert sum("authorization" in headers for headers in proxy.headers) >= 4


def test_a_private_authority_may_be_set_for_all_of_python(as_user, open_store, authority):
    as_user(READER, REQUESTS_CA_BUNDLE=str(authority.path))
    with proxied(guarded().uri, tls=authority.server()) as proxy:
        refusal(lambda: open_store(proxy.uri).experiments(["misspelled"]), StoreError, "store.no_experiment")


@pytest.mark.parametrize(
    ("trusted", "certificate", "words"),
    [
        (False, {}, "unable to get local issuer certificate"),
        (True, {"host": "mlflow.studio"}, "Hostname mismatch"),
        (True, {"host": "10.0.0.1"}, "IP address mismatch"),
        (True, {"valid_for": timedelta(days=-1)}, "certificate has expired"),
    ],
)
def test_an_untrusted_certificate_states_the_reason(as_user, open_store, authority, trusted, certificate, words):
    as_user(READER, **({"MLFLOW_TRACKING_SERVER_CERT_PATH": str(authority.path)} if trusted else {}))
    with proxied(guarded().uri, tls=authority.server(**certificate)) as proxy:
        uri = proxy.uri.replace("127.0.0.1", "localhost") if "Hostname" in words else proxy.uri
        text = refusal(lambda: open_store(uri), StoreUnreachable, "store.certificate")

    assert words in text
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE" in text
    assert not proxy.requests


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_certificates_are_not_checked_if_the_user_turns_that_off(as_user, open_store, authority):
    as_user(READER, MLFLOW_TRACKING_INSECURE_TLS="true")
    with proxied(guarded().uri, tls=authority.server()) as proxy:
        refusal(lambda: open_store(proxy.uri).experiments(["misspelled"]), StoreError, "store.no_experiment")


def test_an_address_without_tls_is_no_https(open_store):
    with proxied(guarded().uri) as proxy:
        uri = proxy.uri.replace("http", "https")
        assert "mlflow_uri" in refusal(lambda: open_store(uri), StoreUnreachable, "store.certificate")


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"])
def test_a_missing_certificate_file_is_named(as_user, open_store, authority, name):
    as_user(**{name: "/missing.pem"})
    with proxied(guarded().uri, tls=authority.server()) as proxy:
        text = refusal(lambda: open_store(proxy.uri), StoreUnreachable, "store.certificate")

    assert "/missing.pem" in text
    assert name in text


def test_a_secret_that_a_server_echoes_is_masked(as_user, open_store):
    as_user(("me", "hush-hush"))
    with proxied(guarded().uri) as proxy:
        said = lambda: proxy.headers[-1].get("authorization", "")  # noqa: E731
        for status in (400, 403, 418):
            proxy.trouble = lambda method, path, status=status: (
                None if path == "/health" else (status, {"error_code": "X", "message": f"no hush-hush, {said()}, no"})
            )
            text = refusal(lambda: open_store(proxy.uri).experiments(["exp"]))
            assert "no ***, Basic ***, no" in text


@pytest.mark.parametrize(
    ("trouble", "shown"),
    [
        ((200, b"<!doctype html><title>Sign in</title><style>a{}</style><p>Studio login"), "Sign in Studio login"),
        ((404, b"<html><h1>404 Not Found</h1>nginx</html>"), "404 Not Found nginx"),
        ((302, "/login"), "Studio login"),
    ],
)
def test_a_login_page_or_another_program_is_no_mlflow(open_store, trouble, shown):
    with proxied(guarded().uri) as proxy:
        proxy.trouble = lambda method, path: (200, b"<p>Studio login") if path == "/login" else trouble
        text = refusal(lambda: open_store(proxy.uri).experiments(["exp"]), code="store.not_mlflow")

    assert shown in text
    assert "mlflow_uri" in text


@pytest.mark.parametrize("trouble", ["cut", "short"])
@pytest.mark.parametrize("lasting", [False, True])
def test_a_request_whose_response_was_cut_short_is_retried(shelves, as_user, open_store, monkeypatch, trouble, lasting):
    as_user(READER)
    waited = []
    monkeypatch.setattr("dailies.store.tracking.time.sleep", waited.append)
    with proxied(guarded().uri) as proxy:
        troubles = [trouble] * (3 if lasting else 2)
        tracking = open_store(proxy.uri)
        proxy.trouble = lambda method, path: troubles.pop() if troubles and "get-by-name" in path else None

        if lasting:
            question = lambda: tracking.experiments([shelves.names["proxied"]])  # noqa: E731
            refusal(question, TransferBroken, "store.cut_short")
        else:
            assert tracking.experiments([shelves.names["proxied"]])[0].name == shelves.names["proxied"]

    assert waited == [1, 3]


def test_a_busy_server_is_retried_without_its_retry_after(shelves, as_user, open_store, monkeypatch):
    as_user(READER, MLFLOW_HTTP_REQUEST_MAX_RETRIES="2")
    waited = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waited.append)
    with proxied(guarded().uri) as proxy:
        tracking = open_store(proxy.uri)
        busy = [(503, "busy", {"Retry-After": "86400"}), (429, "busy", {"Retry-After": "7"})]
        proxy.trouble = lambda method, path: busy.pop() if busy else None

        assert tracking.experiments([shelves.names["proxied"]])[0].name == shelves.names["proxied"]
        assert sum(waited) < 10

        proxy.trouble = lambda method, path: (429, "busy")
        text = refusal(lambda: tracking.experiments(["exp"]), StoreUnreachable, "store.unreachable")
        assert 'answers 429: "busy"' in text


def test_the_users_proxy_is_used_unless_no_proxy_names_the_server(shelves, as_user, open_store):
    as_user(READER)
    with proxied(guarded().uri) as proxy:
        as_user(HTTP_PROXY=proxy.uri, http_proxy=proxy.uri)
        tracking = open_store("http://mlflow.studio:5000")
        assert tracking.experiments([shelves.names["proxied"]])
        assert proxy.requests[0] == "GET http://mlflow.studio:5000/health"
        assert proxy.count("http://mlflow.studio:5000/api/2.0/mlflow/experiments/get-by-name") == 1

        seen = len(proxy.requests)
        as_user(NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
        assert open_store().experiments([shelves.names["proxied"]])
        assert len(proxy.requests) == seen


def test_a_proxy_that_rejects_the_login_is_named(as_user, open_store):
    with proxied(guarded().uri) as proxy:
        proxy.trouble = lambda method, path: (407, "who are you?") if method == "CONNECT" else None
        as_user(HTTPS_PROXY=proxy.uri, https_proxy=proxy.uri)
        text = refusal(lambda: open_store("https://mlflow.studio"), StoreUnreachable, "store.proxy")

    assert proxy.requests == ["CONNECT mlflow.studio:443"]
    assert "407" in text
    assert "NO_PROXY" in text


def artifact_at(uri: str) -> Artifact:
    return Artifact(uri, BEST, (StoredFile(BEST, len(CONTENT)),))


KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


@pytest.mark.parametrize(
    "keys",
    [{}, {"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, {"AWS_SECRET_ACCESS_KEY": "hush"}],
    ids=["none", "unknown", "wrong"],
)
def test_rejected_keys_of_an_artifact_store_name_the_variables(shelves, as_user, open_store, keys):
    as_user(READER, **(dict(guarded().keys) | keys if keys else {"MLFLOW_S3_ENDPOINT_URL": guarded().s3}))
    tracking = open_store()

    for question in (
        lambda: tracking.files(shelves.uris["direct"]),
        lambda: tracking.listings([shelves.uris["direct"]]),
    ):
        refusal(question, AccessRefused, "artifact_store.keys_refused", f"s3://{BUCKET} ", KEYS)


def test_a_missing_bucket_is_reported(as_user, open_store):
    as_user(READER, **guarded().keys)

    said = ("s3://elsewhere answers 404", "MLFLOW_S3_ENDPOINT_URL", "artifact_remap")
    refusal(lambda: open_store().files("s3://elsewhere/1/run"), StoreError, "artifact_store.failed", *said)


def test_keys_without_permission_to_list_are_reported(shelves, as_user, open_store):
    as_user(READER, **guarded().keys)
    denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    with proxied(guarded().s3) as proxy:
        proxy.trouble = lambda method, path: (403, denied)
        as_user(MLFLOW_S3_ENDPOINT_URL=proxy.uri)
        question = lambda: open_store().files(shelves.uris["direct"])  # noqa: E731
        refusal(question, StoreError, "artifact_store.permission_denied", f"s3://{BUCKET} answers 403")


@pytest.mark.parametrize("kind", ["nobody", "silent"])
def test_an_artifact_store_that_is_down_is_noticed_within_seconds(shelves, as_user, open_store, monkeypatch, kind):
    as_user(READER, **guarded().keys)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(connection, "READ_SECONDS", 0.3)
    tracking = open_store()
    with black_hole() as silent:
        as_user(MLFLOW_S3_ENDPOINT_URL=silent if kind == "silent" else f"http://127.0.0.1:{free_port()}")
        question = lambda: tracking.listings([shelves.uris["direct"]])  # noqa: E731
        said = (f"s3://{BUCKET} does not answer", "MLFLOW_S3_ENDPOINT_URL")
        refusal(question, StoreUnreachable, "artifact_store.unreachable", *said)


def test_an_artifact_store_has_half_a_minute_to_answer(shelves, as_user, open_store):
    as_user(READER, **guarded().keys)
    files_of(open_store(), shelves, "direct")

    patience = boto3.client("s3").meta.config

    assert (patience.connect_timeout, patience.read_timeout) == (connection.CONNECT_SECONDS, connection.READ_SECONDS)
    assert patience.retries == {"total_max_attempts": 3, "mode": "standard"}
    assert 3 * (connection.CONNECT_SECONDS + connection.READ_SECONDS) < 40


def test_an_artifact_store_behind_an_unknown_authority_names_the_variable(shelves, as_user, open_store, authority):
    as_user(READER, **guarded().keys)
    with proxied(guarded().s3, tls=authority.server()) as proxy:
        as_user(MLFLOW_S3_ENDPOINT_URL=proxy.uri)
        question = lambda: open_store().files(shelves.uris["direct"])  # noqa: E731
        refusal(question, StoreUnreachable, "artifact_store.unreachable", "AWS_CA_BUNDLE")

        connection.set_s3_timeouts.cache_clear()
        _cached_get_s3_client.cache_clear()
        as_user(AWS_CA_BUNDLE=str(authority.path))
        assert files_of(open_store(), shelves, "direct") == [(BEST, len(CONTENT))]


@pytest.mark.parametrize("place", ["proxied", "direct"])
@pytest.mark.parametrize("lasting", [False, True])
def test_a_download_cut_in_the_middle_is_fetched_again_or_leaves_nothing(
    shelves, as_user, open_store, monkeypatch, tmp_path, place, lasting
):
    as_user(READER, **guarded().keys)
    monkeypatch.setattr(transfer, "PAUSES", (0, 0))
    target = guarded().s3 if place == "direct" else guarded().uri
    cuts = []

    def cutting(method, path):
        is_content = method == "GET" and path.partition("?")[0].endswith(BEST)
        if not is_content or (cuts and not lasting):
            return None
        cuts.append(path)
        return "cut"

    with proxied(target) as proxy:
        if place == "direct":
            as_user(MLFLOW_S3_ENDPOINT_URL=proxy.uri)
        tracking = open_store(proxy.uri if place == "proxied" else None)
        proxy.trouble = cutting
        folder = tmp_path / "weights"
        if lasting:
            with pytest.raises((StoreError, DownloadError)):
                fill(tracking, artifact_at(shelves.uris[place]), Weights(folder))
            assert list(folder.iterdir()) == []
        else:
            fill(tracking, artifact_at(shelves.uris[place]), Weights(folder))
            assert (folder / "artifact" / BEST).read_bytes() == CONTENT

    assert len(cuts) >= (3 if lasting else 1)


@pytest.mark.parametrize("scheme", PACKAGES)
def test_a_missing_package_is_named(as_user, open_store, monkeypatch, scheme):
    as_user(READER)
    module, packages = PACKAGES[scheme]
    monkeypatch.setitem(connection.importlib.sys.modules, module.split(".")[0], None)
    place = {
        "wasbs": "wasbs://files@account.blob.core.windows.net/1/run",
        "abfss": "abfss://files@account.dfs.core.windows.net/1/run",
    }.get(scheme, f"{scheme}://bucket/1/run")

    text = refusal(lambda: open_store().files(place), code="artifact_store.package_missing")

    assert text.endswith(f"pip install {packages}")


def test_runs_with_unreadable_artifacts_are_reported(shelves, as_user, tmp_path, monkeypatch):
    as_user(READER)
    monkeypatch.setitem(connection.importlib.sys.modules, "boto3", None)
    scene = Scene(Layout(tmp_path), configured(guarded().uri))

    some = scene.look(experiment_name=[shelves.names[place] for place in ("proxied", "direct")])
    assert len(some) == 1
    assert "cannot be read: 1. For the first, the artifacts are at s3://" in scene.read("discovery")["warning"]
    assert scene.look(experiment_name=[shelves.names["direct"]]) == []
    assert "among 1 run: 1 with artifacts that cannot be read" in scene.reason
    assert "pip install boto3" in scene.reason


def test_a_download_is_not_retried_with_a_rejected_login(shelves, as_user, open_store, tmp_path, monkeypatch):
    as_user(READER)
    tracking = open_store()
    waited = []
    monkeypatch.setattr(transfer.time, "sleep", waited.append)
    monkeypatch.setattr(tracking, "files", lambda uri: (StoredFile(BEST, len(CONTENT)),))
    as_user(WRONG)

    refusal(lambda: fill(tracking, artifact_at(shelves.uris["proxied"]), Weights(tmp_path / "weights")), AccessRefused)

    assert waited == []
