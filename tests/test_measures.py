"""Measures: only new and changed frames are measured, and nothing that fails is worth a render."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, strict_json
from dailies import backbone, files, measures, quality, sequence
from dailies.lpips import Lpips
from dailies.manifest import Manifest, attempt_after
from dailies.measures import Job, baseline, consensus, measure
from networks import write_alexnet
from PIL import Image
from test_quality import distorted, picture, wang

COUNT = 5
NAMES = [f"f_{number}.png" for number in range(COUNT)]
EVERYTHING = ("psnr", "ssim", "ms_ssim", "gmsd", "haarpsi", "flicker", "detail", "clipping", "consensus")


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(np.float32) / 255


class Shot:
    """A sequence with a reference, and models whose frames are made by a function of the reference's."""

    def __init__(self, root: Path, size: tuple[int, int] = (40, 48)) -> None:
        self.root = root
        self.out = root / "out"
        for number, name in enumerate(NAMES):
            clean = 0.1 + 0.8 * picture(size, seed=number)
            write(root / "clean" / name, clean)
            write(root / "shot" / name, distorted(clean, "noise"))
        self.scan()
        self.job = Job(
            state=root / "state",
            shard="all",
            shard_frames=0,
            input_dir=root / "shot",
            reference_dir=root / "clean",
            metrics=EVERYTHING,
            transfer="clip",
            threads=2,
            attempt=1,
        )

    def scan(self) -> None:
        state = self.root / "state"
        found = sequence.scan(self.root / "shot", on_bad_frame="error", cache=state / "read.json")
        sequence.save(found, state / "sequence.json")

    def add(self, model: str, make, status: str = "success") -> Path:
        for name in NAMES:
            write(self.out / model / name, make(read(self.root / "clean" / name)))
        files.write_json(self.record(model), {"status": status, "error": None if status == "success" else "it broke"})
        return self.out / model

    def record(self, model: str) -> Path:
        return self.root / "state" / "renders" / model / "all.json"

    def measure(self, model: str, **changes) -> dict:
        job = replace(self.job, **changes)
        output = self.root / "state" / "measures" / model / f"{job.shard}.json"
        if model == measures.SOURCE:
            baseline(job, output=output)
        else:
            measure(job, folder=self.out / model, outcomes=[self.record(model)], output=output)
        return strict_json(output)

    def consensus(self, *models: str, **changes) -> dict:
        output = self.root / "state" / "measures" / measures.CONSENSUS / "all.json"
        consensus(
            replace(self.job, **changes),
            output_dir=self.out,
            outcomes=[self.record(model) for model in models],
            output=output,
        )
        return strict_json(output)


@pytest.fixture
def shot(tmp_path) -> Shot:
    return Shot(tmp_path)


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """The names of the frames that are measured from now on, once for each group of metrics."""
    seen = []
    original = measures._of_frame

    def count(job, subject, against, plan, metrics, read):
        seen.append(plan.frame.output)
        return original(job, subject, against, plan, metrics, read)

    monkeypatch.setattr(measures, "_of_frame", count)
    return seen


def blur(image: np.ndarray) -> np.ndarray:
    return distorted(image, "blur")


def test_every_frame_has_its_metrics(shot):
    shot.measure(measures.SOURCE)
    folder = shot.add("blurred", blur)

    found = shot.measure("blurred")

    assert (found["status"], found["error"], found["notes"]) == ("success", None, [])
    assert list(found["frames"]) == NAMES
    for name, values in found["frames"].items():
        image, clean = read(folder / name), read(shot.root / "clean" / name)
        assert values["psnr"] == pytest.approx(quality.psnr(image, clean), abs=1e-6)
        assert values["ssim"] == pytest.approx(wang(image, clean, 1.0), abs=1e-6)
        assert values["detail"] < 0.5
        assert values["ms_ssim"] is None  # such frames are too small
        assert ("flicker" in values) == (name != NAMES[0])
    assert found["frames"][NAMES[1]]["flicker"] < 0


def test_the_source_is_measured_as_if_it_were_an_answer(shot):
    found = shot.measure(measures.SOURCE)["frames"]

    source, clean = (read(shot.root / part / NAMES[2]) for part in ("shot", "clean"))
    assert found[NAMES[2]]["psnr"] == pytest.approx(quality.psnr(source, clean), abs=1e-6)
    assert (found[NAMES[2]]["flicker"], found[NAMES[2]]["detail"], found[NAMES[2]]["clipping"]) == (0, 1, 0)


def test_nothing_is_measured_twice(shot, counted):
    shot.measure(measures.SOURCE)
    shot.add("model", blur)
    first = shot.measure("model")
    counted.clear()

    assert shot.measure("model") == first
    assert counted == []


def test_a_changed_frame_alone_is_measured_and_the_flicker_of_the_next(shot, counted):
    shot.measure(measures.SOURCE)
    folder = shot.add("model", blur)
    first = shot.measure("model")["frames"]
    counted.clear()
    write(folder / NAMES[2], np.full((40, 48, 3), 0.5, np.float32))

    second = shot.measure("model")["frames"]

    assert sorted(counted) == [NAMES[2], NAMES[2], NAMES[2], NAMES[3]]
    assert second[NAMES[3]]["psnr"] == first[NAMES[3]]["psnr"]
    assert [name for name in NAMES if second[name] != first[name]] == [NAMES[2], NAMES[3]]


def test_a_changed_reference_measures_its_frame_against_it(shot, counted):
    shot.measure(measures.SOURCE)
    shot.add("model", blur)
    shot.measure("model")
    counted.clear()
    write(shot.root / "clean" / NAMES[0], np.full((40, 48, 3), 0.5, np.float32))

    shot.measure("model")

    assert counted == [NAMES[0]]


def test_another_metric_measures_just_itself(shot, counted):
    shot.add("model", blur)
    shot.measure("model", metrics=("psnr",))
    counted.clear()

    found = shot.measure("model", metrics=("psnr", "gmsd"))["frames"]

    assert counted == NAMES or sorted(counted) == NAMES
    assert set(found[NAMES[0]]) == {"psnr", "gmsd"}
    lines = [json.loads(line) for line in (shot.root / "state/measured/model/all.jsonl").read_text().splitlines()]
    assert len(lines) == COUNT


def test_another_backbone_measures_lpips_again_and_nothing_else(shot, counted):
    shot.add("model", blur)
    asked = {"metrics": ("psnr", "lpips"), "lpips_backbone": write_alexnet(shot.root / "first.pth")}
    first = shot.measure("model", **asked)["frames"]
    assert sorted(counted) == sorted(2 * NAMES)
    image, clean = (read(shot.root / part / NAMES[2]) for part in ("out/model", "clean"))
    assert first[NAMES[2]]["lpips"] == pytest.approx(Lpips(asked["lpips_backbone"])(image, clean), rel=1e-6)
    counted.clear()

    moved = asked["lpips_backbone"].rename(shot.root / "moved.pth")
    assert shot.measure("model", **asked | {"lpips_backbone": moved})["frames"] == first
    assert counted == []
    other = write_alexnet(shot.root / "other.pth", seed=1)
    second = shot.measure("model", **asked | {"lpips_backbone": other})["frames"]
    assert sorted(counted) == NAMES
    assert all(second[name]["psnr"] == first[name]["psnr"] for name in NAMES)
    assert all(second[name]["lpips"] != first[name]["lpips"] for name in NAMES)


def test_other_linear_weights_measure_lpips_again(shot, counted, monkeypatch):
    shot.add("model", blur)
    asked = {"metrics": ("psnr", "lpips"), "lpips_backbone": write_alexnet(shot.root / "alexnet.pth")}
    shot.measure("model", **asked)
    counted.clear()
    changed = shot.root / "linear.pth"
    changed.write_bytes(backbone.linear().read_bytes() + b" ")
    monkeypatch.setattr(backbone, "linear", lambda: changed)

    shot.measure("model", **asked)

    assert sorted(counted) == NAMES


@pytest.mark.parametrize("asked", ["psnr", "lpips"])
def test_torch_is_imported_for_lpips_alone(shot, asked):
    job = replace(shot.job, metrics=(asked,), lpips_backbone=write_alexnet(shot.root / "alexnet.pth"))
    program = "import pickle, sys; job = pickle.load(sys.stdin.buffer); from dailies.measures import baseline\n"
    program += "baseline(job, output=job.state / 'out.json'); print('torch' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY / "scripts",
        input=pickle.dumps(job),
        capture_output=True,
        check=True,
    )

    assert done.stdout.decode().strip() == str(asked == "lpips")
    assert files.read_json(job.state / "out.json")["frames"][NAMES[0]][asked] > 0


def test_without_a_reference_the_advisory_metrics_stay_and_are_not_measured_again(shot, counted):
    shot.measure(measures.SOURCE)
    shot.add("model", blur)
    first = shot.measure("model")["frames"]
    counted.clear()

    found = shot.measure("model", reference_dir=None, metrics=("flicker", "detail", "clipping"))["frames"]

    assert counted == []
    assert found[NAMES[1]] == {name: first[NAMES[1]][name] for name in ("flicker", "detail", "clipping")}


def test_no_more_is_kept_of_what_is_left_out_than_was_measured_of_it(shot, counted):
    kept = shot.root / "state/measured/model/all.jsonl"
    shot.add("model", blur)
    shot.measure("model", metrics=("psnr", "gmsd", "clipping"))
    for number in range(3):
        write(shot.root / "clean" / NAMES[0], np.full((40, 48, 3), number / 4, np.float32))
        shot.measure("model", metrics=("psnr",))
        shot.measure("model", reference_dir=None, metrics=("clipping",))
    # of the first frame gmsd by the first reference, psnr by the last
    assert len(kept.read_text().splitlines()) == 2 * COUNT + 1
    counted.clear()
    shot.measure("model", metrics=("psnr", "gmsd", "clipping"))
    assert counted == [NAMES[0]]
    assert len(kept.read_text().splitlines()) == 2 * COUNT

    (shot.root / "shot" / NAMES[0]).unlink()
    shot.scan()
    shot.measure("model", reference_dir=None, metrics=("clipping",))
    assert len(kept.read_text().splitlines()) == 2 * (COUNT - 1)


def test_a_frame_that_was_changed_after_it_was_rendered_is_measured_as_it_is(shot):
    folder = shot.add("model", blur)
    path = shot.root / "state/frames/model/all.jsonl"
    path.parent.mkdir(parents=True)
    told = Manifest(path, folder=folder, keys=dict.fromkeys(NAMES, "key"))
    for name in NAMES:
        told.add(name, (folder / name).read_bytes(), seconds=1, device="cpu", tiled=False)
    shot.measure("model", metrics=("psnr",))
    write(folder / NAMES[0], read(shot.root / "clean" / NAMES[0]))

    found = shot.measure("model", metrics=("psnr",))["frames"]

    assert [name for name in NAMES if found[name]["psnr"] == 100] == [NAMES[0]]


def test_shards_measure_what_the_whole_does_and_know_it_already(shot, counted):
    shot.measure(measures.SOURCE)
    shot.add("model", blur)
    whole = shot.measure("model")["frames"]
    counted.clear()

    parts = {}
    for shard in ("1", "2"):
        shot.measure(measures.SOURCE, shard=shard, shard_frames=3)
        parts |= shot.measure("model", shard=shard, shard_frames=3)["frames"]

    assert parts == whole
    assert counted == []


def test_a_line_that_a_crash_cut_short_is_measured_again(shot, counted):
    shot.add("model", blur)
    first = shot.measure("model", metrics=("psnr",))
    kept = shot.root / "state/measured/model/all.jsonl"
    kept.write_text(kept.read_text()[:-20])
    counted.clear()

    assert shot.measure("model", metrics=("psnr",)) == first
    assert len(counted) == 1


def test_a_model_that_was_not_rendered_is_not_measured(shot):
    shot.add("broken", blur, status="load_failed")

    found = shot.measure("broken")

    assert (found["status"], found["frames"]) == ("success", {})
    assert found["notes"] == ["not rendered: load_failed: it broke"]
    assert attempt_after(shot.root / "state/measured/broken/all.json") == 1


def test_what_fails_is_recorded_and_tried_again(shot):
    folder = shot.add("model", blur)
    (folder / NAMES[3]).unlink()
    state = shot.root / "state/measured/model/all.json"

    found = shot.measure("model")
    assert (found["status"], "frames" in found) == ("error", False)
    assert found["error"] == "model lacks 1 frames, the first of them f_3.png; render them again"
    assert attempt_after(state) == 2

    shot.add("model", blur)
    assert shot.measure("model", attempt=2)["status"] == "success"
    assert attempt_after(state) == 2


def test_a_damaged_frame_is_no_crash(shot):
    folder = shot.add("model", blur)
    (folder / NAMES[3]).write_bytes(b"junk")

    found = shot.measure("model")

    assert found["error"] == "frame f_3.png cannot be read: it is not a PNG, TIFF, EXR, DPX, JPEG, BMP or WebP image"


def test_a_reference_that_cannot_be_read_is_said_and_the_others_count(shot):
    shot.add("model", blur)
    (shot.root / "clean" / NAMES[1]).write_bytes(b"junk")

    found = shot.measure("model", metrics=("psnr", "detail"))

    assert found["frames"][NAMES[1]]["psnr"] is None
    assert found["frames"][NAMES[1]]["detail"] > 0
    assert found["frames"][NAMES[0]]["psnr"] > 10
    assert found["notes"] == [
        "1 frames from f_1.png on: the reference cannot be read: frame f_1.png cannot be read: "
        "it is not a PNG, TIFF, EXR, DPX, JPEG, BMP or WebP image"
    ]


def test_a_frame_without_reference_has_only_the_advisory_metrics(shot):
    shot.add("model", blur)
    (shot.root / "clean" / NAMES[1]).unlink()

    assert set(shot.measure("model", metrics=("psnr", "detail"))["frames"][NAMES[1]]) == {"detail"}


def doubled(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, axis=0).repeat(2, axis=1)


def test_enlarged_frames_are_measured_against_a_reference_of_their_size(shot):
    shot.measure(measures.SOURCE)
    shot.add("twice", doubled)
    against_small = shot.measure("twice")

    assert against_small["frames"][NAMES[0]]["psnr"] is None
    assert against_small["frames"][NAMES[0]]["detail"] < 1  # brought to the size of the source
    assert against_small["notes"] == ["5 frames from f_0.png on: the frame is 96×80 pixels and its reference 48×40"]

    for name in NAMES:
        write(shot.root / "clean" / name, doubled(read(shot.root / "clean" / name)))
    assert shot.measure("twice")["frames"][NAMES[0]]["psnr"] == 100
    assert shot.measure(measures.SOURCE)["frames"][NAMES[0]]["psnr"] is None


def test_frames_of_another_shape_than_their_source_say_so(shot):
    shot.add("cropped", lambda image: image[:-1])

    assert shot.measure("cropped", reference_dir=None, metrics=("detail", "flicker"))["notes"] == [
        "5 frames from f_0.png on: the frame is 48×39 pixels, no whole number of times its source's 48×40"
    ]


def test_frames_too_small_to_follow_have_no_flicker(tmp_path):
    shot = Shot(tmp_path, size=(5, 7))
    shot.measure(measures.SOURCE)
    shot.add("model", blur)

    asked = {"metrics": (*EVERYTHING, "lpips"), "lpips_backbone": write_alexnet(tmp_path / "alexnet.pth")}

    values = shot.measure("model", **asked)["frames"][NAMES[1]]

    assert [values[name] for name in ("flicker", "ssim", "haarpsi", "lpips")] == [None] * 4
    assert values["psnr"] > 0


def test_the_consensus_is_the_median_and_the_odd_one_out_is_far_from_it(shot):
    for name, level in (("a", 0), ("b", 1), ("c", 2), ("odd", 20)):
        shot.add(name, lambda image, level=level: np.round(image * 255) / 255 * 0 + (100 + level) / 255)
    shot.add("broken", blur, status="error")

    found = shot.consensus("a", "b", "c", "odd", "broken")["models"]

    assert list(found) == ["a", "b", "c", "odd"]
    assert [found[name][NAMES[0]] for name in found] == pytest.approx([1.5, 0.5, 0.5, 18.5], abs=1e-4)


def test_a_consensus_takes_three_models_of_one_size(shot):
    for name in ("a", "b"):
        shot.add(name, blur)
    shot.add("twice", doubled)

    assert shot.consensus("a", "b", "twice")["models"]["a"] == dict.fromkeys(NAMES)
    shot.add("c", lambda image: image)
    assert shot.consensus("a", "b", "twice", "c")["models"]["c"][NAMES[0]] > 0


def test_a_consensus_is_found_again_only_where_a_frame_changed(shot, monkeypatch):
    for name in ("a", "b", "c"):
        shot.add(name, blur)
    first = shot.consensus("a", "b", "c")
    asked = []
    original = measures._differences
    monkeypatch.setattr(measures, "_differences", lambda job, paths: asked.append(paths) or original(job, paths))

    assert shot.consensus("a", "b", "c") == first
    assert asked == []
    write(shot.out / "b" / NAMES[4], np.full((40, 48, 3), 0.5, np.float32))
    shot.consensus("a", "b", "c")
    assert [paths["b"].name for paths in asked] == [NAMES[4]]


def test_many_large_frames_stand_for_themselves_by_a_sample(shot, monkeypatch):
    for name, level in (("a", 0), ("b", 1), ("c", 5)):
        shot.add(name, lambda image, level=level: image * 0 + (100 + level) / 255)
    monkeypatch.setattr(measures, "SAMPLES", 3 * 40 * 48 * 3 * 4 // 9)
    sizes = []
    original = quality.difference
    monkeypatch.setattr(quality, "difference", lambda image, other: sizes.append(image.shape) or original(image, other))

    assert shot.consensus("a", "b", "c")["models"]["c"][NAMES[0]] == pytest.approx(4, abs=1e-4)
    assert set(sizes) == {(14, 16, 3)}


def test_the_flow_of_pairs_that_are_gone_is_deleted(shot):
    shot.measure(measures.SOURCE)
    kept = {path.name for path in (shot.root / "state/flow/all").iterdir()}
    write(shot.root / "shot" / NAMES[4], np.full((40, 48, 3), 0.5, np.float32))
    shot.scan()
    shot.measure(measures.SOURCE)

    now = {path.name for path in (shot.root / "state/flow/all").iterdir()}
    assert len(kept) == len(now) == COUNT - 1
    assert len(kept & now) == COUNT - 2


def test_deeper_frames_and_floats_measure_on_one_scale(shot):
    from dailies import frames

    shot.add("model", blur)
    eight = shot.measure("model", metrics=("psnr", "ssim"))["frames"]
    for name in NAMES:
        path = shot.root / "clean" / name
        picture = frames.decode(path.read_bytes(), name)
        path.unlink()
        path.with_suffix(".exr").write_bytes(frames.encode(frames.converted(picture.pixels, "float32"), picture, "exr"))
    floats = shot.measure("model", metrics=("psnr", "ssim"))["frames"]

    for name in NAMES:
        assert floats[name]["psnr"] == pytest.approx(eight[name]["psnr"], abs=0.01)
        assert floats[name]["ssim"] == pytest.approx(eight[name]["ssim"], abs=1e-3)


def test_a_reference_that_is_not_finite_gives_no_value_and_says_so(shot):
    from dailies import frames

    shot.add("model", blur)
    path = shot.root / "clean" / NAMES[1]
    picture = frames.decode(path.read_bytes(), path.name)
    pixels = frames.converted(picture.pixels, "float32")
    pixels[3, 4] = np.nan
    path.unlink()
    path.with_suffix(".exr").write_bytes(frames.encode(pixels, picture, "exr"))

    found = shot.measure("model", transfer=None, metrics=("psnr", "ssim", "detail"))

    assert found["frames"][NAMES[1]]["psnr"] is found["frames"][NAMES[1]]["ssim"] is None
    assert found["frames"][NAMES[1]]["detail"] is not None
    assert found["frames"][NAMES[0]]["psnr"] is not None
    assert found["notes"] == [f"1 frames from {NAMES[1]} on: the reference holds values that are not finite"]
