"""Stand-ins for the objects in an untrusted file, which hold its plain data and tensors and run none of its code."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dailies.models.config_references import resolve


@dataclass(eq=False)
class Inert:
    """A stand-in for an object, class or function in a file."""

    name: str
    """``module.qualified_name``, as in the file."""
    args: tuple[Any, ...] = ()
    """The arguments of its call."""
    state: Any = None
    """The state of the object, usually a dict of attributes."""
    items: dict[Any, Any] = field(default_factory=dict)
    """The entries of the object, if it is a kind of dict."""
    elements: list[Any] = field(default_factory=list)
    """The elements of the object, if it is a kind of list or set."""

    def __repr__(self) -> str:
        return f"<{self.name}, not loaded>"

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes of the object; empty if the file does not hold them as a dict."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:  # the second holds the attributes in __slots__
            return {**as_mapping(state[0]), **as_mapping(state[1])}
        return as_mapping(state)

    @property
    def is_module(self) -> bool:
        """Whether it stands for a ``torch.nn.Module``."""
        return {"_parameters", "_modules"} <= self.attributes.keys()


def plain(value: Any) -> Any:
    """Replace stand-ins, at any depth, by the plain data that they hold.

    A Namespace, a dataclass or a configuration object becomes a dict, an enum or a subclass of str or float its value,
    and a NumPy array an array. Stand-ins for anything else are kept.
    """
    return _plain(value, {})


def tensor_of(value: Any) -> Tensor | None:
    """Return a tensor, or a NumPy array of numbers as one; None for anything else."""
    if isinstance(value, Inert) and value.name.startswith("numpy."):
        value = _array(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        native = np.ascontiguousarray(value, value.dtype.newbyteorder("="))
        with suppress(TypeError):  # older versions of torch lack unsigned integers
            return torch.from_numpy(native.reshape(value.shape))
    return value if isinstance(value, Tensor) else None


def module_tensors(module: Inert, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the entries of the state dict of a module that was pickled whole: dotted names and tensors."""
    attributes = module.attributes
    hidden = attributes.get("_non_persistent_buffers_set") or ()
    for kind in ("_parameters", "_buffers"):
        for name, values in as_mapping(attributes.get(kind)).items():
            if isinstance(values, Tensor) and not (kind == "_buffers" and name in hidden):
                yield f"{prefix}{name}", values
    for name, inner in as_mapping(attributes.get("_modules")).items():
        if isinstance(inner, Inert):
            yield from module_tensors(inner, f"{prefix}{name}.")


def scalar_of(made: Inert) -> Any:
    """Return a NumPy scalar as a Python number or text; the stand-in itself if it is neither."""
    if len(made.args) != 2:
        return made
    kind, data = _numpy_dtype(made.args[0]), made.args[1]
    raw = data.encode("latin1") if isinstance(data, str) else data
    if kind is None or not isinstance(raw, bytes) or len(raw) != kind.itemsize:
        return made
    return np.frombuffer(raw, kind)[0].item()


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping itself, and {} for any other value."""
    return value if isinstance(value, Mapping) else {}


def _numpy_dtype(made: Any) -> np.dtype | None:
    """Return a NumPy dtype of numbers or fixed text; None for any other, such as objects."""
    code = made.args[0] if isinstance(made, Inert) and made.name == "numpy.dtype" and made.args else None
    if not isinstance(code, str) or not re.fullmatch(r"[bBiufcSU]\d{1,3}|\?", code):
        return None
    state = made.state if isinstance(made.state, tuple) else ()
    order = state[1] if len(state) > 1 and state[1] in {"<", ">"} else "="
    return np.dtype(f"{order}{code}")


def _array(made: Inert) -> Any:
    """Return a NumPy array; the stand-in itself if it holds objects or is incomplete."""
    match made:
        case Inert(args=(data, kind, shape, order)) if made.name.endswith("._frombuffer"):
            pass
        case Inert(state=(_, shape, kind, by_column, data)):
            order = "F" if by_column else "C"
        case _:
            return made
    dtype, raw = _numpy_dtype(kind), data.encode("latin1") if isinstance(data, str) else data
    if dtype is None or not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple):
        return made
    if len(raw) != int(np.prod(shape)) * dtype.itemsize:
        return made
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if order == "F" else "C").copy()


def _plain(value: Any, known: dict[int, Any]) -> Any:
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, Mapping):
        result: Any = {}
        known[id(value)] = result
        result.update((key, _plain(each, known)) for key, each in value.items())
    elif isinstance(value, list):
        known[id(value)] = result = []
        result.extend(_plain(each, known) for each in value)
    elif isinstance(value, tuple):
        result = tuple(_plain(each, known) for each in value)
    elif isinstance(value, Inert):
        result = _plain_stand_in(value, known)
    else:
        result = value
    known[id(value)] = result
    return result


def _plain_stand_in(made: Inert, known: dict[int, Any]) -> Any:
    attributes = made.attributes
    inner = next((attributes[key] for key in ("_content", "_val") if key in attributes), None)
    if made.name.startswith("omegaconf.") and inner is not None:
        result = _omegaconf(made, inner, known)
    elif (wrapped := _wrapped_dict(made)) is not None:
        result = _plain(wrapped, known)
    elif made.name.startswith("numpy."):
        result = _array(made)
    elif isinstance(dtype := getattr(torch, made.name.removeprefix("torch."), None), torch.dtype):
        result = dtype
    elif (attributes or made.items) and not made.is_module:
        known[id(made)] = result = {}
        result.update((key, _plain(each, known)) for key, each in {**attributes, **made.items}.items())
    elif made.elements:
        result = [_plain(each, known) for each in made.elements]
    elif len(made.args) == 1 and isinstance(made.args[0], str | int | float | list | dict):
        result = _plain(made.args[0], known)
    else:
        result = made
    return result


def _omegaconf(made: Inert, inner: Any, known: dict[int, Any]) -> Any:
    """Return the content of a configuration node, with its references into the whole configuration resolved."""
    whole, ancestors = made, {id(made)}
    while isinstance(above := whole.attributes.get("_parent"), Inert) and id(above) not in ancestors:
        whole = above
        ancestors.add(id(above))
    if whole is not made and id(whole) not in known:
        _plain(whole, known)
        if id(made) in known:
            return known[id(made)]
    result = _plain(inner, known)
    if whole is made and isinstance(result, dict | list):
        resolve(result)
    return result


def _wrapped_dict(made: Inert) -> Mapping[str, Any] | None:
    """Return the dict that an object wraps: that of a UserDict, or the only dict among its private attributes."""
    attributes = made.attributes
    if made.name in {"collections.UserDict", "UserDict.IterableUserDict"}:  # the name in old protocols
        return as_mapping(attributes.get("data"))
    held = [value for value in attributes.values() if isinstance(value, Mapping)]
    is_private = all(str(key).startswith("_") for key in attributes)
    return held[0] if is_private and len(held) == 1 and not made.items and not made.is_module else None
