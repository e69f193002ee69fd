import os
import platform
import signal
import subprocess
import sys

import pytest
import torch
from dailies.core.errors import ConfigError, RenderError
from dailies.render import devices
from dailies.render.devices import claimed, find_device, refuse_missing
from helpers import REPOSITORY
from helpers.raising import refused

SCRIPTS = REPOSITORY / "scripts"


@pytest.fixture
def machine(monkeypatch):
    """Return a function that simulates a machine with a number of CUDA devices and a version of torch."""

    def simulate(count, torch_version):
        monkeypatch.setattr(devices, "_count_cuda_devices", lambda: count)
        monkeypatch.setattr(devices, "version", lambda name: torch_version)

    return simulate


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_auto_and_cpu_are_always_there(machine, device):
    machine(0, "2.13.0+cpu")

    refuse_missing(device)


@pytest.mark.parametrize(
    ("device", "count", "found"),
    [
        ("cuda", 0, "no CUDA device"),
        ("cuda:1", 1, "1 CUDA device"),
        ("cuda:4", 4, "4 CUDA devices"),
    ],
)
def test_a_missing_cuda_device_is_refused(machine, device, count, found):
    machine(count, "2.13.0")

    with refused(ConfigError, "device.missing", f"device is {device},", found):
        refuse_missing(device)


@pytest.mark.parametrize(("device", "torch_version"), [("cuda", "2.13.0"), ("cuda:3", "2.13.0+cu130")])
def test_a_cuda_device_that_exists_is_accepted(machine, device, torch_version):
    machine(4, torch_version)

    refuse_missing(device)


def test_a_torch_for_the_cpu_cannot_use_a_cuda_device(machine):
    machine(1, "2.13.0+cpu")

    with refused(ConfigError, "device.torch_without_cuda", "cuda"):
        refuse_missing("cuda")


def test_devices_of_amd_are_left_to_torch(machine):
    machine(0, "2.13.0+rocm6.4")

    refuse_missing("cuda")


@pytest.mark.skipif(platform.system() == "Darwin", reason="a Mac may have mps")
def test_only_a_mac_has_mps():
    with refused(ConfigError, "device.mps_without_mac", "mps"):
        refuse_missing("mps")


def test_hidden_devices_are_missing_and_torch_is_not_imported():
    code = "from dailies.render.devices import refuse_missing; refuse_missing('cuda')"
    environment = {"PYTHONPATH": str(SCRIPTS), "CUDA_VISIBLE_DEVICES": ""}

    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], env=environment, capture_output=True, text=True, check=False
    )

    assert "ConfigError: device is cuda, but " in done.stderr
    assert "torch._C" not in done.stderr  # the answer comes in milliseconds


RENDER = """
import logging, sys
from pathlib import Path
from dailies.render import devices
devices.version = lambda name: "2.13.0+cu130"
devices._lock_folder = lambda: Path(sys.argv[1])
devices.POLL_SECONDS = 0.01
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
with devices.claimed(sys.argv[2]) as device:
    print(device, "is", devices.os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.read()
"""
"""A process that claims a device until its input is closed."""


@pytest.fixture
def render(tmp_path):
    """Return a function that starts such a process on a machine with some visible devices."""
    (tmp_path / "locks").mkdir()
    started = []

    def start(visible, device="auto"):
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", RENDER, str(tmp_path / "locks"), device],
            env={"PYTHONPATH": str(SCRIPTS), "CUDA_VISIBLE_DEVICES": visible},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_every_render_claims_another_device(render):
    lines = []
    for _ in range(4):
        process = render("0,GPU-1a2b,MIG-3c4d,7")
        lines += [process.stdout.readline(), process.stdout.readline()]

    assert lines[1::2] == ["auto is 0\n", "auto is GPU-1a2b\n", "auto is MIG-3c4d\n", "auto is 7\n"]
    assert lines[0] == "CUDA device 0\n"


def test_a_render_waits_for_a_device_and_gets_that_of_a_killed_one(render):
    first, second = render("0,1"), render("0,1")
    lines = [process.stdout.readline() for process in (first, second)]
    waiting = render("0,1", "cuda")
    assert sorted(lines) == ["CUDA device 0\n", "CUDA device 1\n"]
    assert waiting.stdout.readline() == "waiting for a free CUDA device, one of 0, 1\n"

    first.send_signal(signal.SIGKILL)

    assert waiting.stdout.readline() == lines[0]
    assert waiting.stdout.readline() == f"cuda is {lines[0].split()[-1]}\n"


def test_a_finished_render_releases_its_device(render):
    first = render("0,1")
    assert first.stdout.readline() == "CUDA device 0\n"

    first.communicate("")

    assert render("0,1").stdout.readline() == "CUDA device 0\n"


def test_a_numbered_device_is_the_one_that_is_claimed(render):
    process = render("5,3", "cuda:1")

    assert process.stdout.readline() == "CUDA device 3\n"
    assert process.stdout.readline() == "cuda is 3\n"


def test_the_one_device_that_a_scheduler_assigned_is_used_without_waiting(render):
    processes = [render("2"), render("2")]

    assert sorted(process.stdout.readline() for process in processes) == [
        "CUDA device 2\n",
        "CUDA device 2, which another render also uses\n",
    ]


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Return a function that simulates the output of nvidia-smi, with a torch that is built for CUDA."""
    monkeypatch.setattr(devices, "version", lambda name: "2.13.0+cu130")
    monkeypatch.setattr(devices, "_lock_folder", lambda: tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def lists(*lines):
        (tmp_path / "nvidia-smi").write_text("\n".join(["#!/bin/sh", *(f"echo '{line}'" for line in lines)]))
        (tmp_path / "nvidia-smi").chmod(0o755)

    return lists


WHOLE = [f"GPU {number}: NVIDIA H200 (UUID: GPU-{number}a)" for number in range(2)]
SLICED = [WHOLE[0], "  MIG 1g.18gb     Device  0: (UUID: MIG-x)", "  MIG 1g.18gb     Device  1: (UUID: MIG-y)"]


@pytest.mark.parametrize(
    ("listed", "visible", "found"),
    [
        (WHOLE, None, {"0": "GPU-0a", "1": "GPU-1a"}),
        (WHOLE, "1", {"1": "GPU-1a"}),
        (WHOLE, "GPU-1", {"GPU-1": "GPU-1a"}),
        (WHOLE, "1,-1,0", {"1": "GPU-1a"}),
        (WHOLE, "", {}),
        (WHOLE, "NoDevFiles", {}),
        (WHOLE, "7", {"7": "7"}),
        (SLICED, None, {"MIG-x": "MIG-x", "MIG-y": "MIG-y"}),
        (SLICED, "MIG-y", {"MIG-y": "MIG-y"}),
        ([], None, {}),
    ],
)
def test_visible_devices_are_those_that_cuda_may_use(tool, monkeypatch, listed, visible, found):
    tool(*listed)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert devices._visible_devices() == found


def test_a_device_has_one_lock_whatever_it_is_called(tool, monkeypatch):
    tool(*WHOLE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    with claimed("cuda"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1a,GPU-0a")
        with claimed("cuda"):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-0a"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-1a,GPU-0a"


@pytest.mark.parametrize(
    ("device", "torch_version"),
    [
        ("cpu", "2.13.0+cu130"),
        ("mps", "2.13.0"),
        ("auto", "2.13.0+cpu"),
        ("cuda", "2.13.0+rocm6.4"),
        ("cuda:2", "2.13.0"),
    ],
)
def test_nothing_is_claimed_if_there_is_nothing_to_choose_from(tool, monkeypatch, tmp_path, device, torch_version):
    tool(*WHOLE)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "version", lambda name: torch_version)

    with claimed(device) as name:
        assert name == device
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert not list(tmp_path.glob("*.lock"))


def test_the_folder_of_the_locks_belongs_to_the_user(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "Path", lambda path: tmp_path)
    folder = tmp_path / f"dailies-{os.getuid()}"
    assert devices._lock_folder() == folder
    assert folder.stat().st_mode & 0o777 == 0o700

    monkeypatch.setattr(os, "getuid", lambda: 4711)
    (tmp_path / "dailies-4711").mkdir()
    with refused(RenderError, "device.foreign_claims", f"{tmp_path}/dailies-4711"):
        devices._lock_folder()


def test_auto_is_the_best_device_available():
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"

    assert find_device("auto").type == best
    assert find_device("cpu").type == "cpu"


@pytest.mark.parametrize("wanted", ["cuda:99", *([] if torch.backends.mps.is_available() else ["mps"])])
def test_a_device_that_torch_does_not_find_is_refused(wanted):
    with refused(RenderError, "device.not_in_torch", f"device is {wanted},", f"torch {torch.__version__}"):
        find_device(wanted)
