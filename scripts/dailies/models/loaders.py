"""Loaders: the user's own functions that turn a downloaded artifact of any kind into a network."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from dailies.core.errors import LoadError
from dailies.core.text import clean, reason
from dailies.models import user_code
from dailies.models.factories import channels_of
from dailies.models.signature import Signature
from dailies.models.user_code import ANY, UserFunctions

log = logging.getLogger(__name__)

PARAMS = "params"
"""The parameter through which a loader receives the run's params."""


@dataclass(frozen=True)
class Loaders(UserFunctions):
    """The user's functions that load artifacts, by shell patterns of architectures or folder names."""

    KEY: ClassVar[str] = "model_loader"

    def select(self, *, architecture: str | None, folder: str) -> str | None:
        """Return the function that loads the model with this architecture and folder name; None if there is none.

        Patterns match like those of ``signatures``. If several match, the last one wins, and ``*`` loses to all.
        """
        name = (architecture or "").lower()
        matching = [key for key in self.by_pattern if fnmatchcase(name, key.lower()) or fnmatchcase(folder, key)]
        specific = [key for key in matching if key != ANY]
        if self.by_pattern and not matching:
            log.info("model_loader has no function for %s, architecture %s", folder, name or "unknown")
        return self.by_pattern[(specific or matching)[-1]] if matching else None

    def load(self, function: str, path: Path, params: Mapping[str, str]) -> tuple[nn.Module, Mapping[str, str]]:
        """Call the user's function with the absolute path of an artifact, and return the network that it returns.

        The network is in evaluation mode, with float32 weights. The second value holds the params of the run that the
        function received: all of ``params`` if it declares a parameter of that name, else none.

        Raises:
            LoadError: the function cannot be imported, fails, or returns something other than a network.
        """
        called, file = self.imported(function), clean(path.name)
        extra = {PARAMS: dict(params)} if user_code.declares(called, PARAMS) else {}
        try:
            with user_code.contained():
                network = called(path.absolute(), **extra)
        except (Exception, SystemExit) as error:  # the user's code
            log.exception("model_loader %s failed", function)
            raise LoadError(
                "model.loader_failed", f"model_loader {function} failed for {file} with {reason(error)}"
            ) from error
        if not isinstance(network, nn.Module):
            returned = user_code.described(network)
            raise LoadError(
                "model.no_module_from_loader",
                f"model_loader {function} returned {returned} for {file}; it must return a torch.nn.Module",
            )
        return _ready(network), extra.get(PARAMS, {})


def input_channels(network: nn.Module) -> int:
    """Return the input channels of a network that the user may have wrapped.

    A wrapper may add a noise map or other inputs to the three colours, so the first convolution counts only if the
    network fails with three channels.
    """
    found = channels_of(network)
    return Signature.channels if found == Signature.channels or _accepts(network, Signature.channels) else found


def _ready(network: nn.Module) -> nn.Module:
    with suppress(NotImplementedError):  # the module of a torch.export program has no modes
        network.eval()
    for weights in network.parameters():  # Module.requires_grad_ fails for a ScriptModule
        weights.requires_grad_(False)
    return network.float()


def _accepts(network: nn.Module, channels: int) -> bool:
    try:
        with torch.inference_mode():
            network(torch.zeros(1, channels, 64, 64))
    except Exception:  # the user's code
        return False
    return True
