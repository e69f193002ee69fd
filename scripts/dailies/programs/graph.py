"""Graphs of torch.export, run node by node: every function in them was found in a list of harmless ones."""

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from dailies.errors import RenderError
from dailies.programs.archive import check_size
from dailies.programs.operators import OPERATORS
from dailies.programs.program import Bad, Unsafe, shown

DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 10: torch.complex64, 11: torch.complex128, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
"""torch._export.serde.schema.ScalarType, which takes a second to import."""

FORMATS = {
    1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format,
}  # fmt: skip

PYTHON: dict[str, Callable[..., Any]] = {
    f"{module}.{name}": getattr(source, name)
    for module, source, names in (
        ("_operator", operator, "add and_ eq floordiv ge getitem gt le lt mod mul ne neg or_ pos pow sub truediv"),
        ("math", math, "ceil floor sqrt trunc"),
        ("torch", torch, "sym_float sym_int sym_ite sym_max sym_min sym_not sym_sqrt"),
    )
    for name in names.split()
}
"""Arithmetic on sizes."""

FOURIER = tuple(f"torch.ops.aten._fft_{name}.default" for name in ("c2c", "c2r", "r2c"))
"""What torch writes for transforms once they are decomposed; it reads wherever they tell it to."""

SIZES = ("size", "repeats", "output_size")
"""Arguments that say how large a result is."""


class _Name(str):
    """The name of a value in a graph."""

    __slots__ = ()


DEVICE = _Name("the device of the image")
"""Where tensors are made: a program names the device of its export, and runs on any."""


class Graph:
    """A graph of torch.export, read from JSON."""

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self.inputs = [_named(value) for value in graph["inputs"]]
        self._single = bool(graph.get("is_single_tensor_return"))
        self._outputs = [_argument(value) for value in graph["outputs"]]
        steps = [_step(node) for node in graph["nodes"] if "_assert_tensor_metadata" not in node["target"]]
        self._check({name for name in self.inputs if name}, steps)
        self.overwritten = _overwritten(self.inputs, steps)
        """The inputs that the graph would change."""
        alive = set(_names(self._outputs))
        self._steps = []
        for function, arguments, named, results in reversed(steps):
            used = {*_names(arguments), *_names(list(named.values())), *_names(results)} - {DEVICE}
            self._steps.append((function, arguments, named, results, used - alive))
            alive |= used
        self._steps.reverse()

    def _check(self, known: set[str], steps: list[tuple]) -> None:
        known.add(DEVICE)
        for _, arguments, named, results in steps:
            if unknown := {*_names(arguments), *_names(list(named.values()))} - known:
                raise Bad(f"the program's graph uses '{shown(min(unknown))}' before it is computed")
            known |= set(_names(results))
        if unknown := set(_names(self._outputs)) - known:
            raise Bad(f"the program's graph gives '{shown(min(unknown))}', which it does not compute")

    def __call__(self, values: list[Any], device: torch.device) -> Any:
        """Run the graph; ``values`` are those of ``inputs``, in their order."""
        known: dict[Any, Any] = dict(zip(self.inputs, values, strict=True))
        known[DEVICE] = device
        for function, arguments, named, results, done in self._steps:
            result = function(
                *[_filled(value, known) for value in arguments],
                **{name: _filled(value, known) for name, value in named.items()},
            )
            _store(results, result, known)
            for name in done:
                del known[name]
        outputs = [_filled(value, known) for value in self._outputs]
        return outputs[0] if self._single else tuple(outputs)


def only(value: Mapping[str, Any]) -> tuple[str, Any]:
    """Take a union of torch.export's JSON apart: its kind, and what it holds."""
    ((kind, content),) = value.items()
    return kind, content


def _overwritten(inputs: list[_Name | None], steps: list[tuple]) -> set[str]:
    """The inputs that a step writes to, by themselves or through a view of them."""
    seen: dict[str, set[str]] = {name: {name} for name in inputs if name}
    changed: set[str] = set()
    for function, arguments, named, results in steps:
        given = {*_names(arguments), *_names(list(named.values()))}
        shared = set().union(*(seen.get(name, set()) for name in given))
        schema = getattr(function, "_schema", None)
        if schema is not None:
            written = [part.name for part in schema.arguments if part.alias_info and part.alias_info.is_write]
            names = _names([named[name] for name in written if name in named])
            changed |= set().union(*(seen.get(name, set()) for name in names))
        elif any(type(value) is Graph and value.overwritten for value in arguments):
            changed |= shared
        if schema is None or any(part.alias_info for part in schema.returns):
            seen |= dict.fromkeys(_names(results), shared)
    return changed


def _filled(value: Any, known: Mapping[Any, Any]) -> Any:
    kind = type(value)
    if kind is _Name:
        return known[value]
    if kind is list:
        return [_filled(item, known) for item in value]
    if kind is Graph:
        return lambda *values: value(list(values), known[DEVICE])
    return value


def _store(names: Any, value: Any, known: dict[Any, Any]) -> None:
    if type(names) is _Name:
        known[names] = value
    elif type(names) is list:
        for name, item in zip(names, value, strict=True):
            _store(name, item, known)


def _names(value: Any) -> Iterator[_Name]:
    if type(value) is _Name:
        yield value
    elif type(value) is list:
        for item in value:
            yield from _names(item)


def _named(value: Mapping[str, Any]) -> _Name | None:
    kind, content = only(value)
    return _Name(content["name"]) if kind == "as_tensor" else None


ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "as_none": lambda _: None,
    "as_tensor": lambda content: _Name(content["name"]),
    "as_name": _Name,
    "as_tensors": lambda content: [_Name(item["name"]) for item in content],
    "as_nested_tensors": lambda content: [[_Name(item["name"]) for item in items] for items in content],
    "as_float": float,
    "as_floats": lambda content: [float(item) for item in content],
    "as_complex": lambda content: complex(content["real"], content["imag"]),
    "as_scalar_type": lambda content: DTYPES[content],
    "as_memory_format": lambda content: FORMATS[content],
    "as_layout": lambda content: {7: torch.strided}[content],
    "as_device": lambda _: DEVICE,
    "as_graph": lambda content: Graph(content["graph"]),
}
"""What a node may be given, by the kinds of torch.export's JSON, which writes infinities as text."""

AS_THEY_ARE = ("as_int", "as_bool", "as_string", "as_ints", "as_bools", "as_strings")
WITHIN = ("as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor")
WITHIN_LISTS = tuple(f"{kind}s" for kind in WITHIN)
RESULTS = ("as_tensor", "as_tensors", "as_optional_tensors", "as_sym_int", "as_sym_float", "as_sym_bool")


def _argument(value: Mapping[str, Any]) -> Any:
    kind, content = only(value)
    if kind in AS_THEY_ARE:
        return content
    if kind in WITHIN:
        return _argument(content)
    if kind in WITHIN_LISTS:
        return [_argument(item) for item in content]
    if kind not in ARGUMENTS:
        raise Unsafe(f"passes a value of the kind {shown(kind)}")
    return ARGUMENTS[kind](content)


def _step(node: Mapping[str, Any]) -> tuple[Callable[..., Any], list[Any], dict[str, Any], Any]:
    """Read one node: the function, its arguments by position and by name, and where its results go."""
    target = node["target"]
    given = [(item["name"], _argument(item["arg"])) for item in node["inputs"]]
    results = [None if next(iter(value)) not in RESULTS else _argument(value) for value in node["outputs"]]
    if target in PYTHON:
        return PYTHON[target], [value for _, value in given], {}, results[0]
    if target in WRAPPERS:
        single = len(results) == 1 and node.get("is_hop_single_tensor_return") is not False
        flat = results[0] if len(results) == 1 and type(results[0]) is list else results
        return WRAPPERS[target], [value for _, value in given], {}, results[0] if single else flat
    for name, value in given:
        if name in SIZES and isinstance(value, list):
            check_size([length for length in value if type(length) is int])
    function = _operator(target)
    single = target in FOURIER or len(function._schema.returns) == 1
    return function, [], dict(given), results[0] if single and results else results or None


def _operator(target: str) -> Callable[..., Any]:
    name, _, overload = target.removeprefix("torch.ops.aten.").partition(".")
    if target in FOURIER:
        return _within_dimensions(getattr(torch.ops.aten, name).default)
    known = name in OPERATORS or name.removesuffix("_") in OPERATORS
    if not target.startswith("torch.ops.aten.") or not known:
        raise Unsafe(f"calls {shown(target)}, which is not in the list of harmless operators")
    packet = getattr(torch.ops.aten, name)
    if overload not in packet.overloads():
        raise Bad(f"torch {torch.__version__} has no operator {shown(target)}; export the program again")
    return getattr(packet, overload)


def _within_dimensions(function: Callable[..., Any]) -> Callable[..., Any]:
    def checked(self: torch.Tensor, dim: list[int], **named: Any) -> Any:
        if not all(-self.dim() <= axis < self.dim() for axis in dim):
            raise RenderError(f"the program transforms dimensions that a tensor of {self.dim()} does not have")
        return function(self, dim, **named)

    return checked


def _power(base: Any, exponent: Any) -> Any:
    if not abs(exponent) <= 64:
        raise RenderError(f"the program raises a size to a power beyond 64: {shown(str(exponent), 20)}")
    return base**exponent


PYTHON["_operator.pow"] = _power


def _with_autocast(device: str, dtype: Any, enabled: bool, cache: Any, graph: Callable, *values: Any) -> Any:
    with torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=cache):
        return graph(*values)


WRAPPERS: dict[str, Callable[..., Any]] = {
    "torch.ops.higher_order.wrap_with_set_grad_enabled": lambda enabled, graph, *values: graph(*values),
    "torch.ops.higher_order.wrap_with_autocast": _with_autocast,
    "torch.ops.higher_order.cond": lambda choice, yes, no, values: (yes if choice else no)(*values),
}
"""Operators that take graphs."""
