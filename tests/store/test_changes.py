import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from dailies.store import changes
from dailies.store.changes import folder_state, sqlite_state
from helpers.stores import BEST, Shelf, folder_shelf, sqlite_shelf


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the files at once, as if their last change were long ago."""
    monkeypatch.setattr(changes, "SETTLED", -(10**12))


def state(shelf: Shelf) -> str | None:
    file = shelf.root / "mlflow.db"
    return sqlite_state(file) if file.is_file() else folder_state(shelf.root / "mlruns")


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("made", [sqlite_shelf, folder_shelf])
def test_the_state_of_a_store_changes_with_whatever_is_written(made, tmp_path):
    shelf = made(tmp_path / "store")
    run_id = shelf.run("a", BEST)
    seen = [state(shelf)]

    def is_seen() -> bool:
        seen.append(state(shelf))
        return seen[-1] is not None and seen[-1] not in seen[:-1]

    assert not is_seen()
    shelf.run("b")
    assert is_seen()
    shelf.client.log_metric(run_id, "loss", 0.5)
    assert is_seen()
    shelf.client.log_param(run_id, "artifacts", "x")
    assert is_seen()
    shelf.client.set_tag(run_id, "mine", "x")
    assert is_seen()
    shelf.client.set_tag(run_id, "mine", "y")
    assert is_seen()
    shelf.logged_model(run_id, "MLmodel")
    assert is_seen()
    shelf.register("net", f"runs:/{run_id}/model", run_id=run_id)
    assert is_seen()
    shelf.client.delete_run(run_id)
    assert is_seen()
    assert not is_seen()


@pytest.mark.parametrize("made", [sqlite_shelf, folder_shelf])
def test_a_store_that_has_just_changed_has_no_state_yet(made, tmp_path):
    shelf = made(tmp_path / "store")
    shelf.run("a")

    assert state(shelf) is None


@pytest.mark.usefixtures("settled")
def test_a_transaction_in_a_write_ahead_log_changes_the_state(tmp_path: Path):
    file = tmp_path / "store.db"
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE runs (name TEXT)")
        writer.commit()
        seen, main = {sqlite_state(file)}, file.read_bytes()
        for number in range(3):
            writer.execute("INSERT INTO runs VALUES (?)", [str(number)])
            writer.commit()
            seen.add(sqlite_state(file))

        assert file.read_bytes() == main
    assert len(seen) == 4


@pytest.mark.usefixtures("settled")
def test_a_folder_with_too_much_to_look_at_has_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    assert folder_state(tmp_path)

    monkeypatch.setattr(changes, "MOST_ENTRIES", 2)

    assert folder_state(tmp_path) is None


@pytest.mark.usefixtures("settled")
def test_a_folder_whose_links_form_a_loop_has_no_state(tmp_path: Path):
    (tmp_path / "loop").symlink_to(tmp_path)

    assert folder_state(tmp_path) is None
