"""Failures of requests to MLflow and artifact stores, as errors with the status, the server's words and a setting."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dailies.core.credentials import NAMES
from dailies.core.errors import AccessRefused, StoreError, StoreUnreachable, TransferBroken
from dailies.core.text import clean, redacted

CONNECT_SECONDS, ANSWER_SECONDS = 3, 5
"""Seconds within which a server must accept a connection and start its first response; otherwise it is unreachable."""

AZURE = "AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCESS_KEY"

KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "wasbs": AZURE,
    "abfss": AZURE,
}
"""By the scheme of an artifact location: the environment variables that hold the user's keys."""

LOGIN = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
"""The environment variables that hold the user's login."""

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
"""Error codes of S3 and MLflow for keys that are wrong or have expired."""

NO_RESPONSE = frozenset({"ConnectionError", "HTTPClientError", "Timeout"})
CUT_SHORT = frozenset({"ChunkedEncodingError", "IncompleteRead", "IncompleteReadError", "ResponseStreamingError"})
NO_KEYS = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "SSOError"})
"""Exception classes of requests, urllib3 and botocore: no response, a truncated response, no usable keys."""

LONGEST_QUOTE, LONGEST_RESPONSE = 300, 10_000
"""Characters of a server's or library's text that an error quotes, and of a response that is searched for that text."""

STATUS = re.compile(r"error code (\d{3}) !=|\b(\d{3}) (?:Client|Server) Error|too many (\d{3}) error")
"""The HTTP status within MLflow's error messages. If MLflow rewords them, errors still quote the message."""

BODY = "Response body: "
"""What precedes the response itself in MLflow's error messages."""

VERSION = re.compile(r"\d+(\.\w+)+")
"""MLflow's response to ``GET /version``."""


def store_error(error: Exception, uri: str, *, what: str = "this", place: str | None = None) -> StoreError:
    """Return the store error for an exception that MLflow, or a library below it, raised.

    ``uri`` is the tracking store and ``what`` was requested from it. If the request went directly to an artifact store,
    ``place`` is the artifact location. Secrets are masked.
    """
    failure = Failure.from_error(error)
    if place is not None:
        return _artifact_store_error(failure, place)
    if urlsplit(uri).scheme not in {"http", "https"}:
        return StoreError("store.failed", f"MLflow at {redacted(uri)} says: {failure.text[:LONGEST_QUOTE]}")
    if failure.is_foreign or "RetryError" in failure.kinds:
        response = _repeated_request(uri)
        if response is not None and response.status_code >= 400:
            text = masked(clean(response.text[:LONGEST_RESPONSE]))
            failure = replace(failure, status=response.status_code, text=text)
    return server_error(failure, uri, what)


def not_mlflow(said: str, uri: str) -> StoreError:
    """Return the error for a response that MLflow did not write; ``said`` is the clause that quotes it."""
    return StoreError(
        "store.not_mlflow",
        f"{said}. This is not a response from MLflow. Check mlflow_uri, its port and path, and whether a login page is "
        f"in front of it{_where_instead(uri)}.",
    )


def masked(text: str) -> str:
    """Replace every credential of this process in a text with ``***``: servers may echo them."""
    text = re.sub(r"\b(Basic|Bearer) +[\w.~+/=-]+", r"\1 ***", redacted(text))
    for name, value in os.environ.items():
        if NAMES.search(name) and len(value) >= 6:
            text = text.replace(value, "***")
    return text


@dataclass(frozen=True)
class Failure:
    """What an exception and its causes say about a failed request."""

    text: str
    """The message, on one line and masked."""
    root: str
    """The message of the innermost cause."""
    kinds: frozenset[str]
    """The class names of the exception and its causes, base classes included."""
    status: int | None
    """The HTTP status, if known."""
    code: str | None
    """The error code of S3 or MLflow."""
    is_foreign: bool
    """Whether the response is JSON that MLflow did not write."""

    @classmethod
    def from_error(cls, error: Exception) -> "Failure":
        causes = [*_chain(error)]
        raised: Any = error
        responses: list[Any] = [found for each in causes if (found := getattr(each, "response", None)) is not None]
        s3: dict[str, Any] = next((each for each in responses if isinstance(each, dict)), {})
        body = getattr(error, "json", None)
        is_foreign = isinstance(body, dict) and body.get("error_code") != raised.error_code
        # for a failed download MLflow writes a sentence, then "##### File x #####" and the reason
        text = masked(clean(str(error))).rpartition("##### ")[2] or type(error).__name__
        statuses = [getattr(each, "status_code", None) for each in responses]
        statuses.append(s3.get("ResponseMetadata", {}).get("HTTPStatusCode"))
        statuses.append(raised.get_http_status_code() if isinstance(body, dict) and not is_foreign else None)
        statuses += [int(group) for match in STATUS.finditer(text) for group in match.groups() if group]
        return cls(
            text=text,
            root=masked(clean(str(causes[-1])))[:LONGEST_QUOTE] or type(causes[-1]).__name__,
            kinds=frozenset(kind.__name__ for each in causes for kind in type(each).__mro__),
            status=next((status for status in statuses if status), None),
            code=s3.get("Error", {}).get("Code") or (None if is_foreign else getattr(error, "error_code", None)),
            is_foreign=is_foreign,
        )

    @property
    def summary(self) -> str:
        """What the server did, as a predicate without a full stop: ``answers 401: token expired``."""
        if self.status is None and self.kinds & (NO_RESPONSE | CUT_SHORT):
            return f"{'broke off' if self.kinds & CUT_SHORT else 'does not answer'}: {self.root.rstrip('.')}"
        words = without_markup(self.text.partition(BODY)[2].strip("'") or self.text) or "nothing"
        return f"{f'answers {self.status}' if self.status else 'says'}: {words.rstrip('.')}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and its causes, the innermost last."""
    while error is not None:
        yield error
        inner = (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args)
        error = next((each for each in inner if isinstance(each, BaseException)), None)


def server_error(failure: Failure, uri: str, what: str) -> StoreError:
    """Return the error of the first case that applies."""
    status, kinds, code = failure.status, failure.kinds, failure.code
    body = failure.text.partition(BODY)[2].lstrip("' ")
    is_foreign = failure.is_foreign or bool(body) or "TooManyRedirects" in kinds
    has_no_response = status is None and not is_foreign and bool(kinds & NO_RESPONSE)
    said = f"the MLflow server {redacted(uri)} {failure.summary}"
    cases: list[tuple[bool, StoreError]] = [
        (
            "SSLError" in kinds,
            StoreUnreachable(
                "store.certificate",
                f"{said}. If your studio has its own certificate authority, set MLFLOW_TRACKING_SERVER_CERT_PATH or "
                "REQUESTS_CA_BUNDLE to the file of its certificate (.pem); otherwise check mlflow_uri.",
            ),
        ),
        (
            "ProxyError" in kinds,
            StoreUnreachable(
                "store.proxy",
                f"{said}. Correct HTTPS_PROXY or HTTP_PROXY, or name the server's host in NO_PROXY.",
            ),
        ),
        (
            status == 407,
            AccessRefused("store.proxy_login", f"{said}. Correct the login in HTTPS_PROXY or HTTP_PROXY."),
        ),
        (
            status == 401 or code in {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"},
            AccessRefused(
                "store.login_refused",
                f"{said}. Set or correct {LOGIN}; a login in ~/.netrc takes precedence over these.",
            ),
        ),
        (
            status == 403 or code == "PERMISSION_DENIED",
            StoreError(
                "store.permission_denied",
                f"{said}. You may not read {what}: ask for the permission READ, or check mlflow_uri and {LOGIN}.",
            ),
        ),
        (
            bool(kinds & CUT_SHORT) or (status is None and body.startswith("{")),
            TransferBroken("store.cut_short", f"{said}. The response was cut short."),
        ),
        (
            has_no_response or status == 429 or (status or 0) >= 500,
            StoreUnreachable(
                "store.unreachable",
                f"{said}. Check mlflow_uri and the network, start the server, or raise MLFLOW_HTTP_REQUEST_TIMEOUT.",
            ),
        ),
        (not is_foreign, StoreError("store.failed", f"{said}.")),
    ]
    return next((error for applies, error in cases if applies), None) or not_mlflow(said, uri)


def _artifact_store_error(failure: Failure, place: str) -> StoreError:
    """Return the error of the first case that applies."""
    scheme, status, kinds, code = urlsplit(place).scheme, failure.status, failure.kinds, failure.code
    said = f"the artifact store {bucket(place)} {failure.summary}"
    keys = KEYS.get(scheme, "its keys")
    authority = "AWS_CA_BUNDLE" if scheme == "s3" else "REQUESTS_CA_BUNDLE"
    endpoint = "MLFLOW_S3_ENDPOINT_URL and " if scheme == "s3" else ""
    cases: list[tuple[bool, StoreError]] = [
        (
            "SSLError" in kinds,
            StoreUnreachable(
                "artifact_store.certificate",
                f"{said}. If your studio has its own certificate authority, set {authority} to the file of its "
                "certificate (.pem).",
            ),
        ),
        (
            bool(kinds & CUT_SHORT),
            TransferBroken("artifact_store.cut_short", f"{said}. The response was cut short."),
        ),
        (
            bool(kinds & NO_RESPONSE),
            StoreUnreachable("artifact_store.unreachable", f"{said}. Check {endpoint}the network."),
        ),
        (
            bool(kinds & NO_KEYS) or code in KEYS_REFUSED or status == 401,
            AccessRefused("artifact_store.keys_refused", f"{said}. Set or correct {keys}."),
        ),
        (
            status == 403 or code == "PERMISSION_DENIED",
            StoreError(
                "artifact_store.permission_denied", f"{said}. Set keys that may list and read its files in {keys}."
            ),
        ),
        (
            status == 404 or code == "NoSuchBucket",
            StoreError("artifact_store.missing", f"{said}. Check {endpoint}artifact_remap."),
        ),
        (True, StoreError("artifact_store.failed", f"{said}.")),
    ]
    return next(error for applies, error in cases if applies)


def _repeated_request(uri: str) -> Any | None:
    """Return the response to one more request with the user's login: MLflow drops the status and text of some.

    Returns None if the request fails; the first error is then reported as it is.
    """
    from mlflow.tracking._tracking_service.utils import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    once = {"max_retries": 0, "raise_on_status": False, "timeout": ANSWER_SECONDS}
    try:
        path = "/api/2.0/mlflow/experiments/search"
        return http_request(get_default_host_creds(uri), path, "GET", params={"max_results": 1}, **once)
    except Exception:
        return None


def _where_instead(uri: str) -> str:
    """Return a clause that names another path of the same host where MLflow answers, or "" if there is none."""
    import requests

    parts = urlsplit(uri)
    for path in dict.fromkeys(("", "/mlflow")):
        place = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        if place != uri.rstrip("/"):
            try:
                response = requests.get(f"{place}/version", timeout=(CONNECT_SECONDS, ANSWER_SECONDS))
            except requests.RequestException:
                continue
            if response.ok and VERSION.fullmatch(response.text.strip()):
                return f"; MLflow {response.text.strip()} answers at {redacted(place)}"
    return ""


def bucket(place: str) -> str:
    """Return the bucket or container of an artifact location."""
    return "/".join(redacted(clean(place)).split("/")[:3])[:200]


def without_markup(text: str) -> str:
    """Return a server's text on one line, masked and without HTML tags."""
    text = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text[:LONGEST_RESPONSE], flags=re.DOTALL)
    return masked(re.sub(r"\s+", " ", clean(text)).strip())[:LONGEST_QUOTE]
