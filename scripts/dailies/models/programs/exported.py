"""torch.export. Loading such a file runs its code, so it needs permission."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument

from dailies.core.errors import LoadError
from dailies.core.text import shown
from dailies.models.programs.program import DeviceBound, InputCast, Program, copy_archive, member_name
from dailies.models.programs.sizes import Side, sizes_of

MACHINE_CODE = "data/aotinductor/"
"""The folder of an archive that holds what torch compiled for one kind of computer."""


def load_exported(path: Path) -> Program:
    """Load a file of torch.export, and read the sizes that it declares.

    Raises:
        LoadError: the file holds machine code only, or the program does not take exactly one image.
    """
    with zipfile.ZipFile(path) as archive:
        names = [member_name(name) for name in archive.namelist()]
    if any(name.startswith(MACHINE_CODE) for name in names) and not any(name.startswith("models/") for name in names):
        raise LoadError(
            "program.machine_code",
            f"{shown(path.name)} holds machine code for one kind of computer (AOTInductor) and no program; "
            "save it with torch.export.save",
        )
    network = _Exported(path)
    program = network.exported
    image = _image(path, program)
    count, channels, *sides = image.shape
    known_channels = channels if isinstance(channels, int) else None
    images, height, width = (Side.exported(size, program.range_constraints) for size in (count, *sides))
    # torch takes one image even if the program declares at least two
    batch = images.least if images.is_fixed or images.least > 2 else None

    def accepts(height: int, width: int) -> bool:
        return network.accepts(batch or 1, known_channels or 3, height, width)

    fed = InputCast(network, image.dtype).eval()
    return Program(fed, "export", sizes_of(height, width, accepts), known_channels, batch)


def _image(path: Path, program: ExportedProgram) -> Tensor:
    """Return the placeholder of the image that a program takes: its shape, which may hold symbols, and data type."""
    names = [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind == InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument)
    ]
    found: list[Tensor] = [
        node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names
    ]
    if len(found) != 1 or found[0].dim() != 4 or not found[0].is_floating_point():
        raise LoadError(
            "program.takes_no_image",
            f"the program in {shown(path.name)} needs {len(names)} tensors ({shown(', '.join(names))}); expected one "
            "image of 4 dimensions (batch, channels, height, width) in floating point",
        )
    return found[0]


class _Exported(DeviceBound):
    exported: ExportedProgram

    def load(self, device: torch.device) -> nn.Module:
        """Load the file with the device of its export replaced by ``device``.

        Without this, a program that was exported on CUDA does not load on a machine without CUDA.
        """
        place = {"type": device.type, "index": device.index}

        def replaced(name: str, content: bytes) -> bytes:
            if name.endswith(".json"):
                tree = json.loads(content, object_hook=lambda item: place if item.keys() == place.keys() else item)
                return json.dumps(tree).encode()
            if name.endswith(".pt") and content:
                copy = io.BytesIO()
                torch.save(torch.load(io.BytesIO(content), map_location=device, weights_only=False), copy)
                return copy.getvalue()
            return content

        self.exported = torch.export.load(copy_archive(self.path, replaced))
        self._writes = _writes(self.exported)
        return self.exported.module()

    def forward(self, pixels: Tensor) -> Any:
        """Run the program. What it writes to its buffers or its input is dropped: frames must not affect each other."""
        if not self._writes:
            return self.program(pixels)
        buffers = {name: value.clone() for name, value in self.program.named_buffers()}
        return torch.func.functional_call(self.program, buffers, pixels.clone())

    def accepts(self, *shape: int) -> bool:
        """Return whether an input of this shape meets the conditions that torch found during the export."""
        guards = getattr(self.program, "_guards_fn", None)  # torch before 2.9 has none
        try:
            return guards is None or guards(torch.empty(shape, device="meta")) is None
        except AssertionError:
            return False


def _writes(program: ExportedProgram) -> bool:
    """Return whether a program writes to its own tensors or to its input."""
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, fx.GraphModule)]
    schemas = [getattr(node.target, "_schema", None) for graph in graphs for node in graph.nodes]
    signature = program.graph_signature
    return bool(
        signature.buffers_to_mutate
        or signature.user_inputs_to_mutate
        or any(schema is not None and schema.is_mutable for schema in schemas)
    )
