"""TorchScript, opened by torch's own loader. Loading it runs its code, so it needs permission."""

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dailies.core.errors import LoadError
from dailies.models.programs.program import (
    Fed,
    Placed,
    Program,
    copied,
    short,
    shown,
)

TRIED = (64, 128)
"""Height and width of images that tell what a trace froze."""

EXAMPLE = "traced_inputs.pkl"
"""The member of the archive that describes the tensor with which a program was traced."""

DEVICE = re.compile(rb'torch\.device\("[^"\\]*"\)')
"""How code names a device."""


def opened(path: Path) -> Program:
    """Load a TorchScript file, and find which sizes of images it takes."""
    script = _Script(path)
    module = script.program
    if "forward" not in module._c._method_names():
        raise LoadError("program.no_forward", f"{shown(path.name)} is a TorchScript program without a method 'forward'")
    taken = [argument for argument in module.forward.schema.arguments[1:] if not argument.has_default_value()]
    if len(taken) != 1 or not isinstance(taken[0].type, torch.TensorType):
        names = ", ".join(f"{shown(argument.name)}: {shown(str(argument.type))}" for argument in taken)
        raise LoadError(
            "program.takes_no_image",
            f"the program in {shown(path.name)} asks for ({shown(names, 200)}); expected one image",
        )
    network: nn.Module = script
    floats = (value.dtype for value in network.state_dict().values() if value.is_floating_point())
    dtype = next(floats, torch.float32)
    if dtype != torch.float32:
        network = Fed(network, dtype)
    channels = _channels(module)
    shape = _example_shape(path)
    if shape is None:
        return Program(network=network, kind="torchscript", channels=channels)
    if len(shape) != 4:
        raise LoadError(
            "program.takes_no_image",
            f"the program in {shown(path.name)} was traced with a tensor of {len(shape)} dimensions; "
            "expected one image of 4 dimensions, batch, channels, height and width",
        )
    size, batch = _frozen(network, shape)
    return Program(network=network, kind="torchscript", size=size, channels=channels or shape[1], batch=batch)


class _Script(Placed):
    def load(self, device: torch.device) -> nn.Module:
        """Load the file; a trace names the device of its example wherever it makes a tensor, so that is replaced."""

        def placed(name: str, content: bytes) -> bytes:
            return DEVICE.sub(f'torch.device("{device}")'.encode(), content) if name.endswith(".py") else content

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 deprecates TorchScript in favour of export
            return torch.jit.load(copied(self.path, placed), map_location=device).eval()

    def forward(self, pixels: Tensor) -> Any:
        # else torch rewrites the program after its first frames, and fuses operators on CUDA: their last bit changes
        with torch.jit.optimized_execution(False):
            return self.program(pixels)


class _Shapes(pickle.Unpickler):
    """Reads the shapes of the tensors in a pickle and makes none of its objects."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.found: list[tuple[int, ...]] = []

    def persistent_load(self, pid: Any) -> None:
        return None

    def find_class(self, module: str, name: str) -> Callable[..., None]:
        return self._tensor if name == "_rebuild_tensor_v2" else lambda *given: None

    def _tensor(self, storage: Any, offset: int, shape: tuple[int, ...], *rest: Any) -> None:
        self.found.append(shape)


def _example_shape(path: Path) -> tuple[int, ...] | None:
    """Return the shape of the tensor that a program was traced with; None if it was not traced with exactly one."""
    with zipfile.ZipFile(path) as archive:
        member = next((name for name in archive.namelist() if short(name) == EXAMPLE), None)
        if member is None:
            return None
        example = _Shapes(archive.read(member))
    example.load()
    return example.found[0] if len(example.found) == 1 else None


def _channels(module: torch.jit.ScriptModule) -> int | None:
    """The channels of the first convolution, where the image reaches one before anything that could change them."""
    graph = module.forward.inlined_graph  # its values live as long as it does
    value = list(graph.inputs())[1]
    for _ in range(8):
        uses = [use.user for use in value.uses()]
        for node in uses:
            if node.kind() in ("aten::conv2d", "aten::_convolution", "aten::_convolution_mode"):
                _, weight, *rest = node.inputs()
                tensor = _attribute(module, weight)
                groups = rest[-1 if node.kind() != "aten::_convolution" else 6].toIValue()
                return int(tensor.shape[1] * groups) if tensor is not None and isinstance(groups, int) else None
        same = ("aten::pad", "aten::reflection_pad2d", "aten::replication_pad2d", "aten::to", "aten::contiguous")
        onward = [node for node in uses if node.kind() in same]
        if len(onward) != 1:
            return None
        value = next(onward[0].outputs())
    return None


def _attribute(module: torch.jit.ScriptModule, value: Any) -> Tensor | None:
    names = []
    while value.node().kind() == "prim::GetAttr":
        names.append(value.node().s("name"))
        value = next(value.node().inputs())
    found: Any = module if names else value.toIValue()
    for name in reversed(names):
        found = getattr(found, name, None)
    return found if isinstance(found, Tensor) and found.dim() == 4 else None


def _frozen(network: Callable[[Tensor], Any], shape: Sequence[int]) -> tuple[tuple[int, int] | None, int | None]:
    """Find the size and the number of images that a trace is frozen to, None for any, by giving it others.

    Tracing turns what a network computes of its input's shape into numbers, and does not say so.
    """
    count, channels, *size = shape

    def takes(number: int) -> bool:
        try:
            given = network(torch.full((number, channels, *TRIED), 0.5))
        except Exception:  # any operator may find that a number does not fit
            return False
        images = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor) and leaf.dim() == 4]
        return any(
            len(image) == number
            and image.shape[2] * TRIED[1] == image.shape[3] * TRIED[0]
            and image.shape[2] % TRIED[0] == 0
            for image in images
        )

    with torch.inference_mode():
        if takes(1):
            return None, None if takes(2) else 1
        return (None, count) if takes(count) else ((size[0], size[1]), count)
