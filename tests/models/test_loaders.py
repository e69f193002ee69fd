import sys
from pathlib import Path

import pytest
import torch
from dailies.core.errors import LoadError
from dailies.core.text import reason
from dailies.models.load import Hints, load_model
from dailies.models.loaders import Loaders, input_channels
from dailies.models.signature import Signature
from helpers.networks import Do
from helpers.raising import refused
from helpers.stores import mlflow2
from torch import nn
from torch.nn import functional as F

CODE = """
import os
import sys

import numpy as np
import torch
from torch import nn

class Gain(nn.Module):
    def __init__(self, gain, **about):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float16))
        self.about = about

    def forward(self, x):
        return x * self.gain

def load(path):
    return Gain(float(path.read_text()), path=path)

def load_folder(path):
    return Gain(2.0, path=path, there=sorted(file.name for file in path.iterdir()))

def load_with_params(path, *, params):
    return Gain(float(params["gain"]), params=params)

def params_first(params):
    return Gain(3.0, path=params)

def on_a_device(path, device="cpu", **rest):
    return Gain(1.0, device=device, rest=rest)

def scripted(path):
    return torch.jit.script(nn.Conv2d(3, 3, 1))

def exported(path):
    return torch.export.export(nn.Conv2d(3, 3, 1).eval(), (torch.rand(1, 3, 64, 64),)).module()

def fail(path):
    raise ValueError("no header\\nin \\x1b[31mline 1")

def fail_silently(path):
    assert path is None

def stop(path):
    sys.exit("usage: train.py DATA")

def misfit(path):
    nn.Conv2d(3, 3, 1).load_state_dict({"weight": torch.zeros(3, 3, 1, 1), "scale": torch.zeros(1)})

def traced(path):
    torch.jit.script(nn.Linear(2, 2))(torch.zeros(3))

def needs_a_package(path):
    import no_such_package.inner

def settle_in(path):
    os.chdir("/")
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    return Gain(2.0).to_empty(device="cpu").apply(lambda each: each.gain.data.fill_(2))

def two_paths(path, weights):
    return Gain(1.0)

def nothing(path):
    Gain(1.0)

def the_class(path):
    return Gain

def weights(path):
    return {"gain": torch.zeros(1)}

SETTINGS = {}
"""


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """The name of a module of the user, and the folder that it is in."""
    name = f"ours_{abs(hash(tmp_path))}"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / f"{name}.py").write_text(CODE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name, tmp_path / "code"


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "weights.xyz"
    path.write_text("0.5")
    return path


def loaded(ours, path, function="load", params=None):
    name, folder = ours
    return Loaders({"*": f"{name}:{function}"}, (folder,)).load(f"{name}:{function}", path, params or {})


@pytest.mark.parametrize(
    ("own", "architecture", "folder", "function"),
    [
        ({}, "unet", "a_12", None),
        ({"*": "a:b"}, "unet", "a_12", "a:b"),
        ({"*": "a:b"}, None, "a_12", "a:b"),
        ({"UNet": "a:b"}, "unet", "a_12", "a:b"),
        ({"unet": "a:b"}, "UNet", "a_12", "a:b"),
        ({"unet": "a:b"}, "modern_unet", "unet_12", None),
        ({"*unet": "a:b"}, "modern_unet", "a_12", "a:b"),
        ({"restorer_*": "a:b"}, "unet", "restorer_24ep", "a:b"),
        ({"Restorer_*": "a:b"}, "unet", "restorer_24ep", None),
        ({"unet": "a:b", "*": "c:d"}, "unet", "a_12", "a:b"),
        ({"unet": "a:b", "*": "c:d"}, "nafnet", "a_12", "c:d"),
        ({"*": "c:d", "unet": "a:b"}, "unet", "a_12", "a:b"),
        ({"u*": "a:b", "a_*": "c:d"}, "unet", "a_12", "c:d"),
        ({"a_*": "c:d", "u*": "a:b"}, "unet", "a_12", "a:b"),
    ],
)
def test_the_last_matching_pattern_wins_and_the_star_loses_to_all(own, architecture, folder, function):
    assert Loaders(own).select(architecture=architecture, folder=folder) == function


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ({}, {}),
        ({"model_loader": None}, {}),
        ({"model_loader": "loaders:load"}, {"*": "loaders:load"}),
        ({"model_loader": {"Restorer": "loaders:load"}}, {"Restorer": "loaders:load"}),
    ],
)
def test_model_loader_is_one_function_or_a_mapping(settings, own):
    assert Loaders.from_settings(settings | {"python_path": ["a", "b"]}) == Loaders(own, (Path("a"), Path("b")))


def test_a_users_function_receives_the_absolute_path_and_returns_the_network(ours, artifact, monkeypatch):
    monkeypatch.chdir(artifact.parent)

    network, params = loaded(ours, Path(artifact.name), params={"gain": "7"})

    assert network.about == {"path": artifact}
    assert params == {}
    assert (network.training, network.gain.dtype, network.gain.requires_grad) == (False, torch.float32, False)
    assert torch.equal(network(torch.ones(1, 3, 2, 2)), torch.full((1, 3, 2, 2), 0.5))


def test_a_function_that_declares_params_receives_those_of_the_run(ours, artifact):
    network, params = loaded(ours, artifact, "load_with_params", {"gain": "7", "lr": "1e-3"})

    assert network.about["params"] == params == {"gain": "7", "lr": "1e-3"}
    assert network.gain == 7


@pytest.mark.parametrize(
    ("function", "about"), [("params_first", {"path": "the path"}), ("on_a_device", {"device": "cpu", "rest": {}})]
)
def test_other_parameters_keep_their_defaults(ours, artifact, function, about):
    network, params = loaded(ours, artifact, function, {"gain": "7"})

    assert network.about == {key: artifact if value == "the path" else value for key, value in about.items()}
    assert params == {}


@pytest.mark.parametrize("function", ["scripted", "exported"])
def test_programs_without_modes_or_gradients_can_be_returned(ours, artifact, function):
    network, _ = loaded(ours, artifact, function)

    with torch.inference_mode():
        assert network(torch.ones(1, 3, 64, 64)).shape == (1, 3, 64, 64)
    assert not any(weights.requires_grad for weights in network.parameters())


def test_a_function_of_an_installed_package_is_found(tmp_path):
    torch.jit.save(torch.jit.script(nn.Conv2d(3, 1, 1)), tmp_path / "program.xyz")

    network, _ = Loaders().load("torch.jit:load", tmp_path / "program.xyz", {})

    assert network(torch.ones(1, 3, 2, 2)).shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("function", "code", "names"),
    [
        ("fail", "model.loader_failed", ["weights.xyz", "ValueError: no header"]),
        ("fail_silently", "model.loader_failed", ["AssertionError: in fail_silently, line {line} of {module}.py"]),
        ("stop", "model.loader_failed", ["SystemExit: usage: train.py DATA", "sys.exit"]),
        (
            "misfit",
            "model.loader_failed",
            [
                "RuntimeError: Error(s) in loading state_dict for Conv2d: "
                'Missing key(s) in state_dict: "bias". Unexpected key(s) in state_dict: "scale".'
            ],
        ),
        ("needs_a_package", "model.loader_failed", ["pip install no_such_package", "python_path"]),
        ("two_paths", "model.loader_failed", ["TypeError: two_paths() missing 1 required positional argument"]),
        ("nothing", "model.no_module_from_loader", ["None", "weights.xyz", "torch.nn.Module"]),
        ("the_class", "model.no_module_from_loader", ["the class Gain"]),
        ("weights", "model.no_module_from_loader", ["type dict"]),
        (
            "laod",
            "model.no_function",
            ["{place}", "Gain, load, load_folder, load_with_params, params_first and 14 more"],
        ),
        ("SETTINGS", "model.not_a_function", ["type dict"]),
    ],
)
def test_the_fault_of_a_users_function_is_reported(ours, artifact, function, code, names):
    name, line = ours[0], CODE.splitlines().index("    assert path is None") + 1
    place = ours[1] / f"{name}.py"
    expected = [each.format(module=name, line=line, place=place) for each in names]

    with refused(LoadError, code, f"model_loader {name}:{function}", *expected):
        loaded(ours, artifact, function)


def test_errors_show_the_last_line_of_torchscripts_traceback(ours, artifact):
    said = "with RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x3 and 2x2)"
    with refused(LoadError, "model.loader_failed", f"{ours[0]}:traced", "weights.xyz", said):
        loaded(ours, artifact, "traced")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("raise KeyError('HOME')", "KeyError: 'HOME'"),
        ("import argparse; argparse.ArgumentParser().parse_args(['--oops'])", "SystemExit: 2"),
        ("import no_such_package", "pip install no_such_package"),
    ],
)
def test_an_import_error_is_one_sentence(tmp_path, monkeypatch, artifact, code, text):
    name = f"broken_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setattr(sys, "path", [*sys.path])

    with refused(LoadError, "model.import_failed", f"model_loader {name}:load", text):
        Loaders(python_path=(tmp_path,)).load(f"{name}:load", artifact, {})


def test_process_wide_changes_by_user_code_are_undone(ours, artifact):
    before = Path.cwd(), torch.get_default_dtype(), torch.get_default_device()

    network, _ = loaded(ours, artifact, "settle_in")

    assert network.gain == 2
    assert (Path.cwd(), torch.get_default_dtype(), torch.get_default_device()) == before


def test_a_long_reason_is_shortened():
    assert reason(ValueError("x" * 1000)) == f"ValueError: {'x' * 288}"


class WithNoise(nn.Module):
    """A network of four inputs, the last a noise level, wrapped so that it takes three."""

    def __init__(self):
        super().__init__()
        self.network = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        return x - self.network(F.pad(x, (0, 0, 0, 0, 0, 1), value=0.06))


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        (WithNoise(), 3),
        (Do(lambda x: x), 3),
        (nn.Conv2d(3, 3, 1), 3),
        (nn.Conv2d(1, 1, 1), 1),
        (nn.Conv2d(4, 4, 1), 4),
    ],
)
def test_a_network_that_takes_three_channels_has_three_whatever_its_first_convolution_takes(network, channels):
    assert input_channels(network) == channels


def test_a_loader_can_load_a_file_of_an_unknown_kind(ours, artifact):
    name, folder = ours
    hints = Hints(
        folder="restorer_24ep",
        params={"gain": "1"},
        signatures={"gain": {"value_range": [0, 1]}},
        signature={"scale": "1"},
    )

    model = load_model(artifact, hints=hints, loaders=Loaders({"restorer_*": f"{name}:load"}, (folder,)))

    assert (model.architecture, model.builder, model.config, model.notes) == ("gain", f"{name}:load", {}, ())
    assert model.signature == Signature(value_range=(0, 1), scale=1)
    with refused(LoadError, "model.not_a_checkpoint", "weights.xyz"):
        load_model(artifact, hints=hints, loaders=Loaders({"unet": f"{name}:load"}, (folder,)))


def test_a_script_is_named_after_its_class(ours, artifact):
    name, folder = ours

    assert load_model(artifact, loaders=Loaders({"*": f"{name}:scripted"}, (folder,))).architecture == "conv2d"


def test_the_params_that_a_loader_received_are_the_configuration_of_its_network(ours, artifact):
    name, folder = ours
    hints = Hints(architecture="Restorer", params={"gain": "7"})

    model = load_model(artifact, hints=hints, loaders=Loaders({"*": f"{name}:load_with_params"}, (folder,)))

    assert (model.architecture, model.config) == ("restorer", {"gain": "7"})


def test_a_loader_receives_the_folder_of_an_mlflow_model_of_any_flavour(ours, tmp_path):
    name, folder = ours
    (model_folder,) = mlflow2(tmp_path / "store").glob("artifacts/*/artifacts/model")
    (model_folder / "MLmodel").write_text("flavors: {sklearn: {}}")

    model = load_model(model_folder, loaders=Loaders({"*": f"{name}:load_folder"}, (folder,)))

    assert model.network.about["path"] == model_folder
    assert "MLmodel" in model.network.about["there"]


def test_if_a_loader_is_named_nothing_else_is_tried(ours, tmp_path):
    name, folder = ours
    torch.save({"state_dict": nn.Conv2d(3, 3, 1).state_dict()}, tmp_path / "best.pth")

    with refused(LoadError, "model.loader_failed", f"{name}:fail", "best.pth", "ValueError: no header"):
        load_model(tmp_path / "best.pth", loaders=Loaders({"*": f"{name}:fail"}, (folder,)), trust_code=True)


def test_an_architecture_that_only_the_checkpoint_states_selects_its_loader(ours, tmp_path):
    name, folder = ours
    torch.save({"state_dict": nn.Conv2d(3, 3, 1).state_dict(), "architecture": "Restorer"}, tmp_path / "best.pth")
    loaders = Loaders({"restorer": f"{name}:params_first"}, (folder,))

    model = load_model(tmp_path / "best.pth", loaders=loaders)

    assert (model.architecture, model.builder) == ("restorer", f"{name}:params_first")
    assert model.network.about == {"path": tmp_path / "best.pth"}
