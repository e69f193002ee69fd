"""torch.export: the graph is JSON and is run here; torch's own loader unpickles, evaluates and runs what it finds."""

import ast
import io
import json
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dailies.errors import LoadError, RenderError
from dailies.programs.archive import Archive, check_view
from dailies.programs.conditions import condition, satisfied
from dailies.programs.graph import DTYPES, Graph, only
from dailies.programs.program import Bad, Fed, Program, Unsafe, shown
from dailies.programs.sizes import Side, fits

SCHEMA = 8
"""The generation of torch.export's JSON that is understood: torch 2.5 to 2.13, and what follows until it changes."""

OLD = "serialized_exported_program.json"
"""Where torch up to 2.7 keeps the program."""

CONSTANTS = ("as_none", "as_int", "as_float", "as_bool", "as_string")


def opened(path: Path, *, trusted: bool = False) -> Program:
    archive = Archive(path)
    model, program = _program(archive)
    if program["schema_version"]["major"] != SCHEMA:
        raise LoadError(
            f"{shown(path.name)} is of generation {shown(str(program['schema_version']['major']))} of torch.export's "
            f"format and generation {SCHEMA} is understood; export it again with torch {torch.__version__}"
        )
    module, ranges = program["graph_module"], program["range_constraints"]
    names = [spec["user_input"]["arg"]["as_tensor"]["name"] for spec in _inputs(module) if _is_image(spec)]
    metas = [module["graph"]["tensor_values"][name] for name in names]
    if len(metas) != 1 or len(metas[0]["sizes"]) != 4 or not DTYPES[metas[0]["dtype"]].is_floating_point:
        raise LoadError(
            f"the program in {shown(path.name)} asks for {len(metas)} tensors ({shown(', '.join(names), 200)}); "
            "expected one image of 4 dimensions, batch, channels, height and width, in floating point"
        )
    (image,) = metas
    conditions: list[ast.expr] = []
    if trusted:
        network: nn.Module = Fed(torch.export.load(str(path)).module(), DTYPES[image["dtype"]])
    else:
        conditions = [condition(text) for text in program.get("guards_code") or []]
        network = _Exported(module, image, conditions, _weights(archive, model))
    count, channels, *sides = image["sizes"]

    def holds(batch: int, height: int, width: int) -> bool:
        shape = batch, channels.get("as_int", 3), height, width
        return all(satisfied(each, shape) for each in conditions)

    images = Side.of(count, ranges)
    # torch takes one image even where it says that there must be two
    batch = images.least if images.frozen or images.least > 2 else None
    bounds = fits(*(Side.of(side, ranges) for side in sides), lambda *size: holds(batch or 1, *size))
    return Program(
        network=network.eval().requires_grad_(False),
        kind="export",
        channels=channels.get("as_int"),
        batch=batch,
        **bounds,
    )


def _inputs(module: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return module["signature"]["input_specs"]


def _is_image(spec: Mapping[str, Any]) -> bool:
    return "user_input" in spec and "as_tensor" in spec["user_input"]["arg"]


def _program(archive: Archive) -> tuple[str | None, dict[str, Any]]:
    """Read a program's JSON and its name in the archive; None for the format of torch up to 2.7, which has none."""
    if OLD in archive.sizes:
        return None, json.loads(archive.read(OLD))
    models = [name for name in archive.sizes if name.startswith("models/") and name.endswith(".json")]
    if not models:
        compiled = any(name.startswith("data/aotinductor/") for name in archive.sizes)
        held = "machine code for one kind of computer (AOTInductor) and no program" if compiled else "no program"
        raise Bad(f"the archive holds {held}; save it with torch.export.save")
    model = "models/model.json" if "models/model.json" in models else min(models)
    return model[len("models/") : -len(".json")], json.loads(archive.read(model))


def _weights(archive: Archive, model: str | None) -> dict[str, Tensor]:
    """Read a program's weights and constants by their names; nothing is unpickled but plain tensors of old files."""
    if model is None:
        return _unpickled(archive, "serialized_constants.pt") | _unpickled(archive, "serialized_state_dict.pt")
    return _payload(archive, "data/constants/", model, "constants") | _payload(
        archive, "data/weights/", model, "weights"
    )


def _payload(archive: Archive, folder: str, model: str, what: str) -> dict[str, Tensor]:
    if f"{folder}{model}.pt" in archive.sizes:  # torch 2.8
        return _unpickled(archive, f"{folder}{model}.pt")
    records: dict[tuple[str, int], Tensor] = {}
    tensors = {}
    for key, entry in json.loads(archive.read(f"{folder}{model}_{what}_config.json"))["config"].items():
        if entry["use_pickle"] or entry["tensor_meta"] is None:
            raise Unsafe(f"holds a pickled object, '{shown(key)}'")
        meta, record = entry["tensor_meta"], (entry["path_name"], entry["tensor_meta"]["dtype"])
        dtype = DTYPES[meta["dtype"]]
        if record not in records:
            data = bytearray(archive.read(f"{folder}{record[0]}"))
            records[record] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        shape, strides = ([size["as_int"] for size in meta[name]] for name in ("sizes", "strides"))
        flat, offset = records[record], meta["storage_offset"]["as_int"]
        check_view(shape, strides, offset, flat.numel(), dtype.itemsize)
        tensors[key] = flat.as_strided(shape, strides, offset)
    return tensors


def _unpickled(archive: Archive, name: str) -> dict[str, Tensor]:
    data = archive.read(name)
    if not data:
        return {}
    Archive(io.BytesIO(data))
    try:
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Unsafe("holds a pickle of more than tensors") from error
    return {key: value.detach() for key, value in tensors.items() if isinstance(value, Tensor)}


class _Exported(nn.Module):
    """A program of torch.export that runs its graph without any code of torch's loader."""

    def __init__(
        self,
        module: Mapping[str, Any],
        image: Mapping[str, Any],
        conditions: list[ast.expr],
        weights: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self._graph = Graph(module["graph"])
        self._out_spec = json.loads(module["module_call_graph"][0]["signature"]["out_spec"])[1]
        self._returned = ["user_output" in spec for spec in module["signature"]["output_specs"]]
        self._dtype = DTYPES[image["dtype"]]
        self._shape = [size.get("as_int") for size in image["sizes"]]
        self._conditions = conditions
        self._allowed: set[Sequence[int]] = set()
        """Shapes of images that all conditions hold for."""
        self._values: list[str | None] = []
        """For each input of the graph the buffer that it is, or None for the image."""
        for index, spec in enumerate(_inputs(module)):
            self._values.append(None if _is_image(spec) else f"value_{index}")
            if not _is_image(spec):
                self.register_buffer(f"value_{index}", _stored(spec, weights))
        self._overwritten = [name in self._graph.overwritten for name in self._graph.inputs]

    def forward(self, pixels: Tensor) -> Any:
        """Raises RenderError for an image of a shape that the program is not made for."""
        if pixels.shape not in self._allowed:
            self._check(pixels.shape)
            self._allowed.add(pixels.shape)
        image = pixels.to(self._dtype)
        values = [image if name is None else getattr(self, name) for name in self._values]
        # what the program changes of itself is dropped: no frame may depend on those before it
        values = [value.clone() if over else value for value, over in zip(values, self._overwritten, strict=True)]
        given = self._graph(values, pixels.device)
        leaves = (value for value, returned in zip(given, self._returned, strict=True) if returned)
        return _shaped(self._out_spec, leaves)

    def _check(self, shape: Sequence[int]) -> None:
        given = "×".join(map(str, shape))
        if any(have != want for have, want in zip(shape, self._shape, strict=True) if want is not None):
            wanted = "×".join("any" if size is None else str(size) for size in self._shape)
            raise RenderError(f"the program takes {wanted} and was given {given}")
        for each in self._conditions:
            if not satisfied(each, shape):
                raise RenderError(f"the program does not take {given}: {shown(ast.unparse(each), 200)} must hold")


def _stored(spec: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Tensor:
    """The tensor that an input of a graph stands for."""
    kind, content = only(spec)
    if kind in ("parameter", "buffer", "tensor_constant"):
        return weights[content[f"{kind}_name"]]
    if kind == "constant_input" or (kind == "user_input" and only(content["arg"])[0] in CONSTANTS):
        return torch.empty(0)  # an argument that was a number when the program was exported; the graph has it inside
    raise Unsafe(f"takes an input of the kind {shown(kind)}")


def _shaped(spec: Mapping[str, Any], leaves: Iterator[Any]) -> Any:
    """Put a program's outputs into the tuples, lists and dicts that its author returned."""
    kind, inner = spec["type"], spec["children_spec"]
    if kind is None:
        return next(leaves)
    if kind in ("builtins.dict", "collections.OrderedDict"):
        keys = json.loads(spec["context"]) if isinstance(spec["context"], str) else spec["context"]
        make = dict if kind == "builtins.dict" else OrderedDict
        return make((key, _shaped(child, leaves)) for key, child in zip(keys, inner, strict=True))
    items = [_shaped(child, leaves) for child in inner]
    return items if kind == "builtins.list" else tuple(items)
