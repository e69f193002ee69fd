"""Connections to servers: timeouts and retries, health checks, and the packages that artifact stores need."""

import importlib
import os
from functools import cache
from urllib.parse import urlsplit

from dailies.core.errors import StoreError
from dailies.store.failures import bucket, store_error

CONNECT_SECONDS, ANSWER_SECONDS, READ_SECONDS = 3, 5, 10
"""Seconds for accepting a connection and for starting the first response; for how long S3 may then send nothing."""

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # a busy server may ask for hours, and MLflow would wait
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # a server in front of S3 would redirect downloads to S3; if S3 is unreachable, MLflow retries for ten minutes
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_HTTP_POOL_MAXSIZE": "16",  # as many as ask at once: with fewer, connections are closed after one request
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


def check_health(uri: str) -> None:
    """Raise StoreUnreachable, with the reason, if a server does not start to respond within seconds, if only by 503."""
    import requests

    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true"
    try:
        requests.get(
            uri.rstrip("/") + "/health",
            timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
            verify=not insecure and (os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True),
            cert=os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
        )
    except requests.RequestException as error:
        raise store_error(error, uri) from error
    except OSError as error:  # requests raises it for missing certificate files
        raise store_error(requests.exceptions.SSLError(error), uri) from error


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
    """Make boto3's default session, and with it MLflow, give up on a silent endpoint sooner than after 60 s."""
    import boto3
    from botocore.config import Config
    from botocore.session import Session

    session = Session()
    session.set_default_client_config(Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS))
    boto3.setup_default_session(botocore_session=session)
