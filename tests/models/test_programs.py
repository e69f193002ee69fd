"""Programs of every kind: detected by content, rejected if damaged, fed the data type they were written for."""

import contextlib
import random
import zipfile
from pathlib import Path

import pytest
import torch
from dailies.core.errors import LoadError
from dailies.models.load import load_model
from dailies.models.programs.load import program_kind
from helpers.program_files import Double, exported, image, load, onnx_model, refused, scripted
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


def test_a_half_precision_program_takes_float32(tmp_path):
    program = load(scripted(tmp_path / "model.pt", Double().half()))
    assert torch.allclose(program.network(image()).float(), image() * 2, atol=2e-3)
    program = load(exported(tmp_path / "model.pt2", Double().half(), image().half()))
    assert torch.allclose(program.network(image()).float(), image() * 2, atol=2e-3)


def test_programs_that_do_not_take_one_image_are_refused(tmp_path):
    class Two(nn.Module):
        def forward(self, one: Tensor, two: Tensor) -> Tensor:
            return one + two

    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Two(), (image(), image())), path)
    with refused("program.takes_no_image", "model.pt2", "2 tensors (one, two)"):
        load(path)
    with refused("program.takes_no_image", "model.pt", "(one: Tensor, two: Tensor)"):
        load(scripted(tmp_path / "model.pt", Two()))


def test_the_kind_is_detected_by_content(tmp_path):
    script = scripted(tmp_path / "model.onnx", Double())
    assert program_kind(script) == "torchscript"
    assert program_kind(exported(tmp_path / "model.pt2", Double()).rename(tmp_path / "model.pth")) == "export"
    assert program_kind(onnx_model(tmp_path / "model.pt", [1, 3, 8, 12])) == "onnx"
    torch.save({"weight": torch.ones(1)}, tmp_path / "weights.pt")
    torch.save({"weight": torch.ones(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("weights.pt", "old.pt"):
        assert program_kind(tmp_path / name) is None
    assert program_kind(tmp_path) is None


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
        with pytest.raises(LoadError):
            load_model(healthy, trust_code=True)


def test_a_flipped_bit_is_rejected_or_harmless(healthy):
    data = healthy.read_bytes()
    chance = random.Random(0)
    opened = 0
    for _ in range(30):
        at = chance.randrange(len(data))
        healthy.write_bytes(data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
        with contextlib.suppress(LoadError):
            load_model(healthy, trust_code=True)
            opened += 1
    assert opened < 30


def test_weights_with_a_flipped_byte_are_refused(tmp_path):
    weight = Double().conv.weight.detach().numpy().tobytes()
    for path in (scripted(tmp_path / "model.pt", Double()), exported(tmp_path / "model.pt2", Double())):
        data = bytearray(path.read_bytes())
        data[data.index(weight) + 3] ^= 1
        path.write_bytes(data)
        with refused("program.damaged"):
            load(path, trusted=True)


def test_a_zip_bomb_is_not_unpacked_without_permission(tmp_path, monkeypatch):
    path = scripted(tmp_path / "model.pt", Double())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data/9", bytes(10 * 2**20))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *given: pytest.fail("a member is unpacked"))
    with refused("model.needs_permission"):
        load(path, trusted=False)
