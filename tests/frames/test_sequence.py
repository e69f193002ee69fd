"""Order, numbers, file and shards of a sequence."""

import os
import random

import pytest
from dailies.frames.sequence import Frame, Sequence, natural_key, natural_order, numbers, save, shards, split
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1)))
def test_natural_order_is_total(found):
    shuffled = random.Random(0).sample(found, len(found))

    assert sorted(shuffled, key=natural_key) == sorted(found, key=natural_key)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["shot.-0010.exr", "shot.-0002.exr", "shot.0000.exr", "shot.0001.exr"], [-10, -2, 0, 1]),
        (["a_-2.beauty.exr", "a_-1.beauty.exr", "a_0.beauty.exr"], [-2, -1, 0]),
        (["-12.png", "-3.png", "4.png"], [-12, -3, 4]),
        (["-12.png", "-3.png"], [-12, -3]),
        (["shot.-0003.exr", "shot.-0001.exr"], [-3, -1]),
        (["shot_-3.exr", "shot_-1.exr"], [-3, -1]),
        (["shot-0001.png", "shot-0002.png", "shot-0010.png"], [1, 2, 10]),
        (["shot-2.png", "shot-1.png", "shot0.png"], [-2, -1, 0]),
        (["shot--0002.png", "shot--0001.png", "shot-0000.png"], [-2, -1, 0]),
        (["2024-05-01_001.png", "2024-05-01_002.png"], [1, 2]),
        (["2024-05-01.png", "2024-05-02.png"], [1, 2]),
        (["shot_010_v2.0042.png"], [42]),
        (["clean.png"], [None]),
    ],
)
def test_negative_frame_numbers_precede_positive_ones(names, wanted):
    shuffled = random.Random(0).sample(names, len(names))

    assert natural_order(shuffled) == names
    assert numbers(shuffled) == dict(zip(names, wanted, strict=True))


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_numbers_are_ordered_as_numbers(one, other):
    in_order = sorted([f"shot_{one}_v2.png", f"shot_{other}_v2.png"], key=natural_key)

    assert in_order == [f"shot_{number}_v2.png" for number in sorted([one, other])]


def numbered(count):
    """A sequence of ``count`` frames."""
    return Sequence(tuple(Frame(f"{n}.jpg", f"{n}.png", 7, 5, "RGB", 8, 100, sha256=str(n)) for n in range(count)))


@pytest.mark.parametrize(
    ("shard_frames", "sizes"),
    [
        (0, {"all": 7}),
        (7, {"all": 7}),
        (100, {"all": 7}),
        (6, {"1": 6, "2": 1}),
        (3, {"1": 3, "2": 3, "3": 1}),
        (1, dict.fromkeys("1234567", 1)),
    ],
)
def test_a_sequence_is_split_into_contiguous_shards(shard_frames, sizes):
    whole = numbered(7)

    shards = split(whole, shard_frames)

    assert {name: len(shard.frames) for name, shard in shards.items()} == sizes
    assert tuple(frame for shard in shards.values() for frame in shard.frames) == whole.frames


def test_an_added_frame_changes_only_the_last_shard():
    before, after = (split(numbered(count), 3) for count in (7, 8))

    assert [name for name in after if after[name].digest != before[name].digest] == ["3"]


def test_shards_are_read_again_if_the_file_is_modified(tmp_path):
    path = tmp_path / "sequence.json"
    for count, modified in ((4, 1), (5, 2)):
        save(numbered(count), path)
        os.utime(path, ns=(modified, modified))
        assert [len(shard.frames) for shard in shards(path, 3).values()] == [3, count - 3]
