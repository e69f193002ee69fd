import sys

import pytest
import torch
from dailies.architectures import ARCHITECTURES
from dailies.checkpoints import Checkpoint
from dailies.errors import LoadError
from dailies.factories import Factories, channels_of
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
    return Checkpoint("a.pth", network.state_dict(), **about)


def weights():
    return {"out.weight": torch.ones(3, 3, 1, 1), "out.bias": torch.zeros(3)}


@pytest.mark.parametrize("architecture", ["", "restorer", "unet"])
def test_a_users_function_builds_every_architecture(factories, architecture):
    built = factories().build(Checkpoint("a.pth", weights(), config={"width": 7}), architecture)

    assert built.network.width == 7
    assert built.architecture == (architecture or "restorer")
    assert built.builder.endswith(":build")
    assert not built.network.training
    assert torch.equal(built.network(torch.ones(1, 3, 2, 2)), torch.full((1, 3, 2, 2), 3.0))


def test_a_users_function_builds_the_architecture_that_it_is_for(factories):
    unet = ARCHITECTURES["unet"](base_channels=2)
    ours = factories(architecture="restorer")

    assert ours.build(Checkpoint("a.pth", weights()), "Restorer").builder.endswith(":build")
    assert ours.build(saved(unet, config={"base_channels": 2}), "unet").builder == "dailies"


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("number", r"^model_factory ours_\d+:number returned a int, not a torch\.nn\.Module$"),
        ("fail", r"^model_factory ours_\d+:fail failed for a\.pth with KeyError: 'depth\\n\\x1b\[31m'$"),
        ("missing", r"^model_factory ours_\d+:missing cannot be imported \(AttributeError: .*\); see python_path$"),
    ],
)
def test_what_a_users_function_does_wrong_is_said(factories, function, text):
    with pytest.raises(LoadError, match=text):
        factories(function).build(Checkpoint("a.pth", weights()), "")


def test_weights_that_do_not_fit_a_users_network_are_named(factories):
    with pytest.raises(LoadError, match=r"^the weights in a\.pth do not fit the network: 2 missing \(out\.weight, out"):
        factories().build(Checkpoint("a.pth", {"in.weight": torch.zeros(1)}), "")


def test_settings_that_the_network_does_not_know_are_refused_or_passed_over_when_guessed():
    network = ARCHITECTURES["unet"](base_channels=2)
    config = {"base_channels": 2, "parameters": "31M"}

    with pytest.raises(LoadError, match="unet does not know parameters"):
        Factories().build(saved(network, config=config), "unet")
    assert Factories().build(saved(network, config=config, is_config_guessed=True), "unet").architecture == "unet"


def test_a_network_of_the_restoration_world_is_recognised_by_its_weights():
    from spandrel.architectures.NAFNet import NAFNet

    original = NAFNet(img_channel=3, width=4, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1]).eval()
    image = torch.rand(1, 3, 32, 32)

    built = Factories().build(saved(original), "nafnet")

    assert (built.architecture, built.builder) == ("nafnet", "spandrel")
    assert built.signature.value_range == (0, 1)
    assert (built.signature.scale, built.signature.channels) == (1, 3)
    with torch.inference_mode():
        torch.testing.assert_close(built.network(image), original(image).clamp(0, 1))


def test_an_upscaler_tells_its_scale():
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    network = RRDBNet(in_nc=3, out_nc=3, num_filters=4, num_blocks=1, scale=4)

    built = Factories().build(
        Checkpoint("a.pth", {f"module.{key}": values for key, values in network.state_dict().items()}), ""
    )

    assert (built.architecture, built.signature.scale) == ("esrgan", 4)


def test_without_spandrel_its_networks_are_unknown(monkeypatch):
    from spandrel.architectures.NAFNet import NAFNet

    network = NAFNet(img_channel=3, width=4, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1])
    monkeypatch.setitem(sys.modules, "spandrel", None)

    with pytest.raises(LoadError, match=r"are not recognised; known architectures: nafnet, unet; for others set"):
        Factories().build(saved(network), "")


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        (nn.Conv2d(1, 8, 3), 1),
        (nn.Sequential(nn.Identity(), nn.Conv2d(4, 8, 3)), 4),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 3)), 3),
        (nn.Identity(), 3),
    ],
)
def test_the_first_convolution_tells_the_channels(network, channels):
    assert channels_of(network) == channels


class Watched(TorchFunctionMode):
    """Notes what torch is asked to do."""

    def __init__(self):
        super().__init__()
        self.asked = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.asked.add(function)
        return function(*args, **(kwargs or {}))


def test_no_random_weights_are_made_for_a_network_that_gets_others():
    with Watched() as plain:
        state = ARCHITECTURES["unet"](base_channels=2).state_dict()
    with Watched() as watched:
        Factories().build(Checkpoint("best.pth", state, {"base_channels": 2}), "unet")

    assert nn.init.kaiming_uniform_ in plain.asked
    assert nn.init.kaiming_uniform_ not in watched.asked
