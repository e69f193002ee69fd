"""Real servers of older MLflows, with models that their own client logged."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from dailies.core.errors import StoreError
from dailies.store.registry import registered
from dailies.store.tracking import TrackingStore
from helpers import REPOSITORY
from helpers.images import read_frame
from helpers.publishing import again, evaluations, promoted
from helpers.raising import refused
from helpers.requires import lacking
from helpers.stores import served
from helpers.studio import Studio, environment
from helpers.weights import grey, grey_checkpoint

pytestmark = pytest.mark.servers

OLD = {
    "2.9.2": "protobuf<5 packaging<24 importlib-metadata<8 sqlalchemy<2.1 setuptools<81 pytz querystring_parser "
    "entrypoints databricks-cli tabulate oauthlib pyjwt six",
    "2.14.3": "protobuf<5 packaging<25 importlib-metadata<8 sqlalchemy<2.1 setuptools<81 pytz querystring_parser "
    "entrypoints",
    "2.22.5": "protobuf<7 sqlalchemy<2.1",
    "3.1.4": "protobuf<7 sqlalchemy<2.1",
}
"""By version, the packages that it needs in other versions than those installed here."""

LEVELS = {"dark": -0.5, "light": 0.5}


@dataclass(frozen=True)
class Old:
    """A server of an older MLflow."""

    version: str
    store: str
    """``database`` or ``folder``."""
    uri: str
    runs: dict[str, str]
    """Run ids by run name."""

    @property
    def registers_logged_models(self) -> bool:
        """Whether it can: MLflow 3.1 over a folder answers its own client with status 500."""
        return (self.version, self.store) != ("3.1.4", "folder")


def installed(version: str, cache: pytest.Cache) -> Path:
    """Return the folder of an MLflow, which is downloaded (80 to 120 MB) unless pytest's cache contains it."""
    folder = cache.mkdir("mlflow") / version
    if not folder.is_dir():
        draft = folder.with_name(f"{version}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        wanted = [f"mlflow=={version}", *OLD[version].split()]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(draft), *wanted]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            lacking("servers", done.stderr[-500:])
        draft.rename(folder)
    return folder


@pytest.fixture(
    scope="module",
    params=[*((version, "database") for version in OLD), ("2.22.5", "folder"), ("3.1.4", "folder")],
    ids=" ".join,
)
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Old:
    version, store = request.param
    path = str(installed(version, request.config.cache))
    root = tmp_path_factory.mktemp("server")
    place = str(root / "mlruns") if store == "folder" else None
    uri = served(root, "--artifacts-destination", str(root / "files"), store=place, PYTHONPATH=path)
    for name, level in LEVELS.items():
        torch.save(grey_checkpoint(level), root / f"{name}.pth")
    training = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests" / "helpers" / "old_client.py"), uri, str(root)],
        env=environment() | {"PYTHONPATH": path, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert training.returncode == 0, training.stderr
    return Old(version, store, uri, json.loads(training.stdout.splitlines()[-1]))


@pytest.fixture
def studio(old: Old, tmp_path: Path) -> Studio:
    studio = Studio(tmp_path, old.uri, experiment=f"of {tmp_path.name}")
    studio.runs = dict(old.runs)
    studio.config |= {"experiment_name": "exp", "trust_code": True}
    studio.add_frames(2)
    return studio


def test_models_are_rendered_and_evaluations_and_versions_written_once(old: Old, studio: Studio):
    listed = studio.snakemake("list_models")
    assert all(f"{name}_" in listed for name in old.runs)

    studio.snakemake(write_back=True)

    assert {line["run_name"]: line["status"] for line in studio.summary()} == dict.fromkeys(old.runs, "success")
    for name, level in LEVELS.items():
        assert studio.levels(old.runs[name]) == [grey(level)] * 2
    for frame in studio.frames.iterdir():
        assert (read_frame(studio.folder(old.runs["flavour"]) / frame.name) == read_frame(frame)).all()
    written = again(studio)
    assert len(evaluations(studio)) == len(written) == len(old.runs)
    assert "Nothing to be done" in studio.snakemake("-n", write_back=True)

    numbers = iter("123")
    for name in old.runs if old.registers_logged_models else LEVELS:
        assert f" is now version {next(numbers)} of chosen, and @champion" in promoted(studio, name, name="chosen")
        assert "@champion already; nothing was changed" in promoted(studio, name, name="chosen")
    if old.version.startswith("3"):  # neither the evaluation nor the version has damaged it
        (model,) = studio.client.search_logged_models([studio.client.get_experiment_by_name("exp").experiment_id])
        assert studio.client.get_logged_model(model.model_id).source_run_id == old.runs["flavour"]


def test_a_registered_model_is_rendered_and_existing_ones_are_listed(old: Old, studio: Studio):
    studio.snakemake(models=["net@champion"], experiment_name=None)

    (line,) = studio.summary()
    assert (line["run_id"], line["status"]) == (old.runs["dark"], "success")

    store = TrackingStore(old.uri, private=studio.root / "private")
    with refused(StoreError, "registry.no_version", "net", "alias best", ": 1, 2;", "champion (version 1)"):
        registered(store, ["net@best"])
    with refused(StoreError, "registry.no_model", "nobody") as error:
        registered(store, ["nobody/1"])
    assert "net" in str(error.value).partition("; registered models there: ")[2].split(", ")


@pytest.mark.parametrize("version", ["2.9.2", "2.22.5"])
def test_the_login_of_an_older_server_is_required_and_accepted(version: str, request, tmp_path: Path, monkeypatch):
    path = str(installed(version, request.config.cache))
    settings = tmp_path / "auth.ini"
    settings.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{tmp_path / 'auth.db'}\n"
        "admin_username = chief\nadmin_password = not-a-secret-1\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    uri = served(
        tmp_path,
        *("--app-name", "basic-auth", "--artifacts-destination", str(tmp_path / "files")),
        PYTHONPATH=path,
        MLFLOW_AUTH_CONFIG_PATH=str(settings),
        MLFLOW_FLASK_SERVER_SECRET_KEY="of this test",
    )
    login = {"MLFLOW_TRACKING_USERNAME": "chief", "MLFLOW_TRACKING_PASSWORD": "not-a-secret-1"}
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    studio = Studio(tmp_path / "studio", uri)
    run_id = studio.add_run("dark", grey_checkpoint(-0.5))
    studio.add_frames(1)

    assert f"the MLflow server {uri} answers 401: " in studio.snakemake(expect=1)
    studio.environment = login | {"MLFLOW_TRACKING_PASSWORD": "wrong-password"}
    assert f"the MLflow server {uri} answers 401: " in studio.snakemake(expect=1)
    studio.environment = login
    studio.snakemake()
    assert studio.levels(run_id) == [grey(-0.5)]
