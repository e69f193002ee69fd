"""Whole invocations against a server with login whose artifacts are in S3, and against one that stumbles."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.guarded import ADMIN, BARE, BUCKET, READER, guarded, logged_in, login
from helpers.stores import proxied
from helpers.studio import Studio, jobs
from helpers.weights import grey, grey_checkpoint

pytestmark = pytest.mark.s3

LEVELS = {"dark": -0.5, "light": 0.5}


@pytest.fixture
def remote(tmp_path: Path) -> Iterator:
    """Make a studio with two models on the guarded server, which the reader renders."""

    def made(place: str = "proxied", uri: str | None = None) -> Studio:
        server, name = guarded(), f"{place}_{uuid.uuid4().hex[:8]}"
        location = f"s3://{BUCKET}/{name}" if place == "direct" else None
        with logged_in(ADMIN, **server.keys | BARE):
            studio = Studio(tmp_path, server.uri, experiment=name, location=location)
            for run, level in LEVELS.items():
                studio.add_run(run, grey_checkpoint(level))
            server.show(studio.experiment)
        studio.add_frames(2)
        studio.config |= {"mlflow_uri": uri or server.uri, "compare": False}
        studio.environment = BARE | login(READER)
        return studio

    return made


def add_run(studio: Studio, name: str, level: float) -> str:
    with logged_in(ADMIN, **guarded().keys | BARE):
        return studio.add_run(name, grey_checkpoint(level))


def assert_rendered(studio: Studio) -> None:
    assert [line["status"] for line in studio.summary()] == ["success"] * len(LEVELS)
    for run, level in LEVELS.items():
        assert studio.levels(studio.runs[run]) == [grey(level)] * 2


def left_behind(studio: Studio, output: str, *secrets: str) -> list[str]:
    """Name the places where a secret was left: files of the studio, whatever snakemake keeps, and what it printed."""
    found = ["output" for secret in secrets if secret in output]
    for path in studio.root.rglob("*"):
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets):
            found.append(str(path))
    return found


def errors(output: str) -> list[str]:
    return [line.partition("dailies: ")[2] for line in output.splitlines() if "dailies: " in line]


def test_the_right_login_renders_and_a_refused_one_loses_nothing(remote):
    studio = remote()
    right = studio.environment

    studio.environment = BARE
    output = studio.snakemake(expect=1)
    (error,) = errors(output)
    assert error.startswith(f"the MLflow server {guarded().uri} answers 401: ")
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in error
    assert "Traceback" not in output

    studio.environment = right
    output = studio.snakemake()
    assert_rendered(studio)
    assert left_behind(studio, output, READER[1]) == []
    assert left_behind(studio, output + READER[1], READER[1]) == ["output"]

    before, summary = [studio.written(run) for run in studio.runs.values()], studio.summary()
    studio.environment = BARE | login((READER[0], "not-the-password"))
    studio.add_frames(1, start=2)
    output = studio.snakemake(expect=1)
    (error,) = errors(output)
    assert error.startswith(f"the MLflow server {guarded().uri} answers 401: ")
    assert jobs(output, "download") == jobs(output, "infer") == []
    assert [studio.written(run) for run in studio.runs.values()] == before
    assert studio.summary() == summary
    assert left_behind(studio, output, READER[1], "not-the-password") == []


def test_artifacts_in_s3_are_rendered_and_known_models_outlast_an_outage(remote):
    studio = remote("direct")
    keys = dict(guarded().keys)
    (studio.root / "networks.py").write_text(
        "import os\n"
        "from dailies.models.architectures.catalog import ARCHITECTURES\n"
        "def make(config):\n"
        f"    with open({str(studio.root / 'seen')!r}, 'a') as file:\n"
        "        print(sorted(os.environ), file=file)\n"
        "    return ARCHITECTURES['unet'](**config)\n"
    )
    studio.config |= {"model_factory": "networks:make", "python_path": [str(studio.root)]}
    with proxied(guarded().s3) as store:
        studio.environment |= keys | {"MLFLOW_S3_ENDPOINT_URL": store.uri}
        output = studio.snakemake()
        assert_rendered(studio)
        seen = (studio.root / "seen").read_text()
        assert "MLFLOW_S3_ENDPOINT_URL" in seen
        assert "AWS_SECRET" not in seen
        assert "MLFLOW_TRACKING_PASSWORD" not in seen
        assert left_behind(studio, output, keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], READER[1]) == []

        third = add_run(studio, "third", 0.1)
        store.trouble = lambda method, path: "drop"
        output = studio.snakemake()
        (warning,) = errors(output)
        assert warning.startswith(f"the artifact store s3://{BUCKET} does not answer: ")
        assert warning.endswith("Continuing with the models already known: 2")
        assert_rendered(studio)

        store.trouble = lambda method, path: None
        studio.snakemake()
        assert studio.levels(third) == [grey(0.1)] * 2


class Stumbling:
    """Every third request goes wrong, in another way each time; a download is cut and a listing comes short as well."""

    TROUBLES = ("drop", (503, "busy", {"Retry-After": "1"}), "cut", (500, "sorry"), "short", (429, "slowly"), "slow")

    def __init__(self) -> None:
        self.count = 0
        self.had: list[object] = []

    def __call__(self, method: str, path: str) -> object:
        self.count += 1
        if self.count % 3:
            return None
        trouble = self.TROUBLES[self.count // 3 % len(self.TROUBLES)]
        self.had.append(trouble)
        if trouble == "slow":
            time.sleep(0.5)
            return None
        return trouble


def test_a_server_that_stumbles_all_the_time_still_gets_every_model_rendered(remote):
    stumbling = Stumbling()
    with proxied(guarded().uri) as server:
        server.trouble = stumbling
        studio = remote(uri=server.uri)
        output = studio.snakemake()

    assert_rendered(studio)
    assert {str(trouble) for trouble in stumbling.had} == {str(trouble) for trouble in Stumbling.TROUBLES}
    assert left_behind(studio, output, READER[1]) == []
