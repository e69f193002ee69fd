"""The user's own functions: which one the configuration names, importing it, and calling it without side effects."""

import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from dailies.core.errors import LoadError
from dailies.core.text import clean, few, reason

log = logging.getLogger(__name__)

ANY = "*"
"""The pattern of a function that serves every model without a function of its own."""


@dataclass(frozen=True)
class UserFunctions:
    """The functions that a key of the configuration names."""

    KEY: ClassVar[str]
    """The key: ``model_factory`` or ``model_loader``."""

    by_pattern: Mapping[str, str] = field(default_factory=dict)
    """``package.module:function`` by the pattern of the models that it serves."""
    python_path: tuple[Path, ...] = ()
    """Folders with the user's modules, which also hold the classes of networks that were pickled whole."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Read the key, which names one function or maps patterns to functions, and ``python_path``."""
        value = settings.get(cls.KEY) or {}
        by_pattern = {ANY: value} if isinstance(value, str) else dict(value)
        return cls(by_pattern, tuple(Path(folder) for folder in settings["python_path"]))

    def imported(self, name: str) -> Callable[..., Any]:
        """Import the function ``package.module:function``.

        Raises:
            LoadError: the module cannot be imported or has no such function.
        """
        return import_function(self.KEY, name, self.python_path)


def make_importable(*folders: Path) -> None:
    """Put folders at the front of Python's search path for modules."""
    sys.path[:0] = [str(folder.absolute()) for folder in folders if str(folder.absolute()) not in sys.path]


def import_function(key: str, name: str, python_path: tuple[Path, ...]) -> Callable[..., Any]:
    """Import the function ``package.module:function`` that a key of the configuration names.

    Raises:
        LoadError: the module cannot be imported or has no such function.
    """
    make_importable(*python_path)
    module, _, attribute = name.partition(":")
    try:
        with contained():
            imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # importing runs the user's code
        log.exception("%s %s cannot be imported", key, name)
        raise LoadError("model.import_failed", f"{key} {name} cannot be imported: {reason(error)}") from error
    if attribute not in dir(imported):
        place, defined = getattr(imported, "__file__", None) or module, few(_functions_of(imported))
        raise LoadError(
            "model.no_function", f"{key} {name} does not exist: {clean(place)} has no {attribute}; it has {defined}"
        )
    found: Callable[..., Any] = getattr(imported, attribute)
    if not callable(found):
        raise LoadError("model.not_a_function", f"{key} {name} is {described(found)}, not a function")
    return found


@contextmanager
def contained() -> Iterator[None]:
    """Restore what user code may change for the whole process: working folder, default data type and device."""
    dtype = torch.get_default_dtype()
    with chdir("."):
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_default_device(None)


def declares(function: Callable[..., Any], name: str) -> bool:
    """Return whether a function declares a parameter of this name after its first one."""
    try:
        _, *others = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function written in C, or one without parameters
        return False
    return any(each.name == name and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in others)


def described(value: Any) -> str:
    """Return a short description of what a function returned or a name refers to."""
    if value is None:
        return "None"
    return f"the class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"


def _functions_of(module: Any) -> list[str]:
    """Return the names of the functions and classes that a module defines itself."""
    return [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
