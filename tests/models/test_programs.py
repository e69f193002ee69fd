"""Programs of every kind: told apart, refused when damaged, fed what they were written for."""

import contextlib
import random
import zipfile
from pathlib import Path

import pytest
import torch
from dailies.core.errors import LoadError
from dailies.models.programs import is_program
from helpers.program_files import (
    Double,
    exported,
    image,
    onnx_model,
    permitted,
    refusal,
    refused,
    scripted,
)
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


def test_a_half_precision_program_takes_float32(tmp_path):
    program = permitted(scripted(tmp_path / "model.pt", Double().half()))
    assert torch.allclose(program.network(image()).float(), image() * 2, atol=2e-3)
    program = permitted(exported(tmp_path / "model.pt2", Double().half(), image().half()))
    assert torch.allclose(program.network(image()).float(), image() * 2, atol=2e-3)


def test_programs_that_do_not_take_one_image_are_refused(tmp_path):
    class Two(nn.Module):
        def forward(self, one: Tensor, two: Tensor) -> Tensor:
            return one + two

    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Two(), (image(), image())), path)
    assert "asks for 2 tensors (one, two); expected one image of 4 dimensions" in refusal(path, trusted=True)
    text = refusal(scripted(tmp_path / "model.pt", Two()), trusted=True)
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
        refusal(healthy, trusted=True)


def test_a_flipped_byte_is_refused_or_without_consequence(healthy):
    data = healthy.read_bytes()
    chance = random.Random(0)
    opened = 0
    for _ in range(60):
        at = chance.randrange(len(data))
        healthy.write_bytes(data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
        with contextlib.suppress(LoadError):
            permitted(healthy)
            opened += 1
    assert opened < 60


def test_weights_with_a_flipped_byte_are_refused(tmp_path):
    weight = Double().conv.weight.detach().numpy().tobytes()
    for path in (scripted(tmp_path / "model.pt", Double()), exported(tmp_path / "model.pt2", Double())):
        data = bytearray(path.read_bytes())
        data[data.index(weight) + 3] ^= 1
        path.write_bytes(data)
        assert refused(path, trusted=True).code == "program.damaged"


def test_a_bomb_is_not_unpacked_without_permission(tmp_path, monkeypatch):
    path = scripted(tmp_path / "model.pt", Double())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data/9", bytes(100 * 2**20))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *given: pytest.fail("a member is unpacked"))
    assert refused(path).code == "model.needs_permission"
