"""The networks that Dailies can build from a checkpoint's ``model_config``."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from dailies.architectures.nafnet import NAFNet
from dailies.architectures.unet import UNet
from dailies.errors import LoadError


def _build(name: str, network: type[nn.Module], /, **model_config: Any) -> nn.Module:
    """Construct ``network`` from a checkpoint's ``model_config``, with random weights.

    Raises:
        LoadError: a keyword or a value that the network does not know.
    """
    known = list(inspect.signature(network).parameters)
    unknown = sorted(set(model_config) - set(known))
    if unknown:
        raise LoadError(f"{name} does not know {', '.join(unknown)}; it knows {', '.join(known)}")
    try:
        return network(**model_config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LoadError(f"cannot build {name} from model_config {model_config}: {error}") from error


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "unet": partial(_build, "unet", UNet),
    "nafnet": partial(_build, "nafnet", NAFNet),
}
"""Factories by the name that a checkpoint or a run gives; each takes the ``model_config`` as keywords."""

__all__ = ["ARCHITECTURES", "NAFNet", "UNet"]
