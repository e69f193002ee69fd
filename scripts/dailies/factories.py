"""Factories: from an architecture's name, or from the weights alone, to a network."""

import importlib
import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dailies.architectures import ARCHITECTURES, build, settings_of
from dailies.checkpoints import Checkpoint, fitted, listed, shown, strippings
from dailies.errors import LoadError
from dailies.signatures import Signature

log = logging.getLogger(__name__)

ANY = "*"
"""The name under which a user's factory stands for every architecture."""


@dataclass(frozen=True)
class Built:
    """A network with its weights, in evaluation mode, and what its builder knows of it."""

    network: nn.Module
    architecture: str
    builder: str
    """Who built it: dailies, spandrel, or the user's ``package.module:function``."""
    checkpoint: Checkpoint
    """The weights as they were used, with what is to be said of them."""
    signature: Signature = field(default_factory=Signature)


@dataclass(frozen=True)
class Factories:
    """Who builds which network."""

    own: Mapping[str, str] = field(default_factory=dict)
    """The user's functions, ``package.module:function``, by architecture name in lower case, or by ``*``."""
    python_path: tuple[Path, ...] = ()
    """Folders in which the user's modules are found, also the classes of a network that was pickled whole."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Factories":
        """Take ``model_factory``, a function or a map of them, and ``python_path`` from the settings of loading."""
        given = settings["model_factory"] or {}
        own = {ANY: given} if isinstance(given, str) else given
        folders = tuple(Path(folder) for folder in settings["python_path"])
        return cls({name.lower(): function for name, function in own.items()}, folders)

    def known(self) -> str:
        """Name the architectures that can be built by name, and those that can be recognised."""
        names = ", ".join(sorted({*ARCHITECTURES, *self.own} - {ANY}))
        return f"{names}, and those that spandrel recognises" if _spandrel() else names

    def build(self, checkpoint: Checkpoint, architecture: str) -> Built:
        """Build a network for a checkpoint's weights; one without a known name is recognised by its weights.

        Raises LoadError that says what is known, what does not fit, or what a user's function did.
        """
        name = architecture.lower()
        if function := self.own.get(name, self.own.get(ANY)):
            return self._by_user(checkpoint, name, function)
        if name in ARCHITECTURES:
            try:
                return _by_name(checkpoint, name)
            except LoadError:
                # trainers name a network after its paper and take another implementation of it than ours
                if found := _recognised(checkpoint):
                    return found
                raise
        if found := _recognised(checkpoint):
            return found
        stated = f"is of architecture {name!r}" if name else "does not say of which architecture it is"
        raise LoadError(
            f"{checkpoint.file} {stated}, and its weights ({listed(checkpoint.state)}) are not recognised; known "
            f"architectures: {self.known()}; for others set model_factory, or default_architecture where none is named"
        )

    def _by_user(self, checkpoint: Checkpoint, name: str, function: str) -> Built:
        factory = self._function(function)
        try:
            network = factory(dict(checkpoint.config))
        except Exception as error:  # the user's own code
            log.exception("model_factory %s failed", function)
            reason = shown(f"{type(error).__name__}: {error}")
            raise LoadError(f"model_factory {function} failed for {checkpoint.file} with {reason}") from error
        if not isinstance(network, nn.Module):
            raise LoadError(f"model_factory {function} returned a {type(network).__name__}, not a torch.nn.Module")
        return _filled(network, checkpoint, name or type(network).__name__.lower(), function)

    def _function(self, name: str) -> Callable[[Mapping[str, Any]], Any]:
        self.make_importable(*self.python_path)
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:  # importing runs the user's own code
            log.exception("model_factory %s cannot be imported", name)
            reason = shown(f"{type(error).__name__}: {error}")
            raise LoadError(f"model_factory {name} cannot be imported ({reason}); see python_path") from error

    @staticmethod
    def make_importable(*folders: Path) -> None:
        """Let Python find modules in these folders, before all others."""
        sys.path[:0] = [str(folder.absolute()) for folder in folders if str(folder.absolute()) not in sys.path]


def _by_name(checkpoint: Checkpoint, name: str) -> Built:
    if checkpoint.is_config_guessed:
        known = settings_of(ARCHITECTURES[name])
        kept = {key: value for key, value in checkpoint.config.items() if key in known}
        checkpoint = replace(checkpoint, config=kept)
    with torch.device("meta"), _Unfilled():  # the checkpoint's weights take the place of random ones
        network = build(name, checkpoint.config)
    return _filled(network, checkpoint, name, "dailies")


class _Unfilled(TorchFunctionMode):
    """Builds networks without the time that random weights take, which on a device without memory is the most of it."""

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else given["tensor"]
        return function(*args, **given)


def _filled(network: nn.Module, checkpoint: Checkpoint, architecture: str, builder: str) -> Built:
    """Give a network the weights of a checkpoint, as float32, ready to render."""
    expected = network.state_dict()
    used = fitted(checkpoint, expected)
    network.load_state_dict({key: _like(used.state[key], like) for key, like in expected.items()}, assign=True)
    ready = network.float().eval().requires_grad_(False)
    return Built(ready, architecture, builder, used, Signature(channels=channels_of(ready)))


def _like(values: Tensor, like: Tensor) -> Tensor:
    return values.to(torch.float32 if like.is_floating_point() else like.dtype)


def channels_of(network: nn.Module) -> int:
    """Tell from its first convolution how many channels a network takes; 3 where that tells nothing."""
    first = next((each for each in network.modules() if isinstance(each, nn.Conv2d)), None)
    return first.in_channels if first is not None and first.in_channels in {1, 3, 4} else Signature.channels


class Described(nn.Module):
    """A network as spandrel describes it: called the way that its architecture needs, answers within [0, 1]."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network = descriptor.model
        self._call = descriptor

    def forward(self, pixels: Tensor) -> Tensor:
        """Map ``(n, channels, h, w)`` in [0, 1] to ``(n, channels, h × scale, w × scale)``."""
        return self._call(pixels)


def _spandrel() -> Any | None:
    """Give the package that recognises the networks of the restoration world, where it is installed."""
    try:
        import spandrel
    except ImportError:
        return None
    return spandrel


def _recognised(checkpoint: Checkpoint) -> Built | None:
    """Ask spandrel which network has these weights; None when it is not installed or knows none."""
    if not (spandrel := _spandrel()):
        return None
    descriptor = None
    loader = spandrel.ModelLoader(device="cpu")
    for state in strippings(checkpoint.state):
        # what an unfit state makes it raise: UnsupportedModelError, KeyError, RuntimeError of load_state_dict, …
        with suppress(Exception):
            descriptor = loader.load_from_state_dict(dict(state))
            break
    if descriptor is None:
        return None
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise LoadError(f"{checkpoint.file} is a {descriptor.architecture.name}, which needs more than one image")
    descriptor.model.float().eval().requires_grad_(False)
    needs = descriptor.size_requirements
    return Built(
        Described(descriptor),
        descriptor.architecture.id.lower(),
        "spandrel",
        replace(checkpoint, config={}),
        Signature(
            channels=descriptor.input_channels,
            output_channels=descriptor.output_channels,
            value_range=(0.0, 1.0),
            scale=descriptor.scale,
            multiple=max(1, needs.multiple_of),
            least=(max(1, needs.minimum),) * 2,
            half=descriptor.supports_half,
        ),
    )
