"""Factories: build the network for a checkpoint, from its architecture or from the weights alone."""

import copy
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dailies.core.errors import LoadError
from dailies.core.text import clean, few, listed, reason
from dailies.models import user_code
from dailies.models.architectures.catalog import ARCHITECTURES, build, settings_in, settings_of
from dailies.models.checkpoints import ARCHITECTURE_KEYS, EXACT, RUN_PARAMS, Checkpoint
from dailies.models.signature import Signature
from dailies.models.user_code import ANY, UserFunctions
from dailies.models.weights import by_preference, fill, unwrapped

log = logging.getLogger(__name__)

LONGEST_CONFIG = 600
"""Characters of a configuration that an error shows."""

KEYED = {
    "model_config",
    "model_args",
    "hyper_parameters",
    "hyper_parameters.model",
    "config",
    "config.model",
    RUN_PARAMS,
}
"""The sources of configurations that are part of the frames' keys. Those from other sources add nothing to the digest
of the file and the run."""

DEPTH, LEAST_WEIGHTS, MOST_VARIANTS = 3, 4, 40
"""The longest prefix in pieces, the fewest weights that make a network, and the most variants spandrel is shown."""

MOST_CHANNELS = 8
"""Input channels of a whole network. A first convolution with more is not the first layer that sees the image."""


@dataclass(frozen=True)
class Built:
    """A network with its weights, in evaluation mode, and what its builder knows about it."""

    network: nn.Module
    architecture: str
    builder: str
    """dailies, spandrel, or the user's ``package.module:function``."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The part of its configuration that belongs to the frames' keys."""
    notes: tuple[str, ...] = ()
    """Remarks for the user on how it was built."""
    signature: Signature = field(default_factory=Signature)


@dataclass(frozen=True)
class Factories(UserFunctions):
    """The user's functions that build networks, by architecture in any case or ``*``, and the built-in networks."""

    KEY: ClassVar[str] = "model_factory"

    def select(self, architecture: str) -> str | None:
        """Return the user's function that builds an architecture; None if there is none."""
        functions = {name.lower(): function for name, function in self.by_pattern.items()}
        return functions.get(architecture.lower()) or functions.get(ANY)

    def known(self) -> str:
        """Return a list, for errors, of the architectures that can be built by name and those that are recognised."""
        names = ", ".join(sorted({*ARCHITECTURES, *map(str.lower, self.by_pattern)} - {ANY}))
        package, broken = _spandrel()
        if broken:
            return f"{names} (spandrel, which recognises more of them, is installed but cannot be imported: {broken})"
        return f"{names}, and those that spandrel recognises" if package else names

    def build(self, checkpoint: Checkpoint, architecture: str, *, params: Mapping[str, Any] | None = None) -> Built:
        """Build a network for a checkpoint's weights.

        If the user names a function for the architecture, it builds the network. Otherwise the weights decide: a
        built-in network that they fit key by key and shape by shape, else a network that spandrel recognises.

        Args:
            checkpoint: the weights and the configuration.
            architecture: the name that the checkpoint, the run or the configuration states; may be empty.
            params: all params of the run, for a function that declares them.

        Raises:
            LoadError: no network is known for the weights, they do not fit, or the user's function failed.
        """
        name = architecture.lower()
        if function := self.select(architecture):
            return self._by_user(checkpoint, architecture, function, params or {})
        misfit: LoadError | None = None
        for known in sorted(ARCHITECTURES, key=lambda each: each != name):
            try:
                if built := _by_weights(checkpoint, known, named=name):
                    return built
            except LoadError as error:
                misfit = error if known == name else misfit
        # the stated architecture may be another implementation than the built-in one
        if found := _recognised(checkpoint):
            return found
        if misfit:
            raise misfit
        stated = f"is of architecture {name!r}" if name else "does not state its architecture"
        some = listed(next((group.tensors for group in by_preference(checkpoint.groups)), ()))
        raise LoadError(
            "model.unknown_architecture",
            f"{checkpoint.file} {stated}, and its weights ({some}) are not recognised; known architectures: "
            f"{self.known()}; for others set model_factory, or default_architecture if the checkpoint names none",
        )

    def _by_user(self, checkpoint: Checkpoint, architecture: str, function: str, params: Mapping[str, Any]) -> Built:
        """Call the user's function with the configuration that the trainer saved.

        If that fails and the configuration lacks the architecture's name, add it and try again.
        """
        config = checkpoint.config
        try:
            return self._call(checkpoint, architecture, function, config, params)
        except LoadError:
            if not architecture or not isinstance(config, Mapping) or _names_architecture(config):
                raise
            with suppress(LoadError):
                named = {**config, "architecture": architecture}
                built = self._call(checkpoint, architecture, function, named, params)
                note = f"{function} received 'architecture': {architecture!r}, which is not in {checkpoint.config_from}"
                return replace(built, notes=(note, *built.notes))
            raise

    def _call(
        self, checkpoint: Checkpoint, architecture: str, function: str, config: Any, params: Mapping[str, Any]
    ) -> Built:
        factory = self.imported(function)
        received = f"it received {shown_value(config)}"
        extra = _extras(factory, checkpoint, params)
        try:
            with user_code.contained():
                network = factory(copy.deepcopy(config), **extra)
        except (Exception, SystemExit) as error:  # the user's code
            log.exception("model_factory %s failed", function)
            raise LoadError(
                "model.factory_failed",
                f"model_factory {function} failed for {checkpoint.file} with {reason(error)}; {received}",
            ) from error
        if not isinstance(network, nn.Module):
            returned = user_code.described(network)
            raise LoadError(
                "model.no_module_from_factory",
                f"model_factory {function} returned {returned}, not a torch.nn.Module; {received}",
            )
        identity = _identity(checkpoint.config_from, config) | ({"params": dict(params)} if "params" in extra else {})
        try:
            return _filled(network, checkpoint, architecture or type(network).__name__, function, identity)
        except LoadError as error:
            raise LoadError(error.code, f"{error}; it was built by {function}, and {received}") from error


def shown_value(value: Any) -> str:
    """Return the representation of a value on one line, shortened for an error."""
    text = clean(repr(value))
    return text if len(text) <= LONGEST_CONFIG else f"{text[:LONGEST_CONFIG]}…"


def _identity(source: str, config: Any) -> dict[str, Any]:
    """Return the part of a configuration that belongs to the frames' keys; the architecture's name does not."""
    if source not in KEYED:
        return {}
    values = config if isinstance(config, Mapping) else {"config": config}
    return {str(key): value for key, value in values.items() if key not in ARCHITECTURE_KEYS}


def _names_architecture(config: Mapping[str, Any]) -> bool:
    return any(key in config for key in ARCHITECTURE_KEYS)


def _extras(factory: Callable[..., Any], checkpoint: Checkpoint, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the further arguments that a user's function declares: ``params`` and ``state_dict``."""
    extra: dict[str, Any] = {}
    if user_code.declares(factory, "params"):
        extra["params"] = dict(params)
    if user_code.declares(factory, "state_dict"):
        extra["state_dict"] = dict(next((group.tensors for group in by_preference(checkpoint.groups)), {}))
    return extra


def _by_weights(checkpoint: Checkpoint, name: str, *, named: str) -> Built | None:
    """Build a built-in network with the sizes of the weights; return None if they belong to another network.

    ``named`` is the architecture that the file states.

    Raises:
        LoadError: the file states this architecture, or its weights look like it, and they do not fit.
    """
    config = checkpoint.config if isinstance(checkpoint.config, Mapping) else {}
    known = {str(key): value for key, value in config.items() if key in settings_of(ARCHITECTURES[name])}
    misfit: LoadError | None = None
    for settings in settings_in(name, checkpoint.groups) or ([known] if name == named else []):
        try:
            with torch.device("meta"), _WithoutInit():  # the weights come from the file
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
    """Yield remarks on what the file states about its network and the weights contradict."""
    if named and named != name:
        yield f"the architecture {clean(named)} is unknown; the weights fit {name}, which is used"
    other = [
        f"{key} {clean(str(known[key]))} instead of {settings[key]}" for key in known if _differs(known, settings, key)
    ]
    if other:
        yield f"{checkpoint.config_from} and the weights disagree, and the weights win: {few(other)}"
    if checkpoint.config_from == EXACT and isinstance(checkpoint.config, Mapping):
        unknown = sorted({str(key) for key in checkpoint.config} - {*known, *ARCHITECTURE_KEYS})
        if unknown:
            yield f"settings in {EXACT} that {name} does not use are ignored: {clean(', '.join(unknown))}"
    elif checkpoint.config_from == EXACT:
        yield f"{EXACT} is not a dict and is ignored: {shown_value(checkpoint.config)}"


def _differs(known: Mapping[str, Any], settings: Mapping[str, Any], key: str) -> bool:
    value = known[key]
    return isinstance(value, int) and not isinstance(value, bool) and settings.get(key, value) != value


class _WithoutInit(TorchFunctionMode):
    """Skips random weights, which take most of the time of building a network on the meta device."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else named["tensor"]
        return function(*args, **named)


def _filled(
    network: nn.Module, checkpoint: Checkpoint, architecture: str, builder: str, config: Mapping[str, Any]
) -> Built:
    """Fill a network with the weights of a checkpoint, as float32, ready to render."""
    filled = fill(network, checkpoint.groups, checkpoint.file)
    ready = network.float().eval().requires_grad_(False)
    known = Signature(channels=channels_of(ready))
    return Built(ready, architecture.lower(), builder, config, (*checkpoint.notes, *filled.notes), known)


def channels_of(network: nn.Module) -> int:
    """Return the input channels of a network, read from its first convolution; 3 if that is inconclusive."""
    first = next((each for each in network.modules() if isinstance(each, nn.Conv2d)), None)
    folds = any(isinstance(each, nn.PixelUnshuffle) for each in network.modules())
    if first is None or first.in_channels > MOST_CHANNELS or (folds and first.in_channels not in {1, 3}):
        return Signature.channels
    return first.in_channels


class Described(nn.Module):
    """A network that spandrel recognised, called as its architecture requires; its output is within [0, 1]."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network = descriptor.model
        self._call = descriptor

    def forward(self, pixels: Tensor) -> Tensor:
        """Map ``(n, channels, h, w)`` in [0, 1] to ``(n, channels, h × scale, w × scale)``."""
        output: Tensor = self._call(pixels)
        return output


@cache
def _spandrel() -> tuple[Any | None, str]:
    """Import spandrel, which recognises published restoration networks.

    Return None if it cannot be imported, with the reason, which is empty if it is not installed.
    """
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
    """Yield the weights as they are, then those under each common prefix of their names, level by level."""
    waiting = [(group.tensors, 0) for group in by_preference(checkpoint.groups)]
    while waiting:
        state, depth = waiting.pop(0)
        yield {unwrapped(name): values for name, values in state.items()}
        heads = Counter(name.partition(".")[0] for name in state if "." in name)
        for head, count in heads.items() if depth < DEPTH else ():
            if count >= LEAST_WEIGHTS:
                inside = {n.partition(".")[2]: v for n, v in state.items() if n.partition(".")[0] == head}
                waiting.append((inside, depth + 1))


def _recognised(checkpoint: Checkpoint) -> Built | None:
    """Build the network that spandrel recognises by its weights; None if it is missing or recognises none.

    Raises:
        LoadError: the network takes more than one image.
    """
    spandrel, _ = _spandrel()
    if not spandrel:
        return None
    descriptor = None
    loader = spandrel.ModelLoader(device="cpu")
    for state in islice(_variants(checkpoint), MOST_VARIANTS):
        # unsuitable weights raise UnsupportedModelError, KeyError, RuntimeError of load_state_dict, …
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
