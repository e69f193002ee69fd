import json
import os
import subprocess
import sys

import pytest
from dailies.core.job_environment import TUNING, may_use_spare_cores, tune
from helpers import REPOSITORY

SCRIPT = """
import json, os, sys
sys.path.append({scripts!r})
from dailies.core import job_environment
print("started", flush=True)
job_environment.prepare()
print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ), open("/proc/self/environ").read()]))
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a script.

    It returns how often the script started, its variables, and those that the system shows other programs.
    """
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


def test_a_script_restarts_without_credentials_in_the_same_process(run):
    times, variables, shown = run(MLFLOW_TRACKING_PASSWORD="hush", OTHER="yes")

    assert times == 2
    assert variables["OTHER"] == "yes"
    assert "MLFLOW_TRACKING_PASSWORD" not in variables
    assert "hush" not in shown


def test_variables_that_make_torch_fast_are_set_at_the_start(run):
    times, variables, shown = run()

    assert times == 2
    assert variables.items() >= TUNING.items()
    # of what glibc reads at the start it overwrites the colons
    assert all(f"{name}={value}" in shown.replace("\0", ":") for name, value in TUNING.items())


def test_variables_that_the_user_has_set_stay(run):
    theirs = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2", "OMP_WAIT_POLICY": "ACTIVE"}

    times, variables, _ = run(**theirs)

    assert times == 1
    assert variables.items() >= theirs.items()


def test_a_script_restarts_only_once(run, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ['LATE_TOKEN'] = 'set by every start of Python'")

    times, _, shown = run(PYTHONPATH=str(tmp_path))

    assert times == 2
    assert "LATE_TOKEN" not in shown


def test_a_child_of_a_prepared_process_is_prepared_too(run):
    times, variables, _ = run(DAILIES_PREPARED="1", MLFLOW_TRACKING_TOKEN="hush")

    assert times == 2
    assert "MLFLOW_TRACKING_TOKEN" not in variables


def test_what_a_tuned_process_starts_needs_no_restart(run, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")

    tune()

    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"  # the user's own
    assert run(**{name: os.environ[name] for name in TUNING})[0] == 1


@pytest.mark.parametrize(("cores", "may"), [(None, False), (1, False), (2, True)])
def test_idle_cores_are_used_only_if_jobs_may_use_several(cores, may, monkeypatch):
    monkeypatch.setattr(os, "environ", {})

    tune(cores=cores)

    assert may_use_spare_cores() == may


def test_jobs_that_measure_get_little_of_a_core_beside_a_render():
    code = "import os; from dailies.core import job_environment; job_environment.yield_to_renders(); print(os.nice(0))"
    own = os.nice(0)

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "scripts", capture_output=True, text=True, check=True
    )

    assert int(done.stdout) == min(19, own + 10)


def test_a_process_that_leaves_has_written_everything_and_succeeded(tmp_path):
    code = (
        "import atexit, logging, sys\n"
        "from dailies.core import job_environment\n"
        "atexit.register(print, 'taken apart')\n"
        f"logging.basicConfig(filename={str(tmp_path / 'log')!r}, level=logging.INFO)\n"
        "logging.info('logged')\n"
        "print('printed', end='')\n"
        "job_environment.leave()\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY / "scripts",
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "printed"
    assert (tmp_path / "log").read_text() == "INFO:root:logged\n"
