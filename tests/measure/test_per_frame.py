"""Values per frame: only new and changed frames are measured, and no failure blocks a render."""

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dailies.core import files, fork_server, job_environment
from dailies.frames import frame_cache, image
from dailies.frames.oiio import read_ordinary_png as read_png
from dailies.measure import lpips_weights, per_frame, quality
from dailies.measure.job import NOT_RENDERED
from dailies.measure.lpips import Lpips
from dailies.state.due_shards import attempt_after
from dailies.state.layout import SOURCE
from dailies.state.manifest import Manifest
from helpers import REPOSITORY
from helpers.frame_files import written
from helpers.networks import write_alexnet
from helpers.pictures import wang
from helpers.shots import COUNT, EVERYTHING, NAMES, Shot, blur, doubled, read, write
from PIL import Image


def assert_note(record: dict, *parts: str) -> None:
    """Check that a record has exactly one note, and that it contains all parts."""
    (note,) = record["notes"]
    missing = [part for part in parts if part not in note]
    assert not missing, f"{missing} not in: {note}"


def test_every_frame_has_its_metrics(shot):
    shot.measure(SOURCE)
    folder = shot.add("blurred", blur)

    found = shot.measure("blurred")

    assert (found["status"], found["error"], found["notes"]) == ("success", None, [])
    assert list(found["frames"]) == NAMES
    for name, values in found["frames"].items():
        rendered, clean = read(folder / name), read(shot.root / "clean" / name)
        assert values["psnr"] == pytest.approx(quality.psnr(rendered, clean), abs=1e-6)
        assert values["ssim"] == pytest.approx(wang(rendered, clean, 1.0), abs=1e-6)
        assert values["detail"] < 0.5
        assert values["ms_ssim"] is None  # such frames are too small
        assert ("flicker" in values) == (name != NAMES[0])
    assert found["frames"][NAMES[1]]["flicker"] < 0


def test_nothing_is_measured_twice(shot, counted):
    shot.measure(SOURCE)
    shot.add("model", blur)
    first = shot.measure("model")
    counted.clear()

    assert shot.measure("model") == first
    assert counted == []


def test_values_are_the_same_if_jobs_share_frames_and_those_of_the_model_are_given_up(shot, tmp_path, monkeypatch):
    shot.measure(SOURCE)
    folder = shot.add("model", blur)
    alone = shot.measure("model")
    shot.layout.measurement_cache("model", "all").unlink()
    manifest = Manifest(shot.layout.manifest("model", "all"), folder=folder, keys=dict.fromkeys(NAMES, "key"))
    manifest.restart()
    for name in NAMES:
        manifest.add(name, (folder / name).read_bytes(), seconds=1, device="cpu", tiled=False)
    (tmp_path / "dailies-test").mkdir()
    monkeypatch.setattr(fork_server, "SHARED_MEMORY", tmp_path)
    monkeypatch.setenv(fork_server.ADDRESS, "dailies-test")
    monkeypatch.setattr(frame_cache, "SMALLEST", 0)
    opened = []
    monkeypatch.setattr(image, "read_ordinary_png", lambda data, *more: opened.append(data) or read_png(data, *more))
    frame_cache.keep(files.sha256_of(folder / NAMES[0]), np.asarray(Image.open(folder / NAMES[0])), owner="model")

    assert shot.measure("model") == alone

    kept = {path.name for path in (tmp_path / "dailies-test" / frame_cache.INPUTS).iterdir()}
    assert kept >= {files.sha256_of(shot.root / "clean" / name) for name in NAMES}
    assert (folder / NAMES[0]).read_bytes() not in opened
    assert (folder / NAMES[1]).read_bytes() in opened
    assert not any((tmp_path / "dailies-test" / "model").iterdir())


@pytest.mark.parametrize(
    ("threads", "spare", "is_idle", "working"),
    [(1, "", True, 1), (1, "yes", True, 2), (1, "yes", False, 1), (2, "", False, 2), (4, "", False, 4)],
)
def test_every_frame_is_measured_once_in_each_number_of_threads(threads, spare, is_idle, working, shot, monkeypatch):
    monkeypatch.setenv(job_environment.SPARE_CORES, spare)
    monkeypatch.setattr(per_frame, "_is_core_idle", lambda: is_idle)
    shot.measure(SOURCE)
    shot.add("model", blur)
    together, seen, original = threading.Barrier(working), [], per_frame._measure_group

    def count(inputs, plan, metrics, read):
        if (ident := threading.get_ident()) not in {known for known, _ in seen}:
            together.wait(timeout=10)  # fails if fewer threads work
        seen.append((ident, (plan.frame.output, *metrics)))
        return original(inputs, plan, metrics, read)

    monkeypatch.setattr(per_frame, "_measure_group", count)
    shot.measure("model", threads=threads)

    assert len({ident for ident, _ in seen}) == working
    assert len({group for _, group in seen}) == len(seen) == 3 * COUNT - 1


@pytest.mark.skipif(not Path("/proc/loadavg").exists(), reason="needs Linux")
def test_a_core_is_idle_if_fewer_threads_run_than_there_are_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 10_000)
    assert per_frame._is_core_idle()
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            assert not all(per_frame._is_core_idle() for _ in range(100) if not time.sleep(0.01))
        finally:
            busy.kill()


def test_only_a_changed_frame_and_the_flicker_of_the_next_are_measured_again(shot, counted):
    shot.measure(SOURCE)
    folder = shot.add("model", blur)
    first = shot.measure("model")["frames"]
    counted.clear()
    write(folder / NAMES[2], np.full((40, 48, 3), 0.5, np.float32))

    second = shot.measure("model")["frames"]

    assert sorted(counted) == [NAMES[2], NAMES[2], NAMES[2], NAMES[3]]
    assert second[NAMES[3]]["psnr"] == first[NAMES[3]]["psnr"]
    assert [name for name in NAMES if second[name] != first[name]] == [NAMES[2], NAMES[3]]


def test_only_the_frame_of_a_changed_reference_is_measured_again(shot, counted):
    shot.measure(SOURCE)
    shot.add("model", blur)
    shot.measure("model")
    counted.clear()
    write(shot.root / "clean" / NAMES[0], np.full((40, 48, 3), 0.5, np.float32))

    shot.measure("model")

    assert counted == [NAMES[0]]


def test_the_rendered_layer_of_the_reference_is_compared_if_it_has_that_layer(shot):
    def write_layers(folder, level, *layers):
        names = [f"{layer}.{c}" if layer else c for layer in layers for c in "RGB"]
        values = np.repeat(np.float32(level), 3) * np.ones((40, 48, 3 * len(layers)), np.float32)
        for name in NAMES:
            (folder / name).unlink(missing_ok=True)
            (folder / name).with_suffix(".exr").write_bytes(written(values, ".exr", depth="half", channels=names))

    sources, clean = shot.root / "shot", shot.root / "clean"
    write_layers(sources, (0.5, 0.25), "beauty", "matte")
    write_layers(clean, (1, 0.5), "beauty", "matte")
    shot.scan(layer="mat*", output_format="png")
    for name in NAMES:
        write(shot.out / "model" / name, np.full((40, 48, 3), 0.6, np.float32))
    files.write_json(shot.record("model"), {"status": "success", "error": None})
    expected = quality.psnr(np.full((40, 48, 3), 0.6, np.float32), np.full((40, 48, 3), 0.5, np.float32))

    found = shot.measure("model", metrics=("psnr", "clipping"))
    assert [each["psnr"] for each in found["frames"].values()] == [pytest.approx(expected, abs=0.01)] * COUNT
    assert found["notes"] == []
    write_layers(clean, (0.5,), "")
    found = shot.measure("model", metrics=("psnr",))
    assert [each["psnr"] for each in found["frames"].values()] == [pytest.approx(expected, abs=0.01)] * COUNT
    assert_note(found, "5 frames from f_0.png on", "no layer 'mat*'")


def test_an_added_metric_is_measured_alone(shot, counted):
    shot.add("model", blur)
    shot.measure("model", metrics=("psnr",))
    counted.clear()

    found = shot.measure("model", metrics=("psnr", "ssim"))["frames"]

    assert sorted(counted) == NAMES
    assert set(found[NAMES[0]]) == {"psnr", "ssim"}
    lines = [json.loads(line) for line in shot.layout.measurement_cache("model", "all").read_text().splitlines()]
    assert len(lines) == COUNT


def test_another_backbone_measures_only_lpips_again(shot, counted):
    shot.add("model", blur)
    settings = {"metrics": ("psnr", "lpips"), "lpips_backbone": write_alexnet(shot.root / "first.pth")}
    first = shot.measure("model", **settings)["frames"]
    assert sorted(counted) == sorted(2 * NAMES)
    rendered, clean = (read(shot.root / part / NAMES[2]) for part in ("out/model", "clean"))
    assert first[NAMES[2]]["lpips"] == pytest.approx(Lpips(settings["lpips_backbone"])(rendered, clean), rel=1e-6)
    counted.clear()

    moved = settings["lpips_backbone"].rename(shot.root / "moved.pth")
    assert shot.measure("model", **settings | {"lpips_backbone": moved})["frames"] == first
    assert counted == []
    other = write_alexnet(shot.root / "other.pth", seed=1)
    second = shot.measure("model", **settings | {"lpips_backbone": other})["frames"]
    assert sorted(counted) == NAMES
    assert all(second[name]["psnr"] == first[name]["psnr"] for name in NAMES)
    assert all(second[name]["lpips"] != first[name]["lpips"] for name in NAMES)


def test_other_linear_weights_measure_lpips_again(shot, counted, monkeypatch):
    shot.add("model", blur)
    settings = {"metrics": ("psnr", "lpips"), "lpips_backbone": write_alexnet(shot.root / "alexnet.pth")}
    shot.measure("model", **settings)
    counted.clear()
    changed = shot.root / "linear.pth"
    changed.write_bytes(lpips_weights.linear_weights().read_bytes() + b" ")
    monkeypatch.setattr(lpips_weights, "linear_weights", lambda: changed)

    shot.measure("model", **settings)

    assert sorted(counted) == NAMES


def test_only_lpips_imports_torch(shot):
    program = "import pickle, sys; job = pickle.load(sys.stdin.buffer)\n"
    program += "from dailies.measure.per_frame import baseline\n"
    program += "baseline(job); print('torch' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY / "scripts",
        input=pickle.dumps(replace(shot.job, metrics=("psnr", "flicker"))),
        capture_output=True,
        check=True,
    )

    assert done.stdout.decode().strip() == "False"
    assert files.read_json(shot.job.output)["frames"][NAMES[0]]["psnr"] > 0


def test_advisory_metrics_do_not_depend_on_the_reference(shot, counted):
    shot.measure(SOURCE)
    shot.add("model", blur)
    first = shot.measure("model")["frames"]
    counted.clear()

    found = shot.measure("model", reference_dir=None, metrics=("flicker", "detail", "clipping"))["frames"]

    assert counted == []
    assert found[NAMES[1]] == {name: first[NAMES[1]][name] for name in ("flicker", "detail", "clipping")}


def test_the_values_of_a_sequence_are_reused_when_it_is_split_into_shards(shot, counted):
    shot.measure(SOURCE)
    shot.add("model", blur)
    whole = shot.measure("model")["frames"]
    counted.clear()

    parts = {}
    for shard in ("1", "2"):
        shot.measure(SOURCE, shard=shard, shard_frames=3)
        parts |= shot.measure("model", shard=shard, shard_frames=3)["frames"]

    assert parts == whole
    assert counted == []


def test_a_model_that_was_not_rendered_is_not_measured(shot):
    shot.add("broken", blur, status="load_failed")

    found = shot.measure("broken")

    assert (found["status"], found["frames"]) == ("success", {})
    assert found["notes"] == [f"{NOT_RENDERED}: load_failed: it broke"]
    assert attempt_after(shot.layout.measuring_attempt("broken", "all")) == 1


def test_an_unreadable_reference_frame_is_noted_and_the_others_are_measured(shot):
    shot.add("model", blur)
    (shot.root / "clean" / NAMES[1]).write_bytes(b"junk")

    found = shot.measure("model", metrics=("psnr", "detail"))

    assert found["frames"][NAMES[1]]["psnr"] is None
    assert found["frames"][NAMES[1]]["detail"] > 0
    assert found["frames"][NAMES[0]]["psnr"] > 10
    assert_note(found, "1 frame from f_1.png on", "the reference cannot be read", "frame f_1.png")


def test_a_frame_without_a_reference_has_only_advisory_metrics(shot):
    shot.add("model", blur)
    (shot.root / "clean" / NAMES[1]).unlink()

    assert set(shot.measure("model", metrics=("psnr", "detail"))["frames"][NAMES[1]]) == {"detail"}


def test_upscaled_frames_are_compared_with_a_reference_of_their_size(shot):
    shot.measure(SOURCE)
    shot.add("twice", doubled)
    against_small = shot.measure("twice")

    assert against_small["frames"][NAMES[0]]["psnr"] is None
    assert against_small["frames"][NAMES[0]]["detail"] < 1  # reduced to the size of the source
    assert_note(against_small, "5 frames from f_0.png on", "96×80", "48×40")

    for name in NAMES:
        write(shot.root / "clean" / name, doubled(read(shot.root / "clean" / name)))
    assert shot.measure("twice")["frames"][NAMES[0]]["psnr"] == 100
    assert shot.measure(SOURCE)["frames"][NAMES[0]]["psnr"] is None


def test_flicker_is_measured_even_if_the_baseline_failed(shot):
    shot.add("model", blur)
    without = shot.measure("model", metrics=("flicker",))["frames"]
    shot.measure(SOURCE)
    shot.add("other", blur)

    assert without == shot.measure("other", metrics=("flicker",))["frames"]
    assert without[NAMES[1]]["flicker"] is not None


def test_frames_of_another_shape_than_their_source_are_noted(shot):
    shot.add("cropped", lambda pixels: pixels[:-1])

    found = shot.measure("cropped", reference_dir=None, metrics=("detail", "flicker"))

    assert_note(found, "5 frames from f_0.png on", "48×39", "48×40")
    assert found["frames"][NAMES[1]] == {"flicker": None, "detail": None}


def test_metrics_that_small_frames_do_not_have_are_none(tmp_path):
    shot = Shot(tmp_path, size=(5, 7))
    shot.measure(SOURCE)
    shot.add("model", blur)

    settings = {"metrics": (*EVERYTHING, "lpips"), "lpips_backbone": write_alexnet(tmp_path / "alexnet.pth")}

    values = shot.measure("model", **settings)["frames"][NAMES[1]]

    assert [values[name] for name in ("flicker", "ssim", "lpips")] == [None] * 3
    assert values["psnr"] > 0


def test_a_reference_with_a_value_that_is_not_finite_is_noted(shot):
    shot.add("model", blur)
    path = shot.root / "clean" / NAMES[1]
    picture = image.decode(path.read_bytes(), path.name)
    pixels = image.convert_depth(picture.pixels, "float32")
    pixels[3, 4] = np.nan
    path.unlink()
    path.with_suffix(".exr").write_bytes(image.encode(pixels, picture, "exr"))

    found = shot.measure("model", transfer=None, metrics=("psnr", "ssim", "detail"))

    assert found["frames"][NAMES[1]]["psnr"] is found["frames"][NAMES[1]]["ssim"] is None
    assert found["frames"][NAMES[1]]["detail"] is not None
    assert found["frames"][NAMES[0]]["psnr"] is not None
    assert_note(found, f"1 frame from {NAMES[1]} on", "the reference", "not finite")
