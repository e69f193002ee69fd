"""Runs as they are read from MLflow."""

import pytest
from dailies.store.tracking import TrackingStore
from helpers.stores import BEST, runs_of


@pytest.fixture
def open_store(tmp_path):
    """Open a store whose private folder is outside the store."""
    return lambda uri: TrackingStore(uri, private=tmp_path / "private")


def test_a_run_has_everything_that_was_logged(shelf, open_store):
    run_id = shelf.run("first", BEST, params={"a": "1"}, metrics={"loss": 0.5, "nan": float("nan")}, tags={"mine": "x"})

    (run,) = runs_of(open_store(shelf.uri))

    assert (run.run_id, run.run_name, run.experiment, run.status) == (run_id, "first", "exp", "FINISHED")
    assert (run.params, run.tags, run.metrics["loss"]) == ({"a": "1"}, {"mine": "x"}, 0.5)
    assert run.end_time >= run.start_time > 1.6e12


def test_a_run_names_its_input_datasets(shelf, open_store):
    from mlflow.entities import Dataset, DatasetInput, InputTag

    run_id = shelf.run("first", BEST)
    shelf.client.log_inputs(
        run_id,
        [
            DatasetInput(
                Dataset("shot", "d1", "local", '{"uri": "/shots/a"}'), [InputTag("mlflow.data.context", "training")]
            ),
            DatasetInput(Dataset("held\nout", "d2", "local", "x" * 9000), []),
        ],
    )

    (run,) = runs_of(open_store(shelf.uri))

    assert run.datasets == (
        {"name": "held out", "source": "x" * 8000, "context": ""},
        {"name": "shot", "source": '{"uri": "/shots/a"}', "context": "training"},
    )


def test_names_are_one_clean_short_line(shelf, open_store):
    shelf.run("\x1b[31mred\x1b[0m\nand\t\u202eback" + "x" * 4000)

    (run,) = runs_of(open_store(shelf.uri))

    assert run.run_name == ("red and back" + "x" * 4000)[:200]
