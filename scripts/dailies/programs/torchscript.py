"""TorchScript: its pickles and code are judged before torch reads them, its graphs before they run."""

import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dailies.errors import LoadError
from dailies.programs.archive import Archive, check_size
from dailies.programs.operators import harmless
from dailies.programs.program import Bad, Fed, Program, Unsafe, shown
from dailies.programs.script_code import check_code
from dailies.programs.script_pickle import check_pickle, example_shape

CODE = 8 * 2**20
"""The most bytes of code and of pickles; the trace of a NAFNet of 60 blocks has 0.3 MB."""

NODES = 200_000
"""The most operators of one method once all that it calls is written out, which is how torch runs it."""

TRIED = (64, 128)
"""Height and width of images that tell what a trace froze."""

PARTS = re.compile(r"code/.+\.py|(?:data|constants)(?:\.pkl|/\w+)|(?:\.data/)?version|byteorder", re.ASCII)
"""The members of the archive that torch needs to load it."""

DEVICE = re.compile(rb'torch\.device\("[^"\\]*"\)')
"""How code names a device."""


def opened(path: Path, *, trusted: bool = False) -> Program:
    archive = Archive(path)

    def load(device: torch.device) -> torch.jit.ScriptModule:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 deprecates TorchScript in favour of export
            if trusted:
                return torch.jit.load(str(path), map_location=device)
            return _loaded(_checked_copy(archive, device), device)

    script = _Script(load)
    module = script.program
    if "forward" not in module._c._method_names():
        raise LoadError(f"{shown(path.name)} is a TorchScript program without a method 'forward'")
    taken = [argument for argument in module.forward.schema.arguments[1:] if not argument.has_default_value()]
    if len(taken) != 1 or not isinstance(taken[0].type, torch.TensorType):
        names = ", ".join(f"{shown(argument.name)}: {shown(str(argument.type))}" for argument in taken)
        raise LoadError(f"the program in {shown(path.name)} asks for ({shown(names, 200)}); expected one image")
    network: nn.Module = script.eval()
    floats = (value.dtype for value in network.state_dict().values() if value.is_floating_point())
    dtype = next(floats, torch.float32)
    if dtype != torch.float32:
        network = Fed(network, dtype)
    channels = _channels(module)
    if "traced_inputs.pkl" not in archive.sizes:
        return Program(network=network, kind="torchscript", channels=channels)
    shape = example_shape(archive.read("traced_inputs.pkl"))
    if len(shape) != 4:
        raise LoadError(
            f"the program in {shown(path.name)} was traced with a tensor of {len(shape)} dimensions; "
            "expected one image of 4 dimensions, batch, channels, height and width"
        )
    size, batch = _frozen(network, shape)
    return Program(network=network, kind="torchscript", size=size, channels=channels or shape[1], batch=batch)


class _Script(nn.Module):
    """A TorchScript program on the device that it was last moved to: it names one, and is loaded anew for another."""

    def __init__(self, load: Callable[[torch.device], torch.jit.ScriptModule]) -> None:
        super().__init__()
        self._load = load
        self._moved_to(torch.device("cpu"))

    def _moved_to(self, device: torch.device) -> None:
        self._device = device
        self.program = self._load(device).eval()
        for parameter in self.program.parameters():  # the method that does this is missing for TorchScript
            parameter.requires_grad_(parameter.requires_grad and not parameter.is_leaf)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Follow ``Module.to``, which calls this."""
        if (device := fn(torch.empty(0)).device) != self._device:
            self._moved_to(device)
        return self

    def forward(self, pixels: Tensor) -> Any:
        # else torch rewrites the program after its first frames, and fuses operators on CUDA: their last bit changes
        with torch.jit.optimized_execution(False):
            return self.program(pixels)


def _checked_copy(archive: Archive, device: torch.device) -> bytes:
    """Copy the parts of a TorchScript file that are needed, each of them checked; torch never reads the file itself.

    A trace names the device of its example wherever it makes a tensor: in the copy it is the one given.

    Left behind: pickles of source positions and example inputs, and whatever torch's reader, which does not tell
    upper from lower case, might find where the one here does not.
    """
    sizes = {name: size for name, size in archive.sizes.items() if PARTS.fullmatch(name)}
    code = sum(size for name, size in sizes.items() if name.endswith((".py", ".pkl")))
    if code > CODE:
        raise Bad(f"the program has {code:,} bytes of code; at most {CODE:,} would be read")
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as target:
        for name in sizes:
            content = archive.read(name)
            if name.endswith(".py"):
                content = DEVICE.sub(f'torch.device("{device}")'.encode(), content)
                check_code(content.decode("ascii", errors="replace"))
            elif name.endswith(".pkl"):
                check_pickle(content, name.replace(".pkl", "/"), sizes)
            target.writestr(f"model/{name}", content)
    return copy.getvalue()


def _loaded(content: bytes, device: torch.device) -> torch.jit.ScriptModule:
    """Do what torch.jit.load does, and check all functions that it made before any of them can run.

    A method's own graph does not show what runs: ``with`` calls methods that no graph holds.
    """
    unit = torch._C.CompilationUnit()
    module = torch._C.import_ir_module_from_buffer(unit, content, device, {}, False)
    _check_graphs({function.qualified_name: function.graph for function in unit.get_functions()})
    return torch.jit._recursive.wrap_cpp_module(module)


def _check_graphs(graphs: dict[str, Any]) -> None:
    """Raise unless every function holds harmless operators and calls of each other only, and not too many of them."""
    sizes: dict[str, int] = {}

    def size(name: str) -> int:
        if name not in sizes:
            nodes = list(_nodes(graphs[name]))
            sizes[name] = len(nodes)
            sizes[name] += sum(size(called) for called in map(_called, nodes) if called in graphs)
        return sizes[name]

    for name, graph in graphs.items():
        for node in _nodes(graph):
            called = _called(node)
            if called is None and not harmless(node.kind()):
                raise Unsafe(f"uses {shown(node.kind())}")
            if called is not None and called not in graphs and not _is_interface(node):
                raise Unsafe(f"calls {shown(called)}")
            if any("torch.classes." in str(output.type()) for output in node.outputs()):
                raise Unsafe("uses objects of torch.classes")
            if not node.kind().endswith("_strided"):
                check_size(_numbers(node))
        if size(name) > NODES:
            raise Bad(f"the program has more than {NODES:,} operators")


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _called(node: Any) -> str | None:
    """The full name of the function or method that a node calls; None for operators."""
    if node.kind() == "prim::CallFunction":
        return str(next(node.inputs()).type())
    if node.kind() == "prim::CallMethod":
        return f"{next(node.inputs()).type()}.{node.s('name')}"
    return None


def _numbers(node: Any) -> list[int]:
    """The numbers in the first list that a node is given, which is its size for all that make tensors."""
    lists = [value.node() for value in node.inputs() if value.node().kind() == "prim::ListConstruct"]
    numbers = [value.toIValue() for value in lists[0].inputs()] if lists else []
    return [number for number in numbers if type(number) is int]


def _is_interface(node: Any) -> bool:
    """Whether a node calls a method of whatever class turns up; all those of the file are checked."""
    return next(node.inputs()).type().kind() == "InterfaceType"


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
