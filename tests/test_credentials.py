import os
import subprocess
import sys
from pathlib import Path

import pytest
from dailies.credentials import without_credentials

SCRIPT = """
import os, sys
sys.path.append({scripts!r})
from dailies import credentials
credentials.leave_behind()
print(os.getpid(), sys.argv[1:], sorted(os.environ), open("/proc/self/environ").read().count("hush"))
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


def test_a_script_goes_on_without_them_in_the_same_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(scripts=str(Path(__file__).parents[1] / "scripts")))
    environ = {"PATH": os.environ["PATH"], "MLFLOW_TRACKING_PASSWORD": "hush", "KEPT": "yes"}

    with subprocess.Popen([sys.executable, script, "one"], env=environ, stdout=subprocess.PIPE, text=True) as process:
        pid, rest = process.communicate()[0].split(" ", 1)

    assert int(pid) == process.pid
    assert rest.startswith("['one'] ['KEPT', ")
    assert "PASSWORD" not in rest
    assert rest.endswith("] 0\n")
