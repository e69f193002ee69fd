"""The baseline: the values of the source, and what models are compared with."""

import shutil

import numpy as np
import pytest
from dailies.frames.sequence import KNOCKOUT
from dailies.measure import quality
from dailies.measure.metrics import ADVISORY
from dailies.state.layout import SOURCE
from helpers.shots import COUNT, NAMES, blur, read, write


def test_the_source_is_measured_as_if_a_model_had_rendered_it(shot):
    found = shot.measure(SOURCE)["frames"]

    source, clean = (read(shot.root / part / NAMES[2]) for part in ("shot", "clean"))
    assert found[NAMES[2]]["psnr"] == pytest.approx(quality.psnr(source, clean), abs=1e-6)
    assert (found[NAMES[2]]["flicker"], found[NAMES[2]]["detail"], found[NAMES[2]]["clipping"]) == (0, 1, 0)


def test_descriptions_of_pairs_that_no_longer_exist_are_deleted(shot):
    shot.measure(SOURCE)
    kept = {path.name for path in shot.layout.source_frames.iterdir()}
    write(shot.root / "shot" / NAMES[4], np.full((40, 48, 3), 0.5, np.float32))
    shot.scan()
    shot.measure(SOURCE)

    now = {path.name for path in shot.layout.source_frames.iterdir()}
    assert len(kept) == len(now) == COUNT
    assert len(kept & now) == COUNT - 1


def test_descriptions_are_reused_when_the_sequence_is_split_into_shards(shot):
    def written() -> dict:
        return {path: path.stat().st_mtime_ns for path in shot.layout.source_frames.iterdir()}

    shot.measure(SOURCE)
    found = written()

    for shard in ("1", "2", "3"):
        shot.measure(SOURCE, shard=shard, shard_frames=2)

    assert written() == found
    assert len(found) == COUNT


def test_models_are_compared_with_what_the_baseline_stored(shot, monkeypatch):
    shot.measure(SOURCE)
    shot.add("blurred", blur)
    expected = shot.measure("blurred", metrics=ADVISORY)["frames"]
    shutil.rmtree(shot.layout.measurement_cache("blurred", "all").parent)
    for path in (shot.root / "shot").iterdir():
        path.unlink()

    assert shot.measure("blurred", metrics=ADVISORY)["frames"] == expected


def test_without_a_baseline_models_are_compared_with_the_source_itself(shot):
    shot.measure(SOURCE)
    shot.add("blurred", blur)
    expected = shot.measure("blurred")["frames"]
    shutil.rmtree(shot.layout.measurement_cache("blurred", "all").parent)
    shutil.rmtree(shot.layout.source_frames)

    assert shot.measure("blurred")["frames"] == expected


def test_the_first_round_of_a_knockout_keeps_what_it_stored_and_what_all_frames_need(shot):
    shot.measure(SOURCE)
    stored = {path.name for path in shot.layout.source_frames.iterdir()}

    shot.measure(SOURCE, shard=KNOCKOUT, knockout_frames=2)

    now = {path.name for path in shot.layout.source_frames.iterdir()}
    assert stored < now
    assert len(now - stored) == 1  # the last frame, without the one before it; the first never has one
