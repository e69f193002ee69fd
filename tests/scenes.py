"""Discovery as an invocation does it: a configuration, the state that is kept for it, and what that says."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dailies.discovery import Standing, discover, standing
from dailies.layout import Layout
from stores import Shelf, configured

LISTING = "GET /api/2.0/mlflow-artifacts/artifacts"
"""How the requests begin that ask a server for artifacts."""


@dataclass
class Scene:
    """A configuration and the state that discovery keeps for it."""

    layout: Layout
    config: dict[str, Any]

    @property
    def state(self) -> Path:
        return self.layout.state

    def look(self, **changes: Any) -> list[str]:
        """Do what an invocation does; give the names of the models."""
        self.config |= changes
        discover(self.config, fingerprint=self.standing().fingerprint, layout=self.layout)
        return self.read("discovery")["models"]

    def standing(self) -> Standing:
        return standing(self.config, self.layout)

    def read(self, name: str) -> Any:
        return json.loads((self.state / f"{name}.json").read_text(), parse_constant=pytest.fail)

    def model(self, name: str) -> dict[str, Any]:
        return self.read(f"models/{name}")

    def run(self, name: str) -> dict[str, Any]:
        return self.read(f"runs/{name}")

    def chosen(self) -> list[str]:
        """The paths of the artifacts that were chosen, in order; for a logged model its id."""
        artifacts = (self.model(name)["artifact"] for name in self.read("discovery")["models"])
        return [artifact["path"] or artifact["uri"].split("/")[-2] for artifact in artifacts]

    def reasons(self) -> dict[str, str]:
        return {run["run_name"]: run["reason"] for run in self.read("skipped")}


def scene_of(shelf: Shelf, root: Path, **config: Any) -> Scene:
    experiment = shelf.client.get_experiment(shelf.experiment).name
    defaults = {"experiment_name": experiment, "folder_name": "{run_name}", "order_by": "start_time ASC"}
    return Scene(Layout(root), configured(shelf.uri, **(defaults | config)))
