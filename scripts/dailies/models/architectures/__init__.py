"""The networks that Dailies can build from a checkpoint's ``model_config``."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from dailies.core.errors import LoadError
from dailies.models.architectures.nafnet import NAFNet
from dailies.models.architectures.unet import UNet
from dailies.models.weights import Group, under


def settings_of(network: type[nn.Module]) -> list[str]:
    """Name what a network can be built from."""
    return list(inspect.signature(network).parameters)


def build(name: str, settings: Mapping[str, Any]) -> nn.Module:
    """Construct a network from those of the settings that it knows, with random weights.

    Raises:
        LoadError: a value that the network cannot be built from.
    """
    network = ARCHITECTURES[name]
    known = {key: settings[key] for key in settings_of(network) if key in settings}
    try:
        return network(**known)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LoadError("model.build_failed", f"cannot build {name} from {known}: {error}") from error


def settings_in(name: str, found: Sequence[Group]) -> list[dict[str, Any]]:
    """Return what a network has to be built from so that weights fit it, read from their names and shapes.

    There is one dict for each different set of weights that looks like this network's; none where nothing does.
    """
    network = ARCHITECTURES[name]
    if not hasattr(network, "ANCHOR"):  # its sizes cannot be read from weights
        return []
    read = (network.settings_in(state) for state in under(found, network.ANCHOR))
    settings: list[dict[str, Any]] = []
    for each in read:
        if each is not None and each not in settings:
            settings.append(each)
    return settings


ARCHITECTURES: dict[str, type[nn.Module]] = {"unet": UNet, "nafnet": NAFNet}
"""Networks by the name that a checkpoint or a run gives."""

__all__ = ["ARCHITECTURES", "NAFNet", "UNet", "build", "settings_in", "settings_of"]
