import json
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from dailies.checkpoints import Checkpoint, fitted, read_checkpoint
from dailies.errors import LoadError
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

STATE = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 3, 1)).state_dict()
OTHER = {key: values + 1 for key, values in STATE.items()}
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
    "content",
    [
        STATE,
        {**STATE, "epoch": 3},
        {"model_state_dict": STATE, "optimizer_state_dict": OPTIMIZER},
        {"state_dict": STATE, "optimizer_states": [OPTIMIZER]},
        {"model": STATE, "optimizer": OPTIMIZER, "epoch": 3},
        {"model": {"state_dict": STATE}},
        {"params": STATE},
        {"network": STATE},
        {"optimizer": OPTIMIZER, "weights": STATE},
    ],
    ids=["bare", "bare with an epoch", "tutorial", "lightning", "timm", "nested", "basicsr", "network", "weights"],
)
def test_weights_are_found_wherever_trainers_put_them(read, content):
    assert same(read(content).state, STATE)


@pytest.mark.parametrize("key", ["params_ema", "ema_state_dict", "model_ema", "state_dict_ema", "ema"])
def test_averaged_weights_are_preferred_and_it_is_said(read, key):
    checkpoint = read({"params": OTHER, "model": OTHER, key: STATE})

    assert same(checkpoint.state, STATE)
    assert checkpoint.notes == (f"averaged weights ({key}) are used",)


@pytest.mark.parametrize(
    ("beside", "config", "architecture"),
    [
        ({"model_config": {"width": 8}, "architecture": "UNet"}, {"width": 8}, "UNet"),
        ({"hyper_parameters": {"width": 8, "arch": "nafnet"}}, {"width": 8}, "nafnet"),
        ({"hyper_parameters": {"lr": 0.1, "model": {"width": 8, "architecture": "a"}}}, {"width": 8}, "a"),
        ({"config": {"architecture": "a", "model": {"width": 8}}}, {"width": 8}, "a"),
        ({"arch": "a"}, {}, "a"),
        ({"model_config": None}, {}, None),
        ({}, {}, None),
    ],
)
def test_what_the_network_is_built_from(read, beside, config, architecture):
    checkpoint = read({"state_dict": STATE, **beside})

    assert checkpoint.config == config
    assert checkpoint.architecture == architecture


@pytest.mark.parametrize(
    ("beside", "guessed"),
    [
        ({"model_config": {"width": 8}}, False),
        ({"hyper_parameters": {"width": 8, "lr": 0.1}}, True),
        ({"config": {"lr": 0.1, "model": {"width": 8}}}, False),
    ],
)
def test_hyperparameters_may_hold_more_than_the_network_is_built_from(read, beside, guessed):
    assert read({"state_dict": STATE, **beside}).is_config_guessed == guessed


def test_a_checkpoint_speaks_of_its_signature(read):
    assert read({"state_dict": STATE, "dailies": {"scale": 2}}).said == {"scale": 2}


def fit(state, expected=STATE):
    return fitted(Checkpoint("a.pth", state), expected)


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.", "net.", "generator.", "_orig_mod.", "model._orig_mod.", "module.module.", "model.net."],
)
def test_the_prefixes_of_wrappers_are_stripped(prefix):
    assert same(fit({prefix + key: values for key, values in STATE.items()}).state, STATE)


def test_what_lies_beside_the_network_is_left_out():
    state = {"generator." + key: values for key, values in STATE.items()}
    state |= {"discriminator.0.weight": torch.zeros(3), "loss.weight": torch.zeros(2)}

    assert same(fit(state).state, STATE)


def test_a_network_whose_own_names_begin_like_a_wrapper_is_left_alone():
    state = {"model." + key: values for key, values in STATE.items()} | {"head.weight": torch.zeros(2)}

    assert same(fit(state, expected=state).state, state)


@pytest.mark.parametrize("prefix", ["ema.", "model_ema.", "ema_model.module."])
def test_averaged_weights_beside_the_others_are_preferred_and_it_is_said(prefix):
    state = {"model." + key: values for key, values in OTHER.items()}
    state |= {prefix + key: values for key, values in STATE.items()}

    checkpoint = fit(state)

    assert same(checkpoint.state, STATE)
    assert checkpoint.notes == (f"averaged weights ({prefix}*) are used",)


@given(st.dictionaries(st.text(st.sampled_from("modelnt.e"), max_size=12), st.just(torch.zeros(1)), max_size=8))
def test_any_names_are_fitted_or_refused(names):
    with pytest.raises(LoadError, match=r"^the weights in a\.pth do not fit the network: "):
        fit(names)


def test_tensors_that_claim_more_than_the_file_holds_are_refused(read, tmp_path):
    state = {**STATE, "0.weight": torch.zeros(1).expand(10**6, 3, 10**3, 1)}

    with pytest.raises(LoadError) as error:
        read({"state_dict": state})

    assert (tmp_path / "last.ckpt").stat().st_size < 10_000
    assert str(error.value) == "last.ckpt claims 12.0 GB for 0.weight, far more than it holds"


def test_safetensors_bring_their_config_along(tmp_path):
    path = tmp_path / "model.safetensors"
    about = {"model_config": json.dumps({"width": 8}), "architecture": "nafnet", "epoch": "7", "dailies.scale": "2"}
    save_file(STATE, path, about)

    checkpoint = read_checkpoint(path)

    assert same(checkpoint.state, STATE)
    assert (checkpoint.config, checkpoint.architecture) == ({"width": 8}, "nafnet")
    assert (checkpoint.facts, checkpoint.said) == ({"epoch": 7}, {"scale": "2"})


def test_safetensors_may_say_nothing(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")

    checkpoint = read_checkpoint(tmp_path / "model.safetensors")

    assert same(checkpoint.state, STATE)
    assert (checkpoint.config, checkpoint.architecture) == ({}, None)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "m.safetensors is damaged or not a safetensors file: it is empty"),
        (b"<html>sign in", "m.safetensors is damaged or not a safetensors file: it is a web page or XML"),
        (struct.pack("<Q", 2**40) + b"{}", "m.safetensors is damaged or not a safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "m.safetensors is damaged or not a safetensors file: "),
        (
            struct.pack("<Q", 68) + b'{"a":{"dtype":"F32","shape":[99999,99999],"data_offsets":[0,16]}}   ' + bytes(16),
            "m.safetensors is damaged or not a safetensors file: ",
        ),
    ],
    ids=["empty", "html", "long header", "no dict", "false shape"],
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, data, text):
    (tmp_path / "m.safetensors").write_bytes(data)

    with pytest.raises(LoadError) as error:
        read_checkpoint(tmp_path / "m.safetensors")

    assert str(error.value).startswith(text)


def test_a_config_that_is_not_json_is_refused(tmp_path):
    save_file(STATE, tmp_path / "m.safetensors", {"model_config": "{'width': 8}"})

    with pytest.raises(LoadError, match=r"^the model_config in the metadata of m\.safetensors is not JSON: "):
        read_checkpoint(tmp_path / "m.safetensors")


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_safetensors_are_refused(tmp_path, part):
    path = tmp_path / "m.safetensors"
    save_file(STATE, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])

    with pytest.raises(LoadError, match=r"^m\.safetensors is damaged or not a safetensors file"):
        read_checkpoint(path)


def test_an_archive_that_torch_did_not_write_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")

    with pytest.raises(LoadError, match=r"^m\.pth is damaged or not a checkpoint that torch wrote$"):
        read_checkpoint(tmp_path / "m.pth")


def lies_in_file(values, path):
    """Tell whether a tensor's bytes are those of the file, mapped into memory, and no copy of them."""
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    spans = [[int(each, 16) for each in line.split()[0].split("-")] for line in lines]
    return any(start <= values.data_ptr() < stop for start, stop in spans)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_weights_are_used_where_they_lie_in_the_file(tmp_path):
    path = tmp_path / "best.pth"
    torch.save(STATE, path)

    read = read_checkpoint(path).state

    assert all(lies_in_file(values, path) for values in read.values())
    next(iter(read.values())).add_(1)
    assert same(read_checkpoint(path).state, STATE)


def test_weights_that_are_packed_are_unpacked(tmp_path):
    torch.save(STATE, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "best.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))

    assert same(read_checkpoint(tmp_path / "best.pth").state, STATE)


def test_weights_of_fewer_bytes_than_they_claim_are_refused(tmp_path):
    torch.save({"weight": torch.arange(1000.0)}, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as whole,
        zipfile.ZipFile(tmp_path / "best.pth", "w") as cut,
    ):
        for name in whole.namelist():
            cut.writestr(name, whole.read(name)[: 40 if name.endswith("data/0") else None])

    with pytest.raises(LoadError, match=r"^best\.pth is damaged or not a checkpoint that torch wrote"):
        read_checkpoint(tmp_path / "best.pth")
