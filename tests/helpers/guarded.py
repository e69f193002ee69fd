"""A guarded MLflow server for tests: with login (basic-auth), its artifacts in an S3 (moto) that checks keys."""

import atexit
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from unittest.mock import patch

import boto3
import moto.settings
from mlflow.server.auth.client import AuthServiceClient
from moto.server import ThreadedMotoServer

from helpers.stores import free_port, new_server_folder, served

ADMIN = "admin", "the-admins-password"
READER = "reader", "the-readers-password"
STRANGER = "stranger", "the-strangers-password"
"""Names and passwords: the reader may read what ``Guarded.show`` shows, the stranger nothing."""

BUCKET = "studio"

BARE = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "NETRC": "/nonexistent",
}
"""An environment in which no key of this machine's own is found."""


@dataclass(frozen=True)
class Guarded:
    """The server, and the keys of its artifact store."""

    uri: str
    s3: str
    """The address of the artifact store."""
    keys: Mapping[str, str] = field(repr=False)
    """What a client that reads the artifact store itself needs in its environment."""

    def show(self, experiment_id: str) -> None:
        """Let the reader read an experiment."""
        with logged_in(ADMIN) as users:
            users(self.uri).grant_user_permission(READER[0], "experiment", experiment_id, "READ")


@contextmanager
def logged_in(pair: tuple[str, str], **variables: str) -> Iterator[type[AuthServiceClient]]:
    """Let this process be logged in meanwhile; give what an administrator manages a server's users with."""
    with patch.dict(os.environ, login(pair) | variables):
        yield AuthServiceClient


def login(pair: tuple[str, str]) -> dict[str, str]:
    """Give the environment of someone who logs in."""
    return {"MLFLOW_TRACKING_USERNAME": pair[0], "MLFLOW_TRACKING_PASSWORD": pair[1]}


@cache
def _artifact_store() -> tuple[str, dict[str, str]]:
    """Start S3 in this process, with a bucket and one user's keys; all others are refused from then on."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    atexit.register(server.stop)
    address = f"http://127.0.0.1:{port}"

    def client(service: str) -> "boto3.client":
        anyone = {"aws_access_key_id": "anyone", "aws_secret_access_key": "anyone"}
        return boto3.session.Session().client(service, endpoint_url=address, region_name="us-east-1", **anyone)

    client("s3").create_bucket(Bucket=BUCKET)
    iam = client("iam")
    iam.create_user(UserName="artist")
    policy = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}'
    iam.put_user_policy(UserName="artist", PolicyName="all", PolicyDocument=policy)
    key = iam.create_access_key(UserName="artist")["AccessKey"]
    moto.settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    return address, {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": address,
    }


@cache
def guarded() -> Guarded:
    """Start the server, once for all tests of this process."""
    s3, keys = _artifact_store()
    root = new_server_folder()
    settings = root / "auth.ini"
    settings.write_text(
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{root / 'auth.db'}\n"
        f"admin_username = {ADMIN[0]}\nadmin_password = {ADMIN[1]}\n"
        "auth_cache_ttl_seconds = 600\n"  # checking a password takes 0.2 s; the server itself forgets those it changes
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    uri = served(
        root,
        *("--app-name", "basic-auth", "--artifacts-destination", f"s3://{BUCKET}/proxied"),
        MLFLOW_AUTH_CONFIG_PATH=str(settings),
        MLFLOW_FLASK_SERVER_SECRET_KEY=uuid.uuid4().hex,
        MLFLOW_SERVER_ALLOWED_HOSTS="*",
        **keys | BARE,
    )
    with logged_in(ADMIN) as users:
        users(uri).create_user(*READER)
        users(uri).create_user(*STRANGER)
    return Guarded(uri, s3, keys)
