"""Program files of every kind, written by their real writers and by hand, and what they are compared with."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from dailies.core.errors import LoadError
from dailies.models.programs.load import load_program, program_kind
from dailies.models.programs.program import Program
from torch import Tensor, nn

from helpers import raising


class Double(nn.Module):
    """Twice its input, by a convolution."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv.weight.data.zero_()
        self.conv.bias.data.zero_()
        for channel in range(channels):
            self.conv.weight.data[channel, channel, 1, 1] = 2

    def forward(self, pixels: Tensor) -> Tensor:
        return self.conv(pixels)


class Blocks(nn.Module):
    """What restoration networks are made of: attention, windows, norms, resizing, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(8), nn.PReLU())
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.GELU())
        self.tail = nn.Sequential(nn.Conv2d(16, 12, 1), nn.PixelShuffle(2), nn.Dropout(0.5))
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.4), persistent=False)

    def forward(self, pixels: Tensor) -> dict[str, Tensor | list[Tensor]]:
        wide = self.head(pixels - self.mean)
        batch, channels, height, width = wide.shape
        windows = torch.roll(wide, (2, 2), (2, 3)).view(batch, channels, height // 4, 4, width // 4, 4)
        windows = self.norm(windows.permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, channels))
        windows = windows + self.attention(windows, windows, windows, need_weights=False)[0]
        back = windows.view(batch, height // 4, width // 4, 4, 4, channels).permute(0, 5, 1, 3, 2, 4)
        back = back.reshape(batch, channels, height, width)
        small = nn.functional.interpolate(self.down(back), size=(height, width), mode="bilinear", align_corners=False)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            large = self.tail(torch.cat([back, small], 1)).float()
        first, second = large.chunk(2, dim=2)
        return {"image": large, "parts": [first, second]}


def image(height: int = 8, width: int = 12, channels: int = 3) -> Tensor:
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(height))


def exported(path: Path, network: nn.Module, example: Tensor | None = None, **dynamic) -> Path:
    example = image() if example is None else example
    shapes = {"pixels": {{"batch": 0, "height": 2, "width": 3}[axis]: dim for axis, dim in dynamic.items()}}
    program = torch.export.export(network.eval(), (example,), dynamic_shapes=shapes if dynamic else None)
    torch.export.save(program, path)
    return path


def scripted(path: Path, network: nn.Module) -> Path:
    torch.jit.script(network.eval()).save(path)
    return path


def edited(path: Path, edits: dict, extra: dict | None = None) -> Path:
    """Write a copy of a zip whose members ``edits`` changes: by name without the top folder, from bytes to bytes."""
    copy = path.with_name(f"edited_{path.name}")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            short = name.partition("/")[2]
            data = source.read(name)
            target.writestr(name, edits[short](data) if short in edits else data)
        top = source.namelist()[0].partition("/")[0]
        for name, data in (extra or {}).items():
            target.writestr(f"{top}/{name}", data)
    return copy


def load(path: Path, *, trusted: bool = True) -> Program:
    """Load a program, whose code may run."""
    kind = program_kind(path)
    assert kind is not None
    return load_program(path, kind, trusted=trusted)


@contextmanager
def refused(code: str, *names: str) -> Iterator[None]:
    """Expect a LoadError with this code whose message is short and contains each of ``names``."""
    with raising.refused(LoadError, code, *names) as caught:
        yield
    assert len(str(caught.value)) < 500


@torch.no_grad()
def same(ours, theirs) -> bool:
    """Whether two answers are equal, structure included."""
    ours, form = torch.utils._pytree.tree_flatten(ours)
    theirs, wanted = torch.utils._pytree.tree_flatten(theirs)
    pairs = zip(ours, theirs, strict=True)
    return form == wanted and all(one is two is None or torch.allclose(one, two, atol=1e-6) for one, two in pairs)


class Evil:
    """Leaves a marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def packed(number: int) -> bytes:
    data = b""
    while number > 127:
        data, number = data + bytes([number & 127 | 128]), number >> 7
    return data + bytes([number])


def proto(*fields: tuple[int, object]) -> bytes:
    """Write a protobuf message: numbers, texts and messages by their field numbers."""
    data = b""
    for number, value in fields:
        if isinstance(value, int):
            data += packed(number << 3) + packed(value)
        else:
            content = value.encode() if isinstance(value, str) else value
            data += packed(number << 3 | 2) + packed(len(content)) + content
    return data


def onnx_value(name: str, shape: list, kind: int = 1) -> bytes:
    sizes = [(1, proto((1, size) if isinstance(size, int) else (2, size))) for size in shape]
    return proto((1, name), (2, proto((1, proto((1, kind), (2, proto(*sizes)))))))


def onnx_model(path: Path, shape: list, *nodes: bytes, kind: int = 1, weight: bytes | None = None, **more) -> Path:
    """Write an ONNX program that gives twice its input, unless other nodes are given."""
    dtype = {1: torch.float32, 10: torch.float16}[kind]
    weight = weight or proto((1, 1), (2, kind), (8, "two"), (9, torch.tensor([2], dtype=dtype).numpy().tobytes()))
    nodes = nodes or (proto((1, "image"), (1, "two"), (2, "result"), (4, "Mul")),)
    content = [(1, node) for node in nodes] + [(2, "graph"), (5, weight)]
    content += [(11, onnx_value("image", shape, kind)), (12, onnx_value("result", shape, kind))]
    domains = [(8, proto((1, domain), (2, 1))) for domain in more.get("domains", ())]
    extra = more.get("extra", [])
    path.write_bytes(proto((1, 8), (7, proto(*content)), (8, proto((1, ""), (2, 17))), *domains, *extra))
    return path


def onnx_images(path: Path, outputs: dict[str, float | None]) -> Path:
    """Write an ONNX program with named outputs: its input times a number each, or its mean."""
    nodes, numbers, values = [], [], []
    for name, number in outputs.items():
        if number is None:
            keepdims = proto((1, "keepdims"), (3, 0), (20, 2))
            nodes.append(proto((1, "image"), (2, name), (4, "ReduceMean"), (5, keepdims)))
            values.append(onnx_value(name, []))
            continue
        raw = torch.tensor([number], dtype=torch.float32).numpy().tobytes()
        numbers.append(proto((1, 1), (2, 1), (8, f"{name}_number"), (9, raw)))
        nodes.append(proto((1, "image"), (1, f"{name}_number"), (2, name), (4, "Mul")))
        values.append(onnx_value(name, ["batch", 3, "height", "width"]))
    content = [(1, node) for node in nodes] + [(2, "graph")] + [(5, number) for number in numbers]
    content += [(11, onnx_value("image", ["batch", 3, "height", "width"]))] + [(12, value) for value in values]
    path.write_bytes(proto((1, 8), (7, proto(*content)), (8, proto((1, ""), (2, 17)))))
    return path
