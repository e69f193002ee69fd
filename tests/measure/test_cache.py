"""The cache of values: what it keeps, and what it drops."""

import numpy as np
import pytest
from dailies.measure import cache
from dailies.measure.metrics import NOT_NEIGHBOURS
from helpers.shots import COUNT, NAMES, blur, write


def test_values_of_metrics_that_are_left_out_are_kept_once(shot, counted):
    path = shot.layout.measurement_cache("model", "all")
    shot.add("model", blur)
    shot.measure("model", metrics=("psnr", "ssim", "clipping"))
    for number in range(3):
        write(shot.root / "clean" / NAMES[0], np.full((40, 48, 3), number / 4, np.float32))
        shot.measure("model", metrics=("psnr",))
        shot.measure("model", reference_dir=None, metrics=("clipping",))
    # the first frame has ssim against the first reference, and psnr against the last
    assert len(path.read_text().splitlines()) == 2 * COUNT + 1
    counted.clear()
    shot.measure("model", metrics=("psnr", "ssim", "clipping"))
    assert counted == [NAMES[0]]
    assert len(path.read_text().splitlines()) == 2 * COUNT

    (shot.root / "shot" / NAMES[0]).unlink()
    shot.scan()
    shot.measure("model", reference_dir=None, metrics=("clipping",))
    assert len(path.read_text().splitlines()) == 2 * (COUNT - 1)


def test_values_of_a_truncated_line_are_measured_again(shot, counted):
    shot.add("model", blur)
    first = shot.measure("model", metrics=("psnr",))
    path = shot.layout.measurement_cache("model", "all")
    path.write_text(path.read_text()[:-20])
    counted.clear()

    assert shot.measure("model", metrics=("psnr",)) == first
    assert len(counted) == 1


def test_values_of_frames_that_are_not_chosen_are_kept(shot, counted):
    shot.add("model", blur)
    for subject in ("@source", "model"):
        shot.measure(subject)
    described = sorted(shot.layout.source_frames.iterdir())
    counted.clear()

    shot.scan(frames=2)
    few = [shot.measure(subject) for subject in ("@source", "model")]
    shot.scan()
    every = [shot.measure(subject) for subject in ("@source", "model")]

    assert counted == []
    assert sorted(shot.layout.source_frames.iterdir()) == described
    assert [list(each["frames"]) for each in few] == [[NAMES[0], NAMES[-1]]] * 2
    assert {*few[1]["frames"][NAMES[-1]]} == {*every[1]["frames"][NAMES[-1]]} - {"flicker"}
    (note,) = few[1]["notes"]
    assert note.startswith(NOT_NEIGHBOURS)


@pytest.mark.parametrize(("transfer", "again"), [("clip", 0), (None, COUNT)])
def test_only_frames_that_are_not_clipped_are_measured_again_since_highlights_count(
    transfer, again, shot, counted, monkeypatch
):
    shot.add("model", blur)
    with monkeypatch.context() as earlier:
        earlier.setattr(cache, "UNCLIPPED", {})
        shot.measure("model", metrics=("ssim",), transfer=transfer)
    counted.clear()

    shot.measure("model", metrics=("ssim",), transfer=transfer)

    assert len(counted) == again
