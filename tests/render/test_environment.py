import json
import os
import subprocess
import sys

import pytest
from dailies.core.credentials import without_credentials
from dailies.render.environment import TUNING
from helpers import REPOSITORY

SCRIPT = """
import json, os, sys
sys.path.append({scripts!r})
from dailies.render import environment
print("started", flush=True)
environment.prepare()
print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ), open("/proc/self/environ").read()]))
"""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_TRACKING_USERNAME", "ann"),
        ("MLFLOW_TRACKING_PASSWORD", "hush"),
        ("MLFLOW_TRACKING_TOKEN", "hush"),
        ("MLFLOW_TRACKING_URI", "http://ann:hush@host"),
        ("AWS_ACCESS_KEY_ID", "hush"),
        ("AWS_SECRET_ACCESS_KEY", "hush"),
        ("AWS_SESSION_TOKEN", "hush"),
        ("AZURE_STORAGE_CONNECTION_STRING", "hush"),
        ("AZURE_STORAGE_ACCESS_KEY", "hush"),
        ("AZURE_CLIENT_SECRET", "hush"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/home/ann/key.json"),
        ("DATABRICKS_TOKEN", "hush"),
    ],
)
def test_what_opens_a_store_is_left_out(name, value):
    assert without_credentials({name: value, "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin:/bin"),
        ("CUDA_VISIBLE_DEVICES", "0"),
        ("MLFLOW_TRACKING_URI", "http://host:5000"),
        ("OMP_NUM_THREADS", "2"),
        ("HOME", "/home/ann@lab"),
    ],
)
def test_everything_else_stays(name, value):
    assert without_credentials({name: value}) == {name: value}


@pytest.fixture
def run(tmp_path):
    """Run a script that prepares its environment, and give how often it started, and what it is then."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(scripts=str(REPOSITORY / "scripts")))

    def run(**environ):
        environ |= {"PATH": os.environ["PATH"]}
        process = subprocess.Popen([sys.executable, script, "one"], env=environ, stdout=subprocess.PIPE, text=True)
        *started, last = process.communicate(timeout=60)[0].splitlines()
        pid, arguments, variables, shown = json.loads(last)
        assert (pid, arguments) == (process.pid, ["one"])
        return len(started), variables, shown

    return run


def test_a_script_goes_on_without_credentials_in_the_same_process(run):
    times, variables, shown = run(MLFLOW_TRACKING_PASSWORD="hush", KEPT="yes")

    assert times == 2
    assert variables["KEPT"] == "yes"
    assert "MLFLOW_TRACKING_PASSWORD" not in variables
    assert "hush" not in shown


def test_what_makes_torch_fast_is_there_from_the_start(run):
    times, variables, shown = run()

    assert times == 2
    assert variables.items() >= TUNING.items()
    # of what glibc reads at the start it overwrites the colons
    assert all(f"{name}={value}" in shown.replace("\0", ":") for name, value in TUNING.items())


def test_what_the_user_has_set_stays(run):
    theirs = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2", "OMP_WAIT_POLICY": "ACTIVE"}

    times, variables, _ = run(**theirs)

    assert times == 1
    assert variables.items() >= theirs.items()


def test_a_script_starts_again_only_once(run, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ['LATE_TOKEN'] = 'set by every start of Python'")

    times, _, shown = run(PYTHONPATH=str(tmp_path))

    assert times == 2
    assert "LATE_TOKEN" not in shown


def test_a_job_within_a_prepared_one_is_prepared_itself(run):
    times, variables, _ = run(DAILIES_PREPARED="1", MLFLOW_TRACKING_TOKEN="hush")

    assert times == 2
    assert "MLFLOW_TRACKING_TOKEN" not in variables
