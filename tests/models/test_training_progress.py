import json

import pytest
from dailies.models.training_progress import finished_epochs
from helpers import REPOSITORY

SAVED = json.loads((REPOSITORY / "tests" / "fixtures" / "lightning.json").read_text())
"""What Lightning saved in two epochs of four batches, by the occasion and the step."""


@pytest.mark.parametrize(
    ("occasion", "counted"),
    [
        ("epoch end", {"4": 1, "8": 2, "after": 2}),
        ("validation", {"4": 1, "8": 2, "after": 2}),
        ("within epochs", {"3": 0, "6": 1, "after": 2}),
        ("two validations", {"2": 0, "4": 1, "6": 1, "8": 2, "after": 2}),
    ],
)
def test_epochs_are_counted_whenever_lightning_saves(occasion, counted):
    assert {step: finished_epochs(saved) for step, saved in SAVED[occasion].items()} == counted


def test_the_epoch_of_lightning_is_one_less_than_the_count_until_training_ends():
    assert [SAVED["epoch end"][step]["epoch"] for step in ("4", "8", "after")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("version", "epoch", "counted"),
    [
        ("1.5.10", 10, 10),
        ("1.6.0", 9, 10),
        ("2.1.0", 9, 10),
        ("2.1.0", 0, 1),
        ("a fork's", 9, 10),
        ("2.1.0", None, None),
    ],
)
def test_without_loops_the_version_decides_whether_epochs_start_at_0(version, epoch, counted):
    assert finished_epochs({"pytorch-lightning_version": version, "epoch": epoch, "state_dict": {}}) == counted


def test_checkpoints_of_other_trainers_are_not_counted():
    assert finished_epochs({"epoch": 9, "state_dict": {}}) is None


@pytest.mark.parametrize(
    "loops", [None, 3, {}, {"fit_loop": 3}, {"fit_loop": {"epoch_progress": {"current": {"processed": "many"}}}}]
)
def test_loops_of_any_shape_are_harmless(loops):
    assert finished_epochs({"pytorch-lightning_version": "2.1.0", "epoch": 4, "loops": loops}) == 5
