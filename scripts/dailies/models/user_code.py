"""The user's own code: finding a function that the configuration names, and calling it without side effects."""

import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import torch

from dailies.core.errors import LoadError
from dailies.core.text import clean, few, reason

log = logging.getLogger(__name__)


def make_importable(*folders: Path) -> None:
    """Let Python find modules in these folders, before all others."""
    sys.path[:0] = [str(folder.absolute()) for folder in folders if str(folder.absolute()) not in sys.path]


def function(key: str, name: str, python_path: tuple[Path, ...]) -> Callable[..., Any]:
    """Return the function ``package.module:function`` that a key of the configuration names.

    Raises:
        LoadError: the module cannot be imported, or has no such function.
    """
    make_importable(*python_path)
    module, _, attribute = name.partition(":")
    try:
        with contained():
            imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # importing runs the user's own code
        log.exception("%s %s cannot be imported", key, name)
        raise LoadError("model.import_failed", f"{key} {name} cannot be imported: {reason(error)}") from error
    if attribute not in dir(imported):
        place, there = getattr(imported, "__file__", None) or module, few(_functions_of(imported))
        raise LoadError(
            "model.no_function", f"{key} {name} does not exist: {clean(place)} has no {attribute}; it has {there}"
        )
    found = getattr(imported, attribute)
    if not callable(found):
        raise LoadError("model.not_a_function", f"{key} {name} is {described(found)}, not a function")
    return found


@contextmanager
def contained() -> Iterator[None]:
    """Undo what a user's code changes for the whole process: the current folder, the default type and device."""
    dtype = torch.get_default_dtype()
    with chdir("."):
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_default_device(None)


def declares(called: Callable[..., Any], name: str) -> bool:
    """Tell whether a function declares a parameter of this name beside its first."""
    try:
        _, *others = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):  # a function of C, or one without parameters
        return False
    return any(each.name == name and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in others)


def described(found: Any) -> str:
    """Say in a few words what a function returned, or a name stands for."""
    if found is None:
        return "None"
    return f"the class {found.__name__}" if isinstance(found, type) else f"an object of type {type(found).__name__}"


def _functions_of(module: Any) -> list[str]:
    """Return the names of the functions and classes that a module defines itself."""
    return [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
