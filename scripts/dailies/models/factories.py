"""Factories: from an architecture's name, or from the weights alone, to a network."""

import copy
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dailies.core.errors import LoadError
from dailies.core.text import clean, few, listed, reason
from dailies.models import user_code
from dailies.models.architectures import (
    ARCHITECTURES,
    build,
    settings_in,
    settings_of,
)
from dailies.models.checkpoints import (
    ARCHITECTURE_KEYS,
    EXACT,
    RUN_PARAMS,
    Checkpoint,
)
from dailies.models.signature import Signature
from dailies.models.weights import bare, fill, preferred

log = logging.getLogger(__name__)

LONGEST_CONFIG = 600
"""Characters of a configuration that an error shows."""

ANY = "*"
"""The name under which a user's factory stands for every architecture."""


@dataclass(frozen=True)
class Built:
    """A network with its weights, in evaluation mode, and what its builder knows of it."""

    network: nn.Module
    architecture: str
    builder: str
    """Who built it: dailies, spandrel, or the user's ``package.module:function``."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What it was built from, as far as its pixels depend on it: part of the frames' keys."""
    notes: tuple[str, ...] = ()
    """What a user may want to know of how it was built."""
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

    def is_for(self, architecture: str) -> bool:
        """Whether a user's function builds an architecture."""
        return bool(self.own.get(architecture.lower(), self.own.get(ANY)))

    def known(self) -> str:
        """Name the architectures that can be built by name, and those that can be recognised."""
        names = ", ".join(sorted({*ARCHITECTURES, *self.own} - {ANY}))
        package, broken = _spandrel()
        if broken:
            return f"{names} (spandrel, which recognises more of them, is installed but cannot be imported: {broken})"
        return f"{names}, and those that spandrel recognises" if package else names

    def build(self, checkpoint: Checkpoint, architecture: str, *, params: Mapping[str, Any] | None = None) -> Built:
        """Build a network for a checkpoint's weights.

        A user's function comes first; without one the weights decide: a network that Dailies knows and that they fit
        key by key and shape by shape is the right one, else one that spandrel recognises. ``params`` are the run's.
        Raises LoadError that says what is known, what does not fit, or what a user's function did.
        """
        name = architecture.lower()
        if function := self.own.get(name, self.own.get(ANY)):
            return self._by_user(checkpoint, architecture, function, params or {})
        misfit: LoadError | None = None
        for known in sorted(ARCHITECTURES, key=lambda each: each != name):
            try:
                if built := _by_weights(checkpoint, known, named=name):
                    return built
            except LoadError as error:
                misfit = error if known == name else misfit
        # trainers name a network after its paper and take another implementation of it than ours
        if found := _recognised(checkpoint):
            return found
        if misfit:
            raise misfit
        stated = f"is of architecture {name!r}" if name else "does not say of which architecture it is"
        some = listed(next((group.tensors for group in preferred(checkpoint.groups)), ()))
        raise LoadError(
            "model.unknown_architecture",
            f"{checkpoint.file} {stated}, and its weights ({some}) are not recognised; known "
            f"architectures: {self.known()}; for others set model_factory, or default_architecture where none is named",
        )

    def _by_user(self, checkpoint: Checkpoint, architecture: str, function: str, params: Mapping[str, Any]) -> Built:
        """Call the user's function with what the trainer saved, and once more with the architecture's name added where
        that is saved in another place and the network does not fit."""
        config, notes = copy.deepcopy(checkpoint.config), ()
        named = isinstance(config, Mapping) and _is_named(config)
        attempts = [(config, notes)]
        if isinstance(config, Mapping) and not named and architecture:
            note = f"{function} was given 'architecture': {architecture!r}, which is not in {checkpoint.config_from}"
            attempts.append(({**config, "architecture": architecture}, (note,)))
        reasons = []
        for given, added in attempts:
            try:
                built = self._called(checkpoint, architecture, function, given, params)
                return replace(built, notes=(*added, *built.notes))
            except LoadError as error:
                reasons.append(error)
        raise reasons[0]

    def _called(
        self, checkpoint: Checkpoint, architecture: str, function: str, config: Any, params: Mapping[str, Any]
    ) -> Built:
        factory = user_code.function("model_factory", function, self.python_path)
        shown_config = f"it was given {shown_value(config)}"
        extra = _extras(factory, checkpoint, params)
        try:
            with user_code.contained():
                network = factory(copy.deepcopy(config), **extra)
        except (Exception, SystemExit) as error:  # the user's own code
            log.exception("model_factory %s failed", function)
            raise LoadError(
                "model.factory_failed",
                f"model_factory {function} failed for {checkpoint.file} with {reason(error)}; {shown_config}",
            ) from error
        if not isinstance(network, nn.Module):
            returned = user_code.described(network)
            raise LoadError(
                "model.no_module_from_factory",
                f"model_factory {function} returned {returned}, not a torch.nn.Module; {shown_config}",
            )
        identity = _identity(checkpoint.config_from, config) | ({"params": dict(params)} if "params" in extra else {})
        try:
            return _filled(network, checkpoint, architecture or type(network).__name__, function, identity)
        except LoadError as error:
            raise LoadError(error.code, f"{error}; it was built by {function}, and {shown_config}") from error


def shown_value(value: Any) -> str:
    """Write a configuration for an error: one line, not long."""
    text = clean(repr(value))
    return text if len(text) <= LONGEST_CONFIG else f"{text[:LONGEST_CONFIG]}…"


KEYED = {
    "model_config",
    "model_args",
    "hyper_parameters",
    "hyper_parameters.model",
    "config",
    "config.model",
    RUN_PARAMS,
}
"""Where configurations come from that are part of the frames' keys. Those from elsewhere say nothing that the file's
digest and the run do not."""


def _identity(source: str, config: Any) -> dict[str, Any]:
    """Return what of a configuration is part of the frames' keys; where the architecture's name stands is not."""
    given = config if isinstance(config, Mapping) else {"config": config}
    return {str(k): v for k, v in given.items() if k not in ARCHITECTURE_KEYS} if source in {*KEYED, RUN_PARAMS} else {}


def _is_named(config: Mapping[str, Any]) -> bool:
    return any(key in config for key in ARCHITECTURE_KEYS)


def _extras(factory: Callable, checkpoint: Checkpoint, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a user's function asks for beside the configuration, by the names of its further parameters."""
    extra: dict[str, Any] = {}
    if user_code.declares(factory, "params"):
        extra["params"] = dict(params)
    if user_code.declares(factory, "state_dict"):
        extra["state_dict"] = dict(next((group.tensors for group in preferred(checkpoint.groups)), {}))
    return extra


def _by_weights(checkpoint: Checkpoint, name: str, *, named: str) -> Built | None:
    """Build one of our networks with the sizes that the weights have; None where they are of another network.

    Raises LoadError where the file says that it is this network, and the weights do not fit.
    """
    config = checkpoint.config if isinstance(checkpoint.config, Mapping) else {}
    known = {str(key): value for key, value in config.items() if key in settings_of(ARCHITECTURES[name])}
    misfit: LoadError | None = None
    for settings in settings_in(name, checkpoint.groups) or ([known] if name == named else []):
        try:
            with torch.device("meta"), _Unfilled():  # the checkpoint's weights take the place of random ones
                network = build(name, settings)
            built = _filled(network, checkpoint, name, "dailies", _identity(checkpoint.config_from, known))
        except LoadError as error:
            misfit = misfit or error
            continue
        return replace(built, notes=(*_differences(checkpoint, name, named, known, settings), *built.notes))
    if misfit:
        raise misfit
    return None


def _differences(
    checkpoint: Checkpoint, name: str, named: str, known: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what the file says of its network and the weights do not."""
    if named and named != name:
        yield f"the architecture {clean(named)} is not known; the weights fit {name}, which is used"
    other = [
        f"{key} {clean(str(known[key]))} instead of {settings[key]}" for key in known if _differs(known, settings, key)
    ]
    if other:
        yield f"{checkpoint.config_from} and the weights disagree, and the weights are right: {few(other)}"
    if checkpoint.config_from == EXACT and isinstance(checkpoint.config, Mapping):
        unknown = sorted({str(key) for key in checkpoint.config} - {*known, *ARCHITECTURE_KEYS})
        if unknown:
            yield f"settings in {EXACT} that {name} does not use are ignored: {clean(', '.join(unknown))}"
    elif checkpoint.config_from == EXACT:
        yield f"{EXACT} is no dict and is ignored: {shown_value(checkpoint.config)}"


def _differs(known: Mapping[str, Any], settings: Mapping[str, Any], key: str) -> bool:
    value = known[key]
    return isinstance(value, int) and not isinstance(value, bool) and settings.get(key, value) != value


class _Unfilled(TorchFunctionMode):
    """Builds networks without the time that random weights take, which on a device without memory is the most of it."""

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else given["tensor"]
        return function(*args, **given)


def _filled(
    network: nn.Module, checkpoint: Checkpoint, architecture: str, builder: str, config: Mapping[str, Any]
) -> Built:
    """Give a network the weights of a checkpoint, as float32, ready to render."""
    filled = fill(network, checkpoint.groups, checkpoint.file)
    ready = network.float().eval().requires_grad_(False)
    known = Signature(channels=channels_of(ready))
    return Built(ready, architecture.lower(), builder, config, (*checkpoint.notes, *filled.notes), known)


def channels_of(network: nn.Module) -> int:
    """Tell from its first convolution how many channels a network takes; 3 where that tells nothing."""
    first = next((each for each in network.modules() if isinstance(each, nn.Conv2d)), None)
    folds = any(isinstance(each, nn.PixelUnshuffle) for each in network.modules())
    if first is None or first.in_channels > MOST_CHANNELS or (folds and first.in_channels not in {1, 3}):
        return Signature.channels
    return first.in_channels


MOST_CHANNELS = 8
"""More channels than a network takes from outside: its first convolution is behind something that makes them."""


class Described(nn.Module):
    """A network as spandrel describes it: called the way that its architecture needs, answers within [0, 1]."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network = descriptor.model
        self._call = descriptor

    def forward(self, pixels: Tensor) -> Tensor:
        """Map ``(n, channels, h, w)`` in [0, 1] to ``(n, channels, h × scale, w × scale)``."""
        return self._call(pixels)


@cache
def _spandrel() -> tuple[Any | None, str]:
    """Return the package that recognises the networks of the restoration world, and why it cannot be imported."""
    try:
        import spandrel
    except ModuleNotFoundError as error:
        if error.name == "spandrel":
            return None, ""
        return None, reason(error)
    except Exception as error:  # torchvision of another build than torch raises RuntimeError
        log.warning("spandrel is installed but cannot be imported: %s", reason(error))
        return None, reason(error)
    return spandrel, ""


def _variants(checkpoint: Checkpoint) -> Iterator[dict[str, Tensor]]:
    """Yield the weights as they are, and what lies under each first piece of their names, and so on."""
    waiting = [(group.tensors, 0) for group in preferred(checkpoint.groups)]
    while waiting:
        state, depth = waiting.pop(0)
        yield {bare(name): values for name, values in state.items()}
        heads = Counter(name.partition(".")[0] for name in state if "." in name)
        for head, count in heads.items() if depth < DEPTH else ():
            if count >= LEAST_WEIGHTS:
                inside = {n.partition(".")[2]: v for n, v in state.items() if n.partition(".")[0] == head}
                waiting.append((inside, depth + 1))


DEPTH, LEAST_WEIGHTS, MOST_VARIANTS = 3, 4, 40
"""How many pieces of names may be prefixes, how many weights are a network, and how often spandrel is asked."""


def _recognised(checkpoint: Checkpoint) -> Built | None:
    """Ask spandrel which network has these weights; None when it is not installed or knows none."""
    spandrel, _ = _spandrel()
    if not spandrel:
        return None
    descriptor = None
    loader = spandrel.ModelLoader(device="cpu")
    for state in islice(_variants(checkpoint), MOST_VARIANTS):
        # what an unfit state makes it raise: UnsupportedModelError, KeyError, RuntimeError of load_state_dict, …
        with suppress(Exception):
            descriptor = loader.load_from_state_dict(state)
            break
    if descriptor is None:
        return None
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise LoadError(
            "model.needs_several_images",
            f"{checkpoint.file} is a {descriptor.architecture.name}, which takes more than one image",
        )
    descriptor.model.float().eval().requires_grad_(False)
    needs = descriptor.size_requirements
    return Built(
        Described(descriptor),
        descriptor.architecture.id.lower(),
        "spandrel",
        notes=checkpoint.notes,
        signature=Signature(
            channels=descriptor.input_channels,
            output_channels=descriptor.output_channels,
            value_range=(0.0, 1.0),
            scale=descriptor.scale,
            multiple=max(1, needs.multiple_of),
            least=(max(1, needs.minimum),) * 2,
            half=descriptor.supports_half,
        ),
    )
