import platform
import subprocess
import sys
from pathlib import Path

import pytest
from dailies import devices
from dailies.devices import refuse_missing
from dailies.errors import ConfigError

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be a machine with so many CUDA devices and such a torch."""

    def pretend(count, torch_version):
        monkeypatch.setattr(devices, "_cuda_devices", lambda: count)
        monkeypatch.setattr(devices, "version", lambda name: torch_version)

    return pretend


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

    with pytest.raises(ConfigError) as error:
        refuse_missing(device)

    assert str(error.value) == f"device is {device}, but this machine has {found}; set device to auto or cpu"


@pytest.mark.parametrize(("device", "torch_version"), [("cuda", "2.13.0"), ("cuda:3", "2.13.0+cu130")])
def test_a_cuda_device_that_is_there_is_taken(machine, device, torch_version):
    machine(4, torch_version)

    refuse_missing(device)


def test_a_torch_for_the_cpu_cannot_use_a_cuda_device(machine):
    machine(1, "2.13.0+cpu")

    with pytest.raises(ConfigError, match=r"the torch that is installed is built for the CPU only; set device to auto"):
        refuse_missing("cuda")


def test_devices_of_amd_are_left_to_torch(machine):
    machine(0, "2.13.0+rocm6.4")

    refuse_missing("cuda")


@pytest.mark.skipif(platform.system() == "Darwin", reason="a Mac may have mps")
def test_only_a_mac_has_mps():
    with pytest.raises(ConfigError) as error:
        refuse_missing("mps")

    assert str(error.value) == "device is mps, which only a Mac has; set device to auto, cuda or cpu"


def test_hidden_devices_are_not_there():
    code = "from dailies.devices import refuse_missing; refuse_missing('cuda')"
    environment = {"PYTHONPATH": str(SCRIPTS), "CUDA_VISIBLE_DEVICES": ""}

    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], env=environment, capture_output=True, text=True, check=False
    )

    assert "ConfigError: device is cuda, but " in done.stderr
    assert "torch._C" not in done.stderr  # the answer comes in milliseconds
