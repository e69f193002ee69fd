from dailies.core.text import columns


def test_columns_are_as_wide_as_their_longest_value():
    rows = [("model", "size"), ("a", "1.5 MB"), ("longer", "-")]

    assert columns(rows).splitlines() == ["model   size", "--------------", "a       1.5 MB", "longer  -"]


def test_a_heading_alone_is_a_table():
    assert columns([("model", "size")]) == "model  size\n-----------"


def test_a_long_value_loses_its_middle():
    (_, _, line) = columns([("x",), ("a" * 100 + "b" * 100,)]).splitlines()

    assert line == "a" * 29 + "…" + "b" * 29
