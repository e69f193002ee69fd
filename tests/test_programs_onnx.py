"""ONNX, written by torch and by hand; hostile files would read what is not theirs."""

import sys
import warnings

import pytest
import torch
from dailies.programs import open_program
from program_files import Double, image, onnx_model, onnx_value, proto, refusal
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


def test_onnx_that_torch_wrote_gives_what_the_network_gives(tmp_path, onnxruntime):
    pytest.importorskip("onnx", reason="torch writes ONNX with the package onnx, which is not installed")
    path = tmp_path / "model.onnx"
    axes = {"image": {2: "height", 3: "width"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Double(), (image(),), path, dynamo=False, input_names=["image"], dynamic_axes=axes)
    program = open_program(path)
    assert (program.size, program.channels, program.batch) == (None, 3, 1)
    assert torch.allclose(program.network(image(5, 7)), image(5, 7) * 2)


def test_the_first_image_among_the_outputs_of_onnx_is_given(tmp_path, onnxruntime):
    path = onnx_model(tmp_path / "model.onnx", [1, 3, 8, 12])
    mean = proto((1, "image"), (2, "mean"), (4, "ReduceMean"), (5, proto((1, "keepdims"), (3, 0), (20, 2))))
    more = proto((7, proto((1, mean), (12, onnx_value("mean", [])))))
    head, rest = path.read_bytes()[:2], path.read_bytes()[2:]
    path.write_bytes(head + more + rest)  # protobuf joins messages that come twice: the mean is the first output
    assert torch.equal(open_program(path).network(image()), image() * 2)


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
