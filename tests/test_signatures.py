import math

import pytest
from dailies.architectures import ARCHITECTURES
from dailies.errors import LoadError
from dailies.signatures import BUILT_IN, FIELDS, Signature, as_record, overrides, signature, told_by
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
        ("channels", 6, 6),
        ("output", "1.0", "1.0"),
        ("output", 1.0, "1.0"),
        ("output", "007", "007"),
        ("output", " final ", "final"),
        ("output", -1, "-1"),
        ("extra_channels", "[0.06]", (0.06,)),
        ("extra_channels", 0.06, (0.06,)),
        ("extra_channels", [1, 2, 3], (1, 2, 3)),
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
        ({"output": ""}, "the run says that output is ''; allowed: an index or a name, such as 1, final or stages.0"),
        ({"output": [1, 0]}, "the run says that output is '[1, 0]'; allowed: an index or a name"),
        ({"output": True}, "the run says that output is 'True'; allowed: an index or a name"),
        ({"extra_channels": []}, "the run says that extra_channels is '[]'; allowed: a list of numbers, one for each"),
        ({"extra_channels": "noise"}, "the run says that extra_channels is 'noise'; allowed: a list of numbers"),
        (
            {"channels": 4, "extra_channels": [0, 0]},
            "channels is 4 and extra_channels has 2 numbers, which leaves 2 channels for the picture; allowed: 1, 3 or",
        ),
        (
            {"channels": 4, "extra_channels": [0], "mean": [0] * 4, "std": [1] * 4},
            "mean has 4 and std 4 numbers, the network 3 channels",
        ),
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


@pytest.mark.parametrize(
    ("known", "constants", "channels"),
    [(3, [0.1], 4), (4, [0.1], 4), (2, [0.1], 2), (5, [0.1, 0.2], 5), (3, [1, 2, 3], 6), (7, [1] * 3, 7)],
)
def test_constants_are_beside_the_channels_of_the_picture(known, constants, channels):
    found = signature(Signature(channels=known), ("the run", {"extra_channels": constants}))

    assert found.channels == channels
    assert found.colours == channels - len(constants)


def test_a_signature_remembers_what_was_told():
    found = signature(
        Signature(multiple=8),
        ("the run", {"scale": 2}),
        ("the checkpoint", {"mean": [0], "std": [1]} | {"channels": 1}),
    )

    assert found.told == {"scale", "mean", "std", "channels"}
    assert found.tells_range
    assert not signature(Signature(), ("the run", {"output_range": [0, 1]})).tells_range


def test_a_record_holds_later_fields_only_where_they_say_something():
    assert list(as_record(Signature())) == [
        "channels",
        "output_channels",
        "value_range",
        "output_range",
        "mean",
        "std",
        "channel_order",
        "scale",
        "multiple",
        "least",
        "most",
        "tile",
        "half",
    ]
    record = as_record(said(output="1", extra_channels=[0.5]))
    assert (record["output"], record["extra_channels"], record["channels"]) == ("1", [0.5], 4)


def test_the_built_in_architectures_are_those_whose_range_is_known():
    assert ARCHITECTURES.keys() == BUILT_IN
