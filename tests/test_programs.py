"""Programs of every kind: told apart, refused when damaged, fed what they were written for."""

import contextlib
import random
from pathlib import Path

import pytest
import torch
from dailies.errors import LoadError
from dailies.programs import is_program, open_program
from helpers.program_files import Double, code_of, edited, exported, image, onnx_model, refusal, scripted
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


def test_a_half_precision_program_takes_float32(tmp_path):
    program = open_program(scripted(tmp_path / "model.pt", Double().half()))
    assert torch.allclose(program.network(image()).float(), image() * 2, atol=2e-3)
    program = open_program(exported(tmp_path / "model.pt2", Double().half(), image().half()))
    assert torch.allclose(program.network(image()).float(), image() * 2, atol=2e-3)


def test_programs_that_do_not_take_one_image_are_refused(tmp_path):
    class Two(nn.Module):
        def forward(self, one: Tensor, two: Tensor) -> Tensor:
            return one + two

    torch.export.save(torch.export.export(Two(), (image(), image())), tmp_path / "model.pt2")
    assert "asks for 2 tensors (one, two); expected one image of 4 dimensions" in refusal(tmp_path / "model.pt2")
    text = refusal(scripted(tmp_path / "model.pt", Two()))
    assert "asks for (one: Tensor, two: Tensor); expected one image" in text


def test_the_kind_is_told_by_the_content(tmp_path):
    script = scripted(tmp_path / "model.onnx", Double())
    assert is_program(script) == "torchscript"
    assert is_program(exported(tmp_path / "model.pt2", Double()).rename(tmp_path / "model.pth")) == "export"
    assert is_program(onnx_model(tmp_path / "model.pt", [1, 3, 8, 12])) == "onnx"
    torch.save({"weight": torch.ones(1)}, tmp_path / "weights.pt")
    torch.save({"weight": torch.ones(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("weights.pt", "old.pt"):
        assert is_program(tmp_path / name) is None
    assert "a zip archive without a program" in refusal(tmp_path / "weights.pt")
    assert is_program(tmp_path) is None


def test_other_files_are_described(tmp_path):
    path = tmp_path / "model.pt"
    for content, what in {
        b"": "an empty file",
        b"<!DOCTYPE html><html>": "a web page",
        b"\x80\x02}q\x00.": "a pickle",
        b"GIF89a....": "begins with the bytes 47 49 46",
    }.items():
        path.write_bytes(content)
        assert f"model.pt is no program: it is {what}" in refusal(path).replace("a file that ", "")


@pytest.fixture(params=["model.pt", "model.pt2", "model.onnx"])
def healthy(request, tmp_path) -> Path:
    path = tmp_path / request.param
    if path.suffix == ".onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime, an optional extra, is not installed")
        return onnx_model(path, [1, 3, 8, 12])
    return scripted(path, Double()) if path.suffix == ".pt" else exported(path, Double())


def test_a_truncated_file_is_refused(healthy):
    data = healthy.read_bytes()
    for part in (0.1, 0.5, 0.9, 0.99):
        healthy.write_bytes(data[: int(len(data) * part)])
        refusal(healthy)


def test_a_flipped_byte_is_refused_or_without_consequence(healthy):
    data = healthy.read_bytes()
    chance = random.Random(0)
    opened = 0
    for _ in range(60):
        at = chance.randrange(len(data))
        healthy.write_bytes(data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
        with contextlib.suppress(LoadError):
            open_program(healthy)
            opened += 1
    assert opened < 60


def test_weights_with_a_flipped_byte_are_refused(tmp_path):
    weight = Double().conv.weight.detach().numpy().tobytes()
    for path in (scripted(tmp_path / "model.pt", Double()), exported(tmp_path / "model.pt2", Double())):
        data = bytearray(path.read_bytes())
        data[data.index(weight) + 3] ^= 1
        path.write_bytes(data)
        assert "damaged" in refusal(path)


def test_code_nested_without_end_is_refused(tmp_path):
    path = scripted(tmp_path / "model.pt", Double())
    for code in (b"(" * 10_000 + b")" * 10_000, b"1" + b"+1" * 100_000, b"x" + b".a" * 100_000):
        text = refusal(edited(path, {code_of(path): lambda _, code=code: b"y : int = " + code}))
        assert "cannot be checked" in text or "outside of its classes" in text
    deep = b'{"schema_version": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    refusal(edited(exported(tmp_path / "model.pt2", Double()), {"models/model.json": lambda _: deep}))
