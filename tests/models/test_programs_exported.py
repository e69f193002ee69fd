"""torch.export, written by torch; hostile files would leave a marker file if their code ran."""

import contextlib
import json
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dailies.models.programs.sizes import Sizes
from helpers.program_files import Blocks, Double, Evil, edited, exported, image, load, refused, same, saved
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


def test_an_export_of_one_size_takes_that_size_only(tmp_path):
    program = load(exported(tmp_path / "model.pt2", Double()))
    assert (program.kind, program.sizes.fixed, program.channels, program.batch) == ("export", (8, 12), 3, 1)
    assert torch.equal(program.network(image()), image() * 2)
    with pytest.raises(AssertionError, match=r"Guard failed: .*== 12"):
        program.network(image(8, 16))


def test_a_dynamic_export_takes_sizes_within_its_bounds(tmp_path):
    height, width = torch.export.Dim("height", min=2, max=100), torch.export.Dim("width", min=4)
    path = exported(tmp_path / "model.pt2", Double(), height=4 * height, width=2 * width, batch=torch.export.Dim.AUTO)
    program = load(path)
    assert program.batch == 1
    assert program.sizes == Sizes(multiple=4, least=(8, 8), most=(400, None))
    assert torch.equal(program.network(image(20, 28)), image(20, 28) * 2)


def test_conditions_that_an_export_does_not_declare_are_found(tmp_path):
    class Windows(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            height, width = pixels.shape[2:]
            return pixels.view(3, height // 4, 4, width // 4, 4).flip(2, 4).view(1, 3, height, width)

    auto = torch.export.Dim.AUTO
    network = Windows()
    program = load(exported(tmp_path / "model.pt2", network, image(32, 48), height=auto, width=auto))
    assert (program.sizes.fixed, program.sizes.multiple) == (None, 4), "only the guards reveal windows of 4"
    assert same(program.network(image(36, 20)), network(image(36, 20)))
    with pytest.raises(AssertionError, match="Guard failed"):
        program.network(image(34, 48))


def test_a_program_with_little_freedom_has_one_size(tmp_path):
    side = torch.export.Dim("side", min=2, max=300)
    square = load(exported(tmp_path / "a.pt2", Double(), image(8, 8), height=2 * side, width=2 * side))
    assert square.sizes.fixed == (512, 512)
    assert torch.equal(square.network(image(512, 512)), image(512, 512) * 2)
    strip = load(exported(tmp_path / "b.pt2", Double(), width=torch.export.Dim("width", max=100)))
    assert strip.sizes.fixed == (8, 100)
    assert torch.equal(strip.network(image(8, 100)), image(8, 100) * 2)


def test_an_export_computes_what_torch_computes(tmp_path):
    torch.manual_seed(0)
    network = Blocks().eval()
    plain = torch.export.export(network, (image(),))
    for program in (plain, plain.run_decompositions()):
        torch.export.save(program, tmp_path / "model.pt2")
        opened = load(tmp_path / "model.pt2").network
        assert same(opened(image()), program.module()(image()))
        assert same(opened.to(memory_format=torch.channels_last)(image()), network(image()))


def test_an_export_runs_on_the_device_of_its_input(tmp_path):
    class Grid(nn.Module):
        def forward(self, pixels):
            return pixels + torch.arange(pixels.shape[3], device=pixels.device)

    opened = load(exported(tmp_path / "model.pt2", Grid())).network
    assert opened.to("meta")(image().to("meta")).device.type == "meta", "exported on the CPU"


def test_branches_of_an_export_are_run(tmp_path):
    class Bright(nn.Module):
        def forward(self, pixels):
            return torch.cond(pixels.mean() > 0.5, lambda value: value - 1, lambda value: value + 1, (pixels,))

    opened = load(exported(tmp_path / "model.pt2", Bright())).network
    assert torch.equal(opened(torch.ones(1, 3, 8, 12)), torch.zeros(1, 3, 8, 12))
    assert torch.equal(opened(torch.zeros(1, 3, 8, 12)), torch.ones(1, 3, 8, 12))


def test_outputs_keep_their_structure(tmp_path):
    class Forms(nn.Module):
        def forward(self, pixels):
            return OrderedDict(a=pixels, b=(pixels + 1, None, [pixels * 2]))

    opened = load(exported(tmp_path / "model.pt2", Forms())).network
    assert same(opened(image()), Forms()(image()))
    assert isinstance(opened(image()), OrderedDict)


def test_no_frame_depends_on_the_one_before(tmp_path):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, pixels):
            count = self.count + 1
            self.count.copy_(count)
            return pixels + count

    program = torch.export.export(Counting(), (image(),)).run_decompositions()
    torch.export.save(program, tmp_path / "model.pt2")
    opened = load(tmp_path / "model.pt2").network
    assert torch.equal(opened(image()), opened(image()))


def as_of_torch_2_7(path: Path, network: nn.Module) -> Path:
    from torch._export.serde.serialize import serialize

    artifact = serialize(torch.export.export(network, (image(),)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_exported_program.json", artifact.exported_program)
        archive.writestr("serialized_state_dict.pt", artifact.state_dict)
        archive.writestr("serialized_constants.pt", artifact.constants)
        archive.writestr("serialized_example_inputs.pt", artifact.example_inputs)
    return path


def test_an_export_of_torch_2_7_is_opened(tmp_path):
    path = as_of_torch_2_7(tmp_path / "old.pt2", Double())
    assert torch.equal(load(path).network(image()), image() * 2)


def graph(change: Callable[[dict], None]) -> dict[str, Callable[[bytes], bytes]]:
    def edit(data: bytes) -> bytes:
        program = json.loads(data)
        change(program)
        return json.dumps(program).encode()

    return {"models/model.json": edit}


def evil_guard(program: dict, marker: Path) -> None:
    program["guards_code"] = [f"open({str(marker)!r}, 'w') is None"]


def evil_form(program: dict, marker: Path) -> None:
    marker.with_name("hostile_module.py").write_text(f"open({str(marker)!r}, 'w')\ndef made(): pass\n")
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    version, form = json.loads(signature["out_spec"])
    context = {"default_factory_module": "hostile_module", "default_factory_name": "made", "dict_context": ["a"]}
    form = {"type": "collections.defaultdict", "context": context, "children_spec": [form]}
    signature["out_spec"] = json.dumps([version, form])


def evil_weights(data: bytes) -> bytes:
    config = json.loads(data)
    for entry in config["config"].values():
        entry["use_pickle"] = True
    return json.dumps(config).encode()


HOSTILE = {
    "weights": lambda marker: {
        "data/weights/model_weights_config.json": evil_weights,
        "data/weights/weight_0": lambda _: saved(Evil(marker)),
        "data/weights/weight_1": lambda _: saved(Evil(marker)),
    },
    "example": lambda marker: {"data/sample_inputs/model.pt": lambda _: saved(Evil(marker))},
    "condition": lambda marker: graph(lambda program: evil_guard(program, marker)),
    "form": lambda marker: graph(lambda program: evil_form(program, marker)),
}
"""What changes an archive so that it leaves a marker when torch loads or runs it."""


@pytest.mark.parametrize("name", HOSTILE)
def test_exports_need_permission(tmp_path, monkeypatch, name):
    marker = tmp_path / "marker"
    path = edited(exported(tmp_path / "model.pt2", Double()), HOSTILE[name](marker))
    monkeypatch.syspath_prepend(tmp_path)
    with contextlib.suppress(Exception):  # torch may well fail, once the harm is done
        torch.export.load(path).module()(image())
    assert marker.exists(), "the hostile file is harmless and proves nothing"
    marker.unlink()
    sys.modules.pop("hostile_module", None)

    with refused("model.needs_permission", "edited_model.pt2", "torch.export", "trust_code"):
        load(path, trusted=False)

    assert not marker.exists()
    assert "hostile_module" not in sys.modules


@pytest.mark.parametrize("made_with", ["torch 2.13", "torch 2.7"])
def test_an_export_made_on_cuda_runs_without_cuda(tmp_path, made_with):
    def on_cuda(data: bytes) -> bytes:
        cpu, cuda = {"type": "cpu", "index": None}, {"type": "cuda", "index": 0}
        return json.dumps(json.loads(data, object_hook=lambda item: cuda if item == cpu else item)).encode()

    if made_with == "torch 2.7":
        path = as_of_torch_2_7(tmp_path / "model.pt2", Double())
        edits = {"serialized_exported_program.json": on_cuda}
    else:
        path = exported(tmp_path / "model.pt2", Double())
        edits = dict.fromkeys(("models/model.json", "data/weights/model_weights_config.json"), on_cuda)
    network = load(edited(path, edits)).network

    assert torch.equal(network(image()), image() * 2)


def test_machine_code_is_not_loaded(tmp_path):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/data/aotinductor/model/evil.so", b"\x7fELF")
    with refused("program.machine_code", "model.pt2", "AOTInductor"):
        load(path)


def test_sides_that_are_multiples_with_bounds(tmp_path):
    height, width = torch.export.Dim("height", min=2, max=64), torch.export.Dim("width", min=3)
    program = load(exported(tmp_path / "m.pt2", Double(), image(32, 48), height=8 * height, width=8 * width))
    assert program.sizes == Sizes(multiple=8, least=(16, 24), most=(512, None))
    assert torch.equal(program.network(image(40, 56)), image(40, 56) * 2)


@pytest.mark.parametrize(
    ("count", "batch", "expected"),
    [
        (1, None, 1),
        (2, None, 2),
        (2, torch.export.Dim("batch"), None),
        (2, torch.export.Dim.AUTO, None),
        (4, torch.export.Dim("batch", min=3), 3),
    ],
)
def test_any_number_of_images_is_taken(tmp_path, count, batch, expected):
    example = torch.rand(count, 3, 8, 12)
    path = exported(tmp_path / "m.pt2", Double(), example, **({} if batch is None else {"batch": batch}))
    program = load(path)
    assert (program.batch, program.sizes.fixed) == (expected, (8, 12))
    for images in (1, 2, 3, 5):
        pixels = torch.rand(images, 3, 8, 12)
        assert torch.equal(program.network(pixels), pixels * 2)


def test_all_outputs_of_several_batches_are_joined(tmp_path):
    class Several(nn.Module):
        def forward(self, pixels):
            return {"image": pixels + 1, "parts": (pixels * 2, None), "number": torch.ones(())}

    network = load(exported(tmp_path / "m.pt2", Several(), torch.rand(2, 3, 8, 12))).network
    pixels = torch.rand(3, 3, 8, 12)
    assert same(network(pixels), Several()(pixels))


class Overwriting(nn.Module):
    """Changes its input and its own weights, directly and through views of them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(2))

    def forward(self, pixels: Tensor) -> Tensor:
        self.count[1].add_(1)
        pixels.view(-1).mul_(2)
        return pixels + self.count[1]


def test_programs_change_neither_themselves_nor_their_input(tmp_path):
    network = load(exported(tmp_path / "model.pt2", Overwriting())).network
    pixels = image()
    for _ in range(2):
        assert torch.equal(network(pixels), image() * 2 + 1)
        assert torch.equal(pixels, image())
