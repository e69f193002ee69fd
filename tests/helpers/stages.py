"""A studio of which a test knows where each frame is rendered, and where it can stop any render."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from helpers import REPOSITORY
from helpers.invocations import Invocation
from helpers.studio import Studio, kill_group

FRAMES = 6
WIDTH = 96
PATIENCE = 900
"""Seconds after which a scene is given up; how long anything takes says nothing about a test."""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something to become true."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, f"waited in vain for {what}"
        time.sleep(0.1)


class Stage(Studio):
    """A studio whose networks tell where they render, on a machine of one's choice."""

    def __init__(
        self,
        root: Path,
        blank: Path,
        machine: tuple[str, ...],
        *models: str,
        store: Mapping[str, str] | None = None,
        **variables: str,
    ) -> None:
        super().__init__(root, **(store or {"blank": blank}))
        self.machine = machine
        self.environment = variables
        self.stage = root / "stage"
        self.stage.mkdir()
        self.started: list[Invocation] = []
        self.config |= {
            "compare": False,
            "model_factory": "staged:build",
            "python_path": [str(REPOSITORY / "tests" / "helpers" / "staging")],
            "signatures": {"*": {"value_range": [-1, 1]}},  # so that no frame is tried in another range
        }
        for number in range(FRAMES):
            pixels = np.random.default_rng(number).integers(0, 256, (48, WIDTH, 3), dtype=np.uint8)
            pixels[0, 0, 0] = number
            Image.fromarray(pixels).save(self.frames / f"frame_{number:06d}.png")
        for model in models:
            self.add_run(model, self.checkpoint(model))

    def checkpoint(self, model: str) -> dict:
        """Give weights of their own to every name."""
        import torch

        torch.manual_seed(sum(map(ord, model)))
        layer = torch.nn.Conv2d(3, 3, 3, padding=1)
        state = {f"mix.{name}": value for name, value in layer.state_dict().items()}
        return {"model_state_dict": state, "model_config": {"stage": str(self.stage)}, "architecture": "staged"}

    def start(self, *arguments: str, **config) -> Invocation:
        process = super().start(*arguments, log=self.root / f"invocation-{len(self.started) + 1}.txt", **config)
        self.started.append(process)
        return process

    def ended(self) -> tuple[int, str]:
        """Wait for the last invocation; give its exit code and what it printed."""
        code = self.started[-1].wait(timeout=PATIENCE)
        return code, self.told()

    def told(self) -> str:
        """What the last invocation has printed so far."""
        return (self.root / f"invocation-{len(self.started)}.txt").read_text()

    def run(self, *arguments: str, **config) -> tuple[int, str]:
        self.start(*arguments, **config)
        return self.ended()

    def kill(self) -> None:
        """Kill -9 every invocation that is still running."""
        for process in self.started:
            if process.poll() is None:
                kill_group(process)

    def cue(self, frame: int, text: str = "wait") -> Path:
        path = self.stage / f"cue-{frame}"
        path.write_text(text)
        return path

    def events(self, frame: int | None = None) -> list[SimpleNamespace]:
        """What the networks told, in order, of one frame or of all: see ``staged.Staged``."""
        path = self.stage / "events"
        told = [SimpleNamespace(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
        return [event for event in told if frame in (None, event.frame)]

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something to become true while the last invocation is running."""

        def holds() -> bool:
            running = self.started[-1].poll() is None
            if condition():
                return True
            assert running, f"ended before {what}: {self.told()}"
            return False

        until(holds, f"{what}, in {self.root}")

    def reached(self, frame: int, times: int = 1) -> SimpleNamespace:
        """Wait until a frame was begun so many times; give the last event."""
        self.until(lambda: len(self.events(frame)) >= times, f"frame {frame}, {times} times")
        return self.events(frame)[-1]

    def placed(self, model: str, frame: int) -> None:
        """Wait until a frame of a model is written and noted."""
        folder = self.folder(self.runs[model]).name
        lines = self.layout.manifests(folder)
        self.until(
            lambda: any(f"frame_{frame:06d}.png" in path.read_text() for path in lines.glob("*.jsonl")),
            f"frame {frame} of {model}",
        )

    def pictures(self, model: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder(self.runs[model]).glob("*.png")}
