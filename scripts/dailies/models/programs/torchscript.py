"""TorchScript. Loading such a file runs its code, so it needs permission."""

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
from dailies.core.text import shown
from dailies.models.programs.program import DeviceBound, InputCast, Program, copy_archive, member_name
from dailies.models.programs.sizes import ANY_SIZE, Sizes

PROBE = (64, 128)
"""Height and width of the images that show what a trace froze."""

EXAMPLE = "traced_inputs.pkl"
"""The member of the archive that describes the tensor with which a program was traced."""

DEVICE = re.compile(rb'torch\.device\("[^"\\]*"\)')
"""A device in the code of a program."""

SHAPE_KEEPING = frozenset({"pad", "reflection_pad2d", "replication_pad2d", "to", "contiguous"})
"""Operators that do not change the channels of an image."""


def load_torchscript(path: Path) -> Program:
    """Load a TorchScript file, and find the sizes that it takes by trying some.

    Raises:
        LoadError: the program has no ``forward``, or does not take exactly one image.
    """
    script = _Script(path)
    module: Any = script.program
    if "forward" not in module._c._method_names():
        raise LoadError("program.no_forward", f"{shown(path.name)} is a TorchScript program without a method 'forward'")
    required = [argument for argument in module.forward.schema.arguments[1:] if not argument.has_default_value()]
    if len(required) != 1 or not isinstance(required[0].type, torch.TensorType):
        names = ", ".join(f"{argument.name}: {argument.type}" for argument in required)
        raise LoadError(
            "program.takes_no_image",
            f"the program in {shown(path.name)} needs ({shown(names)}); expected one image",
        )
    network: nn.Module = script
    floats = (value.dtype for value in network.state_dict().values() if value.is_floating_point())
    dtype = next(floats, torch.float32)
    if dtype != torch.float32:
        network = InputCast(network, dtype)
    channels = _channels(module)
    shape = _example_shape(path)
    if shape is None:
        return Program(network, "torchscript", channels=channels)
    if len(shape) != 4:
        raise LoadError(
            "program.takes_no_image",
            f"the program in {shown(path.name)} was traced with a tensor of {len(shape)} dimensions; expected one "
            "image of 4 dimensions (batch, channels, height, width)",
        )
    sizes, batch = _frozen(network, shape)
    return Program(network, "torchscript", sizes, channels or shape[1], batch)


class _Script(DeviceBound):
    def load(self, device: torch.device) -> nn.Module:
        """Load the file with the device of its code replaced by ``device``.

        A trace names the device of its example wherever it makes a tensor.
        """

        def replaced(name: str, content: bytes) -> bytes:
            return DEVICE.sub(f'torch.device("{device}")'.encode(), content) if name.endswith(".py") else content

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 deprecates TorchScript in favour of export
            module: nn.Module = torch.jit.load(copy_archive(self.path, replaced), map_location=device)
            return module.eval()

    def forward(self, pixels: Tensor) -> Any:
        """Run the program as it was written.

        The optimizer would rewrite it after its first frames and fuse operators on CUDA, which changes the last bit.
        """
        with torch.jit.optimized_execution(False):
            return self.program(pixels)


class _Shapes(pickle.Unpickler):
    """Reads the shapes of the tensors in a pickle without building its objects."""

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
    """Return the shape of the tensor with which a program was traced; None unless there is exactly one."""
    with zipfile.ZipFile(path) as archive:
        member = next((name for name in archive.namelist() if member_name(name) == EXAMPLE), None)
        if member is None:
            return None
        example = _Shapes(archive.read(member))
    example.load()
    return example.found[0] if len(example.found) == 1 else None


def _channels(module: Any) -> int | None:
    """Return the input channels of the first convolution; None if anything before it could change the channels."""
    graph = module.forward.inlined_graph  # its values live only as long as it does
    value = list(graph.inputs())[1]
    for _ in range(8):
        uses = [use.user for use in value.uses()]
        for node in uses:
            if node.kind() in ("aten::conv2d", "aten::_convolution", "aten::_convolution_mode"):
                _, weight, *rest = node.inputs()
                tensor = _attribute(module, weight)
                groups = rest[-1 if node.kind() != "aten::_convolution" else 6].toIValue()
                return int(tensor.shape[1] * groups) if tensor is not None and isinstance(groups, int) else None
        onward = [node for node in uses if node.kind().removeprefix("aten::") in SHAPE_KEEPING]
        if len(onward) != 1:
            return None
        value = next(onward[0].outputs())
    return None


def _attribute(module: Any, value: Any) -> Tensor | None:
    names = []
    while value.node().kind() == "prim::GetAttr":
        names.append(value.node().s("name"))
        value = next(value.node().inputs())
    found: Any = module if names else value.toIValue()
    for name in reversed(names):
        found = getattr(found, name, None)
    return found if isinstance(found, Tensor) and found.dim() == 4 else None


def _frozen(network: Callable[[Tensor], Any], shape: Sequence[int]) -> tuple[Sizes, int | None]:
    """Return the sizes and the number of images that a trace is frozen to; None for any number.

    Tracing turns whatever a network computes from its input's shape into constants, and does not record that, so the
    network is called with other shapes than ``shape``, that of the example.
    """
    count, channels, height, width = shape

    def accepts(number: int) -> bool:
        try:
            output = network(torch.full((number, channels, *PROBE), 0.5))
        except Exception:  # any operator may reject a shape
            return False
        images = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.dim() == 4]
        return any(
            len(image) == number
            and image.shape[2] * PROBE[1] == image.shape[3] * PROBE[0]
            and image.shape[2] % PROBE[0] == 0
            for image in images
        )

    with torch.inference_mode():
        if accepts(1):
            return ANY_SIZE, None if accepts(2) else 1
        return ANY_SIZE if accepts(count) else Sizes(fixed=(height, width)), count
