"""Connections to servers: timeouts and retries, health checks, and the packages that artifact stores need."""

import importlib
import os
import time
from functools import cache
from urllib.parse import urlsplit

from dailies.core.errors import StoreError, StoreUnreachable
from dailies.core.text import clean
from dailies.store.failures import ANSWER_SECONDS, CONNECT_SECONDS, Failure, bucket, server_error, without_markup

HEALTH_PAUSES = (0.5, 1.5)
"""Seconds before the second and third health check of a server that hangs up or reports an internal error."""

READ_SECONDS = 10
"""Seconds for which S3 may send nothing, before or during a response; boto3 makes three attempts."""

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # a busy server may ask for hours, and MLflow would wait
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # in a log, each step of the bar is a line of escape codes
    # a server in front of S3 would redirect downloads to S3; if S3 is unreachable, MLflow retries for ten minutes
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "AWS_MAX_ATTEMPTS": "3",
    "AWS_RETRY_MODE": "standard",
}
"""Defaults for MLflow and boto3 that bound each request to about two minutes. The user's values take precedence."""

PACKAGES = {
    "s3": ("boto3", "boto3"),
    "gs": ("google.cloud.storage", "google-cloud-storage"),
    "wasbs": ("azure.storage.blob", "azure-storage-blob azure-identity"),
    "abfss": ("azure.storage.filedatalake", "azure-storage-file-datalake azure-identity"),
}
"""By the scheme of an artifact location: the module that reads it and the packages to install."""


def set_environment_defaults() -> None:
    """Set the timeouts and retries of MLflow and boto3 in this process, without overriding the user's."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def check_health(uri: str, name: str) -> None:
    """Raise StoreUnreachable, with the reason, if a server does not respond to a health check.

    A server that hangs up or answers with status 5xx is asked three times within two seconds. Any other response
    counts as healthy, including 401 and 403: the login is checked by MLflow's own requests. ``name`` is the address as
    errors show it.
    """
    for pause in (*HEALTH_PAUSES, None):
        problem = _health_problem(uri, name)
        if problem is None:
            return
        if pause is not None:
            time.sleep(pause)
    raise StoreUnreachable(
        "store.unreachable",
        f"the MLflow server {name} {problem}. Check mlflow_uri and the network, or start the server.",
    )


def _health_problem(uri: str, name: str) -> str | None:
    """Return a problem that may be temporary, or None if the server is healthy. Raises StoreError for any other."""
    import requests
    from requests import exceptions

    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true"
    try:
        response = requests.get(
            uri.rstrip("/") + "/health",
            timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
            verify=not insecure and (os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True),
            cert=os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
        )
    except (exceptions.SSLError, exceptions.ProxyError, exceptions.Timeout) as error:
        raise server_error(Failure.from_error(error), uri, "this") from None
    except exceptions.RequestException as error:
        return f"does not answer: {Failure.from_error(error).root}"
    except OSError as error:  # requests raises it for missing certificate files
        raise StoreError(
            "store.certificate_file",
            f"the certificate for {name} cannot be used: {clean(str(error))[:300]}. Correct "
            "MLFLOW_TRACKING_SERVER_CERT_PATH, REQUESTS_CA_BUNDLE or MLFLOW_TRACKING_CLIENT_CERT_PATH.",
        ) from None
    if response.status_code < 500:
        return None
    return f"answers {response.status_code}: {without_markup(response.text) or response.reason}"


def require_package(place: str) -> None:
    """Raise StoreError, naming what to install, if the package that reads an artifact location is missing."""
    scheme = urlsplit(place).scheme
    module, packages = PACKAGES.get(scheme, ("os", ""))
    try:
        importlib.import_module(module)
    except ImportError:
        raise StoreError(
            "artifact_store.package_missing",
            f"the artifacts are at {bucket(place)}, and the package that reads {scheme}:// is not installed: "
            f"pip install {packages}",
        ) from None
    if scheme == "s3":
        set_s3_timeouts()


@cache
def set_s3_timeouts() -> None:
    """Make boto3 give up on a silent endpoint within seconds; its own read timeout of 60 s has no variable.

    MLflow creates its clients from boto3's default session.
    """
    import boto3
    from botocore.config import Config
    from botocore.session import Session

    session = Session()
    session.set_default_client_config(Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS))
    boto3.setup_default_session(botocore_session=session)
