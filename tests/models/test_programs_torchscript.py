"""TorchScript, written by torch; hostile files would leave a marker file if their code ran."""

import zipfile
from pathlib import Path

import pytest
import torch
from dailies.models.programs.program import member_name
from helpers.program_files import Double, edited, image, load, refused, same, scripted
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


@pytest.mark.parametrize("writer", ["script", "trace"])
def test_torchscript_computes_what_the_network_computes(tmp_path, writer):
    network, path = Double().eval(), tmp_path / "model.pt"
    (torch.jit.script(network) if writer == "script" else torch.jit.trace(network, image())).save(path)
    program = load(path)
    assert (program.kind, program.sizes.fixed, program.channels) == ("torchscript", None, 3)
    assert torch.equal(program.network(image(5, 7)), network(image(5, 7)))
    assert not program.network.training
    assert not any(parameter.requires_grad for parameter in program.network.parameters())


class Language(nn.Module):
    """Uses the language of TorchScript beyond operators."""

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
    program = load(scripted(tmp_path / "model.pt", network))
    assert same(program.network(image()), network(image()))
    assert program.channels == 3


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
def test_torchscript_needs_permission(tmp_path, hostile):
    marker = tmp_path / "marker"
    path = scripted(tmp_path / "model.pt", hostile(marker))
    marker.unlink(missing_ok=True)
    torch.jit.load(path)(image())
    assert marker.exists(), "the hostile file is harmless and proves nothing"
    marker.unlink()
    with refused("model.needs_permission", "model.pt", "TorchScript", "trust_code"):
        load(path, trusted=False)
    assert not marker.exists()


def rewritten(path: Path, old: str, new: str) -> Path:
    """Change the code in a file."""
    with zipfile.ZipFile(path) as archive:
        names = [member_name(name) for name in archive.namelist() if old.encode() in archive.read(name)]
    assert names
    return edited(path, dict.fromkeys(names, lambda data: data.replace(old.encode(), new.encode())))


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
    program = load(path)
    assert (program.sizes.fixed, program.batch, program.channels) == (size, batch, 3)
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

    network = load(path).network

    torch.testing.assert_close(network(image()), image() + 1)
    assert network.to("meta")(image().to("meta")).device.type == "meta"
    torch.testing.assert_close(network.to("cpu")(image()), image() + 1)


class Pointwise(nn.Module):
    """Operators that torch fuses to one, which rounds differently."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.tanh(pixels * 1.7 + 0.3).sigmoid() * pixels + torch.exp(-pixels * pixels)


@pytest.fixture
def fusing():
    """Let torch fuse operators on the CPU, as it does on CUDA."""
    before = torch._C._jit_can_fuse_on_cpu(), torch._C._jit_get_te_must_use_llvm_cpu()
    torch._C._jit_override_can_fuse_on_cpu(True)
    torch._C._jit_set_te_must_use_llvm_cpu(False)
    yield
    torch._C._jit_override_can_fuse_on_cpu(before[0])
    torch._C._jit_set_te_must_use_llvm_cpu(before[1])


def test_every_run_of_torchscript_returns_the_same_bits(tmp_path, fusing):
    path = scripted(tmp_path / "model.pt", Pointwise())
    network, pixels = load(path).network, image(8, 8)

    def answers(program: nn.Module) -> list[Tensor]:
        with torch.inference_mode():
            return [program(pixels) for _ in range(5)]

    alone, *later = answers(torch.jit.load(str(path)))
    assert not all(torch.equal(alone, each) for each in later)  # otherwise this test proves nothing
    first, *others = answers(network)
    assert all(torch.equal(first, each) for each in others)


def test_the_weights_of_a_trace_move_with_it(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.trace(Double().eval(), image()).save(path)
    network = load(path).network

    assert {each.device.type for each in network.to("meta").parameters()} == {"meta"}
    assert not any(each.requires_grad for each in network.parameters())


def test_traces_of_other_tensors_than_images_are_refused(tmp_path):
    torch.jit.trace(nn.Linear(3, 3), torch.rand(4, 3)).save(tmp_path / "model.pt")
    with refused("program.takes_no_image", "model.pt", "2 dimensions"):
        load(tmp_path / "model.pt")
