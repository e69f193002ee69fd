"""A store with one run of every kind of model, each written by its real writer: what is downloaded and rendered."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from dailies.models.architectures.catalog import ARCHITECTURES
from dailies.render.tensors import pad
from helpers import REPOSITORY
from helpers.images import read_frame
from helpers.in_process import render_all
from helpers.studio import Studio, environment
from torch import nn

CODE = """
import torch


class Restorer(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, width, 3, padding=1), torch.nn.Conv2d(width, 3, 1))

    def forward(self, x):
        return {"loss": x.mean(), "image": torch.tanh(self.body(x))}


def build(config):
    return Restorer(**config)
"""


@dataclass(frozen=True)
class Kind:
    """One run of the store: how its model is written, and what the run is to end as."""

    write: Callable[["Studio", str], nn.Module | None]
    """Log the model to a run and give the network that it is."""
    params: dict[str, str] = field(default_factory=dict)
    value_range: tuple[float, float] = (-1.0, 1.0)
    scale: int = 1
    builder: str = "dailies"
    error: str | None = None
    """How the reason begins for which it does not load."""


def small(channels: int = 3) -> nn.Sequential:
    """A network of torch's own layers, with random weights."""
    return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, channels, 1), nn.Tanh()).eval()


def unet() -> nn.Module:
    return ARCHITECTURES["unet"](base_channels=2).eval()


def checkpoint(studio: Studio, run_id: str) -> nn.Module:
    network = unet()
    state = {f"module.{key}": values for key, values in network.state_dict().items()}
    content = {"model_state_dict": state, "model_config": {"base_channels": 2}, "architecture": "unet", "epoch": 7}
    studio.log_checkpoint(run_id, content)
    return network


def averaged(studio: Studio, run_id: str) -> nn.Module:
    network = unet()
    content = {"params": unet().state_dict(), "params_ema": network.state_dict()}
    studio.log_checkpoint(run_id, content | {"model_config": {"base_channels": 2}})
    return network


def bare(studio: Studio, run_id: str) -> nn.Module:
    network = unet()
    studio.log_checkpoint(run_id, network.half().state_dict())
    return network.float()


LIGHTNING = """
import sys, torch
import pytorch_lightning
sys.path.append(sys.argv[1])
from dailies.models.architectures.catalog import ARCHITECTURES


class Training(pytorch_lightning.LightningModule):
    def __init__(self, base_channels, lr, arch):
        super().__init__()
        self.save_hyperparameters()
        self.model = ARCHITECTURES[arch](base_channels=base_channels)

    def training_step(self, batch):
        return self.model(batch).mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.hparams.lr)


trainer = pytorch_lightning.Trainer(max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False)
training = Training(base_channels=2, lr=0.001, arch="unet")
trainer.fit(training, torch.rand(2, 1, 3, 32, 32))
trainer.save_checkpoint("epoch=0-step=1.ckpt")
torch.save(training.model.state_dict(), "expected.pth")
"""


def lightning(studio: Studio, run_id: str) -> nn.Module:
    folder = studio.root / "lightning"
    folder.mkdir()
    # in a process of its own: where Lightning finds the stand-in for torchvision, it takes it for the real one
    kept = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", LIGHTNING, REPOSITORY / "scripts"], cwd=folder, env=kept, check=True)
    studio.client.log_artifact(run_id, str(folder / "epoch=0-step=1.ckpt"), "checkpoints")
    network = unet()
    network.load_state_dict(torch.load(folder / "expected.pth"))
    return network


def safetensors(studio: Studio, run_id: str) -> nn.Module:
    from safetensors.torch import save_file

    network, path = unet(), studio.root / "outbox" / "model.safetensors"
    save_file(network.state_dict(), path, {"model_config": json.dumps({"base_channels": 2}), "architecture": "unet"})
    studio.client.log_artifact(run_id, str(path))
    return network


def restoration(studio: Studio, run_id: str) -> nn.Module:
    from spandrel.architectures.NAFNet import NAFNet

    network = NAFNet(img_channel=3, width=4, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1]).eval()
    studio.log_checkpoint(run_id, {"params": network.state_dict()}, "net_g_latest.pth")
    return network


def upscaler(studio: Studio, run_id: str) -> nn.Module:
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    network = RRDBNet(in_nc=3, out_nc=3, num_filters=4, num_blocks=1, scale=2).eval()
    studio.log_checkpoint(run_id, {"params_ema": network.state_dict()}, "realesrgan.pth")
    return network


def users_own(studio: Studio, run_id: str) -> nn.Module:
    scope: dict[str, Any] = {}
    exec(CODE, scope)
    network = scope["Restorer"](width=3).eval()
    content = {"state_dict": network.state_dict(), "model_config": {"width": 3}, "architecture": "restorer"}
    studio.log_checkpoint(run_id, content)
    return network


def torchscript(studio: Studio, run_id: str) -> nn.Module:
    network, path = small(), studio.root / "outbox" / "scripted.pt"
    torch.jit.trace(network, torch.rand(1, 3, 32, 32)).save(path)
    studio.client.log_artifact(run_id, str(path))
    return network


def exported(studio: Studio, run_id: str) -> nn.Module:
    network, path = small(), studio.root / "outbox" / "frozen.pt2"
    torch.export.save(torch.export.export(network, (torch.rand(1, 3, 32, 32),)), path)
    studio.client.log_artifact(run_id, str(path))
    return network


def flavored(format_: str) -> Callable[[Studio, str], nn.Module]:
    def write(studio: Studio, run_id: str) -> nn.Module:
        network = small()
        with mlflow.start_run(run_id=run_id):
            options: dict[str, Any] = {"pip_requirements": ["torch"]}  # else MLflow looks for them, for ten seconds
            if format_ == "pt2":
                options["input_example"] = torch.rand(1, 3, 32, 48).numpy()
            mlflow.pytorch.log_model(network, name="model", serialization_format=format_, **options)
        return network

    return write


def onnx_file(network: nn.Module, path: Path) -> Path:
    axes = {0: "batch", 2: "height", 3: "width"}
    torch.onnx.export(
        network,
        (torch.rand(1, 3, 32, 32),),
        path,
        dynamo=False,
        input_names=["image"],
        output_names=["answer"],
        dynamic_axes={"image": axes, "answer": axes},
    )
    return path


def onnx_raw(studio: Studio, run_id: str) -> nn.Module:
    network = small()
    studio.client.log_artifact(run_id, str(onnx_file(network, studio.root / "outbox" / "net.onnx")))
    return network


def onnx_beside_its_weights(studio: Studio, run_id: str) -> nn.Module:
    network, path = small(), studio.root / "outbox" / "beside.onnx"
    side, other = torch.export.Dim("side", min=2, max=4096), torch.export.Dim("other", min=2, max=4096)
    shapes = ({2: side, 3: other},)
    torch.onnx.export(network, (torch.rand(1, 3, 32, 48),), path, dynamic_shapes=shapes, external_data=True)
    for file in (path, path.with_name("beside.onnx.data")):
        studio.client.log_artifact(run_id, str(file))
    return network


def onnx_flavored(studio: Studio, run_id: str) -> nn.Module:
    import mlflow.onnx
    import onnx

    network = small()
    loaded = onnx.load(onnx_file(network, studio.root / "outbox" / "flavored.onnx"))
    with mlflow.start_run(run_id=run_id):
        mlflow.onnx.log_model(loaded, name="model", pip_requirements=["onnx"])
    return network


def whole(studio: Studio, run_id: str) -> nn.Module:
    network = small()
    studio.log_checkpoint(run_id, network)
    return network


def saved(content: object, path: str = "best.pth") -> Callable[[Studio, str], None]:
    def write(studio: Studio, run_id: str) -> None:
        studio.log_checkpoint(run_id, content, path)

    return write


class Hostile:
    """A pickle that leaves a mark on the disk when it is loaded."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch marker",)


UNKNOWN = {"body.weight": torch.rand(3, 3, 1, 1)}
PARAMS = {"model.architecture": "unet", "model.base_channels": "2", "model.parameters": "31M", "lr": "0.1"}

KINDS = {
    "checkpoint": Kind(checkpoint),
    "averaged": Kind(averaged, {"architecture": "unet"}),
    "bare": Kind(bare, PARAMS),
    "lightning": Kind(lightning),
    "safetensors": Kind(safetensors),
    "restoration": Kind(restoration, {"architecture": "NAFNet"}, value_range=(0, 1), builder="spandrel"),
    "upscaler": Kind(upscaler, value_range=(0, 1), scale=2, builder="spandrel"),
    "users_own": Kind(users_own, builder="networks.restorer:build"),
    "torchscript": Kind(torchscript, error="scripted.pt is a program (TorchScript), and loading it runs its code; set"),
    "torchscript_trusted": Kind(
        torchscript, {"dailies.value_range": "[0, 1]"}, value_range=(0, 1), builder="torchscript"
    ),
    "exported": Kind(exported, error="frozen.pt2 is a program (torch.export), and loading it runs its code; set"),
    "exported_trusted": Kind(exported, {"dailies.value_range": "[0, 1]"}, value_range=(0, 1), builder="export"),
    "flavored_pt2_trusted": Kind(flavored("pt2"), builder="export"),
    "flavored_pickle": Kind(flavored("pickle"), error="model.pth needs torch.nn.modules.activation.ReLU, "),
    "flavored_trusted": Kind(flavored("pickle"), builder="pickle"),
    "whole_trusted": Kind(whole, builder="pickle"),
    "onnx_raw": Kind(onnx_raw, builder="onnx"),
    "onnx_beside_its_weights": Kind(onnx_beside_its_weights, builder="onnx"),
    "onnx_flavored": Kind(onnx_flavored, builder="onnx"),
    "hostile": Kind(saved({"state_dict": UNKNOWN, "x": Hostile()}), error="best.pth needs posix.system to be loaded"),
    "unknown": Kind(saved(UNKNOWN), error="best.pth does not state its architecture, and its weights (body."),
    "wrong": Kind(
        saved({"state_dict": UNKNOWN, "architecture": "unet"}), error="the weights in best.pth do not fit the network: "
    ),
    "website": Kind(
        saved(b"<!DOCTYPE html>"),
        error="best.pth is not a checkpoint that torch wrote: it is a web page or XML; known",
    ),
    "optimizer": Kind(saved({"lr": 0.1}), error="best.pth holds a dict with the keys 'lr', "),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, blank_store: Path) -> tuple[Studio, dict[str, nn.Module | None]]:
    """A studio with a run of every kind, rendered, and the networks that were logged."""
    studio = Studio(tmp_path_factory.mktemp("kinds"), blank=blank_store)
    studio.add_frames(2, size=(40, 36))
    (studio.root / "outbox").mkdir()
    (studio.root / "networks").mkdir()
    (studio.root / "networks" / "restorer.py").write_text(CODE)
    mlflow.set_tracking_uri(studio.uri)
    torch.manual_seed(0)
    networks = {}
    for name, kind in KINDS.items():
        run_id = studio.add_run(name, None, params=kind.params, status="RUNNING")
        networks[name] = kind.write(studio, run_id)
        studio.client.set_terminated(run_id)
    mlflow.set_tracking_uri(None)  # else it is the default store of all tests that follow
    studio.config |= {
        "compare": False,
        "model_factory": {"restorer": "networks.restorer:build"},
        "python_path": [str(studio.root)],
        "models": ["denoiser@champion"],
        "trust_code": [studio.runs[name] for name in KINDS if name.endswith("_trusted")],
    }
    studio.client.create_registered_model("denoiser")
    source = f"runs:/{studio.runs['checkpoint']}/checkpoints/best_model_unet.pth"
    version = studio.client.create_model_version("denoiser", source, studio.runs["checkpoint"]).version
    studio.client.set_registered_model_alias("denoiser", "champion", version)
    with contextlib.chdir(studio.root):  # where code that ran would leave its marker
        render_all(studio)
    return studio, networks


def rendered_by(network: nn.Module, frame: np.ndarray, kind: Kind, signature: dict[str, Any]) -> np.ndarray:
    """Render a frame by calling a network directly."""
    black, white = kind.value_range
    pixels = torch.from_numpy(frame / 255).float().permute(2, 0, 1)[None] * (white - black) + black
    with torch.inference_mode():
        answer = network(pad(pixels, signature["multiple"], signature["tile"] or (1, 1)))
    answer = answer["image"] if isinstance(answer, dict) else answer
    cut = answer[0, :, : frame.shape[0] * kind.scale, : frame.shape[1] * kind.scale].permute(1, 2, 0)
    return ((cut - black) / (white - black) * 255).clamp(0, 255).numpy()


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.error])
def test_a_kind_renders_what_its_network_answers(store: tuple[Studio, dict], name: str) -> None:
    studio, networks = store
    run_id, kind = studio.runs[name], KINDS[name]

    about = studio.metadata(run_id)

    assert (about["render"]["status"], about["render"]["error"]) == ("success", None)
    assert about["network"]["builder"] == kind.builder
    assert about["network"]["trust_pickle"] == name.endswith("_trusted")
    assert about["signature"]["scale"] == kind.scale
    for frame in studio.frames.iterdir():
        expected = rendered_by(networks[name], read_frame(frame), kind, about["signature"])
        np.testing.assert_allclose(read_frame(studio.folder(run_id) / frame.name), expected, atol=0.6)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.error])
def test_a_kind_that_cannot_be_loaded_says_what_to_do(store: tuple[Studio, dict], name: str) -> None:
    studio, _ = store

    (line,) = [line for line in studio.summary() if line["run_id"] == studio.runs[name]]

    assert line["status"] == "load_failed"
    assert line["error"].startswith(KINDS[name].error)
    assert len(line["error"]) < 500


def test_a_program_of_one_size_is_rendered_in_tiles_of_it(store: tuple[Studio, dict]) -> None:
    studio, _ = store

    assert studio.metadata(studio.runs["exported_trusted"])["render"]["tile_size"] == [32, 32]


def test_what_was_done_to_the_weights_is_said(store: tuple[Studio, dict]) -> None:
    studio, _ = store

    notes = {name: studio.metadata(studio.runs[name])["network"]["notes"] for name in ("averaged", "users_own")}

    assert notes == {
        "averaged": ["averaged weights (params_ema) are used"],
        "users_own": [
            "part ['image'] of the network's output is used",
            "value_range [-1, 1] was assumed; if that is wrong, set value_range in signatures, or the run's tag "
            "dailies.value_range",
        ],
    }


def test_a_registered_model_is_rendered_as_its_version(store: tuple[Studio, dict]) -> None:
    studio, _ = store

    registered = studio.metadata(studio.runs["checkpoint"])["registered_model"]

    assert registered == {"name": "denoiser", "version": registered["version"], "alias": "champion"}
    assert str(registered["version"]) == "1"
    assert studio.summary()[0]["run_id"] == studio.runs["checkpoint"]


def test_no_code_of_the_store_has_run(store: tuple[Studio, dict]) -> None:
    studio, _ = store

    assert not list(studio.root.rglob("marker"))
