import io
import tarfile
import zipfile

import pytest
import torch
from dailies.models.file_roles import averaged_first, begins_like_model, family, is_auxiliary, may_hold_model
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

NETWORKS = [
    "best_model_unet.pth",
    "unet3D.pth",
    "dncnn_DnD.pth",
    "nafnet_D.pth",
    "model_d.pth",
    "best_upscaler.pth",
    "elastic.pth",
    "best_optimal.pth",
    "net_g_latest.pth",
    "40000_G.pth",
    "40000_E.pth",
    "unet_vgg16_best.pth",
    "vgg_unet.pth",
    "ema_0.9999_100000.pt",
    "model100000.pt",
    "best_loss.pth",
    "state_dict.pth",
    "mp_rank_00_model_states.pt",
    "disparity.pth",
    "dis_unet.pth",
    "generator.pt",
    "gen_00100.pt",
    "unet_optimizer_adamw/best.pth",
    "training/best.pth",
    "epoch=9-step=100.ckpt",
    "generator/model.safetensors",
    "critical.pth",
]
OTHERS = [
    "optimizer.pth",
    "optimizerG.pth",
    "40000_optimizerG.pth",
    "40000_optimizerD.pth",
    "opt100000.pt",
    "opt.pt",
    "optG.pth",
    "best_optimizer.pt",
    "lr_scheduler.pt",
    "grad_scaler.pt",
    "GradScaler.pt",
    "rng_state_0.pth",
    "optimizerStateDict.pth",
    "OPTIMIZER.PT",
    "training_args.bin",
    "net_d_latest.pth",
    "netD.pth",
    "netD_A.pth",
    "netD_epoch_10.pth",
    "discriminator.pt",
    "D_12.pth",
    "40000_D.pth",
    "200_net_D.pth",
    "latest_net_D_A.pth",
    "critic_best.pth",
    "disc_100.pth",
    "epoch_10_D.pth",
    "discriminator/model.safetensors",
    "netD/latest.pth",
    "vgg16-397923af.pth",
    "vgg19.pth",
    "vgg_loss.pth",
    "lpips_vgg.pth",
    "alexnet-owt-7be5be79.pth",
    "inception_v3.pth",
    "training_state_latest.pth",
    "training_states/40000.state",
    "random_states_0.pkl",
    "optimizers/4.pth",
    "zero_pp_rank_0_mp_rank_00_optim_states.pt",
]


@pytest.mark.parametrize("path", NETWORKS)
def test_names_of_networks(path):
    assert not is_auxiliary(path, {"x.pth", family(path)})


@pytest.mark.parametrize("path", OTHERS)
def test_names_of_auxiliary_files(path):
    assert is_auxiliary(path, {"x.pth", family(path)})


@pytest.mark.parametrize(
    ("path", "generator"),
    [
        ("model_D.pth", "model_G.pth"),
        ("d_latest.pth", "g_latest.pth"),
        ("unet_d_3.pth", "unet_g_90.pth"),
        ("dis_00000010.pt", "gen_00000010.pt"),
        ("D/10.pth", "G/10.pth"),
        ("gan/weights-d.pth", "gan/weights-g.pth"),
    ],
)
def test_a_short_name_means_a_discriminator_if_its_generator_is_in_the_run(path, generator):
    assert is_auxiliary(path, {family(path), family(generator)})
    assert not is_auxiliary(generator, {family(path), family(generator)})


@pytest.mark.parametrize(
    ("newest_first", "averaged"),
    [
        (["best.pth", "best_ema.pth", "last.pth"], ["best_ema.pth", "best.pth", "last.pth"]),
        (["4_G.pth", "4_E.pth", "3_G.pth", "3_E.pth"], ["4_E.pth", "4_G.pth", "3_E.pth", "3_G.pth"]),
        (["model900.pt", "ema_0.9999_900.pt", "model9.pt"], ["ema_0.9999_900.pt", "model900.pt", "model9.pt"]),
        (["model9.pt", "ema_0.999_8.pt"], ["model9.pt", "ema_0.999_8.pt"]),
        (["net_g_5.pth", "net_g_ema_5.pth"], ["net_g_ema_5.pth", "net_g_5.pth"]),
        (["a/model.pt", "b/model_ema.pt"], ["a/model.pt", "b/model_ema.pt"]),
        (["nafnet32.pth", "unet32_ema.pth"], ["nafnet32.pth", "unet32_ema.pth"]),
        (["latest_net_G.pth", "latest_net_E.pth"], ["latest_net_G.pth", "latest_net_E.pth"]),
    ],
)
def test_averaged_weights_come_before_the_plain_ones_of_their_step(newest_first, averaged):
    assert averaged_first(newest_first) == averaged


@pytest.mark.parametrize(
    "name",
    [
        "model.pth.tar",
        "pytorch_model.bin",
        "checkpoint",
        "model",
        "weights",
        "epoch_12",
        "a/b/net.pkl",
        "x.pickle",
        "x.weights",
        "x.state",
        "model.12000",
        "x.t7",
    ],
)
def test_any_file_may_hold_a_model(name):
    assert may_hold_model(name)


@pytest.mark.parametrize(
    "name",
    [
        "a.json",
        "x.yaml",
        "x.TXT",
        "log",
        "x.log",
        "m.csv",
        "p.png",
        "p.JPG",
        "f.exr",
        "v.mp4",
        "x.html",
        "x.md",
        "x.py",
        "code.zip",
        "x.npz",
        "x.pdf",
        "x.h5",
        "README",
        "events.out.tfevents.1700000000.host.1.0",
        ".gitignore",
        "LICENSE",
        "MLmodel",
        "x.onnx.data",
        "model.ckpt.index",
        "stdout",
    ],
)
def test_names_of_files_without_a_model(name):
    assert not may_hold_model(name)


def torch_bytes(**how) -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(3)}, buffer, **how)
    return buffer.getvalue()


def tar_bytes(member: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(member), io.BytesIO())
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        torch_bytes(),
        torch_bytes(_use_new_zipfile_serialization=False),
        torch_bytes(_use_new_zipfile_serialization=False, pickle_protocol=4),
        torch_bytes(_use_new_zipfile_serialization=False, pickle_protocol=0),
        save({"w": torch.zeros(3)}),
        tar_bytes("sys_info"),
        b"\x08\x0a\x12\x07pytorch",
    ],
    ids=["zip", "pickle", "protocol 4", "protocol 0", "safetensors", "tar", "onnx"],
)
def test_model_files_are_recognised_by_their_first_bytes(data):
    assert begins_like_model(data[:512])


@pytest.mark.parametrize(
    "data", [b"", b"epoch 1 loss 0.5\n", b"<!DOCTYPE html>", b"\x89PNG\r\n", b"{}", tar_bytes("frames/f_0001.png")]
)
def test_other_files_are_recognised_by_their_first_bytes(data):
    assert not begins_like_model(data[:512])


@given(st.lists(st.text("abD_G0/.ema", max_size=12), max_size=6))
def test_any_name_can_be_judged(paths):
    assert sorted(averaged_first(paths)) == sorted(paths)
    for path in paths:
        assert is_auxiliary(path, paths) in {True, False}
        assert may_hold_model(path) in {True, False}


def test_a_zip_of_anything_may_be_a_model():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", "b")

    assert begins_like_model(buffer.getvalue())
