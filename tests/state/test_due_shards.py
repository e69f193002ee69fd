"""When a shard is due, and which attempt at it comes next."""

import os
from dataclasses import replace

import pytest
from dailies.core import files
from dailies.frames.sequence import Frame, Sequence, save
from dailies.state.due_shards import artifact_in_place, attempt_after, basis, frame_keys, is_due, next_attempt
from dailies.state.layout import Layout
from dailies.state.manifest import Manifest, restore_names
from dailies.state.records import Attempt, Input, LoadedModel, Outcome, RenderedArtifact

FRAMES = tuple(
    Frame(f"{letter}.jpg", f"{letter}.png", 7, 5, "RGB", 8, 100, sha256=f"digest of {letter}") for letter in "abc"
)


@pytest.fixture
def folder(tmp_path):
    """The folder of a model, with its three frames."""
    (tmp_path / "model").mkdir()
    for frame in FRAMES:
        (tmp_path / "model" / frame.output).write_bytes(b"pixels")
    return tmp_path / "model"


@pytest.fixture
def due(folder):
    """Return a function that saves the record of an attempt, if any, and returns the number of the next one."""
    state, sequence = folder.parent / "attempt.json", folder.parent / "sequence.json"

    def number(last=None, frames=FRAMES, place=folder, shard="all", shard_frames=0, forced=None):
        if last:
            files.write_json(state, last)
        if frames:
            save(Sequence(frames), sequence)
        return next_attempt(state, sequence, place, shard=shard, shard_frames=shard_frames, forced=forced)

    return number


def test_the_first_attempt_is_number_1(due):
    assert due() == 1


@pytest.mark.parametrize("status", ["download_failed", "load_failed", "error"])
def test_a_failure_is_tried_again(due, status):
    assert due({"status": status, "attempt": 3}) == 4


def test_a_success_with_all_its_frames_keeps_its_number(due):
    assert due({"status": "success", "attempt": 3}) == 3


def test_a_lost_frame_is_a_reason_for_another_attempt(due, folder):
    (folder / "c.png").unlink()

    assert due({"status": "success", "attempt": 3}) == 4


def test_a_lost_folder_is_a_reason_for_another_attempt(due, folder):
    assert due({"status": "success", "attempt": 3}, place=folder / "elsewhere") == 4


def test_a_lost_sequence_is_no_reason(due):
    assert due({"status": "success", "attempt": 3}, frames=()) == 3


def test_a_sequence_that_was_written_anew_is_read_anew(due, folder):
    assert due({"status": "success", "attempt": 3}) == 3

    longer = (*FRAMES, replace(FRAMES[0], output="d.png"))

    assert due(frames=longer) == 4
    (folder / "d.png").touch()
    os.utime(folder, ns=(1, 1))  # a file system's clock may stand still between two lines of a test
    assert due(frames=longer) == 3


def test_a_frame_is_lost_to_its_own_shard_alone(due, folder):
    (folder / "c.png").unlink()

    assert due({"status": "success", "attempt": 3}, shard="1", shard_frames=2) == 3
    assert due({"status": "success", "attempt": 3}, shard="2", shard_frames=2) == 4


def test_forcing_causes_exactly_one_more_attempt(due):
    assert due(forced="f") == 1
    assert due({"status": "success", "attempt": 3}, forced="f") == 4
    assert due({"status": "error", "attempt": 3}, forced="f") == 4
    assert due({"status": "success", "attempt": 4, "forced": "f"}, forced="f") == 4
    assert due({"status": "success", "attempt": 4, "forced": "f"}) == 4
    assert due({"status": "success", "attempt": 4, "forced": "f"}, forced="another") == 5


@pytest.fixture
def known(tmp_path):
    """A shard that was rendered once, and what it depends on."""
    layout = Layout(tmp_path)
    record = layout.record("model")
    files.write_json(record, {"artifact": "a"})
    about = {"frames": "digest", "attempt": 1, "settings": {"tiled": True}, "loading": {"code": None}}
    key = basis(record, "digest", about["settings"], about["loading"])
    for place in (layout.attempt, layout.outcome):
        Attempt(status="success", attempt=1, basis=key).save(place("model", "1"))
    return about


def test_a_shard_of_which_nothing_has_changed_is_not_due(known, tmp_path):
    assert not is_due(Layout(tmp_path), "model", "1", **known)


@pytest.mark.parametrize(
    "change",
    [{"frames": "other"}, {"attempt": 2}, {"settings": {"tiled": False}}, {"loading": {"code": "edited"}}],
    ids=lambda change: next(iter(change)),
)
def test_a_shard_of_which_something_has_changed_is_due(known, tmp_path, change):
    assert is_due(Layout(tmp_path), "model", "1", **known | change)


def test_frames_that_were_rendered_as_parts_of_other_shards_are_in_place(tmp_path, folder):
    layout, pixels = Layout(tmp_path), {"settings": {"tiled": True}, "loading": {"code": None}}
    whole, record = Sequence(FRAMES), layout.record("model")
    files.write_json(record, {"artifact": "a"})
    model, artifact = LoadedModel(), RenderedArtifact(uri="store", path="best.pth", sha256="ab", size=3)
    keys = frame_keys(whole, "ab", pixels["settings"], model)
    layout.manifests("model").mkdir(parents=True)
    written = Manifest(layout.manifest("model", "all"), folder=folder, keys=keys)
    for name in keys:
        written.add(name, b"pixels", seconds=1, device="cpu", tiled=False)
    outcome = Outcome(status="success", model=model, artifact=artifact, input=Input(digest=whole.digest))
    replace(outcome, basis=basis(record, whole.digest, **pixels)).save(layout.attempt("model", "all"))
    some = [Sequence(FRAMES[:1]), Sequence(FRAMES[1:])]

    assert artifact_in_place(layout, "model", some, **pixels) == artifact
    assert artifact_in_place(layout, "model", some, **pixels | {"loading": {"code": "edited"}}) is None
    (folder / "c.png").unlink()
    assert artifact_in_place(layout, "model", some[:1], **pixels) == artifact
    assert artifact_in_place(layout, "model", some, **pixels) is None
    files.write_json(record, {"artifact": "another"})
    assert artifact_in_place(layout, "model", some[:1], **pixels) is None


def test_a_shard_that_was_never_rendered_or_lost_its_record_is_due(known, tmp_path):
    assert is_due(Layout(tmp_path), "model", "2", **known)
    Layout(tmp_path).outcome("model", "1").unlink()
    assert is_due(Layout(tmp_path), "model", "1", **known)


def test_a_shard_of_a_model_whose_record_has_changed_is_due(known, tmp_path):
    files.write_json(Layout(tmp_path).record("model"), {"artifact": "another"})
    assert is_due(Layout(tmp_path), "model", "1", **known)


def test_a_shard_that_an_older_version_rendered_is_due(known, tmp_path):
    Attempt(status="success", attempt=1).save(Layout(tmp_path).attempt("model", "1"))
    assert is_due(Layout(tmp_path), "model", "1", **known)


@pytest.mark.parametrize(("name", "listed"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_frames_in_another_unicode_form_are_lost_until_their_names_are_restored(tmp_path, name, listed):
    frames = Sequence((Frame(f"{name}.jpg", f"{name}.png", 7, 5, "RGB", 8, 100, sha256="a"), FRAMES[0]))
    save(frames, tmp_path / "sequence.json")
    files.write_json(tmp_path / "state.json", {"status": "success", "attempt": 1})
    folder = tmp_path / "model"
    folder.mkdir()
    for each in (listed, "a", "other"):
        (folder / f"{each}.png").write_bytes(each.encode())

    def attempt():
        places = (tmp_path / "state.json", tmp_path / "sequence.json", folder)
        return next_attempt(*places, shard="all", shard_frames=0)

    assert attempt() == 2
    restore_names(folder, frames.outputs)
    assert (folder / f"{name}.png").read_bytes() == listed.encode()
    assert sorted(path.name for path in folder.iterdir()) == sorted([f"{name}.png", "a.png", "other.png"])
    assert attempt() == 1


def test_an_attempt_is_due_again_after_a_failure_only(tmp_path):
    state = tmp_path / "state.json"

    assert attempt_after(state) == 1
    files.write_json(state, {"status": "success", "attempt": 3})
    assert attempt_after(state) == 3
    files.write_json(state, {"status": "error", "attempt": 3})
    assert attempt_after(state) == 4
