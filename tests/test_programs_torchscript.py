"""TorchScript, written by torch; hostile files would leave a marker file if their code ran."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from dailies.programs import open_program, torchscript
from dailies.programs.archive import short
from helpers.program_files import Double, code_of, edited, image, refusal, same, scripted
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


@pytest.mark.parametrize("writer", ["script", "trace"])
def test_torchscript_gives_what_the_network_gives(tmp_path, writer):
    network, path = Double().eval(), tmp_path / "model.pt"
    (torch.jit.script(network) if writer == "script" else torch.jit.trace(network, image())).save(path)
    program = open_program(path)
    assert (program.kind, program.size, program.channels, program.trusted) == ("torchscript", None, 3, False)
    assert torch.equal(program.network(image(5, 7)), network(image(5, 7)))
    assert not program.network.training
    assert not any(parameter.requires_grad for parameter in program.network.parameters())


class Language(nn.Module):
    """What TorchScript is written with beside operators."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1), nn.LeakyReLU(0.2), nn.Upsample(scale_factor=2.0)])

    def forward(self, pixels: Tensor, strength: float = 0.5, limits: tuple[float, float] = (-1.0, 1.0)):
        found: dict[str, list[Tensor]] = {"all": []}
        with torch.no_grad():
            pixels = nn.functional.pad(pixels, (1, 1, 1, 1), mode="reflect")
        for index, layer in enumerate(self.layers):
            pixels = layer(pixels)
            if index > 0:
                found["all"].append(pixels * strength)
        assert pixels.dim() == 4, f"expected 4 dimensions, not {pixels.dim()}"
        return pixels.clamp(limits[0], limits[1]), found


def test_torchscript_may_use_all_of_its_language(tmp_path):
    torch.manual_seed(0)
    network = Language().eval()
    program = open_program(scripted(tmp_path / "model.pt", network))
    assert same(program.network(image()), network(image()))
    assert program.channels == 3


# TorchScript: (what it is called, edit of the code of Double, when torch runs it, what the refusal says)
FILE = 'torch.from_file("MARKER", True, 4, dtype=6)'


HOSTILE_CODE = {
    "default": (("x: Tensor)", f"x: Tensor, y: Tensor={FILE})"), "load", "defaults of a method while it is loaded"),
    "number": (("x: Tensor)", f"x: Tensor, y: int=torch.len({FILE}))"), "load", "defaults of a method"),
    "constant": (("  training", f"  y : Final[int] = torch.len({FILE})\n  training"), "load", "constants of a class"),
    "save": (("    return", '    torch.save(x, "MARKER")\n    return'), "run", "uses torch.save"),
    "ops": (("    return", '    ops.aten.save(x, "MARKER")\n    return'), "run", "uses ops.aten.save"),
    "module": (("    return", '    t = torch\n    t.save(x, "MARKER")\n    return'), "run", "uses 'torch' as a value"),
    "alias": (("    return", '    t = torch.save\n    t(x, "MARKER")\n    return'), "run", "uses torch.save"),
    "getattr": (
        ("    return", '    getattr(torch, "save")(x, "MARKER")\n    return'),
        "run",
        "uses 'torch' as a value",
    ),
    "escape": (
        ("    return", '    y = "\\033[2J"\n    torch.save(x, "MARKER")\n    return'),
        "run",
        "control characters",
    ),
    "comment": (
        ("    return", '    y = "a"  # "\n    torch.save(x, "MARKER")\n    return'),
        "run",
        "torch does not write",
    ),
}


@pytest.mark.parametrize("name", HOSTILE_CODE)
def test_hostile_torchscript_is_refused(tmp_path, name):
    (old, new), when, reason = HOSTILE_CODE[name]
    marker = tmp_path / "marker"

    def edit(data: bytes) -> bytes:
        text = data.decode().replace("pixels", "x")
        assert old in text
        return text.replace(old, new.replace("MARKER", str(marker)), 1).encode()

    path = scripted(tmp_path / "model.pt", Double())
    path = edited(path, {code_of(path): edit})
    control = torch.jit.load(path)
    assert marker.exists() == (when == "load")
    control(image())
    assert marker.exists(), "the hostile file is harmless and proves nothing"
    marker.unlink()

    text = refusal(path)
    assert reason in text
    assert "edited_model.pt is a TorchScript program that " in text
    assert text.endswith("set trust_pickle to true only if you trust whoever wrote it")
    assert not marker.exists()


def test_code_is_found_under_every_name_that_torch_finds_it_by(tmp_path):
    marker = tmp_path / "marker"
    path = scripted(tmp_path / "model.pt", Saving(marker))
    shouting = path.with_name("shouting.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(shouting, "w") as target:
        for name in source.namelist():
            hidden = name.replace("/code/", "/CODE/") if name.endswith(".py") else name
            target.writestr(hidden, source.read(name))
        target.writestr("model/code/__torch__/harmless.py", b"")
    torch.jit.load(shouting)(image())
    assert marker.exists(), "the hostile file is harmless and proves nothing"
    marker.unlink()
    refusal(shouting)
    assert not marker.exists()


class Saving(nn.Module):
    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker = str(marker)

    def forward(self, pixels: Tensor) -> Tensor:
        torch.save(pixels, self.marker)
        return pixels


class Restoring(nn.Module):
    """Overwrites a file while it is loaded."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker = str(marker)
        self.weight = nn.Parameter(torch.ones(1))

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, str]:
        return self.weight, self.marker

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, str]) -> None:
        self.marker = state[1]
        self.weight = state[0] + torch.from_file(state[1], True, 4, dtype=torch.float32).fill_(7.0).sum() * 0
        self.training = False

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels * self.weight


@pytest.mark.parametrize("hostile", [Saving, Restoring])
def test_torchscript_that_writes_files_is_refused(tmp_path, hostile):
    marker = tmp_path / "marker"
    path = scripted(tmp_path / "model.pt", hostile(marker))
    marker.unlink(missing_ok=True)
    torch.jit.load(path)(image())
    assert marker.exists(), "the hostile file is harmless and proves nothing"
    marker.unlink()
    assert "set trust_pickle to true" in refusal(path)
    assert not marker.exists()


@pytest.mark.parametrize("place", ["forward", "hook"])
def test_the_graphs_are_checked_even_if_the_text_was_not(tmp_path, monkeypatch, place):
    class Plain(nn.Module):
        def __init__(self, marker):
            super().__init__()
            self.marker = str(marker)

        def forward(self, pixels: Tensor) -> Tensor:
            return pixels * 2

    def before(self, input: tuple[Tensor]) -> tuple[Tensor]:
        torch.save(input[0], self.marker)
        return input

    marker = tmp_path / "marker"
    network = Saving(marker)
    if place == "hook":
        network = Plain(marker)
        network.register_forward_pre_hook(before)
    path = scripted(tmp_path / "model.pt", network)
    torch.jit.load(path)(image())
    assert marker.exists(), "the hostile file is harmless and proves nothing"
    marker.unlink()
    assert "uses torch.save" in refusal(path)
    monkeypatch.setattr(torchscript, "check_code", lambda text: None)
    assert "uses aten::save" in refusal(path)
    assert not marker.exists()


def test_torchscript_that_is_unsafe_and_harmless_opens_when_trusted(tmp_path, caplog):
    path = scripted(tmp_path / "model.pt", Restoring(tmp_path / "marker"))
    program = open_program(path, trusted=True)
    assert program.trusted
    assert torch.equal(program.network(image()), image())
    assert "model.pt runs a method, __setstate__, while it is loaded, and is loaded" in caplog.text
    assert not open_program(scripted(tmp_path / "safe.pt", Double()), trusted=True).trusted


def test_torchscript_never_reads_beyond_its_bytes(tmp_path):
    """torch 2.13 gives whatever lies behind a record in memory, or crashes; so there is no control here."""
    path = scripted(tmp_path / "model.pt", Double(1))
    one = b"X\x03\x00\x00\x00cpu"

    def longer(data: bytes) -> bytes:
        at = data.index(one)
        at = data.index(b"K\x09t", at)
        return data[:at] + b"J\x00\x00\x10\x00t" + data[at + 3 :]

    assert "declares 4,194,304 bytes, its record has 36" in refusal(edited(path, {"data.pkl": longer}))
    shape = b"(K\x01K\x01K\x03K\x03t"

    def wider(data: bytes) -> bytes:
        assert shape in data
        return data.replace(shape, b"(K\x01K\x01K\x03K\x09t", 1)

    assert "declares the shape (1, 1, 3, 9), its storage has 9 elements" in refusal(edited(path, {"data.pkl": wider}))

    def expanded(data: bytes) -> bytes:
        strides = b"(K\x09K\x09K\x03K\x01t"
        assert strides in data
        big = b"(J\x00\x00\x10\x00J\x00\x00\x10\x00K\x03K\x03t"
        return data.replace(shape, big, 1).replace(strides, b"(K\x00K\x00K\x03K\x01t", 1)

    assert "declares the shape (1048576, 1048576, 3, 3)" in refusal(edited(path, {"data.pkl": expanded}))


@pytest.mark.parametrize(
    ("pickled", "reason"),
    [
        (
            b"c__torch__.torch.classes.quantized\nConv2dPackedParamsBase\n",
            "an object of __torch__.torch.classes.quantized",
        ),
        (
            b"c__torch__\ntorch.classes.quantized.Conv2dPackedParamsBase\n",
            "an object of __torch__.torch.classes.quantized",
        ),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n", "an object of torch._utils._rebuild_sparse_tensor"),
        (b"cos\nsystem\n", "an object of os.system"),
        (b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93", "a pickle that torch does not write (STACK_GLOBAL)"),
        (b")r\xff\xff\xff\x7f", "declares more objects than it has bytes"),
        (b")" + b"\x85" * 3_000_000, "objects within objects, more than 1000 deep"),
        (b"]q\x00]q\x01h\x00a\x85h\x00]a", "an object that grows"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)\x81)b", "torch does not write (a call)"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n0K\x00)R", "torch does not write (POP)"),
        (b"](K\x00)R", "is damaged"),
        (b"]]b", "torch does not write (a state)"),
        (b"t", "is damaged"),
        (b"K\x00\x86", "a pickle in the file is damaged"),
    ],
)
def test_hostile_pickles_of_torchscript_are_refused(tmp_path, pickled, reason):
    """torch takes gigabytes for the memo and dies of the depth; so there is no control here."""
    path = scripted(tmp_path / "model.pt", Double())
    for name in ("data.pkl", "constants.pkl"):
        assert reason in refusal(edited(path, {name: lambda _: b"\x80\x02" + pickled + b"."}))


def test_only_what_is_needed_of_torchscript_is_read(tmp_path):
    path = scripted(tmp_path / "model.pt", Double())
    with zipfile.ZipFile(path) as archive:
        positions = next(_ for _ in map(short, archive.namelist()) if _.endswith("debug_pkl"))
    hostile = edited(path, {positions: lambda _: b"\x80\x02)r\xff\xff\xff\x7f."}, {"extra/notes": b"x"})
    assert torch.equal(open_program(hostile).network(image()), image() * 2)


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = scripted(tmp_path / "model.pt", Double())
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
        with target.open("model/data/9", "w", force_zip64=True) as member:
            for _ in range(100):
                member.write(bytes(2**20))
    assert bomb.stat().st_size < 2**18
    assert "bytes that declare to hold 104,8" in refusal(bomb)
    code = edited(path, {code_of(path): lambda data: data + b"\n" * (torchscript.CODE + 1)})
    assert "bytes of code; at most 8,388,608 would be read" in refusal(code)


def test_a_member_that_comes_twice_is_refused(tmp_path):
    path = scripted(tmp_path / "model.pt", Double())
    with zipfile.ZipFile(path, "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        archive.writestr(name.replace("data.pkl", "DATA.pkl"), b"")
    assert "more than once" in refusal(path)


def rewritten(path: Path, old: str, new: str) -> Path:
    """Change the code in a file."""
    with zipfile.ZipFile(path) as archive:
        names = [short(name) for name in archive.namelist() if old.encode() in archive.read(name)]
    assert names
    return edited(path, dict.fromkeys(names, lambda data: data.replace(old.encode(), new.encode())))


class Guard:
    """Writes a file when a ``with`` statement begins."""

    def __init__(self, pixels: Tensor, path: str) -> None:
        self.pixels = pixels
        self.path = path

    def __enter__(self) -> None:
        torch.save(self.pixels, self.path)

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        pass


class Entering(nn.Module):
    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker = str(marker)

    def forward(self, pixels: Tensor) -> Tensor:
        with Guard(pixels, self.marker):
            return pixels * 2


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)

    @torch.jit.interface
    class Step(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            pass


class Choosing(nn.Module):
    """Calls its part through an interface, so that no graph says which method runs."""

    part: Step

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, pixels: Tensor) -> Tensor:
        return self.part.forward(pixels)


@pytest.mark.parametrize("name", ["with", "interface"])
def test_methods_that_no_graph_calls_are_checked(tmp_path, monkeypatch, name):
    marker = tmp_path / "marker"
    network = Entering(marker) if name == "with" else Choosing(Saving(marker))
    path = scripted(tmp_path / "model.pt", network)
    path = rewritten(path, "torch.save(", "o = ops.aten\n    o.save(")
    torch.jit.load(path)(image())
    assert marker.exists(), "the hostile file is harmless and proves nothing"
    marker.unlink()
    assert "uses ops.aten;" in refusal(path)
    monkeypatch.setattr(torchscript, "check_code", lambda text: None)
    assert "uses aten::save" in refusal(path)
    assert not marker.exists()


def test_networks_may_use_interfaces_and_with(tmp_path):
    class Quiet(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            with torch.no_grad():
                return pixels * 2

    assert torch.equal(open_program(scripted(tmp_path / "a.pt", Choosing(Quiet()))).network(image()), image() * 2)


def test_objects_of_torch_classes_are_refused(tmp_path, monkeypatch):
    class Profiled(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            profile = torch.classes.profiling._ScriptProfile()
            profile.enable()
            return pixels

    path = scripted(tmp_path / "model.pt", Profiled())
    assert "uses objects of torch.classes" in refusal(path)


def test_a_program_cannot_steer_the_terminal(tmp_path):
    class Printing(nn.Module):
        def __init__(self):
            super().__init__()
            self.text = "\x1b[2J"

        def forward(self, pixels: Tensor) -> Tensor:
            print(self.text)
            return pixels

    assert "holds control characters" in refusal(scripted(tmp_path / "model.pt", Printing()))

    class Formatting(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            print("%c[2J" % 27)  # noqa: UP031
            return pixels

    assert "uses torch.percentFormat" in refusal(scripted(tmp_path / "model.pt", Formatting()))


def test_a_tower_of_calls_is_not_written_out(tmp_path):
    """Every method calls the one below twice: 2**40 operators in 41 lines, which torch would inline one by one."""

    class Floor(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return pixels + 1

    class Storey(nn.Module):
        def __init__(self, below: nn.Module) -> None:
            super().__init__()
            self.below = below

        def forward(self, pixels: Tensor) -> Tensor:
            return self.below(self.below(pixels))

    network = Floor()
    for _ in range(40):
        network = Storey(network)
    assert "more than 200,000 operators" in refusal(scripted(tmp_path / "model.pt", network))


def test_modules_that_share_modules_are_not_made_again_and_again(tmp_path):
    """Every module holds the one below twice: 2**40 modules for whoever walks the tree."""
    head = "class M{}(Module):\n  __parameters__ = []\n  __buffers__ = []\n  training : bool\n"
    body = "  def forward(self: __torch__.M{},\n    x: Tensor) -> Tensor:\n    return torch.add(x, 1)\n"

    def tower(height: int) -> Path:
        code = head.format(0) + body.format(0)
        data = b"c__torch__\nM0\n)\x81}(X\x08\x00\x00\x00training\x89ubq\x00"
        for floor in range(1, height):
            below = f"__torch__.M{floor - 1}"
            code += head.format(floor) + f"  a : {below}\n  b : {below}\n" + body.format(floor)
            held = b"X\x01\x00\x00\x00a" + data + b"X\x01\x00\x00\x00bh" + bytes([floor - 1])
            data = f"c__torch__\nM{floor}\n)".encode() + b"\x81}(X\x08\x00\x00\x00training\x89" + held
            data += b"ubq" + bytes([floor])
        path = tmp_path / "tower.pt"
        with zipfile.ZipFile(path, "w") as target:
            target.writestr("m/data.pkl", b"\x80\x02" + data + b".")
            target.writestr("m/constants.pkl", b"\x80\x02).")
            target.writestr("m/code/__torch__.py", code)
            target.writestr("m/version", "3\n")
        return path

    assert torch.equal(open_program(tower(5)).network(image()), image() + 1)
    assert "objects that share others, more than 200,000" in refusal(tower(40))


def test_shapes_beyond_all_memory_are_refused(tmp_path):
    class Huge(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return pixels + torch.zeros(1, 3, 200_000, 200_000).mean()

    assert "makes a tensor of the shape (1, 3, 200000, 200000)" in refusal(scripted(tmp_path / "model.pt", Huge()))


class Trace(nn.Module):
    """Twice its input, with as much of the input's shape frozen by tracing as its name says."""

    def __init__(self, frozen: str) -> None:
        super().__init__()
        self.conv = Double().conv
        self.frozen = frozen

    def forward(self, pixels: Tensor) -> Tensor:
        batch, channels, height, width = (int(length) for length in pixels.shape)
        wide = self.conv(pixels)
        if self.frozen == "size":
            return wide.view(-1, channels, height // 4, 4, width // 4, 4).flatten(4).flatten(2, 3)
        if self.frozen == "resize":
            return nn.functional.interpolate(wide, (height, width))
        if self.frozen == "batch":
            return wide.unbind(0)[batch - 1][None].expand(batch, -1, -1, -1) * 0 + wide
        return wide.view(batch, channels, height, width) if self.frozen == "all" else wide


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("frozen", "count", "size", "batch"),
    [
        ("nothing", 1, None, None),
        ("size", 1, (8, 12), 1),
        ("resize", 1, (8, 12), 1),
        ("batch", 1, None, 1),
        ("batch", 2, None, 2),
        ("all", 2, (8, 12), 2),
    ],
)
def test_what_a_trace_froze_is_found(tmp_path, frozen, count, size, batch):
    path = tmp_path / "model.pt"
    torch.jit.trace(Trace(frozen).eval(), image().expand(count, -1, -1, -1)).save(path)
    program = open_program(path)
    assert (program.size, program.batch, program.channels) == (size, batch, 3)
    for images in (1, 3):
        pixels = torch.rand(images, 3, *(size or (16, 20)))
        assert torch.equal(program.network(pixels), pixels * 2)


class Making(nn.Module):
    """Adds to its input a tensor that it makes."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels + torch.ones(3, 1, 1)


@pytest.mark.parametrize("made_on", ["cpu", "cuda:0"])
def test_a_trace_runs_on_another_device_than_it_was_made_on(tmp_path, made_on):
    path = tmp_path / "model.pt"
    torch.jit.trace(Making().eval(), image()).save(path)
    rewritten(path, 'torch.device("cpu")', f'torch.device("{made_on}")')

    network = open_program(path).network

    torch.testing.assert_close(network(image()), image() + 1)
    assert network.to("meta")(image().to("meta")).device.type == "meta"
    torch.testing.assert_close(network.to("cpu")(image()), image() + 1)


class Pointwise(nn.Module):
    """What torch fuses to one operator, which rounds otherwise."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.tanh(pixels * 1.7 + 0.3).sigmoid() * pixels + torch.exp(-pixels * pixels)


@pytest.fixture
def fusing():
    """Has torch fuse operators on the CPU, as it does on CUDA."""
    before = torch._C._jit_can_fuse_on_cpu(), torch._C._jit_get_te_must_use_llvm_cpu()
    torch._C._jit_override_can_fuse_on_cpu(True)
    torch._C._jit_set_te_must_use_llvm_cpu(False)
    yield
    torch._C._jit_override_can_fuse_on_cpu(before[0])
    torch._C._jit_set_te_must_use_llvm_cpu(before[1])


def test_no_frame_of_torchscript_depends_on_how_many_came_before(tmp_path, fusing):
    path = scripted(tmp_path / "model.pt", Pointwise())
    network, pixels = open_program(path).network, image(64, 64)

    def answers(program: nn.Module) -> list[Tensor]:
        with torch.inference_mode():
            return [program(pixels) for _ in range(5)]

    alone, *later = answers(torch.jit.load(str(path)))
    assert not all(torch.equal(alone, each) for each in later)  # else this test would show nothing
    first, *others = answers(network)
    assert all(torch.equal(first, each) for each in others)


def test_the_weights_of_a_trace_move_with_it(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.trace(Double().eval(), image()).save(path)
    network = open_program(path).network

    assert {each.device.type for each in network.to("meta").parameters()} == {"meta"}
    assert not any(each.requires_grad for each in network.parameters())


def test_traces_of_other_things_than_images_are_refused(tmp_path):
    torch.jit.trace(nn.Linear(3, 3), torch.rand(4, 3)).save(tmp_path / "model.pt")
    assert "was traced with a tensor of 2 dimensions; expected one image" in refusal(tmp_path / "model.pt")


def test_an_example_of_any_size_is_no_reason_to_make_one(tmp_path):
    torch.jit.trace(Double(), image()).save(tmp_path / "model.pt")
    shape = b"(K\x01K\x03K\x08K\x0ct"

    def larger(data: bytes) -> bytes:
        assert shape in data
        return data.replace(shape, b"(K\x01J\x00\x00\x00\x10K\x08K\x0ct")

    text = refusal(edited(tmp_path / "model.pt", {"traced_inputs.pkl": larger}))
    assert "was traced with a tensor of the shape (1, 268435456, 8, 12)" in text


def test_only_functions_of_the_file_are_called():
    graph = torch.jit.script(Choosing(Double()).part).forward.graph
    with pytest.raises(torchscript.Unsafe, match=r"calls __torch__\..*conv"):
        torchscript._check_graphs({"forward": graph})


def test_code_outside_of_classes_is_refused(tmp_path):
    path = scripted(tmp_path / "model.pt", Double())
    path = edited(path, {code_of(path): lambda data: data + f"y : int = torch.len({FILE})\n".encode()})
    assert "holds code outside of its classes" in refusal(path)


def test_empty_lines_do_not_exhaust_the_stack(tmp_path):
    """torch 2.13 crashes; so there is no control here."""
    path = scripted(tmp_path / "model.pt", Double())
    for blank in (b"\n", b"  \n"):
        lines = blank * (7_900_000 // len(blank))
        text = refusal(edited(path, {code_of(path): lambda data, lines=lines: data + lines}))
        assert "code that torch does not write" in text
