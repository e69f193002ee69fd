"""One invocation at a time in an output folder."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from dailies import files, lock
from dailies.errors import ConfigError, FolderInUse
from raising import check, refused

TAKE = """import sys, time
from pathlib import Path
from dailies import lock
lock.take(Path(sys.argv[1]))
print(1, flush=True)
"""
ELSEWHERE = {"host": "node7", "pid": 7, "started": "2026-01-01 00:00:00"}


def holder(state: Path, ending: str = "time.sleep(60)") -> subprocess.Popen:
    """Start another process that takes the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE + ending, str(state)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "scripts")},
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"1\n"
    return process


def refusal(state: Path) -> FolderInUse:
    with pytest.raises(FolderInUse) as caught:
        lock.take(state)
    return caught.value


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "out" / ".dailies"


@pytest.fixture
def busy(state: Path):
    process = holder(state)
    yield process
    process.kill()
    process.communicate()


def test_a_process_that_runs_has_the_lock_through_any_path(busy, state, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    about = files.read_json(state / "lock")

    assert (about["host"], about["pid"]) == (socket.gethostname(), busy.pid)
    for place in (state, tmp_path / "link" / ".dailies"):
        process = f"process {busy.pid} on {about['host']}, since {about['started']}"
        check(refusal(place), "output.in_use", f"output_dir {place.parent}", process)
    assert lock.clear(state) == (
        f"output_dir {state.parent} is still in use by another invocation (process {busy.pid} on {about['host']}, "
        f"since {about['started']}); end that one"
    )
    assert files.read_json(state / "lock") == about


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_process_that_was_killed_is_taken_over(busy, state, number):
    busy.send_signal(number)
    busy.wait()
    assert (state / "lock").is_file()

    holder(state, "").communicate()

    assert not state.parent.exists()


def test_the_lock_is_free_when_its_process_ends_and_leaves_no_empty_folder(state):
    holder(state, "(Path(sys.argv[1]) / 'kept').touch()").communicate()
    assert [path.name for path in state.iterdir()] == ["kept"]

    holder(state, "sys.exit(1)").communicate()
    assert [path.name for path in state.iterdir()] == ["kept"]


def test_a_lock_of_another_machine_holds_until_it_is_removed(state):
    files.write_json(state / "lock", ELSEWHERE)

    process = "process 7 on node7, since 2026-01-01 00:00:00"
    advice = ("snakemake --unlock", f"{state}/lock")
    check(refusal(state), "output.in_use_elsewhere", f"output_dir {state.parent}", process, *advice)
    assert lock.clear(state) is None
    holder(state, "").communicate()


@pytest.mark.parametrize("content", [b'{"host": ', b'{"host": "node7"}', b"[1]", b"\xff\x00", b""])
def test_a_lock_that_cannot_be_read_is_taken_over(state, content):
    state.mkdir(parents=True)
    (state / "lock").write_bytes(content)

    holder(state, "").communicate()


def test_unlocking_what_was_never_there_makes_nothing(state):
    assert lock.clear(state) is None
    assert not state.parent.exists()


@pytest.mark.parametrize("lives", [False, True])
def test_where_the_disk_knows_no_locks_the_process_is_looked_for(state, monkeypatch, lives):
    monkeypatch.setattr(lock, "fcntl", None)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    files.write_json(state / "lock", ELSEWHERE | {"host": socket.gethostname(), "pid": process.pid})
    if not lives:
        process.communicate()
    monkeypatch.setattr(lock.atexit, "register", lambda function, *args: function(*args))

    if lives:
        check(refusal(state), "output.in_use")
        process.communicate()
    else:
        lock.take(state)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_ours_is_named(tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)

    with refused(ConfigError, "output.not_writable", f"output_dir {tmp_path}/out", "Permission denied"):
        lock.take(tmp_path / "out" / ".dailies")


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").touch()

    with refused(ConfigError, "output.not_writable", f"output_dir {tmp_path}/out", "Not a directory"):
        lock.take(tmp_path / "out" / ".dailies")
