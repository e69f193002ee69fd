"""What a render writes: frames, manifest, outcome, and the error of a model that fails."""

import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch
from dailies.core import files
from dailies.core.errors import RenderError
from dailies.core.typed import to_json
from dailies.frames import image, sequence
from dailies.models.architectures.catalog import ARCHITECTURES
from dailies.models.signature import Signature
from dailies.render import loading, pipeline
from dailies.render.pipeline import read
from dailies.state.records import RunRecord
from helpers import REPOSITORY
from helpers.frame_files import written
from helpers.images import read_frame, write_frame, write_video
from helpers.program_files import onnx_images
from helpers.raising import refused
from helpers.render_sites import NAMES, SETTINGS, Inverse, fail, inverse_like
from helpers.weights import LOADING, grey, grey_checkpoint
from PIL import Image
from torch import nn

BF16 = SETTINGS | {"precision": "bf16", "parity_tolerance": [2, 0.25]}


def signatures(**said):
    """The settings of loading with a signature for the model."""
    return LOADING | {"signatures": {"model": said}}


# frames


def test_every_frame_is_rendered_under_its_own_name(site):
    outcome = site.render_well(threads=4)

    assert list(site.written()) == NAMES
    for pixels in site.pixels().values():
        np.testing.assert_array_equal(pixels, np.full((5, 7, 3), grey(0.5)))
    assert outcome["attempt"] == 1


def test_frames_keep_their_size_depth_alpha_and_grey(site, network):
    rgba = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    deep = rgba[:, :, 0].astype(np.uint16) * 257
    for name, pixels in (("alpha.png", rgba), ("grey.png", rgba[:, :, 0]), ("deep.png", deep)):
        Image.fromarray(pixels).save(site.shot / name)
    (site.shot / "film.exr").write_bytes(written(np.full((5, 7, 3), 0.25, np.float32), ".exr", depth="half"))
    write_frame(site.shot / "wide.bmp", seed=9, size=(70, 33))
    site.read_sequence()

    site.render_well()

    def decoded(name):
        return image.decode((site.folder / name).read_bytes(), name).pixels

    rendered = site.pixels()
    np.testing.assert_array_equal(rendered["alpha.png"], np.dstack([255 - rgba[:, :, :3], rgba[:, :, 3]]))
    np.testing.assert_array_equal(rendered["grey.png"], 255 - rgba[:, :, 0])
    np.testing.assert_array_equal(rendered["wide.png"], 255 - read_frame(site.shot / "wide.bmp"))
    np.testing.assert_array_equal(decoded("deep.png")[:, :, 0], 65535 - deep)
    np.testing.assert_allclose(decoded("film.exr"), 0.75, atol=0.5 / 255)


def test_frames_are_written_in_the_output_format(site, network):
    site.read_sequence(output_format="tiff")

    site.render_well(settings=SETTINGS | {"output_format": "tiff"})

    for name in NAMES:
        rendered = read_frame(site.folder / name.replace(".png", ".tif"))
        np.testing.assert_array_equal(rendered, 255 - read_frame(site.shot / name))


def test_a_video_is_rendered_from_its_decoded_frames(site, network):
    clip = site.shot.parent / "clip.mkv"
    write_video(clip, [read_frame(site.shot / name) for name in NAMES])
    site.read_sequence(clip)

    assert site.render_well(input_dir=clip)["render"]["frames"] == 6

    for number, name in enumerate(NAMES):
        rendered = read_frame(site.folder / f"clip_{number:06d}.png")
        np.testing.assert_array_equal(rendered, 255 - read_frame(site.shot / name))


def test_a_network_with_a_scale_writes_larger_frames(site, use):
    use(inverse_like(nn.Upsample(scale_factor=2)))

    outcome = site.render_well()

    assert outcome["model"]["signature"]["scale"] == 2
    for name, pixels in site.pixels().items():
        np.testing.assert_array_equal(pixels, read_frame(site.shot / name).repeat(2, 0).repeat(2, 1))


def test_equal_frames_are_rendered_equally_at_both_ends_of_the_sequence(site):
    torch.manual_seed(0)
    config = {"base_channels": 2}
    site.download({"model_state_dict": ARCHITECTURES["unet"](**config).state_dict(), "model_config": config})
    shutil.copy(site.shot / NAMES[0], site.shot / NAMES[-1])
    site.read_sequence()

    site.render_well()

    assert np.ptp(read_frame(site.folder / NAMES[0])) > 0
    assert (site.folder / NAMES[0]).read_bytes() == (site.folder / NAMES[-1]).read_bytes()


def test_a_batch_changes_no_byte_renders_nothing_again_and_is_recorded(site, use):
    torch.manual_seed(0)
    config = {"base_channels": 4}
    site.download({"model_state_dict": ARCHITECTURES["unet"](**config).state_dict(), "model_config": config})
    site.render_well(batch=1)
    alone = {name: (site.folder / name).read_bytes() for name in NAMES}
    with site.writes():
        assert site.render_well(batch=4)["render"]["batch"] == 1
    for name in NAMES:
        (site.folder / name).unlink()

    site.render_well(batch=4)

    assert {name: (site.folder / name).read_bytes() for name in site.written()} == alone
    use(Inverse)
    assert site.render_well(batch=4)["render"]["batch"] == 4


# records


def test_the_record_says_what_was_rendered_with_what(site):
    outcome = site.render_well()

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
    assert 0 < figures.pop("startup_seconds") < 60
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
    digest = sequence.load(site.layout.sequence).digest
    assert outcome["input"] == {"digest": digest, "frames": 6, "skipped": 0}


def test_the_manifest_has_one_line_per_frame(site):
    site.render_well()

    lines = site.manifest_lines()

    assert sorted(lines) == NAMES
    for name, line in lines.items():
        path = site.folder / name
        assert (line["size"], line["sha256"]) == (path.stat().st_size, files.sha256_of(path))


def test_progress_is_logged(site, network, caplog, monkeypatch):
    monkeypatch.setattr("dailies.render.pipeline.PROGRESS_SECONDS", -1)

    with caplog.at_level(logging.INFO):
        site.render_well()

    assert "6 frames, 6 of them to render" in caplog.messages
    assert "architecture test, device cpu, threads 1" in caplog.messages
    assert len([text for text in caplog.messages if text.startswith("frame ")]) == 6
    assert caplog.messages[-1] == "success"


def test_the_threads_of_the_job_reach_torch(site, network):
    seen = []
    network.before[1] = lambda: seen.append(torch.get_num_threads())
    before = torch.get_num_threads()

    try:
        site.render_well(threads=3)
    finally:
        torch.set_num_threads(before)

    assert seen == [3]


# memory and precision


def test_tiles_are_recorded(site):
    figures = site.render_well(settings=SETTINGS | {"tiled": True})["render"]

    assert (figures["tiled"], figures["tile_size"], figures["overlap"]) == (True, 64, 32)


def limited(x):
    if x[:, 0].numel() > 96 * 160:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return -x


def test_frames_from_the_one_that_memory_ran_out_on_are_recorded_as_tiled(site, use):
    use(inverse_like(limited))
    write_frame(site.shot / NAMES[3], seed=3, size=(130, 130))
    site.read_sequence()

    outcome = site.render_well()

    lines = site.manifest_lines()
    assert [lines[name]["tiled"] for name in NAMES] == [False, False, False, True, True, True]
    assert (outcome["render"]["tiled"], outcome["render"]["tile_size"]) == (True, 64)
    site.check_inverted()


def test_the_tile_size_that_memory_allowed_is_recorded_and_renders_nothing_again(site, use):
    use(inverse_like(limited))
    write_frame(site.shot / NAMES[0], seed=3, size=(200, 190))
    site.read_sequence()
    settings = SETTINGS | {"tile_size": 160}

    outcome = site.render_well(settings=settings)

    assert (outcome["render"]["tiled"], outcome["render"]["tile_size"], outcome["render"]["overlap"]) == (True, 64, 32)
    with site.writes():
        assert site.render(settings=settings) == outcome


def test_a_batch_that_memory_does_not_suffice_for_is_halved_and_recorded(site, use):
    def cramped(x):
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return -x

    use(inverse_like(cramped))

    outcome = site.render_well(batch=4)

    assert (outcome["render"]["batch"], outcome["render"]["tiled"]) == (2, False)
    site.check_inverted()


def test_out_of_memory_for_good_names_the_frame_and_what_to_change(site, network):
    network.before[2] = fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"))

    site.fail_to_render("error", "cpu", "tiled", NAMES[1], settings=SETTINGS | {"tiled": False})

    assert list(site.written()) == NAMES[:1]


OFF = {"code values": 4}
"""How far ``coarse`` is from the inverse in bf16."""


@pytest.fixture
def coarse(use, monkeypatch):
    """Use a network that is the inverse in fp32 and off in bf16."""
    monkeypatch.setitem(OFF, "code values", 4)
    use(inverse_like(lambda x: -x + (OFF["code values"] / 127.5 if torch.is_autocast_enabled("cpu") else 0)))


def test_a_precision_that_differs_too_much_gives_way_to_fp32_and_this_is_recorded(site, coarse):
    outcome = site.render_well(settings=BF16)

    assert outcome["render"]["precision"] == "fp32"
    assert outcome["model"]["parity"] == {"max": pytest.approx(4, abs=0.01), "mean": pytest.approx(3.9, abs=0.1)}
    assert "bf16" in outcome["model"]["notes"][0]
    site.check_inverted()
    with site.writes():
        assert site.render(settings=BF16) == outcome


def test_a_precision_within_the_tolerance_is_used_and_recorded(site, coarse):
    outcome = site.render_well(settings=BF16 | {"parity_tolerance": [5, 5]})

    assert (outcome["render"]["precision"], outcome["model"]["notes"]) == ("bf16", [])
    assert outcome["model"]["parity"]["max"] == pytest.approx(4, abs=0.01)
    difference = site.pixels()[NAMES[1]].astype(int) + read_frame(site.shot / NAMES[1]) - 255
    assert np.abs(difference).max() == 4


def test_a_resumed_render_chooses_the_precision_as_the_first_did(site, coarse):
    outcome = site.render_well(settings=BF16)
    (site.folder / NAMES[3]).unlink()
    site.job.last_attempt.unlink()

    with site.writes(NAMES[3]):
        again = site.render_well(settings=BF16)

    assert again["model"] == outcome["model"]


def test_another_choice_of_precision_renders_all_frames_again(site, coarse, monkeypatch):
    settings = BF16 | {"parity_tolerance": [2, 2]}
    for off, precision in ((1, "bf16"), (4, "fp32")):
        monkeypatch.setitem(OFF, "code values", off)
        (site.folder / NAMES[3]).unlink(missing_ok=True)
        with site.writes(*NAMES):
            assert site.render_well(settings=settings)["render"]["precision"] == precision


def test_the_first_frame_of_the_sequence_chooses_the_precision_of_every_shard(site, use):
    use(inverse_like(lambda x: -x + 0.5 * (torch.is_autocast_enabled("cpu") and x.mean() > 0)))
    site.fill((10,) * 3, (240,) * 3)

    outcome = site.render_well(settings=BF16, shard="2", shard_frames=3)

    assert outcome["render"]["precision"] == "bf16"


# failures


def test_a_failed_download_is_an_outcome(site):
    files.write_json(site.weights.receipt, {"status": "download_failed", "error": "it is gone", "uri": "store"})

    outcome = site.fail_to_render("download_failed", "it is gone")

    assert (outcome["render"]["frames"], outcome["render"]["fps"], outcome["model"]) == (0, None, {})
    assert outcome["artifact"] == {"uri": "store", "path": None, "sha256": None, "size": None}


def test_deleted_weights_are_a_failed_download_unless_nothing_is_due(site):
    site.render_well()
    shutil.rmtree(site.weights.whole)

    site.render_well()

    (site.folder / NAMES[0]).unlink()
    outcome = site.fail_to_render("download_failed", str(site.weights.whole), attempt=2)
    assert outcome["attempt"] == 2


def test_a_model_that_does_not_load_is_an_outcome(site, caplog):
    site.download({"epoch": 3})

    outcome = site.fail_to_render("load_failed", "best.pth", "'epoch'")

    assert outcome["model"] == {}
    assert caplog.messages[-1] == f"load_failed: {outcome['error']}"


def test_a_missing_artifact_is_named(site):
    (site.weights.whole / "best.pth").unlink()

    site.fail_to_render("load_failed", "best.pth")


def test_a_factory_that_raises_is_named_with_a_traceback(site, use, caplog):
    use(fail(KeyError("depth")))

    site.fail_to_render("load_failed", "loading failed with KeyError: 'depth'")

    assert "Traceback" in caplog.text


def test_other_files_that_were_tried_are_in_the_outcome_and_in_the_error_of_a_failure(site):
    tried = [{"path": "last.pth", "reason": "it holds an optimizer"}]
    site.amend_receipt(tried=tried)
    assert site.render_well()["artifact"]["tried"] == tried

    site.download({"model_state_dict": {}})
    site.amend_receipt(tried=tried)

    site.fail_to_render("load_failed", "Also tried: last.pth (it holds an optimizer)")


def test_what_a_network_raises_is_the_first_line_of_its_error_with_a_traceback(site, network, caplog):
    network.before[3] = fail(ZeroDivisionError("division by zero\nmore"))

    outcome = site.fail_to_render("error", "ZeroDivisionError: division by zero")

    assert outcome["error"].endswith("division by zero")
    assert "Traceback" in caplog.text
    assert outcome["model"]["architecture"] == "test"


def test_a_size_that_a_network_does_not_take_names_the_settings(site, use):
    use(inverse_like(lambda x: x + torch.zeros(1, 1, 96, 160)[:, :, : x.shape[2], : x.shape[3]]))
    Image.new("RGB", (7, 200)).save(site.shot / NAMES[0])
    site.read_sequence()

    site.fail_to_render("error", "(224)", "(96)", "multiple, most or tile in signatures")


@pytest.mark.parametrize("settings", [SETTINGS, BF16])
def test_output_that_is_not_finite_names_the_frame_and_is_not_written(site, settings):
    site.download(grey_checkpoint(float("nan")))

    site.fail_to_render("error", "not finite", NAMES[0], settings=settings)

    assert site.written() == {}


@pytest.mark.parametrize(("settings", "number"), [(SETTINGS, 2), (BF16, 0)])
def test_an_input_frame_that_changed_meanwhile_is_named(site, network, settings, number):
    write_frame(site.shot / NAMES[number], seed=99)

    outcome = site.fail_to_render("error", f"frame {NAMES[number]} has changed", settings=settings)

    assert outcome["model"]["architecture"] == "test"
    site.check_inverted(NAMES[:number])


def test_an_input_frame_that_vanished_is_named(site, network):
    (site.shot / NAMES[4]).unlink()

    site.fail_to_render("error", f"No such file or directory: {site.shot / NAMES[4]}")

    site.check_inverted(NAMES[:4])


def test_a_missing_device_is_no_fault_of_the_model(site):
    with refused(RenderError, "device.not_in_torch", "cuda:99"):
        site.render(device="cuda:99")

    assert not site.job.last_attempt.exists()


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


def test_a_full_disk_is_named_and_leaves_no_part_of_a_frame(small_disk, site, network):
    for number, name in enumerate(NAMES):
        write_frame(site.shot / name, number, size=(80, 80))  # 19 kB each: three fit
    site.read_sequence()

    site.fail_to_render("error", f"No space left on device: {site.folder}")
    site.check_inverted(NAMES[:3])
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    with site.writes(*NAMES[3:]):
        site.render_well(attempt=2)


def test_a_frame_too_large_for_the_file_system_leaves_nothing(site, network):
    write_frame(site.shot / NAMES[2], seed=2, size=(120, 120))
    site.read_sequence()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        site.fail_to_render("error", "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert NAMES[2] not in site.written()
    site.check_inverted(site.written())


def test_a_folder_that_cannot_be_made_is_named(site):
    site.folder.parent.mkdir(exist_ok=True)
    site.folder.touch()

    site.fail_to_render("error", str(site.folder))


# how the model is loaded


def test_a_run_says_what_its_network_takes(site, network):
    site.record(**{"dailies.value_range": "[0, 255]", "dailies.output_range": "[-255, 0]"})

    outcome = site.render_well()

    assert outcome["model"]["signature"]["value_range"] == [0, 255]
    site.check_inverted()


def test_a_run_says_what_its_network_is_built_from(site):
    site.download(ARCHITECTURES["unet"](base_channels=2).state_dict())
    site.record(
        **{"model.architecture": "unet", "model.base_channels": "2", "model.in_channels": "3", "model.loss": "l1"}
    )

    site.render_well()


def test_a_default_architecture_is_used_if_none_is_named(site, network):
    site.record(architecture=None)
    site.download({"state_dict": Inverse().state_dict()})

    site.fail_to_render("load_failed", "architecture")
    site.render_well(loading=LOADING | {"default_architecture": "test"})


@pytest.mark.parametrize(
    ("trust", "is_trusted"),
    [(True, True), (["ab12"], True), (["another", "7"], True), (False, False), ([], False), (["another"], False)],
)
def test_a_pickle_loads_only_for_those_who_are_trusted(site, trust, is_trusted):
    site.download(grey_checkpoint(0.5) | {"folder": os.getcwd})

    if is_trusted:
        assert site.render_well(trust_code=trust)["model"]["trust_pickle"] is True
    else:
        site.fail_to_render("load_failed", f"{os.getcwd.__module__}.getcwd", trust_code=trust)


@pytest.fixture
def user_module(monkeypatch):
    """A module with the user's functions."""
    module = types.ModuleType("test_render_loaders")
    module.inverse = lambda path: Inverse()
    module.with_params = lambda path, params: Inverse() if params == {"gain": "1"} else None
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def test_a_loader_renders_what_its_network_returns_and_is_recorded(site, user_module):
    site.record(architecture=None)
    site.download({"no": "weights"})
    name = f"{user_module}:inverse"

    outcome = site.render_well(loading=LOADING | {"model_loader": {"model": name}, "loader_code": {name: "first"}})

    assert (outcome["model"]["builder"], outcome["model"]["network"]["code"]) == (name, "first")
    site.check_inverted()


def test_a_loader_that_declares_params_gets_those_of_the_run(site, user_module):
    name = f"{user_module}:with_params"
    loading = LOADING | {"model_loader": {"model": name}, "loader_code": {name: "first"}}
    site.fail_to_render("load_failed", name, "None", "best.pth", loading=loading)

    RunRecord(run_id="ab12", params={"gain": "1"}).save(site.layout.run("model"))

    site.render_well(loading=loading)


def test_the_part_of_the_output_that_is_used_is_noted(site, use):
    use(inverse_like(lambda x: (x.mean(), -x)))

    (note,) = site.render_well()["model"]["notes"]

    assert "part [1]" in note
    site.check_inverted()


def test_a_user_chooses_between_several_images(site, use):
    use(inverse_like(lambda x: (x, -x)))

    site.fail_to_render(
        "load_failed", "2 images, 0 (1×3×96×160), 1 (1×3×96×160)", "set output", "0 is the nearest", "0 by 0.0"
    )
    site.record(**{"dailies.output": "1"})

    assert site.render_well()["model"]["signature"]["output"] == "1"
    site.check_inverted()


@pytest.fixture
def onnx(site):
    """Return a function that replaces the model by an ONNX program whose outputs are the image times a number."""
    pytest.importorskip("onnxruntime")

    def write(*outputs):
        path = site.weights.whole / "model.onnx"
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        onnx_images(path, dict(outputs))
        site.receive(path)

    return write


def test_a_user_chooses_an_output_of_onnx_by_name(site, onnx):
    onnx(("stage", 1), ("final", -1))

    site.fail_to_render(
        "load_failed", "2 images, stage (1×3×96×160), final (1×3×96×160)", "set output", "stage is the nearest"
    )
    outcome = site.render_well(loading=signatures(output="final"))

    assert any("part ['final']" in note for note in outcome["model"]["notes"])
    site.check_inverted()


def test_an_assumed_range_is_logged_and_recorded(site, onnx, caplog):
    onnx(("final", -1))

    (note,) = site.render_well()["model"]["notes"]
    assert note.startswith("value_range [-1, 1] was assumed")
    assert note in caplog.messages

    site.record(**{"dailies.value_range": "[-1, 1]"})
    assert site.render_well()["model"]["notes"] == []


# processes and threads


def test_the_frame_that_is_due_is_read_while_the_model_is_loaded_and_only_then(site, monkeypatch):
    site.render_well()
    (site.folder / NAMES[2]).unlink()
    names, was_read, in_time = [], threading.Event(), []

    def reading(frame, route):
        names.append(frame.name)
        was_read.set()
        return read(frame, route)

    load_model = loading.load_model

    def loading_model(*arguments, **options):
        in_time.append(was_read.wait(60))
        return load_model(*arguments, **options)

    monkeypatch.setattr(pipeline, "read", reading)
    monkeypatch.setattr(loading, "load_model", loading_model)
    site.download(grey_checkpoint(0.25))  # another network, so that all frames are due although most are in place
    site.render_well()

    assert in_time == [True]
    assert sorted(names) == NAMES


def test_a_render_without_a_due_frame_imports_nothing_heavy(site):
    site.render_well()
    names = ("model", "shard", "shard_frames", "batch", "settings", "loading", "device", "threads", "attempt")
    options = {name: getattr(site.job, name) for name in (*names, "trust_code")}
    code = (
        "import sys, json; from pathlib import Path; from dailies.state.layout import Layout;"
        "from dailies.render.job import Job, render;"
        "(output_dir, input_dir), options = json.loads(sys.argv[1]);"
        "render(Job(layout=Layout(Path(output_dir)), input_dir=Path(input_dir), **options));"
        "print(sorted({'mlflow', 'torch', 'snakemake', 'pandas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, json.dumps([[str(site.layout.output_dir), str(site.shot)], options])]
    site.job.outcome.unlink()

    imported = subprocess.check_output(command, env={"PYTHONPATH": str(REPOSITORY / "scripts")}, text=True)

    assert imported.strip() == "[]"
    assert files.read_json(site.job.outcome)["render"]["frames"] == 6
