"""The reference's frames find those that they belong to."""

import os
from pathlib import Path

import pytest
from dailies.errors import SequenceError
from dailies.reference import fingerprint, matched, told_missing
from dailies.sequence import Frame


def frames(*names: str) -> list[Frame]:
    return [Frame(name, f"{Path(name).stem}.png", 7, 5, "RGB", 8, 1, sha256=name) for name in names]


@pytest.fixture
def folder(tmp_path):
    def fill(*names: str) -> Path:
        for name in names:
            (tmp_path / name).write_bytes(b"x")
        return tmp_path

    return fill


def test_names_match_whatever_they_end_in(folder):
    found = matched(frames("frame_1.png", "frame_2.png"), folder("frame_1.exr", "frame_2.TIF"))

    assert {name: path.name for name, path in found.paths.items()} == {
        "frame_1.png": "frame_1.exr",
        "frame_2.png": "frame_2.TIF",
    }
    assert found.missing == ()


def test_numbers_match_where_names_do_not(folder):
    found = matched(frames("plate_0011.dpx", "plate_0012.dpx"), folder("clean.12.exr", "clean.0013.exr"))

    assert {name: path.name for name, path in found.paths.items()} == {"plate_0012.png": "clean.12.exr"}
    assert found.missing == ("plate_0011.dpx",)


def test_a_name_comes_before_a_number(folder):
    found = matched(frames("a_1.png", "b_1.png"), folder("a_1.png", "c_1.png"))

    assert {name: path.name for name, path in found.paths.items()} == {"a_1.png": "a_1.png"}
    assert found.missing == ("b_1.png",)


def test_what_could_belong_to_several_belongs_to_none(folder):
    found = matched(
        frames("f_1.png", "f_2.png", "f_3.png"), folder("f_1.png", "f_1.exr", "x_2.png", "y_2.png", "f_3.png")
    )

    assert list(found.paths) == ["f_3.png"]
    assert found.missing == ("f_1.png", "f_2.png")


def test_no_match_at_all_is_refused_with_both_names(folder):
    place = folder("clean_100.png")

    with pytest.raises(SequenceError) as error:
        matched(frames("a.png", "b.png"), place)

    assert str(error.value) == (
        f"no frame of reference_dir {place} belongs to a frame of the sequence: there are clean_100.png, "
        "and wanted are a.png, b.png; names or numbers have to agree, or set reference_dir to none"
    )


def test_a_folder_that_cannot_be_used_says_why(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    advice = "set reference_dir to the folder of the reference's frames, or to none"

    for place, reason in (
        ("gone", f"does not exist; {advice}"),
        ("file", f"is no folder; {advice}"),
        ("empty", "holds no frame; frames end in .png .jpg .jpeg .bmp .tif .tiff .exr .dpx .webp .tga .hdr .jp2 .cin"),
    ):
        with pytest.raises(SequenceError) as error:
            fingerprint(tmp_path / place)
        assert str(error.value) == f"reference_dir {tmp_path / place} {reason}"


def test_the_fingerprint_follows_every_frame_and_nothing_else(folder):
    place = folder("a_1.png", "a_2.png")
    first = fingerprint(place)

    folder("notes.txt", ".hidden.png")
    assert fingerprint(place) == first
    os.utime(place / "a_1.png", ns=(1, 1))
    second = fingerprint(place)
    folder("a_3.png")
    assert len({first, second, fingerprint(place)}) == 3


def test_missing_frames_are_listed_and_counted():
    assert told_missing([]) is None
    assert told_missing(["a", "b"]) == "2 frames without a reference cannot be compared with one: a, b"
    assert told_missing("abcdefg").endswith(": a, b, c, d, e and 2 more")


def test_frames_before_zero_have_references_of_their_own_number(folder):
    found = matched(frames("shot.-0001.png", "shot.00001.png"), folder("clean.-1.exr", "clean.1.exr"))

    assert {name: path.name for name, path in found.paths.items()} == {
        "shot.-0001.png": "clean.-1.exr",
        "shot.00001.png": "clean.1.exr",
    }


def test_names_match_in_either_normal_form(folder):
    composed, decomposed = "caf\u00e9.png", "cafe\u0301.png"

    found = matched(frames(composed), folder(decomposed))

    assert found.paths["caf\u00e9.png"].name == decomposed
