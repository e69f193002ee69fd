"""Which frames are measured: enough of a long sequence, evenly spread, and the rest only if it is asked for."""

import numpy as np
import pytest
from dailies.measure.job import MeasurementJob
from dailies.planning.config import Settings
from dailies.state.layout import SOURCE
from helpers.json_files import strict_json
from helpers.shots import NAMES, Shot, blur, write


def add_long_model(shot: Shot, count: int) -> list[str]:
    """Replace the frames by so many tiny ones, and add a model; return the names of the frames."""
    names = [f"f_{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        for folder in ("clean", "shot", "out/model"):
            write(shot.root / folder / name, np.full((5, 7, 3), number / 255, np.float32))
    shot.record("model").parent.mkdir(parents=True, exist_ok=True)
    shot.record("model").write_text('{"status": "success", "error": null}')
    shot.scan()
    return names


def test_64_of_70_frames_are_measured_and_the_other_six_when_all_are_wanted(shot, counted):
    names = add_long_model(shot, 70)

    part = shot.measure("model", metrics=("psnr",), measure_frames="auto")

    assert len(part["frames"]) == len(counted) == 64
    assert part["of"] == 70
    assert {names[0], names[-1]} <= part["frames"].keys()
    counted.clear()
    whole = shot.measure("model", metrics=("psnr",), measure_frames="all")
    assert sorted(counted) == sorted(set(names) - part["frames"].keys())
    assert (list(whole["frames"]), "of" in whole) == (names, False)
    counted.clear()
    assert shot.measure("model", metrics=("psnr",), measure_frames="auto") == part
    assert shot.measure("model", metrics=("psnr",), measure_frames="all") == whole
    assert counted == []


def test_a_sequence_that_is_not_longer_has_the_same_record_as_before(shot):
    names = add_long_model(shot, 64)

    shot.measure("model", metrics=("psnr",))
    before = shot.measures("model").read_bytes()
    found = shot.measure("model", metrics=("psnr",), measure_frames="auto")

    assert list(found["frames"]) == names
    assert shot.measures("model").read_bytes() == before


def test_a_measured_frame_has_its_flicker_though_the_frame_before_is_not_measured(shot, counted):
    shot.measure(SOURCE)
    shot.add("model", blur)
    whole = shot.measure("model")["frames"]
    shot.job.cache.unlink()
    shot.layout.measurement_cache("model", "all").unlink()
    counted.clear()

    found = shot.measure("model", measure_frames=3)

    assert found["frames"] == {name: whole[name] for name in NAMES[::2]}
    assert set(counted) == {*NAMES[::2]}
    assert found["notes"] == []


def test_shards_measure_their_share_of_frames_that_are_spread_over_the_sequence(shot):
    shot.add("model", blur)
    shards = {"shard_frames": 2, "measure_frames": 2}

    found = {shard: shot.measure("model", shard=shard, **shards) for shard in ("1", "2", "3")}

    assert [list(record["frames"]) for record in found.values()] == [[NAMES[0]], [], [NAMES[4]]]
    assert [record.get("of") for record in found.values()] == [2, 2, None]
    assert {record["status"] for record in found.values()} == {"success"}
    assert "flicker" in found["3"]["frames"][NAMES[4]]  # the frame before belongs to another shard


def test_a_change_of_the_choice_keeps_the_values_of_every_shard(shot, counted):
    shot.add("model", blur)
    for shard in ("1", "2", "3"):
        shot.measure("model", shard=shard, metrics=("psnr",), shard_frames=2)
    for shard in ("1", "2", "3"):
        shot.measure("model", shard=shard, metrics=("psnr",), shard_frames=2, measure_frames=2)
    counted.clear()

    for shard in ("1", "2", "3"):
        shot.measure("model", shard=shard, metrics=("psnr",), shard_frames=2)

    assert counted == []


def test_all_frames_of_the_first_round_of_a_knockout_are_measured(shot):
    shot.add("model", blur)

    found = shot.measure("model", shard="knockout", metrics=("psnr",), knockout_frames=4, measure_frames=2)

    assert len(found["frames"]) == 4
    assert "of" not in found


def test_of_chosen_frames_the_choice_is_made_among_these(shot):
    shot.add("model", blur)
    shot.scan(frames="1:4")

    found = shot.measure("model", metrics=("psnr",), measure_frames=2)

    assert (list(found["frames"]), found["of"]) == ([NAMES[1], NAMES[3]], 3)


@pytest.mark.parametrize("choice", ["auto", "all", 100])
def test_the_job_measures_what_the_settings_say(shot, choice):
    settings = Settings(output_dir=shot.out, input_dir=shot.root / "shot", measure_frames=choice)

    job = MeasurementJob.from_settings(settings, subject="model", shard="all", threads=1, attempt=1)

    assert job.measure_frames == choice


def test_the_measures_of_the_source_are_of_the_same_frames(shot):
    shot.measure(SOURCE, measure_frames=2)

    assert list(strict_json(shot.measures(SOURCE))["frames"]) == [NAMES[0], NAMES[4]]
    assert len(list(shot.layout.source_frames.iterdir())) == 2
