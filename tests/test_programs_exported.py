"""torch.export, written by torch; hostile files would leave a marker file if their code ran."""

import contextlib
import io
import json
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from dailies.errors import RenderError
from dailies.programs import conditions, open_program
from helpers.program_files import Blocks, Double, Evil, edited, exported, image, refusal, same, saved
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


def test_an_export_of_one_size_takes_that_size_only(tmp_path):
    program = open_program(exported(tmp_path / "model.pt2", Double()))
    assert (program.kind, program.size, program.channels, program.batch) == ("export", (8, 12), 3, 1)
    assert torch.equal(program.network(image()), image() * 2)
    with pytest.raises(RenderError, match=r"takes 1×3×8×12 and was given 1×3×8×16"):
        program.network(image(8, 16))


def test_a_dynamic_export_takes_sizes_within_its_bounds(tmp_path):
    height, width = torch.export.Dim("height", min=2, max=100), torch.export.Dim("width", min=4)
    path = exported(tmp_path / "model.pt2", Double(), height=4 * height, width=2 * width, batch=torch.export.Dim.AUTO)
    program = open_program(path)
    assert (program.size, program.batch) == (None, 1)
    assert (program.multiple, program.least, program.most) == (4, (8, 8), (400, None))
    assert torch.equal(program.network(image(20, 28)), image(20, 28) * 2)


def test_the_conditions_of_an_export_are_found_and_kept(tmp_path):
    class Windows(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            height, width = pixels.shape[2:]
            return pixels.view(3, height // 4, 4, width // 4, 4).flip(2, 4).view(1, 3, height, width)

    auto = torch.export.Dim.AUTO
    network = Windows()
    program = open_program(exported(tmp_path / "model.pt2", network, image(32, 48), height=auto, width=auto))
    assert (program.size, program.multiple) == (None, 4), "windows of 4: no symbol says so, only the guards do"
    assert same(program.network(image(36, 20)), network(image(36, 20)))
    with pytest.raises(RenderError, match=r"the program does not take 1×3×34×48: .* must hold"):
        program.network(image(34, 48))


def test_a_program_with_little_freedom_is_given_one_size(tmp_path):
    side = torch.export.Dim("side", min=2, max=300)
    square = open_program(exported(tmp_path / "a.pt2", Double(), image(8, 8), height=2 * side, width=2 * side))
    assert square.size == (512, 512)
    assert torch.equal(square.network(image(512, 512)), image(512, 512) * 2)
    strip = open_program(exported(tmp_path / "b.pt2", Double(), width=torch.export.Dim("width", max=100)))
    assert strip.size == (8, 100)
    assert torch.equal(strip.network(image(8, 100)), image(8, 100) * 2)


@pytest.mark.parametrize("decomposed", [False, True])
def test_an_export_gives_what_torch_gives(tmp_path, decomposed):
    torch.manual_seed(0)
    network = Blocks().eval()
    program = torch.export.export(network, (image(),))
    program = program.run_decompositions() if decomposed else program
    torch.export.save(program, tmp_path / "model.pt2")
    opened = open_program(tmp_path / "model.pt2").network
    assert same(opened(image()), program.module()(image()))
    assert same(opened.to(memory_format=torch.channels_last)(image()), network(image()))


def test_an_export_runs_on_the_device_of_its_input(tmp_path):
    class Grid(nn.Module):
        def forward(self, pixels):
            return pixels + torch.arange(pixels.shape[3], device=pixels.device)

    opened = open_program(exported(tmp_path / "model.pt2", Grid())).network
    assert opened.to("meta")(image().to("meta")).device.type == "meta", "exported on the CPU"


def test_branches_of_an_export_are_run(tmp_path):
    class Bright(nn.Module):
        def forward(self, pixels):
            return torch.cond(pixels.mean() > 0.5, lambda value: value - 1, lambda value: value + 1, (pixels,))

    opened = open_program(exported(tmp_path / "model.pt2", Bright())).network
    assert torch.equal(opened(torch.ones(1, 3, 8, 12)), torch.zeros(1, 3, 8, 12))
    assert torch.equal(opened(torch.zeros(1, 3, 8, 12)), torch.ones(1, 3, 8, 12))


def test_outputs_keep_their_form(tmp_path):
    class Forms(nn.Module):
        def forward(self, pixels):
            return OrderedDict(a=pixels, b=(pixels + 1, None, [pixels * 2]))

    opened = open_program(exported(tmp_path / "model.pt2", Forms())).network
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
    opened = open_program(tmp_path / "model.pt2").network
    assert torch.equal(opened(image()), opened(image()))


def test_an_export_of_torch_2_7_is_opened(tmp_path):
    from torch._export.serde.serialize import serialize

    artifact = serialize(torch.export.export(Double(), (image(),)))
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_exported_program.json", artifact.exported_program)
        archive.writestr("serialized_state_dict.pt", artifact.state_dict)
        archive.writestr("serialized_constants.pt", artifact.constants)
        archive.writestr("serialized_example_inputs.pt", artifact.example_inputs)
    assert torch.equal(open_program(tmp_path / "old.pt2").network(image()), image() * 2)
    old = tmp_path / "old.pt2"
    hostile = edited(old, {}, {})
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(hostile, "w") as target:
        for name in source.namelist():
            target.writestr(name, saved(Evil(tmp_path / "marker")) if "state" in name else source.read(name))
    assert "holds a pickle of more than tensors" in refusal(hostile)
    assert not (tmp_path / "marker").exists()


def graph(change):
    def edit(data: bytes) -> bytes:
        program = json.loads(data)
        change(program)
        return json.dumps(program).encode()

    return {"models/model.json": edit}


def graph_of(program: dict) -> dict:
    return program["graph_module"]["graph"]


def evil_size(program: dict, marker: Path) -> None:
    code = f"Integer(8) if open({str(marker)!r}, 'w') else 0"
    graph_of(program)["tensor_values"]["pixels"]["sizes"][2] = {"as_expr": {"expr_str": code, "hint": {"as_int": 8}}}


def evil_guard(program: dict, marker: Path) -> None:
    program["guards_code"] = [f"open({str(marker)!r}, 'w') is None"]


def evil_name(program: dict, marker: Path) -> None:
    text = json.dumps(program).replace('"pixels"', json.dumps(f"pixels=open({str(marker)!r}, 'w')"))
    program.clear()
    program.update(json.loads(text))


def evil_form(program: dict, marker: Path) -> None:
    marker.with_name("hostile_module.py").write_text(f"open({str(marker)!r}, 'w')\ndef made(): pass\n")
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    version, form = json.loads(signature["out_spec"])
    context = {"default_factory_module": "hostile_module", "default_factory_name": "made", "dict_context": ["a"]}
    form = {"type": "collections.defaultdict", "context": context, "children_spec": [form]}
    signature["out_spec"] = json.dumps([version, form])


def evil_operator(program: dict, marker: Path) -> None:
    graph_of(program)["nodes"].insert(
        0,
        {
            "target": "torch.ops.aten.from_file.default",
            "inputs": [
                {"name": "filename", "arg": {"as_string": str(marker)}, "kind": 1},
                {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
                {"name": "size", "arg": {"as_int": 4}, "kind": 1},
            ],
            "outputs": [{"as_tensor": {"name": "evil"}}],
            "metadata": {},
            "name": "evil",
        },
    )
    meta = graph_of(program)["tensor_values"]["pixels"]
    graph_of(program)["tensor_values"]["evil"] = meta | {"sizes": [{"as_int": 4}], "strides": [{"as_int": 1}]}


def pickled(data: bytes) -> bytes:
    config = json.loads(data)
    for entry in config["config"].values():
        entry["use_pickle"] = True
    return json.dumps(config).encode()


OPAQUE = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}


HOSTILE_EXPORTS = {
    # what changes the archive, and what the refusal says; None: what is evil is not needed and never looked at
    "weights": (
        lambda marker: {
            "data/weights/model_weights_config.json": pickled,
            "data/weights/weight_0": lambda _: saved(Evil(marker)),
            "data/weights/weight_1": lambda _: saved(Evil(marker)),
        },
        "holds a pickled object, 'conv.weight'",
    ),
    "old weights": (lambda marker: {"+data/weights/model.pt": saved(Evil(marker))}, "a pickle of more than tensors"),
    "object": (
        lambda marker: {
            "data/constants/model_constants_config.json": lambda _: json.dumps({"config": {"z": OPAQUE}}).encode(),
            "+data/constants/opaque_obj_0": pickle.dumps(Evil(marker)),
        },
        "holds a pickled object, 'z'",
    ),
    "operator": (
        lambda marker: graph(lambda program: evil_operator(program, marker)),
        "calls torch.ops.aten.from_file",
    ),
    "condition": (lambda marker: graph(lambda program: evil_guard(program, marker)), "a condition that is not arith"),
    "example": (lambda marker: {"data/sample_inputs/model.pt": lambda _: saved(Evil(marker))}, None),
    "size": (lambda marker: graph(lambda program: evil_size(program, marker)), None),
    "name": (lambda marker: graph(lambda program: evil_name(program, marker)), None),
    "form": (lambda marker: graph(lambda program: evil_form(program, marker)), None),
}


@pytest.mark.parametrize("name", HOSTILE_EXPORTS)
def test_hostile_exports_run_nothing(tmp_path, monkeypatch, name):
    change, reason = HOSTILE_EXPORTS[name]
    marker = tmp_path / "marker"
    edits = change(marker)
    path = exported(tmp_path / "model.pt2", Double())
    path = edited(
        path,
        {key: edit for key, edit in edits.items() if not key.startswith("+")},
        {key[1:]: data for key, data in edits.items() if key.startswith("+")},
    )
    monkeypatch.syspath_prepend(tmp_path)
    with contextlib.suppress(Exception):  # torch may well fail, once the harm is done
        torch.export.load(path).module()(image())
    assert marker.exists(), "the hostile file is harmless and proves nothing"
    marker.unlink()
    sys.modules.pop("hostile_module", None)

    if reason is None:
        answer = open_program(path).network(image())
        assert torch.equal(answer[0] if name == "form" else answer, image() * 2)
    else:
        text = refusal(path)
        assert "edited_model.pt2 is a torch.export program that " in text
        assert reason in text
        assert text.endswith("set trust_pickle to true only if you trust whoever wrote it")
    assert not marker.exists()
    assert "hostile_module" not in sys.modules


@pytest.mark.parametrize(
    "target",
    [
        "torch.serialization.os.system",
        "torch.hub.load",
        "torch.ops.aten.save.default",
        "torch.ops.aten.set_.source_Storage",
        "torch.ops.quantized.conv2d.new",
        "torch.ops.aten.__class__",
        "torch.ops.aten.add",
        "torch.ops.higher_order.triton_kernel_wrapper_functional",
        "_operator.methodcaller",
        "math.__loader__.load_module",
        "#extension:op",
        "aten.add.Tensor",
        "",
    ],
)
def test_operators_are_harmless_or_refused(tmp_path, target):
    def change(program):
        graph_of(program)["nodes"][0]["target"] = target

    text = refusal(edited(exported(tmp_path / "model.pt2", Double()), graph(change)))
    assert "which is not in the list of harmless operators" in text or "has no operator" in text


def test_an_export_that_is_unsafe_and_harmless_opens_when_trusted(tmp_path):
    network = Double()
    weights = {"weight_0": network.conv.weight, "weight_1": network.conv.bias}
    edits = {f"data/weights/{name}": lambda _, value=value: saved(value) for name, value in weights.items()}
    path = exported(tmp_path / "model.pt2", network)
    path = edited(path, {"data/weights/model_weights_config.json": pickled, **edits})
    assert "holds a pickled object" in refusal(path)
    program = open_program(path, trusted=True)
    assert (program.trusted, program.size) == (True, (8, 12))
    assert torch.equal(program.network.eval()(image()), image() * 2)


def test_conditions_are_arithmetic_only():
    for text in (
        "__import__('os').system('true')",
        "L['pixels'].size.__globals__",
        "L['pixels'].size()[2].__class__",
        "[1 for _ in L]",
        "max.__self__.exec('1')",
        "(lambda: 1)()",
        "2 ** 99999999999",
        "f'{1}'",
        "L['pixels'].size()[9] == 1",
        "1 +",
        "",
    ):
        with pytest.raises(conditions.Unsafe):
            conditions.condition(text)
    holds = conditions.condition("(L['pixels'].size()[3] % 4 == 0) and not max(1, L['pixels'].size()[2] // 2) < 8")
    assert conditions._holds(holds, (1, 3, 16, 8))
    assert not conditions._holds(holds, (1, 3, 16, 9))
    assert not conditions._holds(holds, (1, 3, 14, 8))


def test_tensors_of_an_export_lie_within_their_records(tmp_path):
    path = exported(tmp_path / "model.pt2", Double())

    def larger(data: bytes) -> bytes:
        config = json.loads(data)
        config["config"]["conv.weight"]["tensor_meta"]["sizes"][0]["as_int"] = 2**40
        return json.dumps(config).encode()

    text = refusal(edited(path, {"data/weights/model_weights_config.json": larger}))
    assert "declares the shape (1099511627776, 3, 3, 3), its storage has 81 elements" in text


def test_machine_code_is_not_loaded(tmp_path):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/data/aotinductor/model/evil.so", b"\x7fELF")
    for trusted in (False, True):
        assert "machine code for one kind of computer (AOTInductor)" in refusal(path, trusted=trusted)


def test_sides_that_are_multiples_with_bounds(tmp_path):
    height, width = torch.export.Dim("height", min=2, max=64), torch.export.Dim("width", min=3)
    program = open_program(exported(tmp_path / "m.pt2", Double(), image(32, 48), height=8 * height, width=8 * width))
    assert (program.size, program.multiple, program.least, program.most) == (None, 8, (16, 24), (512, None))
    assert torch.equal(program.network(image(40, 56)), image(40, 56) * 2)


def test_sizes_as_torch_2_5_writes_them(tmp_path):
    """``8*s0`` where torch writes ``Mul(Integer(8), Symbol('s0'))`` now."""

    def old(program):
        ranges, sizes = program["range_constraints"], graph_of(program)["tensor_values"]["pixels"]["sizes"]
        for size, name in zip(sizes[2:], ("s0", "s1"), strict=True):
            ranges[name] = {"min_val": 2, "max_val": 32}
            size["as_expr"]["expr_str"] = f"8*{name}"
        program["guards_code"] = []

    height, width = torch.export.Dim("height"), torch.export.Dim("width")
    path = exported(tmp_path / "m.pt2", Double(), image(32, 48), height=8 * height, width=8 * width)
    program = open_program(edited(path, graph(old)))
    assert (program.size, program.multiple, program.least, program.most) == (None, 8, (16, 16), (256, 256))


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
    program = open_program(path)
    assert (program.batch, program.size) == (expected, (8, 12))
    for images in (1, 2, 3, 5):
        pixels = torch.rand(images, 3, 8, 12)
        assert torch.equal(program.network(pixels), pixels * 2)


def test_all_outputs_are_put_together_again(tmp_path):
    class Several(nn.Module):
        def forward(self, pixels):
            return {"image": pixels + 1, "parts": (pixels * 2, None), "number": torch.ones(())}

    network = open_program(exported(tmp_path / "m.pt2", Several(), torch.rand(2, 3, 8, 12))).network
    pixels = torch.rand(3, 3, 8, 12)
    assert same(network(pixels), Several()(pixels))


def test_what_mlflow_writes_is_opened(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    folder, example = tmp_path / "model", image().numpy()
    mlflow.pytorch.save_model(
        Double().eval(), folder, input_example=example, serialization_format="pt2", pip_requirements=["torch"]
    )
    program = open_program(folder / "data" / "model.pt2")
    assert (program.kind, program.size, program.channels) == ("export", (8, 12), 3)
    assert torch.equal(program.network(image()), image() * 2)


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
    network = open_program(exported(tmp_path / "model.pt2", Overwriting())).network
    pixels = image()
    for _ in range(2):
        assert torch.equal(network(pixels), image() * 2 + 1)
        assert torch.equal(pixels, image())


def test_transforms_stay_within_their_dimensions(tmp_path):
    class Spectrum(nn.Module):
        def forward(self, pixels):
            return torch.fft.irfft2(torch.fft.rfft2(pixels) * 2, s=pixels.shape[2:])

    program = torch.export.export(Spectrum(), (image(),)).run_decompositions()
    torch.export.save(program, tmp_path / "model.pt2")
    assert same(open_program(tmp_path / "model.pt2").network(image()), Spectrum()(image()))

    def beyond(program):
        nodes = [node for node in graph_of(program)["nodes"] if "_fft_r2c" in node["target"]]
        nodes[0]["inputs"][1]["arg"] = {"as_ints": [2**62]}

    network = open_program(edited(tmp_path / "model.pt2", graph(beyond))).network
    with pytest.raises(RenderError, match="transforms dimensions that a tensor of 4 does not have"):
        network(image())


def test_shapes_beyond_all_memory_are_refused(tmp_path):
    class Huge(nn.Module):
        def forward(self, pixels):
            return pixels + torch.zeros(1, 3, 8, 12)

    def huge(program):
        nodes = [node for node in graph_of(program)["nodes"] if "zeros" in node["target"]]
        nodes[0]["inputs"][0]["arg"] = {"as_ints": [1, 3, 200_000, 200_000]}

    path = edited(exported(tmp_path / "model.pt2", Huge()), graph(huge))
    assert "makes a tensor of the shape (1, 3, 200000, 200000)" in refusal(path)


def test_numbers_beyond_all_memory_are_not_computed(tmp_path):
    def power(program):
        numbers = [{"name": name, "arg": {"as_int": 10**9}, "kind": 1} for name in "ab"]
        node = {"target": "_operator.pow", "inputs": numbers, "outputs": [{"as_sym_int": {"as_name": "large"}}]}
        graph_of(program)["nodes"].insert(0, node)

    network = open_program(edited(exported(tmp_path / "model.pt2", Double()), graph(power))).network
    with pytest.raises(RenderError, match="a power beyond 64"):
        network(image())
    with pytest.raises(conditions.Unsafe):
        conditions.condition("_operator.pow(9, 9999999999) > L['pixels'].size()[2]")


def test_a_zip_bomb_of_weights_is_not_unpacked(tmp_path):
    path = exported(tmp_path / "model.pt2", Double())
    bomb = path.with_name("bomb.pt2")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, bytes(100 * 2**20) if name.endswith("weight_0") else source.read(name))
    assert "that declare to hold" in refusal(bomb)


def test_graphs_within_graphs_are_checked(tmp_path):
    class Bright(nn.Module):
        def forward(self, pixels):
            return torch.cond(pixels.mean() > 0.5, lambda value: value - 1, lambda value: value + 1, (pixels,))

    def change(program):
        conditional = next(node for node in graph_of(program)["nodes"] if node["target"].endswith("cond"))
        inner = next(item["arg"]["as_graph"]["graph"] for item in conditional["inputs"] if "as_graph" in item["arg"])
        inner["nodes"][0]["target"] = "torch.ops.aten.from_file.default"

    path = exported(tmp_path / "model.pt2", Bright())
    assert "calls torch.ops.aten.from_file" in refusal(edited(path, graph(change)))


def test_modules_that_are_named_beside_a_program_are_not_imported(tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    (tmp_path / "hostile_pickle.py").write_text(f"open({str(marker)!r}, 'w')\n")
    (tmp_path / "pickle_module_info.txt").write_text("hostile_pickle")
    monkeypatch.syspath_prepend(tmp_path)
    path = edited(exported(tmp_path / "model.pt2", Double()), {}, {"pickle_module_info.txt": b"hostile_pickle"})
    assert torch.equal(open_program(path).network(image()), image() * 2)
    assert not marker.exists()


def test_a_zip_bomb_within_an_old_file_is_not_unpacked(tmp_path):
    """What lies in an archive is an archive of its own in files of torch up to 2.7."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/version", "3")
        archive.writestr("archive/data/0", bytes(100 * 2**20))
    path = edited(exported(tmp_path / "m.pt2", Double()), {}, {"data/weights/model.pt": inner.getvalue()})
    assert "that declare to hold 104,857,6" in refusal(path)


def test_what_torch_does_not_write_is_refused(tmp_path):
    path = exported(tmp_path / "m.pt2", Double())

    def object_passed(program):
        graph_of(program)["nodes"][0]["inputs"][0]["arg"] = {"as_custom_obj": {"name": "x", "class_fqn": "y"}}

    def object_taken(program):
        program["graph_module"]["signature"]["input_specs"][0] = {"custom_obj": {"custom_obj_name": "x"}}

    def of_the_future(program):
        program["schema_version"]["major"] = 9

    assert "passes a value of the kind as_custom_obj" in refusal(edited(path, graph(object_passed)))
    assert "takes an input of the kind custom_obj" in refusal(edited(path, graph(object_taken)))
    assert "is of generation 9 of torch.export's format and generation 8" in refusal(edited(path, graph(of_the_future)))
