import math

import pytest
from dailies.core.errors import LoadError
from dailies.core.typed import to_json
from dailies.models.architectures.catalog import ARCHITECTURES
from dailies.models.signature import BUILT_IN, FIELDS, Signature, overrides, resolve_signature, signature_hints
from helpers.raising import refused
from hypothesis import given, settings
from hypothesis import strategies as st


def said(**fields):
    return resolve_signature(Signature(), ("the run", fields))


def test_without_statements_the_derived_signature_is_kept():
    known = Signature(channels=1, scale=2)

    assert resolve_signature(known, ("the run", {}), ("the checkpoint", {})) == known


def test_the_first_source_wins():
    found = resolve_signature(
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
        with refused(LoadError, "model.bad_signature_value", "the run", field):
            said(**{field: value})
    else:
        assert getattr(said(**{field: value}), field) == read


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"channels": 0}, ["channels", "'0'", "from 1 to 64"]),
        ({"channels": "65"}, ["channels", "'65'", "from 1 to 64"]),
        ({"output_channels": 2}, ["output_channels", "'2'", "1 or 3 or 4"]),
        ({"scale": "1.5"}, ["scale", "'1.5'", "1 or 2 or 3 or 4 or 8"]),
        ({"value_range": "[1, 0]"}, ["value_range", "'[1, 0]'", "[-1, 1], [0, 1] or [0, 255]"]),
        ({"value_range": [0, math.inf]}, ["value_range", "'[0, inf]'"]),
        ({"value_range": "[0"}, ["value_range", "'[0'"]),
        ({"mean": "0.5", "std": "0.5"}, ["mean", "'0.5'"]),
        ({"multiple": 0}, ["multiple", "'0'", "from 1 to 8192"]),
        ({"multiple": True}, ["multiple", "'True'", "from 1 to 8192"]),
        ({"least": [float("inf"), 1]}, ["least", "'[inf, 1]'"]),
        ({"tile": [1, 2, 3]}, ["tile", "'[1, 2, 3]'", "from 1 to 8192"]),
        ({"output": ""}, ["output", "''", "stages.0"]),
        ({"output": [1, 0]}, ["output", "'[1, 0]'"]),
        ({"output": True}, ["output", "'True'"]),
        ({"extra_channels": []}, ["extra_channels", "'[]'"]),
        ({"extra_channels": "noise"}, ["extra_channels", "'noise'"]),
        ({"half": "perhaps"}, ["half", "'perhaps'", "True or False"]),
    ],
)
def test_an_invalid_value_is_refused_with_the_allowed_ones(fields, names):
    with refused(LoadError, "model.bad_signature_value", "the run", *names):
        said(**fields)


@pytest.mark.parametrize(
    ("fields", "code", "names"),
    [
        ({"colour": "bgr"}, "model.unknown_signature_key", ["the run", "colour", ", ".join(FIELDS)]),
        ({"mean": [0, 0, 0]}, "model.mean_without_std", ["mean", "std"]),
        ({"mean": [0, 0], "std": [1, 1]}, "model.wrong_mean_length", ["2", "3 channels"]),
        ({"mean": [0, 0, 0], "std": [1, 0, 1]}, "model.bad_std", ["std"]),
        ({"channels": 4, "extra_channels": [0, 0]}, "model.bad_extra_channels", ["4", "2 numbers", "2 channels"]),
        (
            {"channels": 4, "extra_channels": [0], "mean": [0] * 4, "std": [1] * 4},
            "model.wrong_mean_length",
            ["4", "3 channels"],
        ),
    ],
)
def test_contradicting_fields_are_refused(fields, code, names):
    with refused(LoadError, code, *names):
        said(**fields)


@settings(max_examples=50, deadline=None)
@given(field=st.sampled_from(sorted(FIELDS)), value=st.one_of(st.text(max_size=200), st.lists(st.floats(), max_size=4)))
def test_any_value_is_read_or_refused_in_one_short_line(field, value):
    text = ""
    try:
        said(**{field: value})
    except LoadError as error:
        text = str(error)

    assert len(text) < 300
    assert not text or text.isprintable()


def test_a_run_states_its_signature_under_a_prefix():
    assert signature_hints({"dailies.scale": "2", "scale": "4", "model.scale": "8"}) == {"scale": "2"}


def test_patterns_match_architectures_and_folders_and_the_last_one_wins():
    config = {"*": {"scale": 1, "half": False}, "SwinIR": {"scale": 2}, "best_*": {"scale": 4}}

    assert overrides(config, architecture="unet", folder="u_1") == {"scale": 1, "half": False}
    assert overrides(config, architecture="swinir", folder="u_1") == {"scale": 2, "half": False}
    assert overrides(config, architecture="swinir", folder="best_1") == {"scale": 4, "half": False}


@given(tile=st.tuples(st.integers(1, 300), st.integers(1, 300)), multiple=st.integers(1, 64))
def test_the_multiple_divides_the_tile(tile, multiple):
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
def test_black_and_white_of_input_and_output(fields, black, white, answer):
    found = said(**fields)

    assert found.black_and_white == (black, white)
    assert found.effective_output_range == answer


@pytest.mark.parametrize(
    ("known", "constants", "channels"),
    [(3, [0.1], 4), (4, [0.1], 4), (2, [0.1], 2), (5, [0.1, 0.2], 5), (3, [1, 2, 3], 6), (7, [1] * 3, 7)],
)
def test_constants_are_added_to_the_channels_of_the_image(known, constants, channels):
    found = resolve_signature(Signature(channels=known), ("the run", {"extra_channels": constants}))

    assert found.channels == channels
    assert found.colours == channels - len(constants)


def test_a_signature_remembers_the_stated_fields():
    found = resolve_signature(
        Signature(multiple=8),
        ("the run", {"scale": 2}),
        ("the checkpoint", {"mean": [0], "std": [1]} | {"channels": 1}),
    )

    assert found.stated == {"scale", "mean", "std", "channels"}
    assert found.states_range
    assert not resolve_signature(Signature(), ("the run", {"output_range": [0, 1]})).states_range


def test_a_record_omits_newer_fields_with_their_default():
    assert list(to_json(Signature())) == [
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
    record = to_json(said(output="1", extra_channels=[0.5]))
    assert (record["output"], record["extra_channels"], record["channels"]) == ("1", [0.5], 4)


def test_built_in_lists_all_architectures():
    assert ARCHITECTURES.keys() == BUILT_IN
