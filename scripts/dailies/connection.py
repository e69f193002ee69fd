"""Connections: how long servers are waited for, with which login, and what their refusals mean in words."""

import importlib
import json
import os
import re
import time
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dailies.environment import NAMES
from dailies.errors import AccessRefused, StoreError, StoreUnreachable, TransferBroken
from dailies.text import clean, redacted

CONNECT_SECONDS, ANSWER_SECONDS = 3, 5
"""How long a server may take to accept a connection, and to send a first answer, before it counts as unreachable."""

KNOCKS = (0.5, 1.5)
"""Seconds before the second and third knock at a server that hangs up or is in trouble."""

LONGEST_WAIT = 20
"""Seconds that a busy server may ask to be left alone before the next try, by ``Retry-After``; three tries follow."""

READ_SECONDS = 10
"""How long an artifact store may be silent, before its answer or in the middle of it; three tries follow."""

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # in a log it is a line of escapes for every step
    # a server before S3 would send us there for the bytes; where S3 cannot be reached, MLflow tries for ten minutes
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "AWS_MAX_ATTEMPTS": "3",
    "AWS_RETRY_MODE": "standard",
}
"""MLflow takes four minutes to notice a dead server, and reports its use to its makers; what the user sets is kept."""

PACKAGES = {
    "s3": ("boto3", "boto3"),
    "gs": ("google.cloud.storage", "google-cloud-storage"),
    "wasbs": ("azure.storage.blob", "azure-storage-blob azure-identity"),
    "abfss": ("azure.storage.filedatalake", "azure-storage-file-datalake azure-identity"),
}
"""By the scheme of an artifact location, the module that reads it and the packages that bring it."""

LONGEST_WORDS, LONGEST_SENTENCE, LONGEST_ANSWER = 500, 300, 10_000
"""Characters of what MLflow says, and of what another program does; bytes of an answer in which that is looked for."""

BROKEN = re.compile(
    r"Connection broken|IncompleteRead|Response ended prematurely|Connection aborted|Connection reset|"
    r"Expecting value|Unterminated string|Expecting property name|Expecting ['\"]?[,:]|Invalid control character"
)
"""What Python's libraries say of an answer that was cut short."""

NO_HTTP = re.compile(r"BadStatusLine\(['\"](?:\\x..)*([^\\'\"]*)")
"""What Python's libraries say where a program of another kind answers, and its first words."""

STATUS = re.compile(r"error code (\d{3}) !=|\b(\d{3}) (?:Client|Server) Error")
"""The HTTP status in what MLflow says of an answer."""

END = " (end of the response)"
"""What we put behind an answer that a library puts into a sentence of its own."""

BODY = re.compile(rf"Response (?:body|text): ['\"]?(.*?)(?:['\"]?{re.escape(END)}.*)?$", re.DOTALL)
"""The answer itself in what MLflow says of it."""

VERSION = re.compile(r"\d+(\.\w+)+")
"""What MLflow answers when it is asked for its version."""

AZURE = "AZURE_STORAGE_CONNECTION_STRING, or what else Azure's packages read"

KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "wasbs": AZURE,
    "abfss": AZURE,
}
"""By the scheme of an artifact location, the variables that hold a user's keys."""

ARTIFACT_STORE = (
    (
        r"CERTIFICATE_VERIFY_FAILED|SSL validation failed",
        None,
        StoreUnreachable,
        "the certificate of the artifact store {store} is not accepted; if your studio has an authority of its own, "
        "set {authority} to the file of its certificate (.pem) ({text})",
    ),
    (
        r"Could not connect to the endpoint|Connect timeout on endpoint|Read timeout on endpoint|"
        r"Connection was closed before|Failed to connect to proxy",
        None,
        StoreUnreachable,
        "the artifact store {store} does not answer ({text}); check MLFLOW_S3_ENDPOINT_URL and the network",
    ),
    (
        r"Unable to locate credentials|Partial credentials|config profile .* could not be found",
        None,
        AccessRefused,
        "the artifact store {store} asks for keys, and there are none here; set {keys}",
    ),
    (
        r"InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|InvalidClientTokenId|"
        r"does not exist in our records|signature we calculated|token .*(?:expired|invalid)|SSO (?:session|token)",
        "UNAUTHENTICATED",
        AccessRefused,
        "the artifact store {store} refuses the keys sent to it: they are wrong, or no longer valid; correct {keys}",
    ),
    (
        r"NoSuchBucket|bucket does not exist",
        None,
        StoreError,
        "the artifact store {store} does not exist; if the files were moved, set artifact_remap{endpoint}",
    ),
    (
        r"AccessDenied|Access Denied|\(403\)|is not authorized to perform|Forbidden",
        "PERMISSION_DENIED",
        StoreError,
        "the artifact store {store} does not let these keys list or read {place}",
    ),
    (BROKEN.pattern, None, TransferBroken, "the artifact store {store} broke off: {text}"),
    ("", None, StoreError, "the artifact store {store} says: {text}"),
)
"""What botocore says, or the server through it, MLflow's code for it, and what it means; the first that fits holds.

MLflow hands on the sentence and not always the code.
"""


def set_out() -> None:
    """Set how patient MLflow and boto3 are in this process; what the user set is kept."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@cache
def bound_waiting() -> None:
    """Let a busy server make MLflow wait for seconds only, and keep what a server says of its trouble, and its status.

    MLflow would obey a ``Retry-After`` of six hours, and forgets the answer to its last try. MLflow 3.17 has no setting
    for it; its requests take these from here.
    """
    from mlflow.utils import request_utils, rest_utils
    from urllib3.exceptions import MaxRetryError, ResponseError
    from urllib3.util import Retry

    class _Retry(Retry):
        def increment(
            self, method: Any = None, url: Any = None, response: Any = None, *args: Any, **more: Any
        ) -> Retry:
            try:
                return super().increment(method, url, response, *args, **more)
            except MaxRetryError as failed:
                said = response.read(LONGEST_ANSWER, decode_content=True) if response is not None else b""
                if not (words := _words(f"Response body: {said.decode(errors='replace')}")):
                    raise
                reason = ResponseError(f"{failed.reason}. Response body: {words}{END}")
                raise MaxRetryError(failed.pool, url, reason) from failed

    def verified(response: Any, *others: Any, **more: Any) -> Any:
        try:
            return verify(response, *others, **more)
        except Exception as error:
            error.http_status = response.status_code
            raise

    verify, rest_utils.verify_rest_response = rest_utils.verify_rest_response, verified
    request_utils.Retry = partial(_Retry, retry_after_max=LONGEST_WAIT)


def knock(uri: str, name: str) -> None:
    """Ask a server for its health. Raises StoreUnreachable, saying why, when nothing useful answers.

    A server that hangs up, or answers with an error of its own, is asked again for two seconds. Any other answer is a
    sign of life, also a refusal: a login is for MLflow's questions.
    """
    for pause in (*KNOCKS, None):
        reason = _health(uri, name)
        if reason is None:
            return
        if pause is not None:
            time.sleep(pause)
    raise StoreUnreachable(f"the MLflow server {name} {reason}; try again later")


def _health(uri: str, name: str) -> str | None:
    """Say what trouble a server is in, one that may pass; None when it is well. Raises StoreUnreachable."""
    import requests
    from requests import exceptions

    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true"
    try:
        answer = requests.get(
            uri.rstrip("/") + "/health",
            timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
            verify=not insecure and (os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True),
            cert=os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
        )
    except exceptions.SSLError as error:
        raise StoreUnreachable(_certificate(name, str(error))) from None
    except exceptions.ProxyError as error:
        raise StoreUnreachable(
            f"the MLflow server {name} is asked through the proxy of HTTPS_PROXY or HTTP_PROXY, which does not let us "
            f"through ({_cause(str(error))}); correct it, or name the server's host in NO_PROXY"
        ) from None
    except exceptions.Timeout:
        raise StoreUnreachable(_silent(name, "no answer in time")) from None
    except exceptions.RequestException as error:
        if told := NO_HTTP.search(str(error)):
            words = f"says {told[1]!r}" if told[1] else "answers"
            raise StoreUnreachable(f"{name} {words}, which is not HTTP; check mlflow_uri and its port") from None
        if BROKEN.search(str(error)) and "refused" not in str(error):
            return f"does not answer ({_cause(str(error))})"
        raise StoreUnreachable(_silent(name, "connection refused or no route")) from None
    except OSError as error:  # what requests raises for certificate files that are not there
        raise StoreError(
            f"the certificate for {name} cannot be used: {clean(str(error))[:300]}; correct "
            "MLFLOW_TRACKING_SERVER_CERT_PATH, REQUESTS_CA_BUNDLE or MLFLOW_TRACKING_CLIENT_CERT_PATH"
        ) from None
    if answer.status_code < 500:
        return None
    reason = clean(answer.reason)[:50]
    words = _words(f"Response body: {masked(clean(answer.text[:LONGEST_ANSWER]))}")
    said = f", saying: {words}" if words.lower() not in {"", reason.lower()} else ""
    return f"answers {answer.status_code} {reason}{said}"


def _silent(name: str, reason: str) -> str:
    return f"the MLflow server {name} does not answer ({reason}); check mlflow_uri, the network, or start the server"


def _cause(text: str) -> str:
    """Give the innermost reason in what requests says of a failed connection."""
    found = re.findall(r"(?:Error|Exception|Disconnected)\(['\"]?(?:<[^>]*>[:,] )?(?:\d+, )?['\"]?([^'\"()]+)", text)
    return redacted(clean(found[-1] if found else text)).strip(" :,")[:200]


def _certificate(name: str, text: str) -> str:
    """Say what is wrong with a server's certificate, and what to do, from what OpenSSL says."""
    if "certificate has expired" in text or "not yet valid" in text:
        return (
            f"the certificate of {name} has expired, or is not valid yet; have it renewed, or set this machine's clock"
        )
    if "Hostname mismatch" in text or "IP address mismatch" in text or "doesn't match" in text:
        host = urlsplit(name).hostname or name
        return f"the certificate of {name} is for another host than {host}; use the name that it was made out for"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"the certificate of {name} is not trusted; if your studio has an authority of its own, set "
            "MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE to the file of its certificate (.pem)"
        )
    return f"{name} does not speak TLS as expected ({_cause(text)}); is it an http:// address?"


def require_package(place: str) -> None:
    """Raise StoreError, naming what to install, where the package that reads an artifact location is missing."""
    scheme = urlsplit(place).scheme
    module, packages = PACKAGES.get(scheme, ("os", ""))
    try:
        importlib.import_module(module)
    except ImportError:
        raise StoreError(
            f"the artifacts are at {_store_of(place)}, and Python reads {scheme}:// with a package that is not "
            f"installed here: pip install {packages}"
        ) from None
    if scheme == "s3":
        _bound_s3()


@cache
def _bound_s3() -> None:
    """Let boto3 notice within seconds that an endpoint is dead; MLflow takes its clients from this session."""
    import boto3
    from botocore.config import Config
    from botocore.session import Session

    session = Session()
    session.set_default_client_config(Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS))
    boto3.setup_default_session(botocore_session=session)


def _store_of(place: str) -> str:
    """Name the bucket or container of an artifact location."""
    return "/".join(redacted(clean(place)).split("/")[:3])[:200]


def explained(error: Exception, uri: str, *, what: str = "this", place: str | None = None) -> StoreError:
    """Turn what MLflow, or a library below it, raised into an error in words.

    ``uri`` is the tracking store's and ``what`` was asked of it; ``place`` is an artifact location with a server of
    its own, when it was that which was asked. Secrets are masked.
    """
    # of a failed download MLflow says first that there was one, then "##### File x #####" and what went wrong
    text = masked(clean(str(error))).rpartition("##### ")[2]
    if place is not None:
        return _of_artifacts(error, text, place)
    name = redacted(uri)
    if urlsplit(uri).scheme in {"http", "https"} and (found := _of_server(error, text, uri, name, what)):
        return found
    return StoreError(f"MLflow at {name} {_says(error)}: {text[:LONGEST_WORDS] or type(error).__name__}")


def _says(error: Exception) -> str:
    status = getattr(error, "http_status", None)
    return f"answers {status} and says" if status else "says"


def _of_server(error: Exception, text: str, uri: str, name: str, what: str) -> StoreError | None:
    if "CERTIFICATE_VERIFY_FAILED" in text or "SSLError" in text:
        return StoreUnreachable(_certificate(name, text))
    if "artifacts-only" in text:
        return StoreError(
            f"the MLflow server {name} runs with --artifacts-only, so it knows no experiments; set mlflow_uri to the "
            f"tracking server (it answers 503: {_words(text)})"
        )
    if "Max retries exceeded" in text or "failed with timeout" in text:
        return StoreUnreachable(f"the MLflow server {name} {_why_unanswered(text)}; try again later")
    match = STATUS.search(text)
    status = int(match[1] or match[2]) if match else getattr(error, "http_status", None)
    code = _code(error)
    words = _told(error.json) if isinstance(getattr(error, "json", None), dict) else _words(text)
    return _refusal(code, status, words or text[:LONGEST_WORDS], uri, name, what) or _no_answer(
        error, status, text, uri, name
    )


def _code(error: Exception) -> str | None:
    """Return MLflow's code for an error, unless MLflow made it up: for an answer of another program."""
    said = getattr(error, "json", None)
    return None if isinstance(said, dict) and "error_code" not in said else getattr(error, "error_code", None)


def _refusal(code: str | None, status: int | None, words: str, uri: str, name: str, what: str) -> StoreError | None:
    """Give the error for a server that wants a login, or wants another one; None where it does not."""
    if status == 401 or code in {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}:
        return AccessRefused(f"{_login_refused(uri, name)} ({status or 'it says'}: {words})")
    if status == 407:
        return AccessRefused(f"the proxy before {name} asks for a login; correct HTTPS_PROXY or HTTP_PROXY")
    if status == 403 and re.search(r"host header|DNS rebinding", words, re.IGNORECASE):
        return StoreError(
            f"the MLflow server {name} does not answer to the host {urlsplit(uri).hostname} (403: {words}); "
            "write the address by which it is known, or have it started with --allowed-hosts and this one"
        )
    if status == 403 or code == "PERMISSION_DENIED":
        return StoreError(
            f"the MLflow server {name} does not let {_whose(uri)} read {what} "
            f"({status or 'it says'}: {words}); ask its administrator for the permission READ"
        )
    return None


def _no_answer(error: Exception, status: int | None, text: str, uri: str, name: str) -> StoreError | None:
    """Give the error for what is no answer of MLflow's, or half of one; None for any other."""
    body, said = BODY.search(text), getattr(error, "json", None)
    whole = body[1].lstrip() if body else ""
    if isinstance(said, dict):
        return None if "error_code" in said else foreign(status, _told(said), uri, name)
    if whole.startswith("<") and status in {None, 200, 404}:
        answered = f", status {status}" if status == 404 else ""
        return StoreError(
            f"{name} answers with a web page where MLflow's interface should be: a login page stands before it, or it "
            f"is no MLflow server; check mlflow_uri, its port, and whether a path belongs to it{answered}"
            f"{_where_instead(uri)} (the page: {_words(text)})"
        )
    if "redirects" in text:
        return StoreError(
            f"{name} sends every question on to another address, as a login page before it does; ask for an address "
            "for programs, and check mlflow_uri"
        )
    if body and (status not in {None, 200} or whole[:1] not in {"", "{"}):
        return foreign(status or 200, _words(text), uri, name)
    if status in {None, 200} and (BROKEN.search(text) or (body and "not in a valid JSON format" in text)):
        return TransferBroken(
            f"the answer of the MLflow server {name} was cut short, by a proxy or the network on the way"
        )
    return None


def foreign(status: int | None, words: str, uri: str, name: str) -> StoreError:
    """Give the error for an answer that MLflow did not write: of a program before it, or of another one altogether."""
    answered = f"answers {status or 'with an error'}, saying: {words[:LONGEST_WORDS] or 'nothing'}"
    if status and status >= 500:
        return StoreUnreachable(f"the MLflow server {name} {answered}; try again later")
    return StoreError(
        f"{name} {answered}; that is no answer of MLflow's: check mlflow_uri, its port, and whether a path belongs to "
        f"it{_where_instead(uri)}"
    )


def _where_instead(uri: str) -> str:
    """Say where on the same host MLflow answers, where that is not the address given; its version has a fixed place."""
    import requests

    parts = urlsplit(uri)
    for path in dict.fromkeys(("", "/mlflow")):
        place = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        if place != uri.rstrip("/"):
            try:
                answer = requests.get(f"{place}/version", timeout=(CONNECT_SECONDS, ANSWER_SECONDS))
            except requests.RequestException:
                continue
            if answer.ok and VERSION.fullmatch(answer.text.strip()):
                return f"; MLflow {answer.text.strip()} answers at {redacted(place)}"
    return ""


def _why_unanswered(text: str) -> str:
    if busy := re.search(r"too many (429|5\d\d) error responses", text):
        what = "is busy" if busy[1] in {"429", "503"} else "is in trouble"
        words = _words(text).replace("\\'", "'")  # as Python writes it in what is raised again
        said = f"says '{words}' and " if words else ""
        return f"{said}{what} (too many {busy[1]} error responses)"
    cause = re.search(r"Caused by .*['\"](?:.*: )?([^'\"]+)['\"]\)", text)
    return f"does not answer ({cause[1].strip()[:200] if cause else 'no answer in time'})"


def _words(text: str) -> str:
    """Give what a server said, without markup."""
    body = BODY.search(text)
    if body and body[1].startswith("{"):
        with suppress(ValueError):
            return _told(json.loads(body[1].rstrip("'")))
    found = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", body[1]) if body else ""
    return re.sub(r"\s+", " ", found).strip(" '\"")[:LONGEST_SENTENCE]


def _told(said: dict[str, Any]) -> str:
    """Give the sentence in an answer of JSON, which every program keeps in another field."""
    words = next((said[key] for key in ("message", "detail", "error") if said.get(key)), said)
    return masked(clean(str(words)))[:LONGEST_WORDS]


def login(uri: str) -> str | None:
    """Name the place of the login that a server is sent, the first of those that requests and MLflow look at."""
    import requests

    if urlsplit(uri).username is not None:
        return "in the address"
    if requests.utils.get_netrc_auth(uri):
        return "in .netrc, which goes before MLflow's own"
    pair = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
    if all(os.environ.get(name) for name in pair):
        return f"in {' and '.join(pair)}"
    if Path("~/.mlflow/credentials").expanduser().exists():
        return "in ~/.mlflow/credentials"
    return "in MLFLOW_TRACKING_TOKEN" if os.environ.get("MLFLOW_TRACKING_TOKEN") else None


def _whose(uri: str) -> str:
    where = login(uri)
    return f"the login {where}" if where else "someone without a login"


def _login_refused(uri: str, name: str) -> str:
    if where := login(uri):
        return f"the MLflow server {name} refuses the login {where}: it is wrong, or no longer valid"
    return (
        f"the MLflow server {name} asks for a login; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
        "or MLFLOW_TRACKING_TOKEN"
    )


def _of_artifacts(error: Exception, text: str, place: str) -> StoreError:
    scheme = urlsplit(place).scheme
    known = {
        "store": _store_of(place),
        "place": redacted(clean(place))[:200],
        "keys": KEYS.get(scheme, "them"),
        "authority": "AWS_CA_BUNDLE" if scheme == "s3" else "REQUESTS_CA_BUNDLE",
        "endpoint": "; if it is not Amazon's, set MLFLOW_S3_ENDPOINT_URL" if scheme == "s3" else "",
    }
    found = getattr(error, "error_code", None)
    kind, sentence = next(
        (kind, sentence)
        for pattern, code, kind, sentence in ARTIFACT_STORE
        if re.search(pattern, text, re.IGNORECASE) or (code and code == found)
    )
    return kind(sentence.format(**known, text=text[:LONGEST_WORDS] or type(error).__name__))


def masked(text: str) -> str:
    """Mask in a text whatever this process could log in with: servers may say it back."""
    text = re.sub(r"\b(Basic|Bearer) +[\w.~+/=-]+", r"\1 ***", redacted(text))
    for name, value in os.environ.items():
        if NAMES.search(name) and len(value) >= 6:
            text = text.replace(value, "***")
    return text
