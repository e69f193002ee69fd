"""The status line, on a pseudo terminal."""

from pathlib import Path

import pytest
from dailies.planning.status_line import COLUMNS, ERASE, StatusLine, width_of
from helpers.terminals import Terminal


@pytest.fixture(autouse=True)
def no_columns(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)


def test_text_is_printed_above_the_line():
    terminal = Terminal(columns=40)
    line = StatusLine(terminal.stream)

    line.show("net", ": frame 1 of 9")
    line.write("a warning\n")
    line.show("net", ": frame 2 of 9")
    line.show("", "")

    assert terminal.printed() == f"net: frame 1 of 9{ERASE}a warning\nnet: frame 2 of 9{ERASE}"


def test_a_line_that_has_not_changed_is_not_printed_again():
    terminal = Terminal(columns=40)
    line = StatusLine(terminal.stream)

    for _ in range(3):
        line.show("net", ": loading")

    assert terminal.printed() == "net: loading"


def test_an_incomplete_line_of_others_is_not_interrupted():
    terminal = Terminal(columns=40)
    line = StatusLine(terminal.stream)

    line.write("half")
    line.show("net", ": loading")
    line.write(" and half\n")

    assert terminal.printed() == "half and half\n"


def test_a_long_label_loses_its_middle_and_the_figures_stay():
    terminal = Terminal(columns=40)

    StatusLine(terminal.stream).show("a_very_long_name_of_a_network", ": frame 12 of 201, 3.50 fps")

    text = terminal.printed()
    assert len(text) == 39
    assert text.startswith("a_ver")
    assert text.endswith("twork: frame 12 of 201, 3.50 fps")


def test_the_width_is_that_of_the_terminal_unless_the_user_says_another(monkeypatch, tmp_path):
    terminal, unknown = Terminal(columns=132), Terminal(columns=0)
    with Path(tmp_path / "log").open("w") as file:
        assert (width_of(terminal.stream), width_of(unknown.stream), width_of(file)) == (132, COLUMNS, None)
        monkeypatch.setenv("COLUMNS", "90")
        assert (width_of(terminal.stream), width_of(file)) == (90, 90)
    terminal.printed()
    unknown.printed()
