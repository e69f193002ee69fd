import json
import struct
import zipfile
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from dailies.core.errors import LoadError, UnknownKind
from dailies.models.checkpoints import read_checkpoint
from dailies.models.training_progress import TrainingProgress
from helpers.raising import refused
from safetensors.torch import save_file
from torch import nn

STATE = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 3, 1)).state_dict()
BESIDE = "the values beside the weights"
OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}


@pytest.fixture
def read(tmp_path):
    """Save an object as torch does, and read it as a checkpoint."""

    def saved_and_read(content):
        torch.save(content, tmp_path / "last.ckpt")
        return read_checkpoint(tmp_path / "last.ckpt")

    return saved_and_read


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("beside", "config", "source", "architecture"),
    [
        ({"model_config": {"width": 8}, "architecture": "UNet"}, {"width": 8}, "model_config", "UNet"),
        (
            {"model_config": {"architecture": "a", "model": {"width": 8}}, "args": {"b": 1}},
            {"architecture": "a", "model": {"width": 8}},
            "model_config",
            "a",
        ),
        (
            {"hyper_parameters": {"width": 8, "arch": "nafnet"}},
            {"width": 8, "arch": "nafnet"},
            "hyper_parameters",
            "nafnet",
        ),
        (
            {"hyper_parameters": {"lr": 0.1, "model": {"width": 8, "architecture": "a"}}},
            {"width": 8, "architecture": "a"},
            "hyper_parameters.model",
            "a",
        ),
        ({"config": {"architecture": "a", "model": {"width": 8}}}, {"width": 8}, "config.model", "a"),
        ({"args": Namespace(width=8, inner=Namespace(a=[1]))}, {"width": 8, "inner": {"a": [1]}}, "args", None),
        ({"opt": {"width": 8}, "cfg": {"width": 9}}, {"width": 8}, "opt", None),
        ({"cfg": SimpleNamespace(width=8)}, {"width": 8}, "cfg", None),
        ({"hparams": {"width": 8}}, {"width": 8}, "hparams", None),
        ({"options": {"width": 8}}, {"width": 8}, "options", None),
        (
            {"width": 8, "blocks": [1, 2], "epoch": 3, "best_psnr": 30.0, "lr": 0.1, "optimizer": OPTIMIZER},
            {"width": 8, "blocks": [1, 2]},
            "the values beside the weights",
            None,
        ),
        ({"modelConfig": {"width": 8}}, {"width": 8}, "modelConfig", None),
        ({"CONFIG": {"width": 8}, "EPOCH": 3}, {"width": 8}, "CONFIG", None),
        ({"network_config": {"width": 8}, "epoch": 3}, {"width": 8}, "network_config", None),
        ({"init_args": {"width": 8}, "arch": "a"}, {"width": 8}, "init_args", "a"),
        ({"net_args": {"width": 8}, "size": 5}, {"net_args": {"width": 8}, "size": 5}, BESIDE, None),
        ({"network": {"width": 8}}, {"network": {"width": 8}}, BESIDE, None),
        ({"args": '{"width": 8}'}, {"width": 8}, "args", None),
        ({"config": "model:\n  width: 8\n"}, {"width": 8}, "config.model", None),
        ({"config": "unet.yaml", "cfg": {"width": 8}}, {"width": 8}, "cfg", None),
        ({"arch": "a", "epoch": 3}, {}, "", "a"),
        ({"model_config": None}, {}, "", None),
        ({}, {}, "", None),
    ],
)
def test_the_configuration_is_found_under_the_usual_keys(read, beside, config, source, architecture):
    checkpoint = read({"state_dict": STATE, **beside})

    assert (checkpoint.config, checkpoint.config_from) == (config, source)
    assert checkpoint.architecture == architecture


@pytest.mark.parametrize("key", ["hyper_parameters", "model_config", "args"])
def test_tensors_among_settings_do_not_hide_them(read, key):
    config = read({"state_dict": STATE, key: {"width": 8, "mean": torch.tensor([0.5])}}).config

    assert config["width"] == 8
    assert torch.equal(config["mean"], torch.tensor([0.5]))


def test_the_configuration_may_be_in_config_json_beside_the_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"width": 8}')
    torch.save(STATE, tmp_path / "pytorch_model.bin")

    checkpoint = read_checkpoint(tmp_path / "pytorch_model.bin")

    assert (checkpoint.config, checkpoint.config_from) == ({"width": 8}, "config.json")


def test_a_checkpoint_may_state_its_signature(read):
    assert read({"state_dict": STATE, "dailies": {"scale": 2}}).signature == {"scale": 2}


def sharded(folder, ending, save):
    """Save weights in two files with an index, as Hugging Face's libraries do."""
    parts = [f"model-0000{number}-of-00002.{ending}" for number in (1, 2)]
    halves = [{key: values for key, values in STATE.items() if key.startswith(head)} for head in ("0.", "1.")]
    for half, part in zip(halves, parts, strict=True):
        save(half, folder / part)
    index = {"weight_map": {key: part for half, part in zip(halves, parts, strict=True) for key in half}}
    path = folder / f"model.{ending}.index.json"
    path.write_text(json.dumps(index))
    return path


@pytest.mark.parametrize(("ending", "save"), [("safetensors", save_file), ("bin", torch.save)])
def test_weights_in_several_files_are_one_model(tmp_path, ending, save):
    (group,) = read_checkpoint(sharded(tmp_path, ending, save)).groups

    assert same(group.tensors, STATE)


def test_parts_without_an_index_are_one_model(tmp_path):
    sharded(tmp_path, "safetensors", save_file).unlink()

    (group,) = read_checkpoint(tmp_path / "model-00001-of-00002.safetensors").groups

    assert same(group.tensors, STATE)


def test_a_missing_part_is_named(tmp_path):
    path = sharded(tmp_path, "bin", torch.save)
    (tmp_path / "model-00002-of-00002.bin").unlink()

    with refused(LoadError, "model.missing_parts", "model-00002-of-00002.bin"):
        read_checkpoint(path)


def test_an_index_cannot_name_files_outside_its_folder(tmp_path):
    (tmp_path / "model.bin.index.json").write_text('{"weight_map": {"a": "../secret.bin"}}')

    with refused(LoadError, "model.part_outside_folder", "../secret.bin"):
        read_checkpoint(tmp_path / "model.bin.index.json")


def test_the_content_decides_the_kind_of_file(tmp_path):
    save_file(STATE, tmp_path / "weights.pth")
    torch.save({"state_dict": STATE}, tmp_path / "model_best")

    assert all(
        same(read_checkpoint(tmp_path / name).groups[0].tensors, STATE) for name in ("weights.pth", "model_best")
    )


def test_tensors_that_claim_more_than_the_file_holds_are_refused(read, tmp_path):
    state = {**STATE, "0.weight": torch.zeros(1).expand(10**6, 3, 10**3, 1)}

    with refused(LoadError, "model.oversized_tensor", "last.ckpt", "12.0 GB", "0.weight"):
        read({"state_dict": state})

    assert (tmp_path / "last.ckpt").stat().st_size < 10_000


def test_safetensors_hold_their_configuration_as_metadata(tmp_path):
    path = tmp_path / "model.safetensors"
    about = {"model_config": json.dumps({"width": 8}), "architecture": "nafnet", "epoch": "7", "dailies.scale": "2"}
    save_file(STATE, path, about)

    checkpoint = read_checkpoint(path)

    assert same(checkpoint.groups[0].tensors, STATE)
    assert (checkpoint.config, checkpoint.architecture) == ({"width": 8}, "nafnet")
    assert (checkpoint.progress, checkpoint.signature) == (TrainingProgress(epoch=7), {"scale": "2"})


def test_safetensors_need_no_metadata(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")

    checkpoint = read_checkpoint(tmp_path / "model.safetensors")

    assert same(checkpoint.groups[0].tensors, STATE)
    assert (checkpoint.config, checkpoint.architecture) == ({}, None)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"<html>sign in", "web page"),
        (struct.pack("<Q", 2**40) + b"{}", ""),
        (struct.pack("<Q", 2) + b"[]", ""),
        (
            struct.pack("<Q", 68) + b'{"a":{"dtype":"F32","shape":[99999,99999],"data_offsets":[0,16]}}   ' + bytes(16),
            "",
        ),
    ],
    ids=["empty", "html", "long header", "no dict", "false shape"],
)
def test_other_files_named_safetensors_are_refused(tmp_path, data, kind):
    (tmp_path / "m.safetensors").write_bytes(data)

    with refused(LoadError, "model.damaged_safetensors", "m.safetensors", kind):
        read_checkpoint(tmp_path / "m.safetensors")


def test_a_config_that_is_not_json_is_refused(tmp_path):
    save_file(STATE, tmp_path / "m.safetensors", {"model_config": "{'width': 8}"})

    with refused(LoadError, "model.bad_config_metadata", "m.safetensors", "model_config"):
        read_checkpoint(tmp_path / "m.safetensors")


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_safetensors_are_refused(tmp_path, part):
    path = tmp_path / "m.safetensors"
    save_file(STATE, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])

    with refused(LoadError, "model.damaged_safetensors", "m.safetensors"):
        read_checkpoint(path)


def test_an_archive_that_torch_did_not_write_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")

    with refused(UnknownKind, "model.not_a_checkpoint", "m.pth"):
        read_checkpoint(tmp_path / "m.pth")


def lies_in_file(values, path):
    """Tell whether a tensor's bytes are those of the file, mapped into memory, and no copy of them."""
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    spans = [[int(each, 16) for each in line.split()[0].split("-")] for line in lines]
    return any(start <= values.data_ptr() < stop for start, stop in spans)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_weights_are_mapped_into_memory(tmp_path):
    path = tmp_path / "best.pth"
    torch.save(STATE, path)

    read = read_checkpoint(path).groups[0].tensors

    assert all(lies_in_file(values, path) for values in read.values())
    next(iter(read.values())).add_(1)
    assert same(read_checkpoint(path).groups[0].tensors, STATE)


def test_compressed_weights_are_read(tmp_path):
    torch.save(STATE, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "best.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))

    assert same(read_checkpoint(tmp_path / "best.pth").groups[0].tensors, STATE)


def test_weights_of_fewer_bytes_than_they_claim_are_refused(tmp_path):
    torch.save({"weight": torch.arange(1000.0)}, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as whole,
        zipfile.ZipFile(tmp_path / "best.pth", "w") as cut,
    ):
        for name in whole.namelist():
            cut.writestr(name, whole.read(name)[: 40 if name.endswith("data/0") else None])

    with refused(UnknownKind, "model.damaged", "best.pth", "data/0", "40 bytes", "4000"):
        read_checkpoint(tmp_path / "best.pth")
