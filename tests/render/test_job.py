import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import threading
import types
from dataclasses import replace

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
import torch
from dailies.core import files
from dailies.core.errors import RenderError
from dailies.core.typed import from_json, to_json
from dailies.frames import image, scan, sequence
from dailies.models import load
from dailies.models.architectures.catalog import ARCHITECTURES
from dailies.models.load import load_model
from dailies.models.signature import Signature
from dailies.render import pipeline
from dailies.render.job import Job, _manifest, render
from dailies.render.network import probe_size
from dailies.render.pipeline import read
from dailies.state.layout import Layout
from dailies.state.records import (
    LoadedModel,
    ModelRecord,
    Receipt,
    RunRecord,
)
from dailies.store.entities import Artifact
from helpers import REPOSITORY
from helpers.frame_files import written
from helpers.images import read_frame, write_frame, write_video
from helpers.json_files import strict_json
from helpers.program_files import onnx_images
from helpers.raising import refused as expect_refusal
from helpers.weights import LOADING, grey, grey_checkpoint
from PIL import Image
from torch import nn

SCRIPTS = REPOSITORY / "scripts"
SETTINGS = {
    "precision": "fp32",
    "tiled": "auto",
    "tile_size": 64,
    "overlap": 32,
    "output_format": "auto",
    "transfer": "clip",
}
PROBE = probe_size(Signature())
NAMES = [f"frame_{number:06d}.png" for number in range(6)]


class Network(nn.Module):
    """The inverse, which counts its calls and does what it is told before one of them."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))
        self.calls = 0
        self.before = {}
        """What to do, by the number of the call."""

    def forward(self, x):
        if x.shape[2:] != PROBE:
            self.calls += 1
            self.before.get(self.calls, lambda: None)()
        return -x


class Limited(Network):
    """The inverse, for which more pixels than a first try has do not fit into memory."""

    def forward(self, x):
        if x.shape[2:] != PROBE and x[0, 0].numel() > 64**2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return -x


class Site:
    """What the jobs before a render leave on the disk: frames, their sequence, a downloaded model."""

    def __init__(self, root):
        self.shot, self.layout = root / "shot", Layout(root / "out")
        self.folder, self.weights = self.layout.frames("model"), self.layout.weights("model")
        self.result = self.layout.outcome("model", "all")
        self.job = Job(
            layout=self.layout,
            model="model",
            shard="all",
            shard_frames=0,
            input_dir=self.shot,
            settings=SETTINGS,
            loading=LOADING,
            batch="auto",
            device="cpu",
            threads=1,
            attempt=1,
            trust_code=False,
        )
        self.shot.mkdir()
        for number, name in enumerate(NAMES):
            write_frame(self.shot / name, number)
        self.read_sequence()
        self.record()

    def record(self, architecture="unet", **hints):
        artifact = Artifact("store", "best.pth", ())
        about = ModelRecord(run_id="ab12", experiment_id="7", architecture=architecture, artifact=artifact, hints=hints)
        about.save(self.job.record)

    def read_sequence(self, **options):
        found = scan.scan(self.shot, on_bad_frame="error", cache=self.layout.scan, **options)
        sequence.save(found, self.layout.sequence)

    def download(self, checkpoint):
        path = self.weights.whole / "best.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)
        self.receive("success", path="best.pth", sha256=files.sha256_of(path), size=path.stat().st_size)

    def receive(self, status, error=None, **about):
        files.write_json(self.weights.receipt, {"status": status, "error": error, "uri": "store", **about})

    def render(self, forced=None, **changes):
        """Render, and give the record of it."""
        job = replace(self.job, **changes)
        self.result = job.result
        self.result.unlink(missing_ok=True)
        render(job, forced=forced)
        assert self.result.read_bytes() == job.state.read_bytes()
        return strict_json(self.result)

    def written(self):
        """Rendered frames, with the times of their writing."""
        return {path.name: path.stat().st_mtime_ns for path in sorted(self.folder.glob("*.png"))}

    def rendered_again(self, before):
        """Names of the frames that are new or were written again since ``before``."""
        return [name for name, time in self.written().items() if before.get(name) != time]

    def pixels(self):
        return {name: read_frame(self.folder / name) for name in self.written()}

    def leftovers(self):
        return [path.name for path in self.shot.parent.rglob("*.tmp")]


@pytest.fixture
def site(tmp_path):
    """A site with six frames and the checkpoint of a U-Net that renders one grey."""
    site = Site(tmp_path)
    site.download(grey_checkpoint(0.5))
    yield site
    assert site.leftovers() == []


@pytest.fixture
def network(site, monkeypatch):
    """A network to play with, in place of the one that is downloaded."""
    network = Network()
    monkeypatch.setitem(ARCHITECTURES, "test", lambda: network)
    site.download({"model_state_dict": network.state_dict(), "architecture": "test"})
    return network


@pytest.fixture
def use(site, monkeypatch):
    """Put a class of networks in the place of the one that is downloaded."""

    def used(networks):
        monkeypatch.setitem(ARCHITECTURES, "test", networks)
        site.download({"model_state_dict": Network().state_dict(), "architecture": "test"})

    return used


def fail(error):
    def action():
        raise error

    return action


def test_every_frame_is_rendered_under_its_own_name(site):
    outcome = site.render(threads=4)

    assert list(site.written()) == NAMES
    for pixels in site.pixels().values():
        np.testing.assert_array_equal(pixels, np.full((5, 7, 3), grey(0.5)))
    assert (outcome["status"], outcome["error"], outcome["attempt"]) == ("success", None, 1)


def write_floats(path, values):
    spec = oiio.ImageSpec(values.shape[1], values.shape[0], values.shape[2], "half")
    file = oiio.ImageOutput.create(str(path))
    file.open(str(path), spec)
    assert file.write_image(values)
    file.close()


def test_frames_keep_their_depth_alpha_and_grey(site, network):
    rgba = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(site.shot / "alpha.png")
    Image.fromarray(rgba[:, :, 0]).save(site.shot / "grey.png")
    Image.fromarray(rgba[:, :, 0].astype(np.uint16) * 257).save(site.shot / "deep.png")
    write_floats(site.shot / "film.exr", np.full((5, 7, 3), 0.25, np.float32))
    site.read_sequence()

    assert site.render()["status"] == "success"

    alpha, grey_frame = (read_frame(site.folder / name) for name in ("alpha.png", "grey.png"))
    np.testing.assert_array_equal(alpha, np.dstack([255 - rgba[:, :, :3], rgba[:, :, 3]]))
    np.testing.assert_array_equal(grey_frame, 255 - rgba[:, :, 0])
    deep = image.decode((site.folder / "deep.png").read_bytes(), "deep.png").pixels
    np.testing.assert_array_equal(deep[:, :, 0], 65535 - rgba[:, :, 0].astype(np.uint16) * 257)
    film = image.decode((site.folder / "film.exr").read_bytes(), "film.exr").pixels
    np.testing.assert_allclose(film, 0.75, atol=0.5 / 255)


def test_frames_are_written_in_the_format_asked_for(site, network):
    found = scan.scan(site.shot, on_bad_frame="error", cache=site.layout.scan, output_format="tiff")
    sequence.save(found, site.layout.sequence)

    site.render(settings=SETTINGS | {"output_format": "tiff"})

    for name in NAMES:
        rendered = read_frame(site.folder / name.replace(".png", ".tif"))
        np.testing.assert_array_equal(rendered, 255 - read_frame(site.shot / name))


def test_another_layer_renders_its_frames_again_and_the_same_one_does_not(site, network):
    for path in site.shot.iterdir():
        path.unlink()
    for number, levels in enumerate([(0.25, 0.5), (0.75, 0.125)]):
        values = np.repeat(np.float32(levels), 3) * np.ones((5, 7, 6), np.float32)
        names = [f"{layer}.{c}" for layer in ("beauty", "matte") for c in "RGB"]
        (site.shot / f"f_{number}.exr").write_bytes(written(values, ".exr", depth="half", channels=names))

    def levels(**options):
        site.read_sequence(**options)
        assert site.render()["status"] == "success"
        paths = sorted(site.folder.glob("*.exr"))
        pictures = [image.decode(path.read_bytes(), path.name).pixels for path in paths]
        return [1 - float(picture[0, 0, 0]) for picture in pictures], [path.stat().st_mtime_ns for path in paths]

    plain, first = levels()
    matte, second = levels(layer="matte")
    named, third = levels(layer="beau*")
    again, fourth = levels()

    assert (plain, matte, named, again) == ([0.25, 0.75], [0.5, 0.125], [0.25, 0.75], [0.25, 0.75])
    assert first != second != third == fourth


def test_a_video_is_rendered_from_its_decoded_frames(site, network):
    clip = site.shot.parent / "clip.mkv"
    write_video(clip, [read_frame(site.shot / name) for name in NAMES])
    found = scan.scan(clip, on_bad_frame="error", cache=site.layout.scan)
    sequence.save(found, site.layout.sequence)

    assert site.render(input_dir=clip)["render"]["frames"] == 6

    for number, name in enumerate(NAMES):
        rendered = read_frame(site.folder / f"clip_{number:06d}.png")
        np.testing.assert_array_equal(rendered, 255 - read_frame(site.shot / name))


def test_the_record_says_what_was_rendered_with_what(site):
    outcome = site.render()

    assert outcome["model"] == {
        "architecture": "unet",
        "epoch": 10,
        "train_loss": 0.5,
        "builder": "dailies",
        "network": outcome["model"]["network"],
        "precision": "fp32",
        "parity": None,
        "compile_seconds": None,
        "autotuned": False,
        "batch": 1,
        "tile_size": 64,
        "overlap": 32,
        "trust_pickle": False,
        "notes": [],
        "signature": json.loads(json.dumps(to_json(Signature(output_channels=3, scale=1)))),
    }
    figures = outcome["render"]
    assert figures | {"seconds": None, "fps": None, "versions": None} == {
        "frames": 6,
        "seconds": None,
        "fps": None,
        "device": "cpu",
        "precision": "fp32",
        "parity": None,
        "compile_seconds": None,
        "autotuned": False,
        "batch": 1,
        "tiled": False,
        "tile_size": None,
        "overlap": None,
        "versions": None,
    }
    assert figures["fps"] == pytest.approx(6 / figures["seconds"], rel=0.5)
    assert figures["versions"]["torch"] == torch.__version__
    assert outcome["artifact"]["sha256"] == files.sha256_of(site.weights.whole / "best.pth")
    assert outcome["input"] == {
        "digest": sequence.load(site.layout.sequence).digest,
        "frames": 6,
        "skipped": 0,
    }


def test_a_batch_changes_no_byte_renders_nothing_again_and_is_in_the_record(site, use):
    torch.manual_seed(0)
    network = ARCHITECTURES["unet"](base_channels=4)
    site.download({"model_state_dict": network.state_dict(), "model_config": {"base_channels": 4}})
    site.render(batch=1)
    alone, before = site.pixels(), site.written()
    assert site.render(batch=4)["render"]["batch"] == 1
    assert site.written() == before
    for name in NAMES:
        (site.folder / name).unlink()

    site.render(batch=4)

    assert site.pixels().keys() == alone.keys()
    for name, pixels in site.pixels().items():
        np.testing.assert_array_equal(pixels, alone[name])
    use(Network)
    assert site.render(batch=4)["render"]["batch"] == 4


def test_memory_that_runs_out_in_a_batch_is_in_the_record_and_costs_no_frame(site, use):
    class Cramped(Network):
        def forward(self, x):
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return -x

    use(Cramped)

    outcome = site.render(batch=4)

    assert (outcome["status"], outcome["render"]["batch"], outcome["render"]["tiled"]) == ("success", 2, False)
    assert list(site.written()) == NAMES


def test_the_manifest_has_one_line_per_frame(site):
    site.render()

    lines = [json.loads(line) for line in site.job.manifest.read_text().splitlines()]

    assert sorted(line["output"] for line in lines) == NAMES
    for line in lines:
        path = site.folder / line["output"]
        assert (line["size"], line["sha256"]) == (path.stat().st_size, files.sha256_of(path))


def test_first_and_last_frame_are_treated_alike(site):
    torch.manual_seed(0)
    config = {"base_channels": 2}
    state = ARCHITECTURES["unet"](**config).state_dict()
    site.download({"model_state_dict": state, "model_config": config, "architecture": "unet"})
    (site.shot / NAMES[-1]).write_bytes((site.shot / NAMES[0]).read_bytes())
    site.read_sequence()

    site.render()

    assert np.ptp(read_frame(site.folder / NAMES[0])) > 0
    assert (site.folder / NAMES[0]).read_bytes() == (site.folder / NAMES[-1]).read_bytes()


def test_frames_of_different_sizes_and_kinds_keep_theirs(site, network):
    write_frame(site.shot / "wide.bmp", seed=9, size=(70, 33))
    site.read_sequence()

    site.render()

    np.testing.assert_array_equal(site.pixels()["wide.png"], 255 - read_frame(site.shot / "wide.bmp"))


def test_a_second_render_writes_nothing(site, network):
    first = site.render()
    before = site.written()

    second = site.render()

    assert site.rendered_again(before) == []
    assert network.calls == 6
    assert second == first


def test_a_lost_frame_alone_is_rendered_again(site, network):
    site.render()
    before = site.written()
    (site.folder / NAMES[3]).unlink()
    (site.folder / NAMES[5]).write_bytes(b"cut")

    outcome = site.render(attempt=2)

    assert site.rendered_again(before) == [NAMES[3], NAMES[5]]
    assert network.calls == 8
    assert (outcome["status"], outcome["attempt"], outcome["render"]["frames"]) == ("success", 2, 6)


def test_an_input_frame_that_changed_alone_is_rendered_again(site, network):
    site.render()
    before = site.written()
    write_frame(site.shot / NAMES[2], seed=99)
    site.read_sequence()

    site.render()

    assert site.rendered_again(before) == [NAMES[2]]
    np.testing.assert_array_equal(site.pixels()[NAMES[2]], 255 - read_frame(site.shot / NAMES[2]))


def test_added_frames_alone_are_rendered(site, network):
    site.render()
    before = site.written()
    for number in (6, 7):
        write_frame(site.shot / f"frame_{number:06d}.png", number)
    site.read_sequence()

    assert site.render()["render"]["frames"] == 8
    assert site.rendered_again(before) == ["frame_000006.png", "frame_000007.png"]


def test_a_frame_that_left_the_sequence_is_no_longer_counted(site):
    site.render()
    (site.shot / NAMES[0]).unlink()
    site.read_sequence()

    outcome = site.render()

    assert (outcome["render"]["frames"], outcome["input"]["frames"]) == (5, 5)


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"tiled": True}, {"tile_size": 96}])
def test_another_setting_renders_all_frames_again(site, network, changes):
    site.render()
    before = site.written()

    outcome = site.render(settings=SETTINGS | changes)

    assert site.rendered_again(before) == NAMES
    assert outcome["render"]["precision"] == changes.get("precision", "fp32")


def test_another_artifact_renders_all_frames_again(site):
    site.render()
    before = site.written()
    site.download(grey_checkpoint(-0.5))

    site.render()

    assert site.rendered_again(before) == NAMES
    np.testing.assert_array_equal(site.pixels()[NAMES[0]], np.full((5, 7, 3), grey(-0.5)))


def test_threads_and_place_do_not_matter(site, network):
    site.render()
    before = site.written()

    site.render(threads=2, attempt=7, device="auto", trust_code=True)

    assert site.rendered_again(before) == []


def test_a_lost_state_costs_no_frame(site, network):
    first = site.render()
    before = site.written()
    site.job.state.unlink()

    assert site.render() == first
    assert site.rendered_again(before) == []


def test_tiles_are_recorded(site):
    figures = site.render(settings=SETTINGS | {"tiled": True})["render"]

    assert (figures["tiled"], figures["tile_size"], figures["overlap"]) == (True, 64, 32)


def test_out_of_memory_goes_on_in_tiles_and_is_recorded_from_there_on(site, use):
    use(Limited)
    write_frame(site.shot / NAMES[3], seed=3, size=(100, 90))
    site.read_sequence()

    outcome = site.render()

    lines = {line["output"]: line for line in map(json.loads, site.job.manifest.read_text().splitlines())}
    assert [lines[name]["tiled"] for name in NAMES] == [False, False, False, True, True, True]
    assert (outcome["status"], outcome["render"]["tiled"], outcome["render"]["tile_size"]) == ("success", True, 64)
    for name in NAMES:
        np.testing.assert_array_equal(site.pixels()[name], 255 - read_frame(site.shot / name))


def test_the_size_of_the_tiles_that_memory_allowed_is_recorded_and_renders_nothing_again(site, use):
    use(Limited)
    write_frame(site.shot / NAMES[0], seed=3, size=(200, 190))
    site.read_sequence()

    outcome = site.render(settings=SETTINGS | {"tile_size": 128})
    before = site.written()
    again = site.render(settings=SETTINGS | {"tile_size": 128})

    assert (outcome["render"]["tiled"], outcome["render"]["tile_size"], outcome["render"]["overlap"]) == (True, 64, 32)
    assert again == outcome
    assert site.rendered_again(before) == []


class Coarse(Network):
    """The inverse, off by some code values where it is not asked for fp32."""

    off = 4

    def forward(self, x):
        return -x + self.off / 127.5 if torch.is_autocast_enabled("cpu") else super().forward(x)


@pytest.fixture
def coarse(use):
    use(Coarse)


BF16 = SETTINGS | {"precision": "bf16", "parity_tolerance": [2, 0.25]}


def test_a_precision_that_differs_too_much_gives_way_to_fp32_and_this_is_recorded(site, coarse):
    outcome = site.render(settings=BF16)
    before = site.written()

    assert (outcome["status"], outcome["render"]["precision"]) == ("success", "fp32")
    assert outcome["model"]["parity"] == {"max": pytest.approx(4, abs=0.01), "mean": pytest.approx(3.9, abs=0.1)}
    assert outcome["model"]["notes"][0].startswith("bf16 changes the first frame by 4 code values of 255 at most and ")
    np.testing.assert_array_equal(list(site.pixels().values()), inverted(site))
    assert site.render(settings=BF16) == outcome
    assert site.rendered_again(before) == []


def test_a_precision_within_the_tolerance_is_used_and_recorded(site, coarse):
    outcome = site.render(settings=BF16 | {"parity_tolerance": [5, 5]})

    assert (outcome["status"], outcome["render"]["precision"], outcome["model"]["notes"]) == ("success", "bf16", [])
    assert outcome["model"]["parity"]["max"] == pytest.approx(4, abs=0.01)
    assert np.abs(site.pixels()[NAMES[1]].astype(int) - inverted(site)[1]).max() == 4


def test_a_resumed_render_decides_on_the_precision_as_the_first_did(site, coarse, monkeypatch):
    outcome = site.render(settings=BF16)
    before = site.written()
    (site.folder / NAMES[3]).unlink()
    site.job.state.unlink()

    again = site.render(settings=BF16)

    assert site.rendered_again(before) == [NAMES[3]]
    assert again["model"] == outcome["model"]


def test_another_decision_on_the_precision_renders_all_frames_again(site, coarse, monkeypatch):
    site.render(settings=BF16)
    before = site.written()
    (site.folder / NAMES[3]).unlink()
    monkeypatch.setattr(Coarse, "off", 1)
    settings = BF16 | {"parity_tolerance": [2, 2]}
    site.render(settings=settings)
    between = site.written()
    monkeypatch.setattr(Coarse, "off", 4)
    (site.folder / NAMES[3]).unlink()

    outcome = site.render(settings=settings)

    assert site.rendered_again(before) == NAMES
    assert site.rendered_again(between) == NAMES
    assert outcome["render"]["precision"] == "fp32"


def test_a_first_frame_that_cannot_be_read_is_a_result_in_every_precision(site, network):
    write_frame(site.shot / NAMES[0], seed=99)

    outcome = site.render(settings=BF16)

    assert outcome["status"] == "error"
    assert outcome["error"].startswith(f"frame {NAMES[0]} has changed")
    assert outcome["model"]["architecture"] == "test"


def test_a_first_frame_that_is_not_finite_in_fp32_is_named_in_every_precision(site):
    site.download(grey_checkpoint(float("nan")))

    assert site.render(settings=BF16)["error"] == f"output is not finite at frame {NAMES[0]}"


def test_a_failed_download_is_a_result(site):
    site.receive("download_failed", "best.pth is no longer in the store")

    outcome = site.render()

    assert (outcome["status"], outcome["error"]) == ("download_failed", "best.pth is no longer in the store")
    assert (outcome["render"]["frames"], outcome["render"]["fps"], outcome["model"]) == (0, None, {})
    assert outcome["artifact"] == {"uri": "store", "path": None, "sha256": None, "size": None}


TRIED = [{"path": "last.pth", "reason": "it holds an optimizer"}]


def test_what_else_was_tried_is_in_the_outcome_and_in_the_reason_of_a_failure(site):
    receipt = files.read_json(site.weights.receipt)
    files.write_json(site.weights.receipt, receipt | {"tried": TRIED})

    outcome = site.render()

    assert (outcome["status"], outcome["error"]) == ("success", None)
    assert outcome["artifact"]["tried"] == TRIED

    site.download({"model_state_dict": {}})
    receipt = files.read_json(site.weights.receipt)
    files.write_json(site.weights.receipt, receipt | {"tried": TRIED})

    outcome = site.render()

    assert outcome["status"] == "load_failed"
    assert outcome["error"].endswith(". Also tried: last.pth (it holds an optimizer)")


def test_another_config_beside_the_same_weights_is_looked_at(site, network):
    site.render()
    receipt = files.read_json(site.weights.receipt)
    before = site.written()
    files.write_json(site.weights.receipt, receipt | {"config_sha256": "ab"})

    outcome = site.render()

    assert outcome["artifact"]["config_sha256"] == "ab"
    assert site.rendered_again(before) == []  # it made no other network


def test_frames_outlive_a_failed_download(site, network):
    site.render()
    before = site.written()
    receipt = files.read_json(site.weights.receipt)
    site.receive("download_failed", "the server does not answer")
    site.render(attempt=2)
    files.write_json(site.weights.receipt, receipt)

    outcome = site.render(attempt=3)

    assert (outcome["status"], outcome["render"]["frames"]) == ("success", 6)
    assert outcome["model"]["architecture"] == "test"
    assert site.rendered_again(before) == []


def test_a_model_that_does_not_load_is_a_result(site, caplog):
    site.download({"epoch": 3})

    outcome = site.render()

    assert outcome["status"] == "load_failed"
    assert outcome["error"].startswith("best.pth holds a dict with the keys 'epoch'")
    assert outcome["model"] == {}
    assert caplog.messages[-1] == f"load_failed: {outcome['error']}"


def test_a_broken_artifact_does_not_forget_the_frames_of_the_good_one(site):
    site.render()
    before = site.written()
    site.download({"epoch": 3})
    assert site.render(attempt=2)["status"] == "load_failed"
    site.download(grey_checkpoint(0.5))

    assert site.render(attempt=3)["status"] == "success"
    assert site.rendered_again(before) == []


def test_a_missing_artifact_is_a_result(site):
    (site.weights.whole / "best.pth").unlink()

    outcome = site.render()

    assert outcome["status"] == "load_failed"
    assert "best.pth" in outcome["error"]


def test_a_factory_that_fails_in_its_own_way_is_a_result(site, monkeypatch, caplog):
    monkeypatch.setitem(ARCHITECTURES, "test", fail(KeyError("depth")))
    site.download({"model_state_dict": Network().state_dict(), "architecture": "test"})

    outcome = site.render()

    assert (outcome["status"], outcome["error"]) == ("load_failed", "loading failed with KeyError: 'depth'")
    assert "Traceback" in caplog.text


def test_what_a_network_raises_is_its_own_failure(site, network, caplog):
    network.before[3] = fail(ZeroDivisionError("division by zero\nmore"))

    outcome = site.render()

    assert outcome["status"] == "error"
    assert outcome["error"] == "rendering failed with ZeroDivisionError: division by zero"
    assert "Traceback" in caplog.text
    assert outcome["model"]["architecture"] == "test"


def test_frames_before_an_error_are_kept_and_not_rendered_again(site, network):
    network.before[5] = fail(RuntimeError("cosmic ray"))

    failed = site.render()
    before = site.written()
    outcome = site.render(attempt=2)

    assert list(before) == NAMES[:4]
    assert (failed["status"], failed["render"]["frames"]) == ("error", 4)
    assert (outcome["status"], outcome["attempt"], outcome["render"]["frames"]) == ("success", 2, 6)
    assert site.rendered_again(before) == NAMES[4:]


def test_output_that_is_not_finite_is_refused_with_the_name_of_the_frame(site):
    site.download(grey_checkpoint(float("nan")))

    outcome = site.render()

    assert (outcome["status"], outcome["error"]) == ("error", f"output is not finite at frame {NAMES[0]}")
    assert site.written() == {}


def test_out_of_memory_for_good_names_the_frame_and_what_to_change(site, network):
    network.before[2] = fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"))

    outcome = site.render(settings=SETTINGS | {"tiled": False})

    assert outcome["error"].startswith("out of memory on cpu (tiled ")
    assert outcome["error"].endswith(f" at frame {NAMES[1]}")
    assert list(site.written()) == NAMES[:1]


def test_a_missing_device_is_no_fault_of_the_model(site):
    with expect_refusal(RenderError, "device.not_in_torch", "cuda:99"):
        site.render(device="cuda:99")

    assert not site.job.state.exists()


def test_an_input_frame_that_changed_meanwhile_is_refused(site, network):
    write_frame(site.shot / NAMES[2], seed=99)

    outcome = site.render()

    assert outcome["status"] == "error"
    assert outcome["error"].startswith(f"frame {NAMES[2]} has changed")
    assert list(site.written()) == NAMES[:2]


def test_an_input_frame_that_vanished_is_named(site):
    (site.shot / NAMES[4]).unlink()

    outcome = site.render()

    assert outcome["error"] == f"No such file or directory: {site.shot / NAMES[4]}"
    assert list(site.written()) == NAMES[:4]


def test_an_interrupted_render_goes_on_where_it_stopped(site, network):
    undisturbed = site.render()
    expected = {name: (site.folder / name).read_bytes() for name in NAMES}
    for path in site.folder.iterdir():
        path.unlink()
    network.before[network.calls + 5] = fail(KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        site.render()
    before = site.written()
    outcome = site.render()

    assert list(before) == NAMES[:4]
    assert site.rendered_again(before) == NAMES[4:]
    assert {name: (site.folder / name).read_bytes() for name in NAMES} == expected
    assert outcome["render"].keys() == undisturbed["render"].keys()
    assert outcome["render"]["frames"] == 6


def test_figures_are_summed_over_the_manifest_whoever_wrote_it(site, network):
    network.before[4] = fail(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        site.render()

    figures = site.render()["render"]

    lines = [json.loads(line) for line in site.job.manifest.read_text().splitlines()]
    assert figures["frames"] == len(lines) == 6
    assert figures["seconds"] == round(sum(line["seconds"] for line in lines), 2)
    assert site.render()["render"] == figures


def test_what_a_killed_job_was_writing_is_removed(site):
    site.folder.mkdir(parents=True)
    (site.folder / f".{NAMES[0]}.0123abcd.tmp").write_bytes(b"half a frame")
    (site.folder / "notes.txt").write_text("mine")

    site.render()

    assert sorted(path.name for path in site.folder.iterdir()) == [*NAMES, "notes.txt"]


def test_what_another_shard_is_writing_stays(site):
    site.folder.mkdir(parents=True)
    drafts = [site.folder / f".{name}.0123abcd.tmp" for name in NAMES]
    for draft in drafts:
        draft.write_bytes(b"half a frame")

    site.render(shard="2", shard_frames=2)

    assert [draft.exists() for draft in drafts] == [True, True, False, False, True, True]
    for draft in drafts:
        draft.unlink(missing_ok=True)


@pytest.fixture
def sharded(site, tmp_path):
    """Render the shards of a split one after another, and give their records."""

    def render(shard_frames, shards, **changes):
        for shard in shards:
            site.render(shard=shard, shard_frames=shard_frames, **changes)
        return {path.stem: strict_json(path) for path in sorted(site.result.parent.iterdir())}

    return render


def test_a_shard_renders_its_frames_alone(site, network, sharded):
    records = sharded(2, "2")

    assert list(site.written()) == NAMES[2:4]
    assert (records["2"]["render"]["frames"], records["2"]["input"]["frames"]) == (2, 2)


def test_another_split_renders_nothing_again(site, network, sharded):
    sharded(0, ["all"])
    before = site.written()

    for shard_frames, shards in ((2, "123"), (4, "12"), (0, ["all"])):
        records = sharded(shard_frames, shards)
        assert list(records) == list(shards)
        assert sum(record["render"]["frames"] for record in records.values()) == 6
    assert site.written() == before
    assert network.calls == 6


def test_another_split_forgets_records_of_frames_that_it_may_change(site, network, sharded):
    sharded(2, "123")

    records = sharded(3, "1", settings=SETTINGS | {"precision": "tf32"})

    assert list(records) == ["1"]


def test_shards_that_move_forget_records_of_what_they_were(site, network, sharded):
    sharded(2, "123")
    write_frame(site.shot / "frame_0.png", seed=9)
    site.read_sequence()

    assert list(sharded(2, "2")) == ["2"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 KiB, mounted where the rendered frames go."""
    place = tmp_path / "out" / "model"
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "dailies-test", str(place)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_leaves_no_part_of_a_frame(small_disk, site, network):
    for number, name in enumerate(NAMES):
        write_frame(site.shot / name, number, size=(80, 80))  # 19 kB each: three fit
    site.read_sequence()

    full = site.render()
    before = site.written()
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    outcome = site.render(attempt=2)

    assert (full["status"], full["error"]) == ("error", f"No space left on device: {site.folder}")
    assert list(before) == NAMES[:3]
    assert site.rendered_again(before) == NAMES[3:]
    assert outcome["render"]["frames"] == 6
    assert site.leftovers() == []


def test_a_frame_too_large_for_the_file_system_leaves_nothing(site, network):
    write_frame(site.shot / NAMES[2], seed=2, size=(120, 120))
    site.read_sequence()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        outcome = site.render()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert outcome["status"] == "error"
    assert outcome["error"].startswith("File too large: ")
    assert NAMES[2] not in site.written()
    for name, pixels in site.pixels().items():
        np.testing.assert_array_equal(pixels, 255 - read_frame(site.shot / name))


def test_a_folder_that_cannot_be_made_is_a_result(site):
    site.folder.parent.mkdir(exist_ok=True)
    site.folder.touch()

    outcome = site.render()

    assert outcome["status"] == "error"
    assert outcome["error"] in {f"{reason}: {site.folder}" for reason in ("File exists", "Not a directory")}


def test_progress_is_logged(site, network, caplog, monkeypatch):
    monkeypatch.setattr("dailies.render.pipeline.PROGRESS_SECONDS", -1)

    with caplog.at_level(logging.INFO):
        site.render()

    assert "6 frames, 6 of them to render" in caplog.messages
    assert "architecture test, device cpu, threads 1" in caplog.messages
    progress = [text for text in caplog.messages if text.startswith("frame ")]
    assert len(progress) == 6
    assert progress[-1].startswith("frame 6 of 6, ")
    assert progress[-1].endswith(" fps, 0 s left")
    assert caplog.messages[-1] == "success"


def test_the_threads_of_the_job_reach_torch(site, network):
    seen = []
    network.before[1] = lambda: seen.append(torch.get_num_threads())
    before = torch.get_num_threads()

    try:
        site.render(threads=3)
    finally:
        torch.set_num_threads(before)

    assert seen == [3]


PLAIN = (
    "model",
    "shard",
    "shard_frames",
    "batch",
    "settings",
    "loading",
    "device",
    "threads",
    "attempt",
    "trust_code",
)
"""What of a job is no path."""


def imported(site):
    """Run the job in a process of its own, and name the heavy modules that it imported."""
    settings = {name: getattr(site.job, name) for name in PLAIN}
    paths = [str(site.layout.output_dir), str(site.job.input_dir)]
    code = (
        "import sys, json; from pathlib import Path; from dailies.state.layout import Layout;"
        "from dailies.render import Job, render;"
        "(output_dir, input_dir), settings = json.loads(sys.argv[1]);"
        "render(Job(layout=Layout(Path(output_dir)), input_dir=Path(input_dir), **settings));"
        "print(sorted({'mlflow', 'torch', 'snakemake', 'pandas'} & set(sys.modules)))"
    )
    arguments = json.dumps([paths, settings])
    return subprocess.check_output(
        [sys.executable, "-c", code, arguments], env={"PYTHONPATH": str(SCRIPTS)}, text=True
    ).strip()


def test_the_frame_that_is_due_is_read_while_the_model_is_loaded_and_only_then(site, monkeypatch):
    site.render()
    (site.job.folder / NAMES[2]).unlink()
    names, came, in_time = [], threading.Event(), []

    def reading(frame, route):
        names.append(frame.name)
        came.set()
        return read(frame, route)

    def loading(*arguments, **options):
        in_time.append(came.wait(60))
        return load_model(*arguments, **options)

    monkeypatch.setattr(pipeline, "read", reading)
    monkeypatch.setattr(load, "load_model", loading)
    site.download(grey_checkpoint(0.25))  # another network, so that all are due though most of them are there
    site.render()

    assert in_time == [True]
    assert sorted(names) == NAMES


def test_a_render_imports_torch_only_when_there_is_something_to_render(site):
    assert imported(site) == "['torch']"
    assert files.read_json(site.result)["status"] == "success"

    assert imported(site) == "[]"
    assert files.read_json(site.result)["render"]["frames"] == 6


def test_nan_weights_are_refused_at_the_first_frame_and_nothing_is_written(site):
    site.download(grey_checkpoint(float("nan")))

    outcome = site.render()

    assert (outcome["status"], outcome["error"]) == ("error", f"output is not finite at frame {NAMES[0]}")
    assert site.written() == {}


def inverted(site):
    return [255 - read_frame(site.shot / name) for name in NAMES]


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"signatures": {"t*": {"value_range": [0, 1]}}}, True),
        ({"signatures": {"model": {"multiple": 8}}}, True),
        ({"signatures": {"model": {"scale": 1}}}, False),
        ({"signatures": {"another": {"value_range": [0, 1]}}}, False),
        ({"default_architecture": "unet"}, False),
        ({"python_path": ["."]}, False),
    ],
)
def test_frames_are_rendered_again_when_the_network_is_fed_otherwise(site, network, changes, again):
    site.render()
    before = site.written()

    outcome = site.render(loading=LOADING | changes)

    assert outcome["status"] == "success"
    assert site.rendered_again(before) == (NAMES if again else [])


def by_loader(code="first", **own):
    """What decides on the network when the user's function loads it: the inverse, under the name ``loaded``."""
    own = own or {"model": "test_render_loaders:inverse"}
    return LOADING | {"model_loader": own, "loader_code": dict.fromkeys(own.values(), code)}


@pytest.fixture
def loaders(monkeypatch):
    """The module of the user's functions."""

    def inverse(path):
        return Network()

    def with_params(path, params):
        return Network() if params == {"gain": "1"} else None

    module = types.ModuleType("test_render_loaders")
    module.inverse, module.with_params = inverse, with_params
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_a_loader_renders_what_its_network_answers_and_is_recorded(site, loaders):
    site.record(architecture=None)
    site.download({"no": "weights"})

    outcome = site.render(loading=by_loader())

    np.testing.assert_array_equal(list(site.pixels().values()), inverted(site))
    assert (outcome["model"]["builder"], outcome["model"]["architecture"]) == ("test_render_loaders:inverse", "network")
    assert outcome["model"]["network"]["code"] == "first"


@pytest.mark.parametrize(
    ("loading", "again"),
    [
        (by_loader(), False),
        (by_loader(another="other:load", model="test_render_loaders:inverse"), False),
        (by_loader() | {"code": "of a factory"}, False),
        (by_loader("edited"), True),
        (LOADING, True),
    ],
)
def test_frames_of_a_loader_are_rendered_again_when_its_code_is_edited(site, network, loaders, loading, again):
    site.render(loading=by_loader())
    before = site.written()

    outcome = site.render(loading=loading)

    assert outcome["status"] == "success"
    assert site.rendered_again(before) == (NAMES if again else [])


def test_a_loader_for_other_models_renders_nothing_again(site, network, loaders):
    site.render()
    before = site.written()

    outcome = site.render(loading=by_loader(another="test_render_loaders:inverse"))

    assert (outcome["model"]["builder"], outcome["model"]["network"]["code"]) == ("dailies", None)
    assert site.rendered_again(before) == []


def test_a_loader_that_declares_params_gets_those_of_the_run(site, loaders):
    loading = by_loader(model="test_render_loaders:with_params")
    error = "model_loader test_render_loaders:with_params returned None for best.pth; it must return a torch.nn.Module"
    assert site.render(loading=loading)["error"] == error

    RunRecord(run_id="ab12", params={"gain": "1"}).save(site.layout.run("model"))

    assert site.render(loading=loading)["status"] == "success"


def test_a_run_says_how_its_model_is_fed(site, network):
    site.record(**{"dailies.value_range": "[0, 255]", "dailies.output_range": "[-255, 0]"})

    outcome = site.render()

    np.testing.assert_array_equal(list(site.pixels().values()), inverted(site))
    assert outcome["model"]["signature"]["value_range"] == [0, 255]


@pytest.mark.parametrize("trust", [True, ["ab12"], ["7"], ["another", "7"]])
def test_a_pickle_loads_for_those_who_are_trusted(site, trust):
    checkpoint = grey_checkpoint(0.5) | {"optimizer": np.random.default_rng}
    site.download(checkpoint)

    outcome = site.render(trust_code=trust)

    assert (outcome["status"], outcome["model"]["trust_pickle"]) == ("success", True)


@pytest.mark.parametrize("trust", [False, [], ["another"]])
def test_a_pickle_does_not_load_for_others(site, trust):
    site.download(grey_checkpoint(0.5) | {"folder": os.getcwd})

    outcome = site.render(trust_code=trust)

    assert outcome["status"] == "load_failed"
    assert outcome["error"].startswith(f"best.pth needs {os.getcwd.__module__}.getcwd ")


def test_a_run_tells_what_its_network_is_built_from(site):
    config = {"base_channels": 2}
    site.download(ARCHITECTURES["unet"](**config).state_dict())
    told = {"model.architecture": "unet", "model.base_channels": "2", "model.in_channels": "3", "model.loss": "l1"}
    site.record(**told)

    assert site.render()["status"] == "success"


def test_a_default_architecture_stands_in_where_none_is_named(site, use):
    use(Network)
    site.record(architecture=None)
    site.download({"state_dict": Network().state_dict()})

    assert "does not say of which architecture it is" in site.render()["error"]
    assert site.render(loading=LOADING | {"default_architecture": "test"})["status"] == "success"


def test_a_network_with_a_scale_writes_larger_frames(site, use):
    class Upscaler(Network):
        def forward(self, x):
            return nn.functional.interpolate(x, scale_factor=2)

    use(Upscaler)

    outcome = site.render()

    assert outcome["model"]["signature"]["scale"] == 2
    for name in NAMES:
        expected = read_frame(site.shot / name).repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(site.pixels()[name], expected)


def test_a_network_that_answers_several_tensors_says_which_is_used(site, use):
    class Pair(Network):
        def forward(self, x):
            return x.mean(), -x

    use(Pair)

    assert site.render()["model"]["notes"] == ["part [1] of the network's answer is used"]


def test_the_first_frame_of_the_sequence_decides_on_the_precision_of_every_shard(site, use):
    class Bright(Network):
        def forward(self, x):
            off = 0.5 if torch.is_autocast_enabled("cpu") and x.mean() > 0 else 0
            return -x + off

    use(Bright)
    for number, name in enumerate(NAMES):
        Image.new("RGB", (7, 5), (10,) * 3 if number == 0 else (240,) * 3).save(site.shot / name)
    site.read_sequence()

    outcome = site.render(settings=BF16, shard="2", shard_frames=3)

    assert (outcome["status"], outcome["render"]["precision"]) == ("success", "bf16")


def test_weights_that_someone_deleted_are_a_failure_of_the_download_unless_nothing_is_to_render(site):
    site.download(grey_checkpoint(0.5))
    site.render()
    shutil.rmtree(site.weights.whole)

    assert site.render()["status"] == "success"

    (site.folder / NAMES[0]).unlink()
    outcome = site.render(attempt=2)
    assert (outcome["status"], outcome["attempt"]) == ("download_failed", 2)
    assert outcome["error"] == f"{site.weights.whole} was deleted; the next invocation fetches it again"


def keys(site, outcome, **changes):
    """Give the key that the frames of a render have whose input and artifact are of known digests."""
    shot = sequence.load(site.layout.sequence)
    shot = replace(shot, frames=tuple(replace(frame, sha256="0" * 64) for frame in shot.frames))
    receipt, model = Receipt(status="success", sha256="1" * 64), from_json(LoadedModel, outcome["model"])
    manifest = _manifest(replace(site.job, **changes), receipt, shot, model, forced=False)
    (key,) = set(manifest._keys.values())
    return key


class Pair(Network):
    def forward(self, x):
        return x.mean(), -x


class Deep(Network):
    """The inverse, for sizes that 64 divides."""

    def forward(self, x):
        return -x + 0 * nn.functional.interpolate(x[:, :, ::64, ::64], scale_factor=64.0)


@pytest.mark.parametrize(
    ("network", "signature", "key"),
    [
        (Network, {}, "867b9f51"),
        (Pair, {}, "694b561c"),
        (Network, {"channels": 4}, "60806e16"),
        (Network, {"multiple": 8}, "2afce667"),
        (Deep, {}, "867b9f51"),
    ],
    ids=["plain", "part", "alpha", "multiple", "deep"],
)
def test_keys_of_frames_are_those_of_earlier_versions(site, use, network, signature, key):
    """Computed by the version before outputs, constant channels and found multiples: such frames stay as they are."""
    for name in NAMES:
        Image.new("RGB", (64, 64), (9, 9, 9)).save(site.shot / name)
    site.read_sequence()
    use(network)
    loading = LOADING | {"signatures": {"test": signature}}

    outcome = site.render(loading=loading)

    assert outcome["status"] == "success"
    assert keys(site, outcome, loading=loading).startswith(key)


def test_a_multiple_that_was_found_is_in_the_record_and_in_the_key_of_tiles(site, use):
    use(Deep)

    whole = site.render()
    tiles = site.render(settings=SETTINGS | {"tiled": True})

    for outcome in (whole, tiles):
        assert outcome["model"]["signature"]["multiple"] == 64
        assert outcome["model"]["told_multiple"] == 32
        assert outcome["model"]["notes"][0].endswith("multiple 64 is used")
    as_told = tiles | {"model": tiles["model"] | {"signature": tiles["model"]["signature"] | {"multiple": 32}}}
    tiled = {"settings": SETTINGS | {"tiled": True}}
    as_told["model"]["told_multiple"] = 32
    assert keys(site, tiles, **tiled) != keys(site, as_told, **tiled)
    np.testing.assert_array_equal(list(site.pixels().values()), inverted(site))


def test_another_output_renders_all_frames_again(site, use):
    class Stages(Network):
        def forward(self, x):
            return x, -x

    use(Stages)
    site.render(loading=LOADING | {"signatures": {"test": {"output": 0}}})
    before = site.written()

    refused = site.render()
    site.record(**{"dailies.output": "1"})
    chosen = site.render()

    assert refused["status"] == "load_failed"
    assert "2 images, 0 (1×3×96×160), 1 (1×3×96×160); set output" in refused["error"]
    assert "0 is the nearest" in refused["error"]
    assert "0 by 0.0" in refused["error"]
    assert (chosen["status"], chosen["model"]["signature"]["output"]) == ("success", "1")
    assert site.rendered_again(before) == NAMES
    np.testing.assert_array_equal(list(site.pixels().values()), inverted(site))


def test_constants_are_in_the_record_and_other_ones_render_all_frames_again(site, use):
    class Conditioned(Network):
        def forward(self, x):
            return x[:, 3:] - x[:, :3]

    use(Conditioned)

    def loading(*constants):
        return LOADING | {"signatures": {"test": {"channels": 4, "extra_channels": list(constants)}}}

    outcome = site.render(loading=loading(0.0))
    assert outcome["model"]["signature"]["extra_channels"] == [0.0]
    np.testing.assert_array_equal(list(site.pixels().values()), inverted(site))
    before = site.written()

    assert site.render(loading=loading(0.5))["status"] == "success"
    assert site.rendered_again(before) == NAMES


def write_onnx(site, *outputs):
    """Put an ONNX program in the place of the model: each output is the image, times a number."""
    pytest.importorskip("onnxruntime")
    path = site.weights.whole / "model.onnx"
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    onnx_images(path, dict(outputs))
    site.receive("success", path=path.name, sha256=files.sha256_of(path), size=path.stat().st_size)


def test_the_outputs_of_onnx_are_chosen_by_name(site):
    write_onnx(site, ("stage", 1), ("final", -1))

    refused = site.render()
    chosen = site.render(loading=LOADING | {"signatures": {"model": {"output": "final"}}})

    assert refused["error"].startswith("the network answers 2 images, stage (1×3×96×160), final (1×3×96×160)")
    assert "stage is the nearest" in refused["error"]
    assert chosen["status"] == "success"
    assert "part ['final'] of the network's answer is used" in chosen["model"]["notes"]
    np.testing.assert_array_equal(list(site.pixels().values()), inverted(site))


def test_the_only_image_of_an_onnx_program_keeps_the_key_of_its_frames(site):
    write_onnx(site, ("final", -1))
    one = site.render()
    write_onnx(site, ("final", -1), ("mean", None))
    two = site.render()

    assert (one["status"], two["status"]) == ("success", "success")
    for outcome in (one, two):
        assert keys(site, outcome).startswith("1a9c677f")  # of the version that took the first image without a word
    assert two["model"]["notes"][0] == "part ['final'] of the network's answer is used"


def test_a_range_that_was_assumed_is_in_the_log_and_in_the_record(site, caplog):
    write_onnx(site, ("final", -1))
    note = (
        "value_range [-1, 1] was assumed; set value_range in signatures, or the run's tag dailies.value_range, if it "
        "is another"
    )

    assert site.render()["model"]["notes"] == [note]
    assert note in caplog.messages

    site.record(**{"dailies.value_range": "[-1, 1]"})
    assert site.render()["model"]["notes"] == []


def test_a_size_that_a_network_does_not_take_names_the_settings(site, use):
    class Short(Network):
        def forward(self, x):
            return x + torch.zeros(1, 1, 96, 160)[:, :, : x.shape[2], : x.shape[3]]

    use(Short)
    Image.new("RGB", (7, 200)).save(site.shot / NAMES[0])
    site.read_sequence()

    assert site.render()["error"] == (
        "rendering failed with RuntimeError: The size of tensor a (224) must match the size of tensor b (96) at "
        "non-singleton dimension 2; if frames are of a size that the network does not take, set multiple, most or tile "
        "in signatures"
    )


def damage(path):
    """Overwrite the end of a frame, which stays as long as it was."""
    path.write_bytes(path.read_bytes()[:-30] + bytes(30))


def test_a_forced_render_writes_every_frame_again_once(site, network):
    site.render()
    good, before = site.pixels(), site.written()
    damage(site.folder / NAMES[2])
    assert site.render()["render"]["frames"] == 6
    assert site.rendered_again(before) == [NAMES[2]]  # by the test, and by no render

    outcome = site.render(attempt=2, forced="f")

    assert (outcome["attempt"], outcome["forced"], outcome["render"]["frames"]) == (2, "f", 6)
    assert site.rendered_again(before) == NAMES
    for name, pixels in site.pixels().items():
        np.testing.assert_array_equal(pixels, good[name])
    before = site.written()
    site.render(attempt=2, forced="f")
    assert "forced" not in site.render(attempt=2)
    assert site.rendered_again(before) == []
    site.render(attempt=3, forced="another")
    assert site.rendered_again(before) == NAMES


@pytest.mark.parametrize("forced", ["f", None])
def test_a_forced_render_that_failed_resumes_where_it_stopped(site, network, forced):
    site.render()
    first = site.written()
    damage(site.folder / NAMES[5])
    network.before = {network.calls + 4: fail(RuntimeError("no power"))}
    assert site.render(attempt=2, forced="f")["status"] == "error"
    before = site.written()
    done = [name for name in NAMES[:5] if before[name] != first[name]]
    assert done == NAMES[:3]

    outcome = site.render(attempt=3, forced=forced)

    assert (outcome["status"], outcome["render"]["frames"]) == ("success", 6)
    assert site.rendered_again(before) == NAMES[3:]
    np.testing.assert_array_equal(read_frame(site.folder / NAMES[5]), 255 - read_frame(site.shot / NAMES[5]))
