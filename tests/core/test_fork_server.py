"""Jobs that are forked from a process which has imported what they need."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dailies.core import fork_server, job_environment
from helpers import REPOSITORY

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")

SCRIPTS = str(REPOSITORY / "scripts")

INVOCATION = f"""
import os, sys
sys.path.append({SCRIPTS!r})
from dailies.core import job_environment, fork_server
fork_server.start(["preloaded"], job_environment.of_jobs())
print(os.environ[fork_server.ADDRESS], flush=True)
sys.stdin.read()
"""

JOB = f"""
import os, sys
is_preloaded = "preloaded" in sys.modules
sys.path.append({SCRIPTS!r})
from dailies.core import job_environment
job_environment.prepare()
"""

REPORT = """
import json
shown = open("/proc/self/environ").read()
print(json.dumps([is_preloaded, sys.argv, sys.path, dict(os.environ), shown, os.getcwd(), sys.stdin.read()]))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a module that notes how often it is imported; credentials are set."""
    (tmp_path / "preloaded.py").write_text(f"open({str(tmp_path / 'imports')!r}, 'a').write('once ')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hush")
    monkeypatch.delenv(fork_server.ADDRESS, raising=False)
    return tmp_path


@pytest.fixture
def invocation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen]:
    """A process that has started a server, which the jobs of this test use."""
    process = subprocess.Popen(
        [sys.executable, "-c", INVOCATION], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    monkeypatch.setenv(fork_server.ADDRESS, process.stdout.readline().strip())
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def job(folder: Path) -> Callable[..., subprocess.Popen]:
    """Start the script of a job that goes on with some code once its environment is prepared."""

    def start(code: str) -> subprocess.Popen:
        script = folder / "job.py"
        script.write_text(JOB + code)
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([sys.executable, script], text=True, **pipes)

    return start


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for at most ten seconds."""
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.usefixtures("invocation")
def test_jobs_are_copies_of_a_process_that_has_imported_modules(folder, job):
    for number in range(2):
        answer, _ = job(REPORT).communicate(f"input {number}")
        is_preloaded, argv, path, variables, shown, cwd, given = json.loads(answer)

        assert is_preloaded
        assert (argv, path[0], cwd, given) == (
            [str(folder / "job.py")],
            str(folder),
            str(Path.cwd()),
            f"input {number}",
        )
        assert "" not in path
        assert variables.items() >= job_environment.TUNING.items()
        assert "hush" not in {*variables.values(), shown}
        assert "PATH=" in shown

    assert (folder / "imports").read_text() == "once "


@pytest.mark.usefixtures("invocation")
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("sys.exit(3)", 3),
        ("raise ValueError('reason')", 1),
        ("job_environment.leave()", 0),
        ("pass", 0),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
    ],
)
def test_the_process_of_a_job_ends_as_the_job_does(job, code, status):
    process = job(f"print('printed')\nsys.stdout.flush()\n{code}")

    printed, errors = process.communicate()

    assert (process.returncode, printed) == (status, "printed\n")
    assert ("ValueError: reason" in errors) == (status == 1)


@pytest.mark.usefixtures("invocation")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_ends_with_the_process_that_snakemake_knows(job, number):
    process = job("import time\nprint(os.getpid(), flush=True)\ntime.sleep(60)")
    forked = int(process.stdout.readline())
    assert forked != process.pid

    process.send_signal(number)
    process.communicate()

    wait_until(lambda: not Path(f"/proc/{forked}").exists())


@pytest.mark.usefixtures("invocation")
def test_a_job_decides_what_ctrl_c_does(job):
    process = job(
        "import time\n"
        "try:\n    print(os.getpid(), flush=True)\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(7)\n"
    )
    forked = int(process.stdout.readline())

    for each in (process.pid, forked):  # as a terminal does
        os.kill(each, signal.SIGINT)
    process.communicate()

    assert process.returncode == 7


def test_the_server_ends_with_its_invocation_and_then_jobs_run_by_themselves(invocation, folder, job):
    is_preloaded, *_ = json.loads(job(REPORT).communicate()[0])
    assert is_preloaded

    invocation.kill()
    wait_until(lambda: os.environ[fork_server.ADDRESS] not in Path("/proc/net/unix").read_text())

    is_preloaded, _, _, variables, *_ = json.loads(job(REPORT).communicate()[0])
    assert not is_preloaded
    assert "hush" not in variables.values()


@pytest.mark.usefixtures("invocation")
def test_jobs_share_a_folder_in_memory_that_only_their_user_may_read(job):
    job("").communicate()  # the server is ready
    folder = fork_server.shared_folder()
    assert folder is not None
    assert folder.stat().st_mode & 0o777 == 0o700
    out, _ = job("from dailies.core import fork_server; print(fork_server.shared_folder())").communicate()
    assert out.strip() == str(folder)


def test_the_shared_folder_is_deleted_with_all_that_is_in_it_when_the_invocation_is_killed(invocation, job):
    job("").communicate()
    folder = fork_server.shared_folder()
    assert folder is not None
    (folder / "inputs").mkdir()
    invocation.kill()
    wait_until(lambda: not folder.exists())


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_of_an_invocation_leaves_no_shared_folder(monkeypatch, job, number):
    monkeypatch.setenv(fork_server.ADDRESS, "to be replaced")
    server = fork_server.start(["preloaded"], job_environment.of_jobs())
    job("").communicate()
    shared = fork_server.shared_folder()
    assert shared is not None

    server.send_signal(number)
    out, _ = job("import signal; print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)").communicate()
    assert out == "True\n"
    server.communicate()  # closes what the end of the invocation would close

    assert server.returncode == 0
    assert not shared.exists()


@pytest.mark.usefixtures("folder")
def test_a_server_that_fails_leaves_no_shared_folder(monkeypatch):
    monkeypatch.setenv(fork_server.ADDRESS, "to be replaced")
    server = fork_server.start(["no_such_module"], job_environment.of_jobs())
    server.communicate()
    assert server.returncode == 1
    assert fork_server.shared_folder() is None


def test_what_others_put_in_shared_memory_does_not_block_a_server(tmp_path, monkeypatch):
    monkeypatch.setattr(fork_server, "SHARED_MEMORY", tmp_path)
    os.mkfifo(tmp_path / "dailies-pipe")
    (tmp_path / "dailies-link").symlink_to(tmp_path)
    fork_server._make_shared_folder("dailies-own")
    assert {path.name for path in tmp_path.iterdir()} == {"dailies-own", "dailies-link", "dailies-pipe"}


@pytest.mark.usefixtures("invocation")
def test_a_new_server_deletes_the_folder_of_a_killed_one_but_not_that_of_one_that_runs(job, folder):
    job("").communicate()
    running = fork_server.shared_folder()
    abandoned = fork_server.SHARED_MEMORY / f"dailies-test-{os.getpid()}"
    (abandoned / "inputs").mkdir(parents=True)

    environ = {name: value for name, value in os.environ.items() if name != fork_server.ADDRESS}
    with subprocess.Popen(
        [sys.executable, "-c", INVOCATION], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as other:
        wait_until(lambda: not abandoned.exists())
        other.communicate()

    assert running is not None
    assert running.exists()


def test_a_server_that_cannot_import_leaves_jobs_to_run_by_themselves(folder, monkeypatch, job):
    monkeypatch.setattr(fork_server, "PROGRAM", "raise SystemExit(1)")
    server = fork_server.start(["preloaded"], job_environment.of_jobs())

    is_preloaded, *_ = json.loads(job(REPORT).communicate()[0])

    assert not is_preloaded
    server.communicate()
    assert server.returncode == 1


def test_a_user_can_do_without(monkeypatch):
    monkeypatch.delenv(fork_server.ADDRESS, raising=False)
    assert fork_server.is_wanted()

    monkeypatch.setenv(fork_server.ADDRESS, "")
    assert not fork_server.is_wanted()
