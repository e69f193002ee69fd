"""Failures of requests to MLflow and artifact stores, as errors with the status, the server's words and a setting."""

import os
import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from dailies.core.credentials import NAMES
from dailies.core.errors import AccessRefused, StoreError, StoreUnreachable, TransferBroken
from dailies.core.text import clean, redacted

LOGIN = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
KEYS = "for S3 in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"

NO_RESPONSE = frozenset({"ConnectionError", "HTTPClientError", "RetryError", "Timeout"})
CUT_SHORT = frozenset({"ChunkedEncodingError", "IncompleteRead", "IncompleteReadError", "ResponseStreamingError"})
NO_KEYS = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "SSOError"})
REFUSED = NO_KEYS | {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
"""Classes of exceptions, and error codes of S3: no response, a truncated one, a rejected login or keys."""

LONGEST_QUOTE, LONGEST_RESPONSE = 300, 10_000
"""Characters of a text that an error quotes, and of a response that is searched for that text."""


@dataclass(frozen=True)
class Failure:
    """What an exception and its causes say about a failed request."""

    words: str
    names: frozenset[str]
    """The class names of the exception and its causes, base classes included, and the error code of S3 or MLflow."""
    status: int | None
    is_foreign: bool = False  # whether MLflow did not write the response

    @classmethod
    def from_error(cls, error: Any) -> "Failure":
        causes = [error]
        while inner := causes[-1].__cause__ or causes[-1].__context__:
            causes.append(inner)
        names = {kind.__name__ for each in causes for kind in type(each).__mro__}
        response: Any = next((found for each in causes if (found := getattr(each, "response", None)) is not None), None)
        status, code = getattr(response, "status_code", None), getattr(error, "error_code", "")
        own = ("PERMISSION_DENIED", "UNAUTHENTICATED", vars(error).get("json", {}).get("error_code"))  # MLflow's
        if isinstance(response, dict):  # botocore's
            status, code = response["ResponseMetadata"].get("HTTPStatusCode"), response["Error"]["Code"]
        elif code in own:
            status = error.get_http_status_code()
        said = str(causes[-1] if names & (NO_RESPONSE | CUT_SHORT) else error) or type(error).__name__
        return cls(quoted(said), frozenset({*names, code}), status)

    @property
    def summary(self) -> str:
        """What the server did, as a predicate without a full stop: ``answers 401: token expired``."""
        silent = "does not answer" if self.names & (NO_RESPONSE | CUT_SHORT) else "says"
        return f"{f'answers {self.status}' if self.status else silent}: {self.words.rstrip('.')}"

    @property
    def cause(self) -> str:
        """The first cause that applies."""
        status, names = self.status or 0, self.names
        causes = {
            "proxy": "ProxyError" in names or status == 407,
            "refused": status == 401 or bool(names & REFUSED),
            "denied": status == 403,
            "cut short": bool(names & CUT_SHORT),
            "certificate": "SSLError" in names,
            "unreachable": status == 429 or status >= 500 or (not status and bool(names & NO_RESPONSE)),
            "foreign": self.is_foreign or "TooManyRedirects" in names,
        }
        return next((cause for cause, applies in causes.items() if applies), "other")


def store_error(error: Exception, uri: str, *, what: str = "this", place: str | None = None) -> StoreError:
    """Return the store error for an exception that MLflow, or a library below it, raised.

    ``uri`` is the tracking store and ``what`` was requested from it. If the request went directly to an artifact store,
    ``place`` is the artifact location. Secrets are masked.
    """
    failure = Failure.from_error(error)
    if place is not None:
        return _artifact_store_error(failure, place)
    if urlsplit(uri).scheme not in {"http", "https"}:
        return StoreError("store.failed", f"MLflow at {redacted(uri)} says: {failure.words}")
    if failure.status is None and ("RetryError" in failure.names or not failure.names & (NO_RESPONSE | CUT_SHORT)):
        failure = _clarified(failure, uri)
    said = f"the MLflow server {redacted(uri)} {failure.summary}"
    errors = {
        "certificate": StoreUnreachable(
            "store.certificate",
            f"{said}. If your studio has its own authority, set MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE "
            "to its certificate (.pem); otherwise check MLFLOW_TRACKING_CLIENT_CERT_PATH and mlflow_uri.",
        ),
        "proxy": StoreUnreachable("store.proxy", f"{said}. Correct HTTPS_PROXY, HTTP_PROXY or NO_PROXY."),
        "refused": AccessRefused("store.login_refused", f"{said}. Set or correct {LOGIN}; ~/.netrc takes precedence."),
        "denied": StoreError(
            "store.permission_denied",
            f"{said}. You may not read {what}: ask for READ, or check mlflow_uri and {LOGIN}.",
        ),
        "cut short": TransferBroken("store.cut_short", f"{said}. The response was cut short."),
        "unreachable": StoreUnreachable(
            "store.unreachable", f"{said}. Check mlflow_uri, the network and MLFLOW_HTTP_REQUEST_TIMEOUT."
        ),
        "foreign": not_mlflow(said),
    }
    return errors.get(failure.cause) or StoreError("store.failed", f"{said}.")


def _clarified(failure: Failure, uri: str) -> Failure:
    """Return what one more request with the user's login tells: MLflow drops the status and text of some responses."""
    from mlflow.tracking._tracking_service.utils import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        path = "/api/2.0/mlflow/experiments/search?max_results=1"
        response = http_request(get_default_host_creds(uri), path, "GET", max_retries=0, raise_on_status=False)
    except Exception:
        return failure
    if response.status_code >= 400 or not response.text.startswith("{"):
        words, is_foreign = quoted(response.text or response.reason), '"error_code"' not in response.text
        return replace(failure, words=words, status=response.status_code, is_foreign=is_foreign)
    is_unreadable = failure.names & {"INTERNAL_ERROR", "JSONDecodeError"} and "RetryError" not in failure.names
    return replace(failure, names=failure.names | CUT_SHORT) if is_unreadable else failure


def not_mlflow(said: str) -> StoreError:
    """Return the error for a response that MLflow did not write; ``said`` is the clause that quotes it."""
    return StoreError(
        "store.not_mlflow",
        f"{said}. This is not a response from MLflow. Check mlflow_uri and whether a login page is in front of it.",
    )


def _artifact_store_error(failure: Failure, place: str) -> StoreError:
    said = f"the artifact store {bucket(place)} {failure.summary}"
    errors = {
        "refused": AccessRefused("artifact_store.keys_refused", f"{said}. Set or correct its keys, {KEYS}."),
        "denied": StoreError("artifact_store.permission_denied", f"{said}. Set keys that may list and read, {KEYS}."),
        "cut short": TransferBroken("artifact_store.cut_short", f"{said}. The response was cut short."),
        "other": StoreError("artifact_store.failed", f"{said}. Check MLFLOW_S3_ENDPOINT_URL and artifact_remap."),
    }
    settings = "the network, MLFLOW_S3_ENDPOINT_URL, and AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE for certificates"
    return errors.get(failure.cause) or StoreUnreachable("artifact_store.unreachable", f"{said}. Check {settings}.")


def bucket(place: str) -> str:
    """Return the bucket or container of an artifact location."""
    return "/".join(redacted(clean(place)).split("/")[:3])[:200]


def quoted(text: str) -> str:
    """Return a text as an error quotes it: short, on one line, without HTML tags and credentials."""
    text = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text[:LONGEST_RESPONSE], flags=re.DOTALL)
    text = re.sub(r"\b(Basic|Bearer) +[\w.~+/=-]+", r"\1 ***", redacted(clean(text)))
    for name, value in os.environ.items():
        if NAMES.search(name) and len(value) >= 6:
            text = text.replace(value, "***")
    return text[:LONGEST_QUOTE]
