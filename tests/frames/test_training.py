"""Training frames according to params, tags and datasets of a run."""

from pathlib import Path

import pytest
from dailies.frames.sequence import Frame
from dailies.frames.training import parse_frame_list, training_frames
from dailies.state.records import Dataset, RunRecord

FRAMES = [Frame(f"f_{n:04d}.jpg", f"f_{n:04d}.png", 7, 5, "RGB", 8, 1, sha256=str(n)) for n in range(10, 20)]


def numbers(found) -> list[int]:
    return sorted(int(Path(name).stem[2:]) for name in found)


def seen(tmp_path: Path = Path("/nowhere"), **about) -> list[int]:
    run = RunRecord(run_id="r", **about)
    return numbers(training_frames(run, FRAMES, names=["a", "b"], input_dir=tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", [12]),
        ("[10, 12,19]", [10, 12, 19]),
        ("('f_0011.png', \"f_0013\"); 0014 99", [11, 13, 14]),
        ("10-12, 18 - 30", [10, 11, 12, 18, 19]),
        ("16..17", [16, 17]),
        ("0:15:3", [12]),
        ("10:14", [10, 11, 12, 13]),
        ("::4", [12, 16]),
        ("18:", [18, 19]),
        ("0:20:0", []),
        ("", []),
        ("all of them, really", []),
        ("9" * 5000, []),
        (f"0-{'9' * 300}", []),
    ],
)
def test_lists_of_frames_are_parsed(text, expected):
    assert numbers(parse_frame_list(text, FRAMES)) == expected


def test_frames_without_numbers_are_listed_by_name():
    frames = [Frame("left.png", "left.png", 7, 5, "RGB", 8, 1, sha256="l")]

    assert parse_frame_list("0-100, left.tif", frames) == {"left.png"}


def test_negative_frame_numbers_are_listed():
    frames = [Frame(f"f.{n:05d}.jpg", f"f.{n:05d}.png", 7, 5, "RGB", 8, 1, sha256=str(n)) for n in range(-3, 3)]

    assert parse_frame_list("[-2, 1]", frames) == {"f.-0002.png", "f.00001.png"}
    assert parse_frame_list("-3--2", frames) == {"f.-0003.png", "f.-0002.png"}
    assert parse_frame_list("-1..1", frames) == {"f.-0001.png", "f.00000.png", "f.00001.png"}


def test_only_the_named_tags_and_params_are_read():
    assert seen(tags={"a": "10", "c": "19"}, params={"a": "11", "b": "12:14"}) == [10, 11, 12, 13]


def dataset(name: str, source: str = "", context: str = "training") -> Dataset:
    return Dataset(name=name, source=source, context=context)


def test_a_dataset_refers_to_frames_by_name_or_source():
    assert seen(datasets=[dataset("f_0011"), dataset("x", '{"uri": "s3://bucket/shot/f_0013.exr"}')]) == [11, 13]
    assert seen(datasets=[dataset("x", '["/a/f_0014.png", "f_0015.png", 3]'), dataset("x", "f_0016.png")]) == [
        14,
        15,
        16,
    ]


def test_a_dataset_of_the_input_folder_refers_to_all_frames(tmp_path):
    everything = list(range(10, 20))

    assert seen(tmp_path, datasets=[dataset("x", f'{{"uri": "{tmp_path}"}}')]) == everything
    assert seen(tmp_path, datasets=[dataset("x", f"file://{tmp_path}/")]) == everything
    assert seen(tmp_path, datasets=[dataset("x", str(tmp_path.parent))]) == []


@pytest.mark.parametrize(
    ("context", "counts"), [("Training", True), ("", True), ("validation", False), ("eval", False)]
)
def test_only_training_datasets_count(context, counts):
    assert seen(datasets=[dataset("f_0011", context=context)]) == ([11] if counts else [])


def test_the_numbers_of_chosen_frames_are_those_they_have_among_all():
    listing = ["shot0000.exr", "shot-0002.exr"]
    frames = [Frame("shot-0002.exr", "shot-0002.exr", 7, 5, "RGB", 8, 1, sha256="")]

    assert parse_frame_list("2", frames) == {"shot-0002.exr"}
    assert parse_frame_list("2", frames, listing) == set()
    assert parse_frame_list("-2", frames, listing) == {"shot-0002.exr"}
