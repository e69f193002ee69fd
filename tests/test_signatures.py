import math

import pytest
from dailies.errors import LoadError
from dailies.signatures import FIELDS, Signature, overrides, signature, told_by
from hypothesis import given
from hypothesis import strategies as st


def said(**fields):
    return signature(Signature(), ("the run", fields))


def test_nothing_said_is_what_the_loader_knows():
    known = Signature(channels=1, scale=2)

    assert signature(known, ("the run", {}), ("the checkpoint", {})) == known


def test_the_first_that_speaks_of_a_field_is_heard():
    found = signature(
        Signature(multiple=8),
        ("the configuration", {"scale": 2}),
        ("the run", {"scale": 4, "channels": 1}),
        ("the checkpoint", {"scale": 1, "channels": 4, "value_range": [0, 1]}),
    )

    assert found == Signature(multiple=8, scale=2, channels=1, value_range=(0, 1))


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("channels", "1", 1),
        ("channels", 4, 4),
        ("output_channels", "3", 3),
        ("value_range", "[0, 255]", (0, 255)),
        ("value_range", [-0.5, 0.5], (-0.5, 0.5)),
        ("output_range", "(0, 1)", None),
        ("channel_order", "BGR", "bgr"),
        ("scale", "4", 4),
        ("multiple", "16", 16),
        ("least", "40", (40, 40)),
        ("most", "[512, 1024]", (512, 1024)),
        ("tile", "256", (256, 256)),
        ("tile", [128, 256], (128, 256)),
        ("half", "false", False),
        ("half", "yes", True),
    ],
)
def test_a_field_is_read_from_text_or_value(field, value, read):
    if read is None:
        with pytest.raises(LoadError, match=f"the run says that {field} is"):
            said(**{field: value})
    else:
        assert getattr(said(**{field: value}), field) == read


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"colour": "bgr"}, f"the run says colour, which is no part of a signature; there are: {', '.join(FIELDS)}"),
        ({"channels": 0}, "the run says that channels is '0'; allowed: a number from 1 to 64"),
        ({"channels": "65"}, "the run says that channels is '65'; allowed: a number from 1 to 64"),
        ({"output_channels": 2}, "the run says that output_channels is '2'; allowed: 1 or 3 or 4"),
        ({"scale": "1.5"}, "the run says that scale is '1.5'; allowed: 1 or 2 or 3 or 4 or 8"),
        (
            {"value_range": "[1, 0]"},
            "the run says that value_range is '[1, 0]'; allowed: two numbers, black and white, such as [-1, 1], [0, 1] "
            "or [0, 255]",
        ),
        ({"value_range": [0, math.inf]}, "the run says that value_range is '[0, inf]'; allowed: two numbers, black"),
        ({"value_range": "[0"}, "the run says that value_range is '[0'; allowed: two numbers, black and white"),
        ({"mean": "0.5", "std": "0.5"}, "the run says that mean is '0.5'; allowed: a list of one number per channel"),
        ({"mean": [0, 0, 0]}, "mean and std belong together; give both or neither"),
        ({"mean": [0, 0], "std": [1, 1]}, "mean has 2 and std 2 numbers, the network 3 channels"),
        ({"mean": [0, 0, 0], "std": [1, 0, 1]}, "std must be above 0 in every channel"),
        ({"multiple": 0}, "the run says that multiple is '0'; allowed: a number of pixels from 1 to 8192"),
        ({"multiple": True}, "the run says that multiple is 'True'; allowed: a number of pixels from 1 to 8192"),
        ({"least": [float("inf"), 1]}, "the run says that least is '[inf, 1]'; allowed: a number of pixels from 1 to"),
        ({"tile": [1, 2, 3]}, "the run says that tile is '[1, 2, 3]'; allowed: a number of pixels from 1 to 8192, or"),
        ({"half": "perhaps"}, "the run says that half is 'perhaps'; allowed: True or False"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(fields, text):
    with pytest.raises(LoadError) as error:
        said(**fields)

    assert str(error.value).startswith(text)


@given(field=st.sampled_from(sorted(FIELDS)), value=st.one_of(st.text(max_size=200), st.lists(st.floats(), max_size=4)))
def test_whatever_a_run_says_is_read_or_refused_in_one_short_line(field, value):
    text = ""
    try:
        said(**{field: value})
    except LoadError as error:
        text = str(error)

    assert len(text) < 300
    assert not text or text.isprintable()


def test_a_run_speaks_under_a_prefix():
    assert told_by({"dailies.scale": "2", "scale": "4", "model.scale": "8"}) == {"scale": "2"}


def test_the_configuration_speaks_of_architectures_and_folders_and_the_last_word_counts():
    config = {"*": {"scale": 1, "half": False}, "SwinIR": {"scale": 2}, "best_*": {"scale": 4}}

    assert overrides(config, architecture="unet", folder="u_1") == {"scale": 1, "half": False}
    assert overrides(config, architecture="swinir", folder="u_1") == {"scale": 2, "half": False}
    assert overrides(config, architecture="swinir", folder="best_1") == {"scale": 4, "half": False}


@given(tile=st.tuples(st.integers(1, 300), st.integers(1, 300)), multiple=st.integers(1, 64))
def test_a_tile_starts_on_what_divides_it(tile, multiple):
    found = said(tile=list(tile), multiple=multiple)

    assert multiple % found.multiple == 0
    assert not any(side % found.multiple for side in tile)


@pytest.mark.parametrize(
    ("fields", "black", "white", "answer"),
    [
        ({}, (-1,), (1,), (-1, 1)),
        ({"value_range": [0, 255]}, (0,), (255,), (0, 255)),
        ({"value_range": [0, 255], "output_range": [0, 1]}, (0,), (255,), (0, 1)),
        ({"mean": [0.5, 0.25, 0], "std": [0.5, 0.25, 1]}, (-1, -1, 0), (1, 3, 1), (0, 1)),
    ],
)
def test_black_and_white_on_both_sides(fields, black, white, answer):
    found = said(**fields)

    assert found.ends == (black, white)
    assert found.answer_range == answer
