"""A store as the guide's own program writes it: every checkpoint renders what its network answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dailies.models.architectures.catalog import ARCHITECTURES
from helpers.images import read_frame
from helpers.in_process import render_all
from helpers.studio import Studio
from torch import Tensor, nn

SIZE = (64, 32)
"""Width and height of the frames: no network needs padding, so that each can be called directly."""

FACTORY = '''
"""The program's own networks: all have the same weights, so that a wrong one loads too and renders other pixels."""

import torch
from torch import nn


class BasicUNet(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config["base_channels"]
        self.enter = nn.Conv2d(config["in_channels"], width, 3, padding=1)
        self.leave = nn.Conv2d(width, config["out_channels"], 3, padding=1)

    def features(self, x):
        return torch.relu(self.enter(x))

    def forward(self, x):
        return torch.tanh(self.leave(self.features(x)))


class ModernUNet(BasicUNet):
    def __init__(self, config):
        super().__init__(config)
        self.film = config["modern"]["use_film"]
        self.dilated = config["residual"]["use_dilated_bottleneck"]
        self.attention = config["modern"]["attention_type"]

    def forward(self, x):
        gain = 0.5 if self.film is True and self.dilated is True and self.attention == "self" else 0.0
        return torch.tanh(x + gain * self.leave(self.features(x)))


NETWORKS = {"basic_unet": BasicUNet, "modern_unet": ModernUNet}


def get_model(config):
    return NETWORKS[config.get("architecture", "basic_unet").lower()](config)
'''


def model_config(architecture: str, **changes: Any) -> dict[str, Any]:
    """Return the program's whole ``model`` section, which it saves whatever the architecture."""
    section = {
        "architecture": architecture,
        "in_channels": 3,
        "out_channels": 3,
        "base_channels": 8,
        "input_map_channels": 0,
        "norm_type": "group",
        "activation": "mish",
        "groups": 32,
        "dropout_p": 0,
        "smart": {"use_attention": False, "use_smart_filter": False, "drop_skip_prob": 0},
        "residual": {"use_dilated_bottleneck": True},
        "modern": {"use_film": True, "use_adain": False, "attention_type": "self", "cond_dim": 128},
    }
    return section | ({"size": "small"} if architecture.lower() == "nafnet" else {}) | changes


IGNORED = {"input_map_channels", "norm_type", "activation", "groups", "dropout_p", "smart", "residual", "modern"}
"""What neither ``unet`` nor ``nafnet`` uses of that section."""


def flattened(section: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Return a section of the configuration as the program logs it to MLflow: ``model.smart.use_attention``."""
    flat: dict[str, str] = {}
    for key, value in section.items():
        name = f"{prefix}.{key}"
        flat |= flattened(value, name) if isinstance(value, Mapping) else {name: str(value)}
    return flat


def params(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the params of a run of the program."""
    training = {"optimizer": "adamw", "learning_rate": 0.001, "epochs": 2500, "loss": {"l1": 1.0}}
    return flattened(config, "model") | flattened(training, "training")


def saved(network: nn.Module, config: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return what the program saves at its best epoch; a key that is changed to None is left out."""
    complete = {
        "epoch": 1500,
        "model_state_dict": network.state_dict(),
        "optimizer_state_dict": torch.optim.AdamW(network.parameters()).state_dict(),
        "train_loss": 0.0234,
        "val_loss": 0.0189,
        "model_config": dict(config),
        "architecture": config.get("architecture"),
    }
    return {key: value for key, value in (complete | changes).items() if value is not None}


@dataclass(frozen=True)
class Trained:
    """One run of the program."""

    config: Mapping[str, Any]
    checkpoint: Callable[[nn.Module, Mapping[str, Any]], Any] = saved
    """What it saves, of the network and its configuration."""
    says: bool = True
    """Whether the run has params."""

    @property
    def architecture(self) -> str:
        return self.config["architecture"].lower()


def inside_only(network: nn.Module, config: Mapping[str, Any]) -> dict[str, Any]:
    return saved(network, config, architecture=None)


def without_config(network: nn.Module, config: Mapping[str, Any]) -> dict[str, Any]:
    return saved(network, config, model_config=None, architecture=None)


def state_dict_alone(network: nn.Module, config: Mapping[str, Any]) -> dict[str, Tensor]:
    return network.state_dict()


def numpy_scalars(network: nn.Module, config: Mapping[str, Any]) -> dict[str, Any]:
    figures = {"val_psnr": np.float32(32.45), "val_ssim": np.float64(0.9), "best": np.bool_(True)}
    losses = {"train_loss": np.float64(0.0234), "val_loss": np.float64(0.0189), "epoch": np.int64(1500)}
    return saved(network, config, **losses, metrics=figures)


RUNS = {
    "unet": Trained(model_config("unet")),
    "nafnet": Trained(model_config("nafnet")),
    "unet_inside_only": Trained(model_config("unet"), inside_only, says=False),
    "unet_capitals": Trained(model_config("UNet")),
    "nafnet_capitals": Trained(model_config("NAFNet")),
    "unet_without_config": Trained(model_config("unet"), without_config),
    "unet_state_dict": Trained(model_config("unet"), state_dict_alone),
    "unet_numpy": Trained(model_config("unet"), numpy_scalars),
    "modern": Trained(model_config("modern_unet")),
    "modern_state_dict": Trained(model_config("Modern_UNet"), state_dict_alone),
}
"""The runs of the store, by name."""

BUILT_IN = [name for name, run in RUNS.items() if run.architecture in ARCHITECTURES]


def get_model(config: Mapping[str, Any]) -> nn.Module:
    """Call the program's own function, which only the workflow finds in ``python_path``."""
    program: dict[str, Any] = {}
    exec(FACTORY, program)
    return program["get_model"](config)


def built(run: Trained) -> nn.Module:
    """Build the network of a run as the program does, with weights of which every layer shows in the answer."""
    config = run.config
    if run.architecture == "unet":
        network = ARCHITECTURES["unet"](3, 3, config["base_channels"])
    elif run.architecture == "nafnet":
        network = ARCHITECTURES["nafnet"](size=config["size"])
    else:
        network = get_model(config)
    with torch.no_grad():
        for name, values in network.state_dict().items():
            if name.endswith(("beta", "gamma", "running_mean")):
                values.uniform_(-0.5, 0.5)
            elif name.endswith("running_var"):
                values.uniform_(0.5, 1.5)
            elif name == "outc.weight":
                values.mul_(10)  # else the answer would be nearly even
    return network.eval()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, blank_store: Path) -> tuple[Studio, dict[str, nn.Module]]:
    """A studio with the program's runs, rendered, and their networks."""
    studio = Studio(tmp_path_factory.mktemp("guide"), experiment="copyair_experiments", blank=blank_store)
    studio.add_frames(2, size=SIZE)
    models = studio.root / "program" / "src" / "models"
    models.mkdir(parents=True)
    (models / "factory.py").write_text(FACTORY)
    torch.manual_seed(0)
    networks = {}
    for name, run in RUNS.items():
        networks[name] = network = built(run)
        studio.add_run(
            name,
            run.checkpoint(network, run.config),
            path=f"checkpoints/best_model_{run.config['architecture']}.pth",
            params=params(run.config) if run.says else {},
            metrics={"train/loss": 0.03, "val/psnr": 32.0},
        )
    studio.config |= {
        "compare": False,
        "model_factory": {"modern_unet": "src.models.factory:get_model"},
        "python_path": [str(studio.root / "program")],
        "signatures": {"*": {"value_range": [-1, 1]}},
    }
    render_all(studio)
    return studio, networks


def rendered_by(network: nn.Module, frame: np.ndarray) -> np.ndarray:
    """Render a frame by calling a network as the program's script does, but for the rounding."""
    pixels = torch.tensor(frame, dtype=torch.float32).permute(2, 0, 1)[None] / 255 * 2 - 1
    with torch.inference_mode():
        answer = network(pixels)
    return ((answer[0].permute(1, 2, 0) + 1) / 2 * 255).clamp(0, 255).numpy()


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_the_guides_program_renders_what_its_network_answers(store, name: str) -> None:
    studio, networks = store
    run, about = RUNS[name], studio.metadata(studio.runs[name])

    assert (about["render"]["status"], about["render"]["error"]) == ("success", None)
    builder = "dailies" if run.architecture in ARCHITECTURES else "src.models.factory:get_model"
    assert (about["architecture"].lower(), about["network"]["builder"]) == (run.architecture, builder)
    assert about["network"]["trust_pickle"] is False
    for frame in sorted(studio.frames.iterdir()):
        expected = rendered_by(networks[name], read_frame(frame))
        assert expected.std() > 5, "a frame that is nearly even would show little"
        np.testing.assert_allclose(read_frame(studio.folder(studio.runs[name]) / frame.name), expected, atol=0.51)


@pytest.mark.parametrize("name", [name for name in BUILT_IN if RUNS[name].checkpoint in (saved, inside_only)])
def test_settings_that_a_built_in_network_does_not_use_are_reported(store, name: str) -> None:
    studio, _ = store

    notes = studio.metadata(studio.runs[name])["network"]["notes"]

    (note,) = [note for note in notes if "ignored" in note]
    unknown = IGNORED | ({"base_channels"} if RUNS[name].architecture == "nafnet" else set())
    assert {setting for setting in unknown if setting in note} == unknown
    assert "in_channels" not in note


@pytest.mark.parametrize("name", ["unet", "unet_numpy"])
def test_epoch_and_losses_of_run_and_checkpoint_are_told_apart(store, name: str) -> None:
    studio, _ = store

    about = studio.metadata(studio.runs[name])

    assert about["checkpoint"] == {"epoch": 1500, "train_loss": 0.0234, "val_loss": 0.0189}
    assert (about["epoch"], about["train_loss"]) == (2500, 0.03)  # the run's, as in the folder's name


def test_a_checkpoint_without_them_has_those_of_the_run(store) -> None:
    studio, _ = store

    about = studio.metadata(studio.runs["unet_state_dict"])

    assert (about["epoch"], about["train_loss"], about["val_loss"]) == (2500, 0.03, None)


def test_the_programs_default_network_would_render_other_pixels(store) -> None:
    studio, networks = store
    default = get_model(model_config("basic_unet"))
    default.load_state_dict(networks["modern"].state_dict())
    frame = read_frame(next(studio.frames.iterdir()))

    assert np.abs(rendered_by(default.eval(), frame) - rendered_by(networks["modern"], frame)).mean() > 5
