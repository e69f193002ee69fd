"""One invocation at a time in an output folder."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from dailies.core import files
from dailies.core.errors import ConfigError, FolderInUse
from dailies.state import lock
from dailies.state.layout import Layout
from helpers.locks import holder
from helpers.raising import check, refused

ELSEWHERE = {"host": "node7", "pid": 7, "started": "2026-01-01 00:00:00"}


def refusal(layout: Layout) -> FolderInUse:
    with pytest.raises(FolderInUse) as caught:
        lock.take(layout)
    return caught.value


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "out")


@pytest.fixture
def busy(layout: Layout):
    process = holder(layout)
    yield process
    process.kill()
    process.communicate()


def test_a_process_that_runs_has_the_lock_through_any_path(busy, layout, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    about = files.read_json(layout.lock)

    assert (about["host"], about["pid"]) == (socket.gethostname(), busy.pid)
    for place in (layout, Layout(tmp_path / "link")):
        process = f"process {busy.pid} on {about['host']}, since {about['started']}"
        check(refusal(place), "output.in_use", f"output_dir {place.output_dir}", process)
    assert f"process {busy.pid} on {about['host']}, since {about['started']}" in lock.clear(layout)
    assert files.read_json(layout.lock) == about


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_process_that_was_killed_is_taken_over(busy, layout, number):
    busy.send_signal(number)
    busy.wait()
    assert layout.lock.is_file()

    holder(layout, "").communicate()

    assert not layout.output_dir.exists()


def test_the_lock_is_free_when_its_process_ends_and_leaves_no_empty_folder(layout):
    holder(layout, "(layout.Layout(Path(sys.argv[1])).state / 'kept').touch()").communicate()
    assert [path.name for path in layout.state.iterdir()] == ["kept"]

    holder(layout, "sys.exit(1)").communicate()
    assert [path.name for path in layout.state.iterdir()] == ["kept"]


def test_a_lock_of_another_machine_holds_until_it_is_removed(layout):
    files.write_json(layout.lock, ELSEWHERE)

    process = "process 7 on node7, since 2026-01-01 00:00:00"
    advice = ("snakemake --unlock", f"{layout.lock}")
    check(refusal(layout), "output.in_use_elsewhere", f"output_dir {layout.output_dir}", process, *advice)
    assert lock.clear(layout) is None
    holder(layout, "").communicate()


@pytest.fixture
def released_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Release a lock as soon as it is taken, not when the process ends."""
    monkeypatch.setattr(lock.atexit, "register", lambda function, *args: function(*args))


@pytest.mark.usefixtures("released_at_once")
@pytest.mark.parametrize("content", [b'{"host": ', b'{"host": "node7"}', b"[1]", b"\xff\x00", b""])
def test_a_lock_that_cannot_be_read_is_taken_over(layout, content):
    layout.state.mkdir(parents=True)
    layout.lock.write_bytes(content)

    lock.take(layout)

    assert not layout.output_dir.exists()


def test_clearing_a_missing_lock_creates_nothing(layout):
    assert lock.clear(layout) is None
    assert not layout.output_dir.exists()


@pytest.mark.usefixtures("released_at_once")
@pytest.mark.parametrize("lives", [False, True])
def test_without_file_locks_a_running_process_keeps_the_lock(layout, monkeypatch, lives):
    monkeypatch.setattr(lock, "fcntl", None)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    files.write_json(layout.lock, ELSEWHERE | {"host": socket.gethostname(), "pid": process.pid})
    if not lives:
        process.communicate()

    if lives:
        check(refusal(layout), "output.in_use")
        process.communicate()
    else:
        lock.take(layout)


def test_snakemakes_locks_of_a_killed_invocation_are_removed_and_no_other(layout, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    locks = tmp_path / "locks"
    locks.mkdir()
    (locks / "0.input.lock").write_text(f"frames/a.png\n{layout.state}/sequence.json\n")
    (locks / "0.output.lock").write_text("out/model/metadata.json\n")
    (locks / "1.input.lock").write_text("out/batch_summary.json\n")  # of a workflow that reads results
    (locks / "1.output.lock").write_text(f"out2/plot.png\n{tmp_path}\n")

    assert lock.remove_stale(locks, layout)
    assert not lock.remove_stale(locks, layout)
    assert not lock.remove_stale(tmp_path / "missing", layout)

    assert sorted(path.name for path in locks.iterdir()) == ["1.input.lock", "1.output.lock"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_ours_is_named(tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)

    with refused(ConfigError, "output.not_writable", f"output_dir {tmp_path}/out", "Permission denied"):
        lock.take(Layout(tmp_path / "out"))


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").touch()

    with refused(ConfigError, "output.not_writable", f"output_dir {tmp_path}/out", "Not a directory"):
        lock.take(Layout(tmp_path / "out"))
