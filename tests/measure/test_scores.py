"""The scores of a model: means over all, over unseen and over training frames."""

from pathlib import Path

import pytest
from dailies.frames.reference import Reference
from dailies.frames.sequence import Frame, Sequence, save
from dailies.measure.scores import summarized, training_frames_by_model
from dailies.state.records import Means, Measures, Metadata, RenderReport, RunRecord

FRAMES = [Frame(f"f_{n}.jpg", f"f_{n}.png", 7, 5, "RGB", 8, 1, sha256=str(n)) for n in range(8)]


@pytest.fixture
def sequence(tmp_path) -> Path:
    save(Sequence(tuple(FRAMES)), tmp_path / "sequence.json")
    return tmp_path / "sequence.json"


@pytest.fixture
def means_of(tmp_path, sequence):
    """Summarize a model that was trained on the first two frames; two shards have 50 there and 30 elsewhere."""
    RunRecord(run_id="a", params={"seen": "0-1"}).save(tmp_path / "run.json")
    values = {frame.output: {"psnr": 50.0 if n < 2 else 30.0, "flicker": 0.0} for n, frame in enumerate(FRAMES)}
    shards = []
    for number, names in enumerate((list(values)[:4], list(values)[4:])):
        shards.append(tmp_path / f"{number}.json")
        Measures(frames={name: values[name] for name in names}, notes=("n",)).save(shards[-1])

    def summarize(*names: str, measures: list[Path] = shards, reference: Reference | None = None) -> Means | None:
        return summarized(
            measures,
            tmp_path / "run.json",
            sequence=sequence,
            names=names,
            input_dir=tmp_path,
            reference=reference,
        )

    return summarize


def test_means_are_over_all_unseen_and_training_frames(means_of):
    assert means_of("seen") == Means(
        frames=8,
        training_frames=2,
        notes=("n",),
        mean={"psnr": 35, "flicker": 0},
        mean_unseen={"psnr": 30, "flicker": 0},
        mean_training={"psnr": 50, "flicker": 0},
        shards=("0", "1"),
    )


def test_without_known_training_frames_there_are_no_means_over_them(means_of):
    assert means_of().mean_training is None
    assert means_of().mean_unseen == means_of().mean


def test_the_pairing_of_the_reference_is_part_of_the_means(means_of):
    reference = Reference({}, ("paired by name",), "1 is missing")

    assert means_of(reference=reference).reference == ("paired by name", "1 is missing")


def test_without_records_there_are_no_means(means_of):
    assert means_of(measures=[]) is None


def test_the_reason_for_a_failure_is_kept(means_of, tmp_path):
    Measures(status="error", error="frame f_0.png cannot be read").save(tmp_path / "failed.json")

    assert means_of(measures=[tmp_path / "failed.json"]).error == "frame f_0.png cannot be read"


def test_training_frames_are_found_for_each_model_by_its_folder(tmp_path, sequence):
    paths = []
    for model, about in (("one", {"params": {"seen": "2"}}), ("two", {"tags": {"also": "0-1"}})):
        paths.append(tmp_path / model / "metadata.json")
        Metadata(run_id=model, render=RenderReport(status="success"), **about).save(paths[-1])

    found = training_frames_by_model(paths, sequence=sequence, names=["seen", "also"], input_dir=tmp_path)

    assert found == {"one": {"f_2.png"}, "two": {"f_0.png", "f_1.png"}}


def test_means_of_some_frames_say_of_how_many(means_of, tmp_path):
    shards = [tmp_path / "first.json", tmp_path / "second.json"]
    Measures(frames={"f_0.png": {"psnr": 40.0}, "f_3.png": {"psnr": 30.0}}).save(shards[0])
    Measures(frames={}, of=6).save(shards[1])

    found = means_of("seen", measures=shards)

    assert (found.frames, found.of) == (2, 8)
    assert (found.mean, found.mean_unseen, found.mean_training) == ({"psnr": 35}, {"psnr": 30}, {"psnr": 40})
