"""A user's network that tells where each frame is rendered, and stops there when it is given a cue."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

WIDTH = 96
"""Of a frame, in pixels: what comes in another width is a first try. The red of its first pixel is its number."""

SECRET = "MLFLOW_TRACKING_PASSWORD"


class Staged(nn.Module):
    """One convolution; ``stage`` is the folder of the events and of the cues."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = Path(stage)
        self.mix = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map ``(n, 3, h, w)`` to the same shape."""
        if pixels.shape[-1] == WIDTH:
            self._enter(round((pixels[0, 0, 0, 0].item() + 1) / 2 * 255))
        return torch.tanh(self.mix(pixels))

    def _enter(self, frame: int) -> None:
        """Tell that a frame is rendered, and where; with a cue for it, wait, or take more memory than was asked for.

        What is told of the secret is what this process knows and, ``outside``, what the one does that started it.
        """
        variables = {"job": "SLURM_JOB_ID", "node": "SLURMD_NODENAME", "gpu": "CUDA_VISIBLE_DEVICES", "secret": SECRET}
        event = {"frame": frame, "process": os.getpid()}
        event |= {key: os.environ.get(name) for key, name in variables.items()}
        around = Path(f"/proc/{os.getppid()}/environ").read_text().split("\0")
        event["outside"] = next((each.partition("=")[2] for each in around if each.startswith(f"{SECRET}=")), None)
        with (self.stage / "events").open("a") as file:
            file.write(json.dumps(event) + "\n")
        cue = self.stage / f"cue-{frame}"
        hoard = []
        while cue.exists():
            if cue.read_text() == "starve":
                cue.unlink()
                hoard.append(torch.ones(600_000_000))  # 2.4 GB
                time.sleep(600)
            time.sleep(0.05)


def build(config: Mapping[str, str]) -> Staged:
    return Staged(config["stage"])
