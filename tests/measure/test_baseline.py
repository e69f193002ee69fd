"""The baseline: the values of the source, and its optical flow."""

import numpy as np
import pytest
from dailies.measure import quality
from dailies.state.layout import SOURCE
from helpers.shots import COUNT, NAMES, read, write


def test_the_source_is_measured_as_if_a_model_had_rendered_it(shot):
    found = shot.measure(SOURCE)["frames"]

    source, clean = (read(shot.root / part / NAMES[2]) for part in ("shot", "clean"))
    assert found[NAMES[2]]["psnr"] == pytest.approx(quality.psnr(source, clean), abs=1e-6)
    assert (found[NAMES[2]]["flicker"], found[NAMES[2]]["detail"], found[NAMES[2]]["clipping"]) == (0, 1, 0)


def test_flows_of_pairs_that_no_longer_exist_are_deleted(shot):
    shot.measure(SOURCE)
    kept = {path.name for path in shot.layout.flows.iterdir()}
    write(shot.root / "shot" / NAMES[4], np.full((40, 48, 3), 0.5, np.float32))
    shot.scan()
    shot.measure(SOURCE)

    now = {path.name for path in shot.layout.flows.iterdir()}
    assert len(kept) == len(now) == COUNT - 1
    assert len(kept & now) == COUNT - 2


def test_flows_are_reused_when_the_sequence_is_split_into_shards(shot):
    shot.measure(SOURCE)
    flows = shot.layout.flows
    found = {path: path.stat().st_mtime_ns for path in flows.rglob("*.npy")}

    for shard in ("1", "2", "3"):
        shot.measure(SOURCE, shard=shard, shard_frames=2)

    assert {path: path.stat().st_mtime_ns for path in flows.rglob("*.npy")} == found
    assert len(found) == COUNT - 1
