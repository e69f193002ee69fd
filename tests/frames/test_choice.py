"""Which positions of a sequence the setting ``frames`` chooses."""

import re
from itertools import pairwise

import pytest
from dailies.core.errors import SequenceError
from dailies.frames.choice import SLICE, chosen_positions, measured_positions, spread
from helpers.raising import refused
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(1, 50), st.integers(1, 3000))
def test_a_number_spreads_frames_evenly_over_the_sequence_with_both_ends(number, total):
    found = spread(number, total)

    assert len(found) == len(set(found)) == min(number, total)
    assert found[0] == 0
    if number > 1:
        assert found[-1] == total - 1
        gaps = {later - earlier for earlier, later in pairwise(found)}
        assert max(gaps, default=0) - min(gaps, default=0) <= 1


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ("all", range(201)),
        ("0:201:8", range(0, 201, 8)),
        (":3", range(3)),
        ("-2:", [199, 200]),
        ("::100", [0, 100, 200]),
    ],
)
def test_a_slice_has_the_meaning_that_it_has_in_python(frames, expected):
    assert list(chosen_positions(frames, 201)) == list(expected)


@pytest.mark.parametrize(
    ("measure_frames", "total", "count"),
    [("auto", 500, 64), ("auto", 64, 64), ("auto", 3, 3), ("all", 500, 500), (100, 500, 100), (100, 50, 50)],
)
def test_enough_frames_or_all_or_a_number_are_measured(measure_frames, total, count):
    found = measured_positions(measure_frames, total)

    assert len(found) == count
    assert (found[0], found[-1]) == (0, total - 1)


def test_an_empty_slice_is_an_error_that_names_the_positions():
    with refused(SequenceError, "sequence.empty_slice", "300:400", "201 frames", "0 to 200"):
        chosen_positions("300:400", 201)


@pytest.mark.parametrize("text", ["0:-", "-:5", "--1:", "1:2:0", "1:2:-1", "5"])
def test_a_slice_that_python_would_not_read_is_not_called_one(text):
    assert not re.fullmatch(SLICE, text)
