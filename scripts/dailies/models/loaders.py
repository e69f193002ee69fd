"""Loaders: the user's own functions that turn a downloaded artifact of any kind into a network."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dailies.core.errors import LoadError
from dailies.core.text import clean, reason
from dailies.models import user_code
from dailies.models.factories import channels_of
from dailies.models.signature import Signature

log = logging.getLogger(__name__)

ANY = "*"
"""The pattern of a loader for every model that no other pattern matches."""

PARAMS = "params"
"""A loader with a parameter of this name gets the run's params."""


@dataclass(frozen=True)
class Loaders:
    """Which of the user's functions loads which model."""

    own: Mapping[str, str] = field(default_factory=dict)
    """The user's functions, ``package.module:function``, by shell patterns of architecture or folder names."""
    python_path: tuple[Path, ...] = ()
    """Folders in which the user's modules are found."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Loaders":
        """Take ``model_loader``, a function or a map of them, and ``python_path`` from the settings of loading."""
        given = settings.get("model_loader") or {}
        own = {ANY: given} if isinstance(given, str) else given
        return cls(dict(own), tuple(Path(folder) for folder in settings["python_path"]))

    def named(self, *, architecture: str | None, folder: str) -> str | None:
        """Return the function that loads the model of this architecture or folder name; None if there is none.

        Patterns match as those of ``signatures`` do. If several match, the last one wins; ``*`` gives way to all.
        """
        name = (architecture or "").lower()
        matching = [key for key in self.own if fnmatchcase(name, key.lower()) or fnmatchcase(folder, key)]
        special = [key for key in matching if key != ANY]
        if self.own and not matching:
            log.info("model_loader has no function for %s, architecture %s", folder, name or "unknown")
        return self.own[(special or matching)[-1]] if matching else None

    def load(self, function: str, path: Path, params: Mapping[str, str]) -> tuple[nn.Module, Mapping[str, str]]:
        """Call the user's function with the absolute path of an artifact, and return the network that it returns.

        The network is in evaluation mode, with float32 weights. The second value is what the function was given of
        the run's ``params``: all if it declares them, else nothing.

        Raises:
            LoadError: naming the function, the artifact and what went wrong.
        """
        called, file = user_code.function("model_loader", function, self.python_path), clean(path.name)
        given = {PARAMS: dict(params)} if user_code.declares(called, PARAMS) else {}
        try:
            with user_code.contained():
                network = called(path.absolute(), **given)
        except (Exception, SystemExit) as error:  # the user's own code
            log.exception("model_loader %s failed", function)
            raise LoadError(
                "model.loader_failed", f"model_loader {function} failed for {file} with {reason(error)}"
            ) from error
        if not isinstance(network, nn.Module):
            given_back = user_code.described(network)
            raise LoadError(
                "model.no_module_from_loader",
                f"model_loader {function} returned {given_back} for {file}; it must return a torch.nn.Module",
            )
        return _ready(network), given.get(PARAMS, {})


def input_channels(network: nn.Module) -> int:
    """Return how many channels a network takes that its user may have wrapped.

    A wrapper may add a noise map or other inputs to the three colours, so the first convolution is believed only if
    the network does not take three channels.
    """
    told = channels_of(network)
    return Signature.channels if told == Signature.channels or _takes(network, Signature.channels) else told


def _ready(network: nn.Module) -> nn.Module:
    with suppress(NotImplementedError):  # the module of a torch.export program has no modes
        network.eval()
    for weights in network.parameters():  # a ScriptModule refuses requires_grad_ as a whole
        weights.requires_grad_(False)
    return network.float()


def _takes(network: nn.Module, channels: int) -> bool:
    try:
        with torch.inference_mode():
            network(torch.zeros(1, channels, 64, 64))
    except Exception:  # the user's own code
        return False
    return True
