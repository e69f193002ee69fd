import numpy as np
import pytest
from dailies import consensus, quality
from shots import NAMES, blur, doubled, write


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
    original = consensus._differences
    monkeypatch.setattr(consensus, "_differences", lambda job, paths: asked.append(paths) or original(job, paths))

    assert shot.consensus("a", "b", "c") == first
    assert asked == []
    write(shot.out / "b" / NAMES[4], np.full((40, 48, 3), 0.5, np.float32))
    shot.consensus("a", "b", "c")
    assert [paths["b"].name for paths in asked] == [NAMES[4]]


def test_many_large_frames_stand_for_themselves_by_a_sample(shot, monkeypatch):
    for name, level in (("a", 0), ("b", 1), ("c", 5)):
        shot.add(name, lambda image, level=level: image * 0 + (100 + level) / 255)
    monkeypatch.setattr(consensus, "SAMPLES", 3 * 40 * 48 * 3 * 4 // 9)
    sizes = []
    original = quality.difference
    monkeypatch.setattr(quality, "difference", lambda image, other: sizes.append(image.shape) or original(image, other))

    assert shot.consensus("a", "b", "c")["models"]["c"][NAMES[0]] == pytest.approx(4, abs=1e-4)
    assert set(sizes) == {(14, 16, 3)}
