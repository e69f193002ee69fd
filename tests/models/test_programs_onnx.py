"""ONNX, written by torch and by hand; hostile files would read what is not theirs."""

import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch
from dailies.models.programs.program import Program
from dailies.models.programs.sizes import Sizes
from helpers.program_files import Double, image, load, onnx_model, onnx_value, proto, refused
from torch import nn

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


@pytest.fixture
def onnxruntime():
    return pytest.importorskip("onnxruntime", reason="onnxruntime, an optional extra, is not installed")


def dynamic(folder: Path) -> Program:
    return load(onnx_model(folder / "model.onnx", ["batch", 3, "height", "width"]), trusted=False)


def test_onnx_is_run_without_permission(tmp_path, onnxruntime):
    program = dynamic(tmp_path)
    assert (program.kind, program.sizes, program.channels, program.batch) == ("onnx", Sizes(), 3, None)
    with torch.inference_mode():
        assert torch.equal(program.network(image(5, 7)), image(5, 7) * 2)
    program = load(onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], kind=10), trusted=False)
    assert (program.sizes.fixed, program.batch) == ((8, 12), 1)
    assert torch.allclose(program.network(image()).float(), image() * 2, atol=2e-3)


def test_several_outputs_of_onnx_are_returned_by_name(tmp_path, onnxruntime):
    path = onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12])
    mean = proto((1, "image"), (2, "mean"), (4, "ReduceMean"), (5, proto((1, "keepdims"), (3, 0), (20, 2))))
    more = proto((7, proto((1, mean), (12, onnx_value("mean", [])))))
    head, rest = path.read_bytes()[:2], path.read_bytes()[2:]
    path.write_bytes(head + more + rest)  # protobuf joins messages that come twice: the mean is the first output
    answer = load(path, trusted=False).network(image())
    assert list(answer) == ["mean", "result"]
    assert torch.equal(answer["result"], image() * 2)
    torch.testing.assert_close(answer["mean"], image().mean())


def test_onnx_on_cuda_is_deterministic(tmp_path, onnxruntime, monkeypatch):
    network = dynamic(tmp_path).network
    sessions = []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *given, providers: sessions.append((*given, providers)))
    network._session("cuda")
    [(_, options, providers)] = sessions
    assert options.use_deterministic_compute
    exact = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    assert providers == [("CUDAExecutionProvider", exact), ("CPUExecutionProvider", {})]


def test_onnx_without_cuda_runs_on_the_cpu_and_warns(tmp_path, onnxruntime, monkeypatch, caplog):
    network = dynamic(tmp_path).network
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert network._session("cuda") is network._session("cpu")
    (record,) = caplog.records
    assert "onnxruntime-gpu" in record.message


def external(location: str, length: int = 4) -> bytes:
    entries = {"location": location, "offset": "0", "length": str(length)}
    fields = [(13, proto((1, key), (2, value))) for key, value in entries.items()]
    return proto((1, 1), (2, 1), (8, "two"), *fields, (14, 1))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside of the model's folder, which holds a number as weights do."""
    (tmp_path / "model").mkdir()
    path = tmp_path / "secret.bin"
    path.write_bytes(torch.tensor([2.0]).numpy().tobytes())
    return path


def test_onnx_reads_weights_in_its_folder(tmp_path, onnxruntime, secret):
    shutil.copy(secret, tmp_path / "model" / "weights.bin")
    path = tmp_path / "model" / "model.onnx"
    onnx_model(path, [1, 3, 8, 12], weight=external("weights.bin"))
    assert torch.equal(load(path, trusted=False).network(image()), image() * 2)
    onnx_model(path, [1, 3, 8, 12], weight=external("weights.bin", 400))
    with refused("program.damaged"):
        load(path, trusted=False)


LOCATIONS = ("../secret.bin", "./../secret.bin", "/absolute", "..", "link.bin", "folder/secret.bin", "missing.bin", "")


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("location", [*LOCATIONS, "*/_ORT_MEM_ADDR_/*"])
def test_onnx_reads_weights_nowhere_else(tmp_path, onnxruntime, secret, location, trusted):
    """onnxruntime used to take the last location for its own memory, and the offset for an address."""
    folder = tmp_path / "model"
    (folder / "link.bin").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    location = str(secret) if location == "/absolute" else location
    path = onnx_model(folder / "model.onnx", [1, 3, 8, 12], weight=external(location))
    with refused("program.damaged"):
        load(path, trusted=trusted)


@pytest.mark.parametrize("place", ["constant", "branch", "function"])
def test_onnx_reads_weights_nowhere_else_wherever_they_are_used(tmp_path, onnxruntime, secret, place):
    onnx = pytest.importorskip("onnx", reason="the package onnx, which writes these models, is not installed")
    from onnx import TensorProto, helper

    two = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
    outside = onnx.TensorProto.FromString(external("../secret.bin"))
    taken, given = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 12]) for name in ("image", "result")
    )

    def program(weight: TensorProto) -> Path:
        constant = helper.make_node("Constant", [], ["two"], value=weight)
        double = helper.make_node("Mul", ["image", "two"], ["result"])
        functions, more, nodes = [], [], [constant, double]
        if place == "branch":
            branch = helper.make_graph([double], "branch", [], [given], [weight])
            more = [helper.make_tensor("yes", TensorProto.BOOL, [], [True])]
            nodes = [helper.make_node("If", ["yes"], ["result"], then_branch=branch, else_branch=branch)]
        elif place == "function":
            version = helper.make_opsetid("", 17)
            functions = [helper.make_function("mine", "Double", ["image"], ["result"], nodes, [version])]
            nodes = [helper.make_node("Double", ["image"], ["result"], domain="mine")]
        graph = helper.make_graph(nodes, "graph", [taken], [given], more)
        versions = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
        model = helper.make_model(graph, opset_imports=versions, functions=functions, ir_version=8)
        path = tmp_path / "model" / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    assert torch.equal(load(program(two), trusted=False).network(image()), image() * 2)
    with refused("program.damaged"):
        load(program(outside), trusted=False)


def test_a_version_of_onnxruntime_that_reads_any_file_is_refused(tmp_path, onnxruntime, monkeypatch):
    monkeypatch.setattr(onnxruntime, "__version__", "1.23.2")
    with refused("onnx.too_old", "model.onnx", "1.23.2", "pip install 'onnxruntime>=1.24'"):
        load(onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12]))


def test_onnx_may_use_all_operators_of_onnxruntime(tmp_path, onnxruntime):
    gelu = proto((1, "image"), (2, "result"), (4, "Gelu"), (7, "com.microsoft"))
    program = load(onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], gelu, domains=["com.microsoft"]))
    assert torch.allclose(program.network(image()), nn.functional.gelu(image()), atol=1e-5)


@pytest.mark.parametrize("domain", ["com.microsoft", "org.pytorch.aten", "unheard.of"])
def test_other_operators_are_refused(tmp_path, onnxruntime, domain):
    call = proto((1, "image"), (2, "result"), (4, "Other"), (7, domain))
    path = onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], call, domains=[domain])
    with refused("program.damaged"):
        load(path, trusted=False)


def test_onnx_that_does_not_take_one_image_is_refused(tmp_path, onnxruntime):
    for shape in ([1, 8, 12, 3], ["batch", "height", "width", 3], [1, 3, 8]):
        with refused("program.takes_no_image", "model.onnx", "image: tensor(float)", "4 dimensions"):
            load(onnx_model(tmp_path / "model.onnx", shape))


def test_onnx_without_onnxruntime_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with refused("onnx.not_installed", "model.onnx", "pip install 'onnxruntime>=1.24'"):
        load(onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12]))


@pytest.mark.parametrize("shape", [(2**33,), (2**40, 2**20)])
def test_weights_larger_than_declared_memory_are_refused(tmp_path, onnxruntime, shape):
    weight = proto(*((1, length) for length in shape), (2, 1), (8, "more"), (9, b"\0" * 4))
    mean = proto((1, "more"), (2, "mean"), (4, "ReduceMean"), (5, proto((1, "keepdims"), (3, 0), (20, 2))))
    times = proto((1, "image"), (1, "mean"), (2, "result"), (4, "Mul"))
    path = onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], mean, times, weight=weight)
    with refused("program.damaged"):
        load(path, trusted=False)


@pytest.mark.parametrize(("dynamo", "dynamic"), [(False, True), (True, False)])
def test_both_of_torchs_writers_are_read(tmp_path, onnxruntime, dynamo, dynamic):
    pytest.importorskip("onnx", reason="torch writes ONNX with the package onnx, which is not installed")
    if dynamo:
        pytest.importorskip("onnxscript", reason="torch's newer writer needs the package onnxscript")
    path = tmp_path / "model.onnx"
    how: dict = {"input_names": ["pixels"], "dynamo": dynamo, "verbose": False}
    if dynamic and dynamo:
        how["dynamic_shapes"] = {"pixels": {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}}
    elif dynamic:
        how["dynamic_axes"] = {"pixels": {2: "height", 3: "width"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Double().eval(), (image(),), path, **how)
    assert path.with_name("model.onnx.data").exists() == dynamo, "weights lie beside the program"
    program = load(path, trusted=False)
    assert (program.sizes.fixed, program.batch, program.channels) == (None if dynamic else (8, 12), 1, 3)
    pixels = image(10, 14) if dynamic else image()
    assert torch.equal(program.network(pixels), pixels * 2)


def test_a_program_for_a_fixed_batch_takes_any_number_of_images(tmp_path, onnxruntime):
    program = load(onnx_model(tmp_path / "model.onnx", [2, 3, 8, 12]))
    assert program.batch == 2
    for images in (1, 2, 3):
        pixels = torch.rand(images, 3, 8, 12)
        assert torch.equal(program.network(pixels), pixels * 2)


def test_one_side_may_be_fixed(tmp_path, onnxruntime):
    program = load(onnx_model(tmp_path / "model.onnx", [1, 3, 8, "width"]))
    assert program.sizes.fixed == (8, 512)
    assert torch.equal(program.network(image(8, 512)), image(8, 512) * 2)


def test_onnx_is_read_as_onnx_whatever_its_name(tmp_path, onnxruntime):
    path = onnx_model(tmp_path / "model.ort", [1, 3, 8, 12])
    with pytest.raises(Exception, match="ORT"):  # onnxruntime goes by the name
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert torch.equal(load(path, trusted=False).network(image()), image() * 2)


def test_deeply_nested_graphs_are_refused(tmp_path, onnxruntime):
    branch = b""
    for _ in range(2000):
        branch = proto((1, proto((4, "If"), (5, proto((6, branch))))))
    with refused("program.damaged"):
        load(onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], extra=[(7, branch)]), trusted=False)
