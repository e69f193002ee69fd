"""Loaders: the user's own functions that turn a downloaded artifact of any kind into a network."""

import importlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dailies.errors import LoadError
from dailies.factories import Factories, channels_of
from dailies.signatures import Signature
from dailies.text import clean, few

log = logging.getLogger(__name__)

ANY = "*"
"""The pattern of a loader for every model that no other pattern matches."""

LONGEST = 300
"""Characters of an exception's text that an error shows."""

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
        called, file = self._function(function), clean(path.name)
        given = {PARAMS: dict(params)} if _takes_params(called) else {}
        try:
            with _contained():
                network = called(path.absolute(), **given)
        except (Exception, SystemExit) as error:  # the user's own code
            log.exception("model_loader %s failed", function)
            raise LoadError(f"model_loader {function} failed for {file} with {reason(error)}") from error
        if not isinstance(network, nn.Module):
            raise LoadError(
                f"model_loader {function} returned {_described(network)} for {file}; it must return a torch.nn.Module"
            )
        return _ready(network), given.get(PARAMS, {})

    def _function(self, name: str) -> Callable[..., Any]:
        Factories.make_importable(*self.python_path)
        module, _, attribute = name.partition(":")
        try:
            with _contained():
                imported = importlib.import_module(module)
        except (Exception, SystemExit) as error:  # importing runs the user's own code
            log.exception("model_loader %s cannot be imported", name)
            raise LoadError(f"model_loader {name} cannot be imported: {reason(error)}") from error
        if attribute not in dir(imported):
            place, there = getattr(imported, "__file__", None) or module, few(_functions_of(imported))
            raise LoadError(f"model_loader {name} does not exist: {clean(place)} has no {attribute}; it has {there}")
        found = getattr(imported, attribute)
        if not callable(found):
            raise LoadError(f"model_loader {name} is {_described(found)}, not a function")
        return found


@contextmanager
def _contained() -> Iterator[None]:
    """Undo what a user's code changes for the whole process: the current folder, the default type and device."""
    dtype = torch.get_default_dtype()
    with chdir("."):
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_default_device(None)


def _functions_of(module: Any) -> list[str]:
    """Return the names of the functions and classes that a module defines itself."""
    return [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]


def input_channels(network: nn.Module) -> int:
    """Return how many channels a network takes that its user may have wrapped.

    A wrapper may add a noise map or other inputs to the three colours, so the first convolution is believed only if
    the network does not take three channels.
    """
    told = channels_of(network)
    return Signature.channels if told == Signature.channels or _takes(network, Signature.channels) else told


def reason(error: BaseException) -> str:
    """Return the type and the informative part of an exception's text, on one line.

    TorchScript and others put a traceback before the message, which then is the last line.
    """
    lines = [line for line in map(clean, str(error).splitlines()) if line]
    text = lines[-1] if any(line.startswith("Traceback") for line in lines) else " ".join(lines)
    if isinstance(error, ModuleNotFoundError) and error.name:
        text += f"; install the package that provides {clean(error.name)}, or add its folder to python_path"
    elif isinstance(error, SystemExit):
        text += "; the code calls sys.exit, as scripts do that parse arguments"
    elif not text and error.__traceback__:
        text = _place(error)
    name = type(error).__name__
    return (text if text.startswith(f"{name}:") else f"{name}: {text}")[:LONGEST]


def _place(error: BaseException) -> str:
    """Return where an exception was raised, for one that carries no text, such as that of ``assert``."""
    last = inspect.getinnerframes(error.__traceback__, context=0)[-1]
    return f"in {last.function}, line {last.lineno} of {Path(last.filename).name}"


def _takes_params(function: Callable[..., Any]) -> bool:
    """Tell whether a function declares ``params`` beside the path, which comes first."""
    try:
        _, *others = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function of C, or one without parameters
        return False
    return any(each.name == PARAMS and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in others)


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


def _described(found: Any) -> str:
    if found is None:
        return "None"
    return f"the class {found.__name__}" if isinstance(found, type) else f"an object of type {type(found).__name__}"
