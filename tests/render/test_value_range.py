"""Doubts about an assumed value range."""

import numpy as np
import pytest
import torch
from dailies.models.signature import Signature
from dailies.render.network import probe_size
from helpers.networks import Do, probed
from torch import nn
from torch.nn import functional


def squashed(x):
    return torch.sigmoid(4 * (x - 0.5))


def is_range_note(note):
    return note.startswith("value_range [-1, 1] was assumed") and "dailies.value_range" in note


BRIGHT = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (80, 1, 3))


@pytest.mark.parametrize(
    ("function", "best"),
    [(lambda x: x.clamp(0, 1), "[0, 1]"), (squashed, "[0, 1]"), (lambda x: x.clamp(0, 255).round(), "[0, 255]")],
    ids=["clamp", "sigmoid", "code values"],
)
def test_an_assumed_range_is_doubted_where_another_changes_the_first_frame_far_less(function, best, caplog):
    renderer = probed(Do(function), first=BRIGHT, builder="nets:build")

    note, doubt = renderer.notes
    assert is_range_note(note)
    assert f"with value_range {best}" in doubt
    assert "the assumed [-1, 1]" in doubt
    assert caplog.messages == renderer.notes
    assert renderer.signature.value_range == (-1, 1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        lambda x: x.clamp(-1, 1),
        lambda x: torch.tanh(1.2 * x),
        lambda x: -x,
        lambda x: x * 0.5,
        lambda x: (x + 0.4).clamp(-1, 1),
        lambda x: functional.avg_pool2d(x, 9, 1, 4),
        torch.zeros_like,
        lambda x: x[:, :1],
        nn.Upsample(scale_factor=2),
    ],
    ids=["same", "clamp", "tanh", "inverse", "contrast", "brighter", "blur", "grey", "one channel", "larger"],
)
def test_an_assumed_range_that_fits_is_noted_and_not_doubted(function):
    (note,) = probed(Do(function), first=BRIGHT, builder="nets:build").notes
    assert is_range_note(note)


def test_a_dark_frame_raises_no_doubt():
    network = Do(lambda x: ((x + 1) * 8 - 1).clamp(-1, 1))

    (note,) = probed(network, first=BRIGHT // 9, builder="nets:build").notes
    assert is_range_note(note)


@pytest.mark.parametrize("how", [{"said": {"value_range": "[-1, 1]"}}, {"builder": "dailies"}, {"builder": "spandrel"}])
def test_a_known_range_is_not_noted(how):
    network = Do(lambda x: x.clamp(0, 1))

    assert probed(network, **{"first": BRIGHT, "builder": "nets:build"} | how).notes == []


def test_mean_and_std_set_the_range():
    said = {"mean": [0.5] * 3, "std": [0.5] * 3}

    assert probed(nn.Identity(), first=BRIGHT, builder="onnx", said=said).notes == []


def test_a_first_frame_that_cannot_be_read_or_rendered_leaves_the_range_assumed():
    def fail(x):
        if x.shape[2:] != probe_size(Signature()):
            raise RuntimeError("out of order")
        return x

    (note,) = probed(Do(fail), first=BRIGHT, builder="nets:build").notes
    assert is_range_note(note)
