import sys
from dataclasses import replace

import pytest
import torch
from dailies.core.errors import LoadError
from dailies.models.architectures.catalog import ARCHITECTURES
from dailies.models.checkpoints import Checkpoint
from dailies.models.factories import Factories, channels_of
from dailies.models.weights import groups
from helpers.raising import refused
from torch import nn
from torch.overrides import TorchFunctionMode

CODE = """
import torch

class Restorer(torch.nn.Module):
    def __init__(self, width=2, channels=3):
        super().__init__()
        self.out = torch.nn.Conv2d(channels, channels, 1)
        self.width = width

    def forward(self, x):
        return self.out(x)

def build(config):
    return Restorer(**config)

def number(config):
    return 3

def dispatch(config):
    if config.get("architecture", "").lower() != "wide":
        built = Restorer(config["width"])
    else:
        built = Restorer(config["width"] * 10)
        if "inner" not in config:
            built.wide = built.__dict__["_modules"].pop("out")
    built.given = config
    return built

def curious(config, params, state_dict):
    built = Restorer()
    built.given, built.names = params, list(state_dict)
    return built

def needy(config):
    import not_installed

def fail(config):
    raise KeyError("depth\\n\\x1b[31m")
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    """Factories that find a module ``ours_NNN`` of the user."""
    name = f"ours_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def made(function="build", architecture="*"):
        return Factories({architecture: f"{name}:{function}"}, (tmp_path,))

    return made


def saved(network, **about):
    return held(network.state_dict(), **about)


def held(state, config=None, **about):
    """A checkpoint as it is read from a file that holds these weights and this config."""
    return Checkpoint("a.pth", tuple(groups(state)), config or {}, "model_config" if config else "", **about)


def weights():
    return {"out.weight": torch.ones(3, 3, 1, 1), "out.bias": torch.zeros(3)}


@pytest.mark.parametrize("architecture", ["", "restorer", "unet"])
def test_a_users_function_builds_every_architecture(factories, architecture):
    built = factories().build(held(weights(), {"width": 7}), architecture)

    assert built.network.width == 7
    assert built.architecture == (architecture or "restorer")
    assert built.builder.endswith(":build")
    assert not built.network.training
    assert torch.equal(built.network(torch.ones(1, 3, 2, 2)), torch.full((1, 3, 2, 2), 3.0))


def test_a_users_function_builds_only_its_architecture(factories):
    unet = ARCHITECTURES["unet"](base_channels=2)
    ours = factories(architecture="restorer")

    assert ours.build(held(weights()), "Restorer").builder.endswith(":build")
    assert ours.build(saved(unet, config={"base_channels": 2}), "unet").builder == "dailies"


@pytest.mark.parametrize(
    ("function", "code", "names"),
    [
        ("number", "model.no_module_from_factory", ["type int", "torch.nn.Module", "{}"]),
        ("fail", "model.factory_failed", ["a.pth", r"KeyError: 'depth\n\x1b[31m'", "{}"]),
        ("missing", "model.no_function", [".py", "Restorer"]),
    ],
)
def test_the_fault_of_a_users_function_is_reported(factories, function, code, names):
    with refused(LoadError, code, f":{function}", *names):
        factories(function).build(held(weights()), "")


def test_weights_that_misfit_a_users_network_are_named(factories):
    with refused(LoadError, "model.weights_misfit", "a.pth", "2 missing (out.weight, out"):
        factories().build(held({"in.weight": torch.zeros(1)}), "")


def test_errors_show_the_configuration_that_a_users_function_received(factories):
    with refused(LoadError, "model.weights_misfit", ":build", "{'width': 3}"):
        factories().build(held({"in.weight": torch.zeros(1)}, {"width": 3}), "")
    with refused(LoadError, "model.factory_failed", ":fail", "{'width': 3, 'lr': 0.1}"):
        factories("fail").build(held(weights(), {"width": 3, "lr": 0.1}), "")


def test_a_users_function_receives_the_saved_configuration(factories):
    saved_config = {"architecture": "Wide", "width": 3, "inner": {"a": [1, 2]}}

    built = factories("dispatch").build(held(weights(), saved_config), "Wide")

    assert built.network.given == saved_config
    assert built.network.width == 30


def test_the_architecture_is_added_only_if_the_network_does_not_fit_without_it(factories):
    other = {"wide.weight": torch.ones(3, 3, 1, 1), "wide.bias": torch.zeros(3)}

    plain = factories("dispatch").build(held(weights(), {"width": 3}), "Wide")
    added = factories("dispatch").build(held(other, {"width": 3}, architecture="Wide"), "Wide")

    assert plain.network.given == {"width": 3}
    assert added.network.given == {"width": 3, "architecture": "Wide"}
    assert len(added.notes) == 1
    assert "'architecture': 'Wide', which is not in model_config" in added.notes[0]


def test_a_users_function_may_declare_the_runs_params_and_the_weights(factories):
    built = factories("curious").build(held({"state_dict": weights()}), "", params={"lr": "0.1"})

    assert built.network.given == {"lr": "0.1"}
    assert built.network.names == ["out.weight", "out.bias"]


def test_a_missing_package_is_named(factories):
    with refused(LoadError, "model.factory_failed", "pip install not_installed"):
        factories("needy").build(held(weights()), "")


def test_unknown_settings_in_model_config_are_ignored_with_a_note():
    network = ARCHITECTURES["unet"](base_channels=2)
    config = {"base_channels": 2, "parameters": "31M"}

    exact = Factories().build(saved(network, config=config), "unet")
    guessed = Factories().build(replace(saved(network, config=config), config_from="args"), "unet")

    assert exact.notes == ("settings in model_config that unet does not use are ignored: parameters",)
    assert guessed.notes == ()


def test_frame_keys_depend_only_on_known_settings():
    network = ARCHITECTURES["unet"](base_channels=2)

    built = Factories().build(saved(network, config={"base_channels": 2, "architecture": "unet", "x": 1}), "unet")

    assert built.config == {"base_channels": 2}


def test_spandrel_recognises_a_network_by_its_weights():
    from spandrel.architectures.NAFNet import NAFNet

    original = NAFNet(img_channel=3, width=4, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1]).eval()
    image = torch.rand(1, 3, 32, 32)

    built = Factories().build(saved(original), "nafnet")

    assert (built.architecture, built.builder) == ("nafnet", "spandrel")
    assert built.signature.value_range == (0, 1)
    assert (built.signature.scale, built.signature.channels) == (1, 3)
    with torch.inference_mode():
        torch.testing.assert_close(built.network(image), original(image).clamp(0, 1))


def test_the_scale_of_an_upscaler_is_known():
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    network = RRDBNet(in_nc=3, out_nc=3, num_filters=4, num_blocks=1, scale=4)

    built = Factories().build(
        held({"model": {f"generator.module.{key}": values for key, values in network.state_dict().items()}}), ""
    )

    assert (built.architecture, built.signature.scale) == ("esrgan", 4)


def test_without_spandrel_its_networks_are_unknown(monkeypatch):
    from spandrel.architectures.NAFNet import NAFNet

    network = NAFNet(img_channel=3, width=4, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1])
    monkeypatch.setattr("dailies.models.factories._spandrel", lambda: (None, ""))

    with refused(LoadError, "model.unknown_architecture", "nafnet, unet;"):
        Factories().build(saved(network), "")


def test_a_broken_spandrel_is_reported_and_hides_no_other_reason(monkeypatch):
    monkeypatch.setattr("dailies.models.factories._spandrel", lambda: (None, "RuntimeError: operator does not exist"))

    with refused(LoadError, "model.unknown_architecture", "spandrel", "RuntimeError: operator does not exist"):
        Factories().build(held({"body.weight": torch.zeros(3, 3, 1, 1)}), "")
    with refused(LoadError, "model.weights_misfit", "a.pth", "missing"):
        Factories().build(held({"inc.weight": torch.zeros(3, 3, 1, 1)}), "unet")


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        (nn.Conv2d(1, 8, 3), 1),
        (nn.Sequential(nn.Identity(), nn.Conv2d(4, 8, 3)), 4),
        (nn.Conv2d(6, 8, 3), 6),
        (nn.Conv2d(64, 8, 3), 3),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 3)), 3),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 8, 3)), 3),
        (nn.Identity(), 3),
    ],
)
def test_the_first_convolution_determines_the_channels(network, channels):
    assert channels_of(network) == channels


class Watched(TorchFunctionMode):
    """Notes what torch is asked to do."""

    def __init__(self):
        super().__init__()
        self.asked = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.asked.add(function)
        return function(*args, **(kwargs or {}))


def test_weights_that_will_be_replaced_are_not_initialised():
    with Watched() as plain:
        state = ARCHITECTURES["unet"](base_channels=2).state_dict()
    with Watched() as watched:
        Factories().build(held(state, {"base_channels": 2}), "unet")

    assert nn.init.kaiming_uniform_ in plain.asked
    assert nn.init.kaiming_uniform_ not in watched.asked
