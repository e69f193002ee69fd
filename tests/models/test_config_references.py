import pytest
from dailies.models.config_references import resolve


@pytest.mark.parametrize(
    ("config", "resolved"),
    [
        ({"width": "${w}", "w": 6}, {"width": 6, "w": 6}),
        ({"a": {"b": "${c.d}"}, "c": {"d": [1]}}, {"a": {"b": [1]}, "c": {"d": [1]}}),
        ({"a": {"b": "${.c}", "c": "${..d}"}, "d": 3}, {"a": {"b": 3, "c": 3}, "d": 3}),
        ({"a": "x${b}/${c[1].d}", "b": 1, "c": [0, {"d": "y"}]}, {"a": "x1/y", "b": 1, "c": [0, {"d": "y"}]}),
        ({"a": ["${b}", "${b}"], "b": None}, {"a": [None, None], "b": None}),
        (
            {"a": "${oc.env:HOME}", "b": "${nowhere}", "c": "$5 {x}"},
            {"a": "${oc.env:HOME}", "b": "${nowhere}", "c": "$5 {x}"},
        ),
    ],
)
def test_references_are_replaced_by_what_they_refer_to(config, resolved):
    resolve(config)

    assert config == resolved


@pytest.mark.parametrize("config", [{"a": "${b}", "b": "${a}"}, {"a": "${a}"}, {"a": "x${a}"}])
def test_references_in_a_circle_end(config):
    resolve(config)

    assert "${a}" in str(config)


def test_a_configuration_that_holds_itself_ends():
    config: dict = {"a": 1, "b": "${a}"}
    config["c"] = config

    resolve(config)

    assert config["b"] == 1


def test_references_that_multiply_end():
    config = {f"k{number}": f"${{k{number + 1}}}" * 9 for number in range(99)}

    resolve(config)

    assert len(str(config)) < 10**7
