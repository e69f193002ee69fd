"""Which runs max_runs takes where models are ordered by what earlier invocations measured."""

import pytest
from dailies.discovery.discover import discover
from dailies.discovery.report import counts
from dailies.frames import reference
from dailies.frames.sequence import Frame, Sequence, save
from dailies.state.records import Means, Measures, Metadata, RenderReport
from helpers.scenes import Scene
from helpers.stores import BEST, Shelf

FRAMES = [f"f_{number}.png" for number in range(3)]


@pytest.fixture
def runs(shelf: Shelf, scene: Scene, tmp_path) -> dict[str, str]:
    """Five runs by name, the oldest first, of which max_runs takes the best two by PSNR; their ids."""
    clean = tmp_path / "clean"
    clean.mkdir()
    (clean / FRAMES[0]).touch()
    scene.change(order_by="measured.psnr DESC", max_runs=2, reference_dir=str(clean))
    save(Sequence(tuple(Frame(name, name, 7, 5, "RGB", 8, 1, sha256=name) for name in FRAMES)), scene.layout.sequence)
    return {name: shelf.run(name, BEST) for name in "abcde"}


def measure(
    scene: Scene,
    runs: dict[str, str],
    folder: str = "",
    shard: str = "all",
    against: str | None = "",
    trained: str = "",
    **psnr: float | list | None,
) -> None:
    """Measure models as an invocation does: one value for all frames, or a list of them; ``against`` a reference."""
    for name, value in psnr.items():
        values = dict(zip(FRAMES, value if isinstance(value, list) else [value] * len(FRAMES), strict=True))
        frames = {frame: {"psnr": each, "detail": each} for frame, each in values.items() if each is not None}
        Measures(frames=frames).save(scene.layout.measures(folder or name, shard))
        asked = reference.ReferenceSettings.from_settings(scene.settings)
        present = reference.fingerprint(asked, scene.layout.reference_scan)
        shards, fingerprint = ((shard,), against or present) if against is not None else ((), None)
        measured = Means(frames=len(frames), reference_fingerprint=fingerprint, shards=shards)
        about = Metadata(
            run_id=runs[name],
            render=RenderReport(status="success"),
            measured=measured,
            params={"train_frames": trained} if trained else {},
        )
        about.save(scene.layout.metadata(folder or name))


def test_while_nothing_was_measured_the_newest_are_taken_and_that_is_reported(scene, runs):
    assert scene.look() == ["e", "d"]

    note = scene.take_snapshot().note
    assert "no run has a measured psnr yet" in note
    assert "3 runs, 3 of them never measured" in note
    assert counts(scene.layout) == "2 models; skipped: 3 beyond max_runs"


def test_the_best_of_the_measured_are_taken_in_the_stores_order(scene, runs):
    measure(scene, runs, a=31, b=33, c=32, d=29, e=30)

    assert scene.look() == ["c", "b"]
    assert scene.take_snapshot().note is None
    assert scene.look(order_by="measured.psnr ASC") == ["e", "d"]


def test_what_was_never_measured_comes_last_and_is_counted(scene, runs):
    measure(scene, runs, a=20, b=None)

    assert scene.look() == ["e", "a"]
    note = scene.take_snapshot().note
    assert "takes 1 run with a measured psnr, and the newest 1 of those that were never measured" in note
    assert "3 runs, 3 of them never measured" in note


def test_measuring_the_models_that_were_taken_makes_nothing_due(scene, runs):
    scene.look()
    first = scene.take_snapshot().fingerprint

    measure(scene, runs, d=30, e=20)
    assert scene.take_snapshot().fingerprint == first
    measure(scene, runs, d=20, e=30)
    assert scene.take_snapshot().fingerprint == first
    assert scene.look() == ["e", "d"]


def test_a_value_matters_as_soon_as_it_lets_another_run_in(scene, runs):
    measure(scene, runs, a=31, b=33, c=32)
    assert scene.look() == ["c", "b"]
    before = scene.take_snapshot().fingerprint

    measure(scene, runs, a=32.5)

    assert scene.take_snapshot().fingerprint != before
    assert scene.look() == ["b", "a"]


def test_a_new_run_comes_in_when_it_is_measured_and_good(scene, shelf, runs):
    measure(scene, runs, a=31, b=33, c=32, d=29, e=30)
    runs["new"] = shelf.run("new", BEST)
    assert scene.look() == ["c", "b"]
    assert "4 runs, 1 of them never measured" in scene.take_snapshot().note

    assert scene.look(max_runs=None) == ["new", *"edcba"]
    assert scene.take_snapshot().note is None
    measure(scene, runs, new=40)

    assert scene.look(max_runs=2) == ["new", "b"]


def test_a_run_without_a_model_takes_no_place(scene, shelf, runs):
    runs["empty"] = shelf.run("empty")

    assert scene.look() == ["e", "d"]
    assert scene.reasons()["empty"].startswith("it holds no model")


def test_the_best_model_of_a_run_counts_and_foreign_files_do_not(scene, runs):
    measure(scene, runs, a=31, b=33, c=32)
    measure(scene, runs, folder="c_before", c=40)
    foreign = scene.layout.metadata("foreign")
    foreign.parent.mkdir()
    foreign.write_text('["of another program"]')

    assert scene.look(max_runs=1) == ["c"]


def test_what_was_planned_is_discovered_whatever_is_measured_meanwhile(scene, runs):
    fingerprint = scene.take_snapshot().fingerprint
    measure(scene, runs, a=50, b=50)

    discover(scene.settings, fingerprint=fingerprint, layout=scene.layout)

    assert scene.read("discovery")["models"] == ["e", "d"]


def test_another_order_keeps_its_snapshots_as_they_were(scene, runs):
    measure(scene, runs, a=50)

    assert scene.look(order_by="start_time ASC") == ["a", "b"]
    assert scene.take_snapshot().note is None
    assert "preferred" not in scene.read("snapshot")["snapshot"]


def test_means_are_compared_over_the_frames_that_all_models_have(scene, runs):
    measure(scene, runs, a=[30, 40, 50], b=[20, 60, 60], d=[29, 10, 10], e=[28, 10, 10])
    measure(scene, runs, shard="knockout", c=[31, None, None])

    assert scene.look() == ["c", "a"]
    note = scene.take_snapshot().note
    assert "the best measured psnr, compared on the 1 frame that all of them have" in note
    assert "3 runs" in note


def test_records_that_are_not_those_of_the_last_render_do_not_count(scene, runs):
    measure(scene, runs, a=[50, 50, 50], b=[31, 30, 30], c=[29, 30, 30])
    measure(scene, runs, shard="knockout", a=[20, None, None])

    assert scene.look() == ["c", "b"]


def test_frames_that_a_model_was_trained_on_do_not_count_for_any_model(scene, runs):
    scene.change(training_frames_from=["train_frames"])
    measure(scene, runs, a=[99, 20, 20], trained=FRAMES[0])
    measure(scene, runs, b=[30, 30, 30], c=[90, 25, 25])

    assert scene.look() == ["c", "b"]


def test_values_of_another_reference_come_last_and_are_counted(scene, runs):
    measure(scene, runs, a=31, b=32)
    measure(scene, runs, against="another", c=40, d=41)

    assert scene.look() == ["b", "a"]
    note = scene.take_snapshot().note
    assert "3 runs, 1 of them never measured, 2 of them measured against another reference" in note


def test_after_a_change_of_the_reference_the_former_one_decides_until_models_are_measured_anew(scene, runs):
    measure(scene, runs, against="former", a=31, b=32, c=10)
    measure(scene, runs, against="even earlier", d=99)

    assert scene.look() == ["b", "a"]
    note = scene.take_snapshot().note
    assert "by a former reference" in note
    assert "1 of them measured against another reference" in note

    measure(scene, runs, a=20, b=21)
    assert scene.look() == ["b", "a"]
    assert "former" not in scene.take_snapshot().note


def test_a_metric_without_a_reference_is_compared_whatever_the_reference_was(scene, runs):
    measure(scene, runs, a=31, b=32)
    measure(scene, runs, against="another", c=40)

    assert scene.look(order_by="measured.detail DESC") == ["c", "b"]


def test_a_model_without_a_frame_in_common_comes_last(scene, runs):
    measure(scene, runs, a=[31, 31, None], b=[32, 32, None], c=[None, None, 50])

    assert scene.look() == ["b", "a"]
    assert "1 of them measured on other frames" in scene.take_snapshot().note


def test_what_earlier_versions_measured_counts_if_it_is_what_the_last_render_has(scene, runs):
    measure(scene, runs, against=None, a=31, b=33, c=32)
    assert scene.look() == ["c", "b"]

    measure(scene, runs, against=None, shard="knockout", b=[30, None, None])
    assert scene.look() == ["c", "a"]
