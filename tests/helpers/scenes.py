"""Discovery as an invocation does it: a configuration, the state that is kept for it, and what that says."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dailies.core.errors import StoreError
from dailies.discovery.discover import discover
from dailies.discovery.take_snapshot import CurrentSnapshot, take_snapshot
from dailies.planning.config import Settings
from dailies.state.layout import Layout

from helpers.stores import Shelf, configured

LISTING = "GET /api/2.0/mlflow-artifacts/artifacts"
"""How the requests begin that ask a server for artifacts."""


@dataclass
class Scene:
    """Settings and the state that discovery keeps for them."""

    layout: Layout
    settings: Settings
    reason: str = ""
    """Why the last look found no model."""

    @property
    def state(self) -> Path:
        return self.layout.state

    def look(self, **changes: Any) -> list[str]:
        """Do what an invocation does; return the names of the models, none where planning ends it with the reason."""
        self.change(**changes)
        try:
            fingerprint = self.take_snapshot().fingerprint
        except StoreError as error:
            if error.code != "store.no_model":
                raise
            self.reason = str(error)
            return []
        discover(self.settings, fingerprint=fingerprint, layout=self.layout)
        return self.read("discovery")["models"]

    def take_snapshot(self, **how: bool) -> CurrentSnapshot:
        return take_snapshot(self.settings, self.layout, **how)

    def change(self, **changes: Any) -> None:
        """Change settings as if the user had edited the configuration."""
        self.settings = Settings(**self.settings.as_config() | changes)

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
