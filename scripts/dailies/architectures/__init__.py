"""The networks that Dailies can build from a checkpoint's ``model_config``."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from dailies.architectures.nafnet import NAFNet
from dailies.architectures.unet import UNet
from dailies.errors import LoadError


def settings_of(network: type[nn.Module]) -> list[str]:
    """Name what a network can be built from."""
    return list(inspect.signature(network).parameters)


def build(name: str, model_config: Mapping[str, Any]) -> nn.Module:
    """Construct a network from a checkpoint's ``model_config``, with random weights.

    Raises:
        LoadError: a keyword or a value that the network does not know.
    """
    network = ARCHITECTURES[name]
    known = settings_of(network)
    unknown = sorted(set(model_config) - set(known))
    if unknown:
        raise LoadError(f"{name} does not know {', '.join(unknown)}; it knows {', '.join(known)}")
    try:
        return network(**model_config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LoadError(f"cannot build {name} from model_config {model_config}: {error}") from error


ARCHITECTURES: dict[str, type[nn.Module]] = {"unet": UNet, "nafnet": NAFNet}
"""Networks by the name that a checkpoint or a run gives."""

__all__ = ["ARCHITECTURES", "NAFNet", "UNet", "build", "settings_of"]
