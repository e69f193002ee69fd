"""Votes of blind tests: which files are accepted, what counts, and what the counts say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from dailies.core.errors import VotesError
from dailies.frames.sequence import Frame, Sequence, save
from dailies.state import votes
from dailies.state.layout import Layout
from dailies.state.records import ModelRecord, Votes
from dailies.state.votes import CastVotes, Tally, VoteCounts, import_votes, read_export
from dailies.store.entities import Artifact
from helpers.raising import refused
from scipy.stats import binomtest

SEQUENCE = Sequence(
    tuple(Frame(f"f_{n}.png", f"f_{n}.png", 7, 5, "RGB", 8, 1, sha256=f"{n:064x}") for n in range(3)),
)


@pytest.fixture
def layout(tmp_path) -> Layout:
    """An output folder with the models ``one``, ``two`` and ``three``."""
    layout = Layout(tmp_path / "out")
    save(SEQUENCE, layout.sequence)
    for name in ("one", "two", "three"):
        ModelRecord(run_id=f"run of {name}", artifact=Artifact("file:///store", "best.pth", ())).save(
            layout.record(name)
        )
    return layout


def vote(number: int, a: str, b: str, winner: str, **changes) -> dict:
    named = {name: {"model": name, "run_id": f"run of {name}", "artifact": "0123abcd"} for name in (a, b)}
    sides = {"a": named[a], "b": named[b]}
    return {
        "id": f"{number:032x}",
        **sides,
        "winner": winner,
        "frame": "f_1.png",
        "frame_digest": f"{1:064x}",
        "time": "t",
    } | changes


def exported(path: Path, *cast: dict, **changes) -> Path:
    export = {"format": "dailies votes 2", "page": "p", "votes": cast}
    path.write_text(json.dumps(export | changes))
    return path


def tally(layout: Layout, sequence: Sequence = SEQUENCE, **artifacts: str | None) -> Tally:
    return CastVotes.imported(layout).count(sequence, artifacts)


def test_votes_of_several_files_add_up_and_the_same_vote_counts_once(layout, tmp_path):
    first = exported(tmp_path / "a.json", vote(1, "one", "two", "a"), vote(2, "two", "one", "tie"))
    second = exported(tmp_path / "b.json", vote(1, "one", "two", "a"), vote(3, "three", "one", "b"))

    import_votes(first, layout)
    import_votes(second, layout)
    before = layout.votes.read_bytes()
    import_votes(second, layout)

    assert layout.votes.read_bytes() == before
    assert tally(layout, one="0123abcdef", two=None).note() is None
    assert tally(layout, one="0123abcdef", two=None).counts == {
        "one": VoteCounts(won=2, lost=0, tied=1),
        "two": VoteCounts(won=0, lost=1, tied=1),
        "three": VoteCounts(won=0, lost=1, tied=0),
    }


def test_votes_on_frames_or_weights_that_have_changed_since_do_not_count(layout, tmp_path):
    import_votes(exported(tmp_path / "a.json", vote(1, "one", "two", "a")), layout)

    changed = Sequence((*SEQUENCE.frames[:1], replace(SEQUENCE.frames[1], sha256="f" * 64)))
    assert tally(layout, changed).counts == {}
    assert tally(layout, two="4567").counts == {}
    assert "weights that have changed (two)" in tally(layout, two="4567").note()
    assert tally(layout, two="0123abcd").counts != {}
    assert len(Votes.load(layout.votes).votes) == 1


def test_votes_that_do_not_count_are_reported_and_the_others_of_the_file_count(layout, tmp_path):
    chosen = replace(SEQUENCE, frames=SEQUENCE.frames[1:], listing=SEQUENCE.names)
    save(chosen, layout.sequence)
    other = {"frame": "f_0.png", "frame_digest": f"{0:064x}"}
    path = exported(
        tmp_path / "a.json",
        vote(1, "one", "two", "a"),
        vote(2, "one", "three", "a", **other),
        vote(3, "one", "gone", "a"),
        vote(4, "two", "three", "a", frame_digest="0123456789abcdef"),
    )

    text = import_votes(path, layout)

    assert "4 new votes" in text
    for part in (
        "3 of 4",
        "not chosen (f_0.png)",
        "does not hold (gone)",
        "not of this sequence (f_1.png)",
    ):
        assert part in text
    found = tally(layout, chosen)
    assert found.counts == {"one": VoteCounts(won=1), "two": VoteCounts(lost=1)}
    assert found.notes.keys() == {"one", "two", "three", "gone"}
    assert found.notes["three"].startswith("2 of 2 ")
    assert found.notes["two"].startswith("1 of 2 imported votes does not count")
    assert tally(layout).counts["three"] == VoteCounts(lost=1)  # once all frames are chosen again


def test_a_vote_on_another_run_with_the_folder_of_a_model_does_not_count_either(layout, tmp_path):
    other = vote(2, "one", "two", "a") | {"a": {"model": "one", "run_id": "another run", "artifact": ""}}
    import_votes(exported(tmp_path / "a.json", vote(1, "one", "two", "a"), other), layout)

    assert tally(layout).counts["one"] == VoteCounts(won=1)


def test_votes_that_an_earlier_version_recorded_without_runs_still_count(layout, tmp_path):
    import_votes(exported(tmp_path / "a.json", vote(1, "one", "two", "a")), layout)
    record = json.loads(layout.votes.read_text())
    for side in ("a", "b"):
        del record["votes"][0][side]["run_id"]
    layout.votes.write_text(json.dumps(record))

    assert tally(layout).counts["one"] == VoteCounts(won=1)


@pytest.mark.parametrize(
    ("code", "named", "content"),
    [
        ("votes.invalid", "format", {"format": "dailies votes 1"}),
        ("votes.invalid", "votes.0.winner", {"votes": [vote(1, "one", "two", "one")]}),
        ("votes.invalid", "votes.0.id", {"votes": [vote(1, "one", "two", "a", id="7")]}),
        ("votes.other_frames", "f_1.png", {"votes": [vote(1, "one", "two", "a", frame_digest="0123456789abcdef")]}),
        ("votes.other_frames", "f_9.png", {"votes": [vote(1, "one", "two", "a", frame="f_9.png")]}),
        ("votes.unknown_model", "four", {"votes": [vote(1, "one", "four", "a")]}),
        (
            "votes.unknown_model",
            "one",
            {
                "votes": [
                    vote(1, "two", "three", "a") | {"a": {"model": "one", "run_id": "another run", "artifact": ""}}
                ]
            },
        ),
        ("votes.same_model", "one", {"votes": [vote(1, "one", "one", "a")]}),
    ],
)
def test_votes_of_another_page_or_program_are_refused(layout, tmp_path, code, named, content):
    path = exported(tmp_path / "one.json", **content)

    with refused(VotesError, code, named):
        read_export(path, layout)


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b'{"votes": 3}'])
def test_a_file_that_is_no_export_is_refused(layout, tmp_path, content):
    path = tmp_path / "votes.json"
    path.write_bytes(content)

    with refused(VotesError, "votes.invalid", str(path)):
        import_votes(path, layout)
    assert not layout.votes.exists()


def test_a_file_that_does_not_exist_is_refused(layout, tmp_path):
    with refused(VotesError, "votes.unreadable", str(tmp_path / "no.json")):
        import_votes(tmp_path / "no.json", layout)


@pytest.mark.parametrize(("won", "lost"), [(8, 2), (0, 5), (3, 0), (50, 50), (1, 0)])
def test_the_interval_is_that_of_wilson(won, lost):
    expected = binomtest(won, won + lost).proportion_ci(method="wilson")

    assert VoteCounts(won, lost).interval == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_without_a_preference_there_is_no_share():
    assert VoteCounts(tied=4).cells == (0, 0, 4, None, None, None)
    assert votes.tags(VoteCounts(tied=4)) == {
        "dailies.votes.won": "0",
        "dailies.votes.lost": "0",
        "dailies.votes.tied": "4",
    }
