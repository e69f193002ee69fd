"""Networks whose output is known, and engines that render with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from dailies.core.errors import LoadError
from dailies.models.load import Model
from dailies.models.signature import Signature, resolve_signature
from dailies.render.engine import Engine, Settings
from torch import nn

ADVICE = "download https://download.pytorch.org/models/alexnet-owt-7be5be79.pth and set lpips_backbone to its path"

CPU = torch.device("cpu")

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

torch.set_num_threads(1)  # with frames this small more threads only wait for each other


def engine(network, *, value_range=(-1.0, 1.0), **settings):
    """An engine whose network was not probed."""
    model = Model(network.eval(), "test", Signature(value_range=value_range))
    return Engine(model, device=CPU, settings=Settings(**settings))


def probed(network, *, tiles=None, first=None, builder="dailies", said=None, **known):
    """An engine whose network was probed.

    ``tiles`` are settings, ``first`` is the first frame, ``said`` the run's part of the signature and ``known`` that
    of the loader.
    """
    model = Model(
        network.eval(), "test", resolve_signature(Signature(**known), ("the run", said or {})), builder=builder
    )
    built = Engine(model, device=CPU, settings=Settings(**tiles or {}))
    built.probe(None if first is None else lambda: first)
    return built


def refusal(network, **how):
    """Probe a network that does not work and return the error."""
    with pytest.raises(LoadError) as error:
        probed(network, **how)
    return error.value


def pixels(height=5, width=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def difference(one, other):
    return np.abs(one.astype(int) - other.astype(int)).max()


def write_alexnet(path: Path, seed: int = 0) -> Path:
    """Write random weights as torchvision writes AlexNet's, with a part of the classifier."""
    random = torch.Generator().manual_seed(seed)
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    state = {"classifier.6.bias": torch.zeros(1000)}
    for number, shape in shapes.items():
        spread = (2 / np.prod(shape[1:])) ** 0.5
        state[f"features.{number}.weight"] = torch.randn(shape, generator=random) * spread
        state[f"features.{number}.bias"] = torch.randn(shape[0], generator=random) / 10
    torch.save(state, path)
    return path


class Do(nn.Module):
    """A network that is a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def constant(value):
    """A network whose output is one value everywhere."""
    return Do(lambda x: torch.full_like(x, value))


def coarse(multiple):
    """The identity, for inputs whose sides are multiples of some pixels."""

    def run(x):
        small = x[:, :, ::multiple, ::multiple]
        return x + 0 * nn.functional.interpolate(small, scale_factor=float(multiple))

    return Do(run)


def differing_in_bf16(function, **settings):
    """An engine in bf16, whose network is the identity in fp32 and ``function`` in bf16."""
    network = Do(lambda x: function(x) if torch.is_autocast_enabled("cpu") else x)
    return engine(network, precision="bf16", **settings)


class Recorder(nn.Module):
    """The identity, which records its inputs in ``given``."""

    def __init__(self):
        super().__init__()
        self.given = []

    def forward(self, x):
        self.given.append(x.clone())
        return x


class Limited(nn.Module):
    """The identity, which runs out of memory if all inputs of a batch together have more than ``limit`` pixels."""

    def __init__(self, limit, error=None):
        super().__init__()
        self.limit = limit
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        self.sizes = []
        self.shapes = []

    def forward(self, x):
        self.sizes.append(tuple(x.shape[2:]))
        self.shapes.append(tuple(x.shape))
        if x[:, 0].numel() > self.limit:
            raise self.error
        return x
