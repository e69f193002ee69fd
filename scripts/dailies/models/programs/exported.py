"""torch.export, opened by torch's own loader. Loading it runs its code, so it needs permission."""

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
from dailies.models.programs.program import (
    Fed,
    Placed,
    Program,
    copied,
    short,
    shown,
)
from dailies.models.programs.sizes import Side, fits

MACHINE_CODE = "data/aotinductor/"
"""Where an archive keeps what torch compiled for one kind of computer."""


def opened(path: Path) -> Program:
    """Load a file of torch.export, and find which sizes of images it takes."""
    with zipfile.ZipFile(path) as archive:
        names = [short(name) for name in archive.namelist()]
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
    channels = channels if isinstance(channels, int) else None
    images, *bounds = (Side.of(size, program.range_constraints) for size in (count, *sides))
    # torch takes one image even where it says that there must be two
    batch = images.least if images.frozen or images.least > 2 else None

    def holds(height: int, width: int) -> bool:
        return network.takes(batch or 1, channels or 3, height, width)

    return Program(
        network=Fed(network, image.dtype).eval(),
        kind="export",
        channels=channels,
        batch=batch,
        **fits(*bounds, holds),
    )


def _image(path: Path, program: ExportedProgram) -> Tensor:
    """Return the stand-in for the image that a program takes: its shape, which may hold symbols, and its type."""
    names = [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind == InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument)
    ]
    found = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(found) != 1 or found[0].dim() != 4 or not found[0].is_floating_point():
        raise LoadError(
            "program.takes_no_image",
            f"the program in {shown(path.name)} asks for {len(names)} tensors ({shown(', '.join(names), 200)}); "
            "expected one image of 4 dimensions, batch, channels, height and width, in floating point",
        )
    return found[0]


class _Exported(Placed):
    exported: ExportedProgram

    def load(self, device: torch.device) -> nn.Module:
        """Load the file; a program names the device of its export for every tensor, so that is replaced.

        Without this, a program that was exported on CUDA does not load where there is none.
        """
        place = {"type": device.type, "index": device.index}

        def placed(name: str, content: bytes) -> bytes:
            if name.endswith(".json"):
                tree = json.loads(content, object_hook=lambda item: place if item.keys() == place.keys() else item)
                return json.dumps(tree).encode()
            if name.endswith(".pt") and content:
                copy = io.BytesIO()
                torch.save(torch.load(io.BytesIO(content), map_location=device, weights_only=False), copy)
                return copy.getvalue()
            return content

        self.exported = torch.export.load(copied(self.path, placed))
        self._writes = _writes(self.exported)
        return self.exported.module()

    def takes(self, *shape: int) -> bool:
        """Tell whether an image of this shape satisfies the conditions that were found when it was exported."""
        guards = getattr(self.program, "_guards_fn", None)  # torch before 2.9 has none
        try:
            return guards is None or guards(torch.empty(shape, device="meta")) is None
        except AssertionError:
            return False

    def forward(self, pixels: Tensor) -> Any:
        if not self._writes:
            return self.program(pixels)
        # what the program changes of itself is dropped: no frame may depend on those before it
        own = {name: value.clone() for name, value in self.program.named_buffers()}
        return torch.func.functional_call(self.program, own, pixels.clone())


def _writes(program: ExportedProgram) -> bool:
    """Tell whether a program writes to its own tensors or to its input."""
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, fx.GraphModule)]
    schemas = [getattr(node.target, "_schema", None) for graph in graphs for node in graph.nodes]
    signature = program.graph_signature
    return bool(
        signature.buffers_to_mutate
        or signature.user_inputs_to_mutate
        or any(schema is not None and schema.is_mutable for schema in schemas)
    )
