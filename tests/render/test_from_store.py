"""Models of a store from discovery to frames, where that takes more than one stage."""

import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from dailies.planning.final_report import FinalReport
from dailies.planning.progress import Progress
from helpers.images import write_video
from helpers.in_process import render_all
from helpers.studio import Studio
from helpers.weights import grey, grey_checkpoint

LOADER = """
import torch
from dailies.models.architectures.catalog import ARCHITECTURES

def load(path):
    network = ARCHITECTURES["unet"](base_channels=1)
    for weights in network.parameters():
        weights.data.zero_()
    network.outc.bias.data.fill_({factor} * float(path.read_text()))
    return network
"""


def test_the_next_file_is_rendered_where_the_first_holds_no_network(studio: Studio):
    studio.add_frames(2)
    run_id = studio.add_run("gan", {"state": {}, "param_groups": []}, path="best.pth")
    studio.log_checkpoint(run_id, grey_checkpoint(0.3), path="checkpoints/epoch_2.pth")

    told: list[str] = []
    settings = SimpleNamespace(compare=False)
    invocation = SimpleNamespace(layout=studio.layout, settings=settings, warn=told.append, is_main=False)
    report = FinalReport(invocation, Progress(invocation))

    render_all(studio)
    report.report()

    assert studio.levels(run_id) == [grey(0.3)] * 2
    about = studio.metadata(run_id)
    assert about["artifact"]["path"] == "checkpoints/epoch_2.pth"
    assert [each["path"] for each in about["artifact"]["tried"]] == ["best.pth"]
    assert about["not_chosen"] == ["best.pth"]
    (warning,) = told
    assert warning.startswith("1 model rendered from another file than the preferred one: gan: best.pth ")
    before = studio.written(run_id)

    studio.log_checkpoint(run_id, grey_checkpoint(0.1), path="optimizer.pth")
    studio.add_frames(3)
    render_all(studio)

    assert studio.levels(run_id) == [grey(0.3)] * 3
    assert {name: studio.written(run_id)[name] for name in before} == before


def test_editing_a_loaders_code_renders_its_models_alone_again(studio: Studio, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would be as old as the edited code
    studio.add_frames(2)
    plain = studio.add_run("plain", grey_checkpoint(0.3))
    exotic = studio.add_run("exotic", b"0.25", path="exotic.ckpt", params={})
    studio.config["python_path"] = [str(studio.root)]
    (studio.root / "loaders.py").write_text(LOADER.format(factor=1))

    render_all(studio)
    before = studio.written(plain)
    assert studio.metadata(exotic)["render"]["status"] == "load_failed"

    studio.config["model_loader"] = {"exotic_*": "loaders:load"}
    render_all(studio)
    assert studio.levels(exotic) == [grey(0.25)] * 2
    about = studio.metadata(exotic)
    assert (about["network"]["builder"], about["architecture"]) == ("loaders:load", "unet")
    loaded = studio.written(exotic)
    render_all(studio)
    assert studio.written(exotic) == loaded

    (studio.root / "loaders.py").write_text(LOADER.format(factor=2))
    render_all(studio)
    assert studio.levels(exotic) == [grey(0.5)] * 2
    assert studio.written(plain) == before


def test_a_video_is_rendered_once_and_lost_frames_of_it_are_decoded_again(studio: Studio):
    run_id = studio.add_run("net", grey_checkpoint(0.3))
    clip = studio.root / "clip.mkv"
    write_video(clip, [np.full((6, 8, 3), number, np.uint8) for number in range(3)])
    names = [f"clip_{number:06d}.png" for number in range(3)]
    studio.config["input_dir"] = str(clip)

    render_all(studio)
    before = studio.written(run_id)
    assert list(before) == names
    render_all(studio)
    assert studio.written(run_id) == before

    (studio.folder(run_id) / names[1]).unlink()
    shutil.rmtree(studio.state / "video")
    render_all(studio)
    after = studio.written(run_id)
    assert [name for name in after if after[name] != before[name]] == [names[1]]
