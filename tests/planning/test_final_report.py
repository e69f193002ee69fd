"""What is printed at the end of an invocation, for the files that its jobs wrote."""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from dailies.planning.final_report import FinalReport
from dailies.state.records import DiscoveryIndex
from helpers.images import flat, write_frame
from helpers.shows import Show
from snakemake.logging import logger


class Invocation:
    """An invocation in the output folder of a show, and the progress that it prints."""

    def __init__(self, show: Show) -> None:
        self.layout = show.layout
        self.settings = SimpleNamespace(compare=True)
        self.is_silent = False
        self.started = time.time()
        self.reasons: list[str] = []
        self.width = 200
        self.is_open = True

    def finish(self) -> None:
        assert self.is_open

    def close(self) -> None:
        self.is_open = False

    def warn(self, text: str) -> None:
        logger.warning(f"dailies: {text}")

    def fail(self, reason: str) -> NoReturn:
        self.reasons.append(reason)
        raise SystemExit(1)


@pytest.fixture
def printed() -> Iterator[list[str]]:
    """All that is printed."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    handlers, level = logger.handlers[:], logger.level
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    yield lines
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def show(tmp_path: Path) -> Show:
    """Three frames and two models."""
    show = Show(tmp_path)
    for number in range(3):
        write_frame(show.input / f"frame_{number:03d}.png", number)
    show.add_model("dark", lambda number: flat(number, 0, 0))
    show.add_model("light", lambda number: flat(number, 200, 0))
    DiscoveryIndex(models=tuple(folder.name for folder in show.models)).save(show.layout.index)
    return show


VALUES = {"model_1": [30.0, 31.0, 32.0], "model_2": [20.0, 20.5, 22.0], "@source": [25.0, 25.5, 26.0]}
"""PSNR by model and frame."""


def test_the_end_has_the_ranks_the_counts_and_the_page(show: Show, printed: list[str]):
    report = FinalReport(invocation := Invocation(show), invocation)
    show.build(psnr=VALUES)

    report.report()

    text = "\n".join(printed)
    table = printed[0].splitlines()
    assert [line.split()[:2] for line in table[2:4]] == [["1", "dark"], ["2", "light"]]
    assert "dark ranks first by PSNR on 3 frames: a tie" in text
    assert "2 models" in printed
    assert f"Frames of the first: {show.layout.frames('model_1')}/" in text
    assert printed[-1] == f"Compare the models: open {show.page}"
    assert not invocation.is_open


def test_an_invocation_that_wrote_nothing_reports_nothing(show: Show, printed: list[str]):
    show.build(psnr=VALUES)
    report = FinalReport(invocation := Invocation(show), invocation)

    report.report()

    assert printed == []


def test_models_that_failed_end_the_invocation_after_everything_else_is_printed(show: Show, printed: list[str]):
    show.add_model("junk", error="no checkpoint")
    index = DiscoveryIndex(models=tuple(folder.name for folder in show.models))
    index.save(show.layout.index)
    report = FinalReport(invocation := Invocation(show), invocation)
    show.build()

    with pytest.raises(SystemExit):
        report.report()

    place = next(number for number, line in enumerate(printed) if line.startswith("dailies: 1 of 3 models failed"))
    assert printed[place + 1].startswith("  junk load_failed: no checkpoint")
    assert printed[-1] == f"Compare the models: open {show.page}"
    assert "1 of 3 models failed" in invocation.reasons[0]


def test_models_that_are_no_longer_selected_and_warnings_of_the_store_are_named(show: Show, printed: list[str]):
    DiscoveryIndex(models=("model_1",), warning="the store did not answer").save(show.layout.index)
    report = FinalReport(invocation := Invocation(show), invocation)
    show.build(metadata=[show.models[0] / "metadata.json"])

    report.report()

    assert "dailies: the store did not answer" in printed
    assert "No longer selected, their frames stay where they are: model_2" in printed


def test_a_page_that_is_older_than_the_tables_is_reported(show: Show, printed: list[str]):
    show.build(psnr=VALUES)
    report = FinalReport(invocation := Invocation(show), invocation)
    show.rank(VALUES | {"model_2": [40.0, 41.0, 42.0]})

    report.report()

    assert "light ranks first" in "\n".join(printed)
    assert "the page does not show leaderboard.csv as it is now" in printed[-1]


@pytest.mark.parametrize("is_silent", [False, True])
def test_an_interruption_names_the_logs_and_in_silence_the_reasons(show: Show, printed: list[str], is_silent: bool):
    report = FinalReport(invocation := Invocation(show), invocation)
    invocation.is_silent = is_silent
    for name, age in (("sequence", 0), ("earlier", 100)):
        path = show.layout.log(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"failed: the reason of {name}\n")
        os.utime(path, (time.time() - age + 10,) * 2)

    report.report_interruption()

    assert any("dailies: sequence failed: the reason of sequence" in line for line in printed) is is_silent
    assert str(show.layout.logs) in printed[-1]
    assert not any("earlier" in line for line in printed)
    assert not invocation.is_open


def test_an_interruption_whose_reason_is_printed_adds_nothing(show: Show, printed: list[str]):
    report = FinalReport(invocation := Invocation(show), invocation)
    invocation.reasons.append("no such folder")

    report.report_interruption()

    assert printed == []
