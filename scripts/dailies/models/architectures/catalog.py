"""The catalog of built-in networks, by name."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from dailies.core.errors import LoadError
from dailies.models.architectures.nafnet import NAFNet
from dailies.models.architectures.unet import UNet
from dailies.models.weights import Group, under_prefixes

ARCHITECTURES: dict[str, type[UNet] | type[NAFNet]] = {"unet": UNet, "nafnet": NAFNet}
"""The built-in networks, by the name that a checkpoint or a run states."""


def settings_of(network: type[nn.Module]) -> list[str]:
    """Return the names of the settings that a network is built from."""
    return list(inspect.signature(network).parameters)


def build(name: str, settings: Mapping[str, Any]) -> nn.Module:
    """Build a network with random weights; settings that it does not know are ignored.

    Raises:
        LoadError: the network cannot be built from these values.
    """
    network: type[nn.Module] = ARCHITECTURES[name]
    known = {key: settings[key] for key in settings_of(network) if key in settings}
    try:
        return network(**known)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LoadError("model.build_failed", f"cannot build {name} from {known}: {error}") from error


def settings_in(name: str, found: Sequence[Group]) -> list[dict[str, Any]]:
    """Return the settings with which weights fit a network, read from their names and shapes.

    There is one dict for each distinct set of weights that looks like this network.
    """
    network = ARCHITECTURES[name]
    read = (network.settings_in(state) for state in under_prefixes(found, network.ANCHOR))
    settings: list[dict[str, Any]] = []
    for each in read:
        if each is not None and each not in settings:
            settings.append(each)
    return settings
