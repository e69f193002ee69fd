"""Connections: how long servers are waited for, and errors that name the status, the server's words and a setting."""

import importlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dailies.core.credentials import NAMES
from dailies.core.errors import (
    AccessRefused,
    StoreError,
    StoreUnreachable,
    TransferBroken,
)
from dailies.core.text import clean, redacted

CONNECT_SECONDS, ANSWER_SECONDS = 3, 5
"""How long a server may take to accept a connection, and to send a first answer, before it counts as unreachable."""

KNOCKS = (0.5, 1.5)
"""Seconds before the second and third knock at a server that hangs up or is in trouble."""

READ_SECONDS = 10
"""How long S3 may be silent, before its answer or in the middle of it; three tries follow."""

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # a busy server may ask for hours, and MLflow would wait
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # in a log it is a line of escapes for every step
    # a server before S3 would send us there for the bytes; where S3 cannot be reached, MLflow tries for ten minutes
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "AWS_MAX_ATTEMPTS": "3",
    "AWS_RETRY_MODE": "standard",
}
"""Settings of MLflow and boto3, by which no question is waited for longer than two minutes; the user's own count."""

PACKAGES = {
    "s3": ("boto3", "boto3"),
    "gs": ("google.cloud.storage", "google-cloud-storage"),
    "wasbs": ("azure.storage.blob", "azure-storage-blob azure-identity"),
    "abfss": ("azure.storage.filedatalake", "azure-storage-file-datalake azure-identity"),
}
"""By the scheme of an artifact location, the module that reads it and the packages that bring it."""

AZURE = "AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY"

KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "wasbs": AZURE,
    "abfss": AZURE,
}
"""By the scheme of an artifact location, the variables that hold a user's keys."""

LOGIN = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
"""The variables that hold a user's login."""

NOT_MLFLOW = "That is no answer of MLflow's: check mlflow_uri, its port and path, and whether a login page is before it"

MEANING: dict[str, tuple[type[StoreError], str]] = {
    "store.certificate": (
        StoreUnreachable,
        "For an authority of your studio's own, set MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE to the file "
        "of its certificate (.pem); otherwise check mlflow_uri.",
    ),
    "store.proxy": (StoreUnreachable, "Correct HTTPS_PROXY or HTTP_PROXY, or name the server's host in NO_PROXY."),
    "store.proxy_login": (AccessRefused, "Correct the login in HTTPS_PROXY or HTTP_PROXY."),
    "store.login_refused": (AccessRefused, f"Set or correct {LOGIN}; a login in ~/.netrc is used before these."),
    "store.permission_denied": (
        StoreError,
        f"You may not read {{what}}: ask for the permission READ, or check mlflow_uri and {LOGIN}.",
    ),
    "store.cut_short": (TransferBroken, "The answer was cut short."),
    "store.unreachable": (
        StoreUnreachable,
        "Check mlflow_uri and the network, start the server, or set a larger MLFLOW_HTTP_REQUEST_TIMEOUT.",
    ),
    "store.not_mlflow": (StoreError, NOT_MLFLOW),
    "store.failed": (StoreError, ""),
    "artifacts.certificate": (
        StoreUnreachable,
        "For an authority of your studio's own, set {authority} to the file of its certificate (.pem).",
    ),
    "artifacts.cut_short": (TransferBroken, "The answer was cut short."),
    "artifacts.unreachable": (StoreUnreachable, "Check {endpoint}the network."),
    "artifacts.keys_refused": (AccessRefused, "Set or correct {keys}."),
    "artifacts.permission_denied": (StoreError, "Set keys that may list and read it in {keys}."),
    "artifacts.missing": (StoreError, "Check {endpoint}artifact_remap."),
    "artifacts.failed": (StoreError, ""),
}
"""By the code of an error its class, and what the user can do."""

KEYS_REFUSED = frozenset(
    {
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UNAUTHENTICATED",
    }
)
"""S3's and MLflow's codes for keys that are wrong or no longer valid."""

SILENCE = frozenset({"ConnectionError", "HTTPClientError", "Timeout"})
CUT_SHORT = frozenset({"ChunkedEncodingError", "IncompleteRead", "IncompleteReadError", "ResponseStreamingError"})
NO_KEYS = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "SSOError"})
"""Classes of errors of requests, urllib3 and botocore: nobody answers, an answer is not whole, there are no keys."""

LONGEST_WORDS, LONGEST_ANSWER = 300, 10_000
"""Characters of what a server or a library says, and of an answer in which that is looked for."""

STATUS = re.compile(r"error code (\d{3}) !=|\b(\d{3}) (?:Client|Server) Error|too many (\d{3}) error")
"""The HTTP status in what MLflow says of an answer; without it, the message is still quoted."""

BODY = "Response body: "
"""What stands before the answer itself in what MLflow says of it."""

VERSION = re.compile(r"\d+(\.\w+)+")
"""What MLflow answers when it is asked for its version."""


def set_out() -> None:
    """Set how patient MLflow and boto3 are in this process; what the user set is kept."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


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
    raise StoreUnreachable(
        "store.unreachable",
        f"the MLflow server {name} {reason}. Check mlflow_uri and the network, or start the server.",
    )


def _health(uri: str, name: str) -> str | None:
    """Return what is wrong with a server if it may pass; None when it is well. Raises StoreError for the rest."""
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
    except (exceptions.SSLError, exceptions.ProxyError, exceptions.Timeout) as error:
        raise _of_server(_Trouble.behind(error), uri, "this") from None
    except exceptions.RequestException as error:
        return f"does not answer: {_Trouble.behind(error).root}"
    except OSError as error:  # what requests raises for certificate files that are not there
        raise StoreError(
            "store.certificate_file",
            f"the certificate for {name} cannot be used: {clean(str(error))[:300]}. Correct "
            "MLFLOW_TRACKING_SERVER_CERT_PATH, REQUESTS_CA_BUNDLE or MLFLOW_TRACKING_CLIENT_CERT_PATH.",
        ) from None
    return (
        f"answers {answer.status_code}: {_plain(answer.text) or answer.reason}" if answer.status_code >= 500 else None
    )


@dataclass(frozen=True)
class _Trouble:
    """What an error says, and the errors that it was raised for."""

    text: str
    root: str
    """What the innermost error says."""
    kinds: frozenset[str]
    """The names of the errors' classes, with those that they inherit from."""
    status: int | None
    """The HTTP status, where it is known."""
    code: str | None
    """The code of S3, or of MLflow."""
    is_foreign: bool
    """Whether the answer is JSON that MLflow did not write."""

    @classmethod
    def behind(cls, error: Exception) -> "_Trouble":
        causes = [*_chain(error)]
        answers = [each.response for each in causes if getattr(each, "response", None) is not None]
        s3: Any = next((answer for answer in answers if isinstance(answer, dict)), {})
        said = getattr(error, "json", None)
        is_foreign = isinstance(said, dict) and said.get("error_code") != error.error_code
        # of a failed download MLflow says first that there was one, then "##### File x #####" and what went wrong
        text = masked(clean(str(error))).rpartition("##### ")[2] or type(error).__name__
        found = [getattr(answer, "status_code", None) for answer in answers]
        found.append(s3.get("ResponseMetadata", {}).get("HTTPStatusCode"))
        found.append(error.get_http_status_code() if isinstance(said, dict) and not is_foreign else None)
        found += [int(group) for match in STATUS.finditer(text) for group in match.groups() if group]
        return cls(
            text=text,
            root=masked(clean(str(causes[-1])))[:LONGEST_WORDS] or type(causes[-1]).__name__,
            kinds=frozenset(kind.__name__ for each in causes for kind in type(each).__mro__),
            status=next((status for status in found if status), None),
            code=s3.get("Error", {}).get("Code") or (None if is_foreign else getattr(error, "error_code", None)),
            is_foreign=is_foreign,
        )

    def error(self, subject: str, cases: dict[str, bool], **names: str) -> StoreError:
        """Return the error of the first code whose case holds; ``names`` are those in its advice."""
        code = next(code for code, holds in cases.items() if holds)
        kind, advice = MEANING[code]
        happens, words = (
            f"answers {self.status}" if self.status else "says",
            _plain(self.text.partition(BODY)[2].strip("'") or self.text) or "nothing",
        )
        if self.status is None and self.kinds & (SILENCE | CUT_SHORT):
            happens, words = "breaks off" if kind is TransferBroken else "does not answer", self.root
        return kind(code, f"{subject} {happens}: {words.rstrip('.')}. {advice.format(**names)}".strip())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was raised for, the innermost last."""
    while error is not None:
        yield error
        inner = (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args)
        error = next((each for each in inner if isinstance(each, BaseException)), None)


def require_package(place: str) -> None:
    """Raise StoreError, naming what to install, where the package that reads an artifact location is missing."""
    scheme = urlsplit(place).scheme
    module, packages = PACKAGES.get(scheme, ("os", ""))
    try:
        importlib.import_module(module)
    except ImportError:
        raise StoreError(
            "artifacts.package_missing",
            f"the artifacts are at {_store_of(place)}, and Python reads {scheme}:// with a package that is not "
            f"installed here: pip install {packages}",
        ) from None
    if scheme == "s3":
        _bound_s3()


@cache
def _bound_s3() -> None:
    """Let boto3 give up a silent endpoint within seconds; no variable bounds how long it reads, and its own is 60 s.

    MLflow takes its clients from boto3's default session.
    """
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
    """Turn what MLflow, or a library below it, raised into an error for the user.

    ``uri`` is the tracking store's and ``what`` was asked of it; ``place`` is an artifact location with a server of
    its own, when it was that which was asked. Secrets are masked.
    """
    trouble = _Trouble.behind(error)
    if place is not None:
        return _of_artifacts(trouble, place)
    if urlsplit(uri).scheme not in {"http", "https"}:
        return StoreError("store.failed", f"MLflow at {redacted(uri)} says: {trouble.text[:LONGEST_WORDS]}")
    if trouble.is_foreign or "RetryError" in trouble.kinds:
        again = _asked_again(uri)
        if again is not None and again.status_code >= 400:
            trouble = replace(trouble, status=again.status_code, text=masked(clean(again.text[:LONGEST_ANSWER])))
    return _of_server(trouble, uri, what)


def _of_server(trouble: _Trouble, uri: str, what: str) -> StoreError:
    status, kinds, code = trouble.status, trouble.kinds, trouble.code
    body = trouble.text.partition(BODY)[2].lstrip("' ")
    is_other = trouble.is_foreign or bool(body) or "TooManyRedirects" in kinds
    is_silent = status is None and not is_other and bool(kinds & SILENCE)
    cases = {
        "store.certificate": "SSLError" in kinds,
        "store.proxy": "ProxyError" in kinds,
        "store.proxy_login": status == 407,
        "store.login_refused": status == 401 or code in {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"},
        "store.permission_denied": status == 403 or code == "PERMISSION_DENIED",
        "store.cut_short": bool(kinds & CUT_SHORT) or (status is None and body.startswith("{")),
        "store.unreachable": is_silent or status == 429 or (status or 0) >= 500,
        "store.not_mlflow": is_other,
        "store.failed": True,
    }
    found = trouble.error(f"the MLflow server {redacted(uri)}", cases, what=what)
    return StoreError(found.code, f"{found}{_where_instead(uri)}.") if found.code == "store.not_mlflow" else found


def foreign(words: str, uri: str) -> StoreError:
    """Return the error for an answer that is none of MLflow's."""
    return StoreError("store.not_mlflow", f"{redacted(uri)} answers with {words}. {NOT_MLFLOW}{_where_instead(uri)}.")


def _of_artifacts(trouble: _Trouble, place: str) -> StoreError:
    scheme, status, kinds, code = urlsplit(place).scheme, trouble.status, trouble.kinds, trouble.code
    cases = {
        "artifacts.certificate": "SSLError" in kinds,
        "artifacts.cut_short": bool(kinds & CUT_SHORT),
        "artifacts.unreachable": bool(kinds & SILENCE),
        "artifacts.keys_refused": bool(kinds & NO_KEYS) or code in KEYS_REFUSED or status == 401,
        "artifacts.permission_denied": status == 403 or code == "PERMISSION_DENIED",
        "artifacts.missing": status == 404 or code == "NoSuchBucket",
        "artifacts.failed": True,
    }
    return trouble.error(
        f"the artifact store {_store_of(place)}",
        cases,
        keys=KEYS.get(scheme, "its keys"),
        authority="AWS_CA_BUNDLE" if scheme == "s3" else "REQUESTS_CA_BUNDLE",
        endpoint="MLFLOW_S3_ENDPOINT_URL and " if scheme == "s3" else "",
    )


def _asked_again(uri: str) -> Any | None:
    """Ask a server once more, with the user's login, for the status and the words that MLflow does not hand on."""
    from mlflow.tracking._tracking_service.utils import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    once = {"max_retries": 0, "raise_on_status": False, "timeout": ANSWER_SECONDS}
    try:
        question = "/api/2.0/mlflow/experiments/search"
        return http_request(get_default_host_creds(uri), question, "GET", params={"max_results": 1}, **once)
    except Exception:  # the first error is reported, then, as it is
        return None


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


def _plain(text: str) -> str:
    """Return what a server says, without markup."""
    text = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text[:LONGEST_ANSWER], flags=re.DOTALL)
    return masked(re.sub(r"\s+", " ", clean(text)).strip())[:LONGEST_WORDS]


def masked(text: str) -> str:
    """Mask in a text whatever this process could log in with: servers may say it back."""
    text = re.sub(r"\b(Basic|Bearer) +[\w.~+/=-]+", r"\1 ***", redacted(text))
    for name, value in os.environ.items():
        if NAMES.search(name) and len(value) >= 6:
            text = text.replace(value, "***")
    return text
