"""Which runs max_runs takes where models are ordered by what earlier invocations measured."""

import pytest
from dailies.discovery.discover import discover
from dailies.discovery.report import counts
from dailies.state.records import Means, Metadata, RenderReport
from helpers.scenes import Scene
from helpers.stores import BEST, Shelf


@pytest.fixture
def runs(shelf: Shelf, scene: Scene) -> dict[str, str]:
    """Five runs by name, the oldest first, of which max_runs takes the best two by PSNR; their ids."""
    scene.change(order_by="measured.psnr DESC", max_runs=2, reference_dir="clean")
    return {name: shelf.run(name, BEST) for name in "abcde"}


def measure(scene: Scene, runs: dict[str, str], folder: str = "", **psnr: float | None) -> None:
    """Measure models as an invocation does."""
    for name, value in psnr.items():
        measured = Means(frames=3, mean_unseen={"psnr": value, "ssim": 0.5})
        about = Metadata(run_id=runs[name], render=RenderReport(status="success"), measured=measured)
        about.save(scene.layout.metadata(folder or name))


def test_while_nothing_was_measured_the_newest_are_taken_and_that_is_reported(scene, runs):
    assert scene.look() == ["e", "d"]

    note = scene.plan().note
    assert "no run has a measured psnr yet" in note
    assert "3 runs, 3 of them never measured" in note
    assert counts(scene.layout) == "2 models; skipped: 3 beyond max_runs"


def test_the_best_of_the_measured_are_taken_in_the_stores_order(scene, runs):
    measure(scene, runs, a=31, b=33, c=32, d=29, e=30)

    assert scene.look() == ["c", "b"]
    assert scene.plan().note is None
    assert scene.look(order_by="measured.psnr ASC") == ["e", "d"]


def test_what_was_never_measured_comes_last_and_is_counted(scene, runs):
    measure(scene, runs, a=20, b=None)

    assert scene.look() == ["e", "a"]
    note = scene.plan().note
    assert "takes 1 run with a measured psnr, and the newest 1 of those that were never measured" in note
    assert "3 runs, 3 of them never measured" in note


def test_measuring_the_models_that_were_taken_makes_nothing_due(scene, runs):
    scene.look()
    first = scene.plan().fingerprint

    measure(scene, runs, d=30, e=20)
    assert scene.plan().fingerprint == first
    measure(scene, runs, d=20, e=30)
    assert scene.plan().fingerprint == first
    assert scene.look() == ["e", "d"]


def test_a_value_matters_as_soon_as_it_lets_another_run_in(scene, runs):
    measure(scene, runs, a=31, b=33, c=32)
    assert scene.look() == ["c", "b"]
    before = scene.plan().fingerprint

    measure(scene, runs, a=32.5)

    assert scene.plan().fingerprint != before
    assert scene.look() == ["b", "a"]


def test_a_new_run_comes_in_when_it_is_measured_and_good(scene, shelf, runs):
    measure(scene, runs, a=31, b=33, c=32, d=29, e=30)
    runs["new"] = shelf.run("new", BEST)
    assert scene.look() == ["c", "b"]
    assert "4 runs, 1 of them never measured" in scene.plan().note

    assert scene.look(max_runs=None) == ["new", *"edcba"]
    assert scene.plan().note is None
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
    fingerprint = scene.plan().fingerprint
    measure(scene, runs, a=50, b=50)

    discover(scene.settings, fingerprint=fingerprint, layout=scene.layout)

    assert scene.read("discovery")["models"] == ["e", "d"]


def test_another_order_keeps_its_snapshots_as_they_were(scene, runs):
    measure(scene, runs, a=50)

    assert scene.look(order_by="start_time ASC") == ["a", "b"]
    assert scene.plan().note is None
    assert "preferred" not in scene.read("snapshot")["snapshot"]
