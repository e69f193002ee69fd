"""ONNX, written by torch and by hand; hostile files would read what is not theirs."""

import sys
import warnings

import pytest
import torch
from dailies.programs import open_program
from helpers.program_files import Double, image, onnx_model, onnx_value, proto, refusal
from torch import nn

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


@pytest.fixture
def onnxruntime():
    return pytest.importorskip("onnxruntime", reason="onnxruntime, an optional extra, is not installed")


def test_onnx_gives_twice_its_input(tmp_path, onnxruntime):
    program = open_program(onnx_model(tmp_path / "model.onnx", ["batch", 3, "height", "width"]))
    assert (program.kind, program.size, program.channels, program.batch) == ("onnx", None, 3, None)
    with torch.inference_mode():
        assert torch.equal(program.network(image(5, 7)), image(5, 7) * 2)
    program = open_program(onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], kind=10))
    assert (program.size, program.batch) == ((8, 12), 1)
    assert torch.allclose(program.network(image()).float(), image() * 2, atol=2e-3)


def test_the_outputs_of_onnx_are_given_by_name(tmp_path, onnxruntime):
    path = onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12])
    mean = proto((1, "image"), (2, "mean"), (4, "ReduceMean"), (5, proto((1, "keepdims"), (3, 0), (20, 2))))
    more = proto((7, proto((1, mean), (12, onnx_value("mean", [])))))
    head, rest = path.read_bytes()[:2], path.read_bytes()[2:]
    path.write_bytes(head + more + rest)  # protobuf joins messages that come twice: the mean is the first output
    answer = open_program(path).network(image())
    assert list(answer) == ["mean", "result"]
    assert torch.equal(answer["result"], image() * 2)
    torch.testing.assert_close(answer["mean"], image().mean())


def test_onnx_on_cuda_gives_every_job_the_same_bits(tmp_path, onnxruntime, monkeypatch):
    network = open_program(onnx_model(tmp_path / "model.onnx", ["batch", 3, "height", "width"])).network
    asked = []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *given, providers: asked.append((*given, providers)))
    network._session("cuda")
    [(_, options, providers)] = asked
    assert options.use_deterministic_compute
    exact = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    assert providers == [("CUDAExecutionProvider", exact), ("CPUExecutionProvider", {})]


def test_onnx_says_where_it_runs_when_onnxruntime_has_no_cuda(tmp_path, onnxruntime, monkeypatch, caplog):
    network = open_program(onnx_model(tmp_path / "model.onnx", ["batch", 3, "height", "width"])).network
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert network._session("cuda") is network._session("cpu")
    text = "onnxruntime has no CUDA here, so the program runs on the CPU; pip install onnxruntime-gpu"
    assert [record.message for record in caplog.records] == [text]


def external(location: str, length: int = 4) -> bytes:
    entries = {"location": location, "offset": "0", "length": str(length)}
    fields = [(13, proto((1, key), (2, value))) for key, value in entries.items()]
    return proto((1, 1), (2, 1), (8, "two"), *fields, (14, 1))


def test_onnx_reads_weights_beside_it_and_nowhere_else(tmp_path, onnxruntime):
    folder = tmp_path / "model"
    folder.mkdir()
    two = torch.tensor([2.0]).numpy().tobytes()
    (folder / "weights.bin").write_bytes(two)
    (tmp_path / "secret.bin").write_bytes(two)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = onnx_model(folder / "model.onnx", [1, 3, 8, 12], weight=external("weights.bin"))
    assert torch.equal(open_program(path).network(image()), image() * 2)
    for location, reason in {
        "../secret.bin": "outside of its folder",
        str(tmp_path / "secret.bin"): "outside of its folder",
        "..": "outside of its folder",
        "link.bin": "no file beside it",
        "missing.bin": "no file beside it",
        "": "outside of its folder",
    }.items():
        onnx_model(path, [1, 3, 8, 12], weight=external(location))
        for trusted in (False, True):
            assert reason in refusal(path, trusted=trusted)
    onnx_model(path, [1, 3, 8, 12], weight=external("weights.bin", 400))
    assert "ends before the weights" in refusal(path)


def test_onnx_beyond_the_standard_opens_when_trusted(tmp_path, onnxruntime):
    gelu = proto((1, "image"), (2, "result"), (4, "Gelu"), (7, "com.microsoft"))
    path = onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], gelu, domains=["com.microsoft"])
    text = refusal(path)
    assert "model.onnx is an ONNX program that uses operators beyond the ONNX standard (com.microsoft)" in text
    program = open_program(path, trusted=True)
    assert program.trusted
    assert torch.allclose(program.network(image()), nn.functional.gelu(image()), atol=1e-5)
    hidden = proto((1, "image"), (2, "result"), (4, "If"), (5, proto((1, "then_branch"), (6, proto((1, gelu))))))
    assert "com.microsoft" in refusal(onnx_model(path, [1, 3, 8, 12], hidden))


def test_onnx_may_bring_its_own_functions(tmp_path, onnxruntime):
    body = proto((1, "x"), (1, "x"), (2, "y"), (4, "Add"))
    function = proto((1, "Twice"), (4, "x"), (5, "y"), (7, body), (9, proto((1, ""), (2, 17))), (10, "mine"))
    call = proto((1, "image"), (2, "result"), (4, "Twice"), (7, "mine"))
    path = onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], call, domains=["mine"], extra=[(25, function)])
    assert torch.equal(open_program(path).network(image()), image() * 2)
    path.write_bytes(path.read_bytes().replace(b"mine", b"com."))
    assert "beyond the ONNX standard (com.)" in refusal(path)


def test_onnx_that_does_not_take_one_image_is_refused(tmp_path, onnxruntime):
    for shape in ([1, 8, 12, 3], ["batch", "height", "width", 3], [1, 3, 8]):
        assert "expected one image of 4 dimensions" in refusal(onnx_model(tmp_path / "model.onnx", shape))


def test_onnx_without_onnxruntime_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    text = refusal(onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12]))
    assert text == "model.onnx is an ONNX program; to render it: pip install onnxruntime"


def test_onnx_that_declares_terabytes_is_refused(tmp_path):
    huge = proto((1, 2**40), (1, 2**20), (2, 1), (8, "two"), (9, b"\0" * 4))
    text = refusal(onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], weight=huge))
    assert "declares the shape (1099511627776, 1048576)" in text


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
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
    program = open_program(path)
    assert (program.size, program.batch, program.channels) == (None if dynamic else (8, 12), 1, 3)
    pixels = image(10, 14) if dynamic else image()
    assert torch.equal(program.network(pixels), pixels * 2)


def test_a_fixed_number_of_images_is_no_limit(tmp_path, onnxruntime):
    program = open_program(onnx_model(tmp_path / "model.onnx", [2, 3, 8, 12]))
    assert program.batch == 2
    for images in (1, 2, 3):
        pixels = torch.rand(images, 3, 8, 12)
        assert torch.equal(program.network(pixels), pixels * 2)


def test_one_side_may_be_fixed(tmp_path, onnxruntime):
    program = open_program(onnx_model(tmp_path / "model.onnx", [1, 3, 8, "width"]))
    assert program.size == (8, 512)
    assert torch.equal(program.network(image(8, 512)), image(8, 512) * 2)


def attribute(number: int, content: bytes) -> bytes:
    return proto((1, "value"), (number, content))


def inside(place: str, tensor: bytes) -> list[tuple[int, bytes]]:
    """Fields of a model that hold a tensor in one of the places where ONNX may have them."""
    constant = proto((2, "extra"), (4, "Constant"), (5, attribute(5, tensor)))
    branch = proto((4, "If"), (5, attribute(6, proto((1, constant)))))
    return {
        "weights": [(7, proto((5, tensor)))],
        "constant": [(7, proto((1, constant)))],
        "constants": [(7, proto((1, proto((4, "Constant"), (5, attribute(10, tensor))))))],
        "branch": [(7, proto((1, branch)))],
        "branches": [(7, proto((1, proto((4, "If"), (5, attribute(11, proto((5, tensor))))))))],
        "sparse weights": [(7, proto((15, proto((1, tensor)))))],
        "sparse places": [(7, proto((15, proto((2, tensor)))))],
        "sparse constant": [(7, proto((1, proto((4, "Constant"), (5, attribute(22, proto((1, tensor))))))))],
        "sparse constants": [(7, proto((1, proto((4, "Constant"), (5, attribute(23, proto((1, tensor))))))))],
        "function": [(25, proto((1, "mine"), (7, constant), (10, "mine")))],
        "default of a function": [(25, proto((1, "mine"), (11, attribute(5, tensor)), (10, "mine")))],
        "training": [(20, proto((1, proto((5, tensor)))))],
        "training step": [(20, proto((2, proto((5, tensor)))))],
    }[place]


PLACES = (
    "weights", "constant", "constants", "branch", "branches", "sparse weights", "sparse places", "sparse constant",
    "sparse constants", "function", "default of a function", "training", "training step",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_weights_are_looked_for_wherever_they_may_be(tmp_path, place):
    path = onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], extra=inside(place, external("../secret.bin")))
    assert "outside of its folder" in refusal(path)


def test_weights_at_an_address_in_memory_are_refused(tmp_path):
    """onnxruntime takes this location for its own memory, and the offset for the address."""
    weight = external("*/_ORT_MEM_ADDR_/*")
    assert "outside of its folder" in refusal(onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], weight=weight))


def test_the_secret_would_have_been_read(tmp_path, onnxruntime):
    """onnxruntime follows links to files within the folder's own tree; no link is followed here."""
    folder = tmp_path / "model"
    folder.mkdir()
    secret = folder / "secret.bin"
    secret.write_bytes(torch.tensor([2.0]).numpy().tobytes())
    (folder / "link.bin").symlink_to(secret)
    path = onnx_model(folder / "model.onnx", [1, 3, 8, 12], weight=external("link.bin"))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert (session.run(None, {"image": image().numpy()})[0] == (image() * 2).numpy()).all()
    assert "which is no file beside it" in refusal(path)


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "org.pytorch.aten", "unheard.of"])
def test_operators_of_other_domains_are_refused(tmp_path, domain):
    """A function of the file with the same domain does not make them the file's own."""
    call = proto((1, "image"), (2, "result"), (4, "Other"), (7, domain))
    path = tmp_path / "model.onnx"
    onnx_model(path, [1, 3, 8, 12], call, domains=[domain])
    assert f"beyond the ONNX standard ({domain})" in refusal(path)
    function = proto((1, "Own"), (10, domain))
    onnx_model(path, [1, 3, 8, 12], call, domains=[domain], extra=[(25, function)])
    assert f"beyond the ONNX standard ({domain})" in refusal(path)


def test_weights_that_declare_more_than_there_is_are_refused(tmp_path):
    billions = proto((1, 2**33), (2, 1), (8, "two"), (9, b"\0" * 4))
    path = onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], weight=billions)
    assert "declares the shape (8589934592,)" in refusal(path)
    sparse = proto((1, proto((1, 1), (2, 1), (9, b"\0" * 4))), (2, proto((1, 1), (2, 7), (9, b"\0" * 8))), (3, 2**33))
    path = onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], extra=[(7, proto((15, sparse)))])
    assert "declares the shape (8589934592,)" in refusal(path)


def test_onnx_is_not_taken_for_a_format_that_was_not_checked(tmp_path, onnxruntime):
    """onnxruntime goes by the name unless it is told."""
    path = onnx_model(tmp_path / "model.ort", [1, 3, 8, 12])
    with pytest.raises(Exception, match="ORT"):
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert torch.equal(open_program(path).network(image()), image() * 2)


def test_graphs_nested_without_end_are_refused(tmp_path):
    branch = b""
    for _ in range(2000):
        branch = proto((1, proto((4, "If"), (5, proto((6, branch))))))
    refusal(onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12], extra=[(7, branch)]))
