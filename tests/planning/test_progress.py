"""What is printed while jobs run, for the events of Snakemake and the files of jobs."""

import io
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import pytest
from dailies.frames.sequence import Frame, Sequence, save
from dailies.planning.progress import Progress
from dailies.planning.status_line import ERASE
from dailies.state.layout import Layout
from dailies.state.manifest import Manifest
from dailies.state.records import (
    DiscoveryIndex,
    Figures,
    LoadedModel,
    Means,
    Metadata,
    Outcome,
    RenderReport,
    RunRecord,
)
from helpers.terminals import Terminal
from snakemake.logging import ColorizingTextHandler, logger
from snakemake_interface_logger_plugins.common import LogEvent

FRAMES = tuple(Frame(f"{n}.jpg", f"{n}.png", 7, 5, "RGB", 8, 100, sha256=f"digest of {n}") for n in range(4))


class Invocation:
    """An invocation with the models ``dark`` and ``light``, of which a test plays the jobs."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.settings = SimpleNamespace(device="cpu", shard_frames=2, rank_by="psnr", frames="all", knockout_frames=0)
        self.is_main = self.is_executed = self.is_local = self.is_concise = self.shows_progress = True
        self.waiting_jobs: dict[str, list[dict[str, str]]] = {}
        save(Sequence(FRAMES), self.layout.sequence)
        DiscoveryIndex(models=("dark", "light")).save(self.layout.index)
        for model in ("dark", "light"):
            RunRecord(run_id=model, run_name=model).save(self.layout.run(model))

    def rule(self, name: str) -> str:
        return name

    def waiting(self, rule: str) -> list[dict[str, str]]:
        return self.waiting_jobs.get(rule, [])

    def warn(self, text: str) -> None:
        logger.warning(f"dailies: {text}")

    def start(self, number: int, rule: str, **wildcards: str) -> None:
        """Log that jobs start, and which one."""
        logger.info("Execute 1 jobs...", extra={"event": LogEvent.JOB_STARTED, "jobs": [number]})
        job = {"event": LogEvent.JOB_INFO, "jobid": number, "rule_name": rule, "wildcards": wildcards}
        logger.info("Rule", extra=job)

    def finish(self, number: int) -> None:
        logger.info("Finished", extra={"event": LogEvent.JOB_FINISHED, "job_id": number})

    def render(self, number: int, name: str, shard: str, **changes: object) -> None:
        """Play the render of a shard of a model."""
        self.start(number, "infer", model=name, shard=shard)
        outcome = {"status": "success", "render": Figures(frames=2, seconds=1.0, fps=2.0, device="cpu")} | changes
        Outcome(**outcome).save(self.layout.outcome(name, shard))
        self.finish(number)


@pytest.fixture
def invocation(tmp_path: Path) -> Invocation:
    return Invocation(tmp_path)


@contextmanager
def printing_to(stream: TextIO) -> Iterator[None]:
    """Make Snakemake print to a stream, with its own handler."""
    handlers, level = logger.handlers[:], logger.level
    logger.handlers[:] = [ColorizingTextHandler(stream=stream)]
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.fixture
def terminal(invocation: Invocation) -> Iterator[SimpleNamespace]:
    """The ``progress`` of the invocation, and the ``lines`` that are printed to a pipe."""
    stream = io.StringIO()
    with printing_to(stream):
        progress = Progress(invocation)
        yield SimpleNamespace(progress=progress, lines=lambda: stream.getvalue().strip().splitlines())
        progress.close()


def test_a_model_has_one_line_once_all_its_shards_are_rendered(invocation, terminal):
    invocation.waiting_jobs = {"infer": [{"model": "dark", "shard": "2"}]}
    invocation.render(1, "dark", "1")
    assert terminal.lines() == []

    invocation.waiting_jobs = {}
    invocation.render(2, "dark", "2")

    (line,) = terminal.lines()
    assert line.split() == ["dark", "4", "frames", "2.00", "fps"]


def test_the_line_of_a_model_that_is_measured_waits_for_the_metric(invocation, terminal):
    invocation.waiting_jobs = {"measure": [{"model": "dark", "shard": "1"}]}
    for number, shard in enumerate("12"):
        invocation.render(number, "dark", shard)
    means = Means(frames=4, mean_unseen={"psnr": 30.306, "ssim": 0.9})
    metadata = Metadata(run_id="dark", render=RenderReport(status="success"), measured=means)
    metadata.save(invocation.layout.metadata("dark"))
    invocation.start(3, "infer", model="light", shard="1")
    assert terminal.lines() == []

    invocation.start(4, "collect", model="dark")
    invocation.finish(4)

    (line,) = terminal.lines()
    assert line.endswith("PSNR 30.31 dB")


def test_a_finalist_of_a_knockout_has_a_line_for_each_round(invocation, terminal):
    invocation.settings.knockout_frames = 2
    invocation.waiting_jobs = {"measure": [{"model": "dark", "shard": "knockout"}]}
    invocation.render(1, "dark", "knockout")
    assert terminal.lines() == []
    invocation.start(9, "measure", model="dark", shard="knockout")
    invocation.finish(9)
    assert len(terminal.lines()) == 1
    for number, shard in enumerate("12", start=2):
        invocation.render(number, "dark", shard)
    terminal.progress.finish()

    first, second = (line.split() for line in terminal.lines())
    assert first == ["dark", "2", "frames", "2.00", "fps"]
    assert second == ["dark", "4", "frames", "2.00", "fps"]


def test_a_failed_model_has_its_reason(invocation, terminal):
    for number, shard in enumerate("12"):
        failed = {"status": "load_failed", "error": "best.pth is\ndamaged", "render": Figures()}
        invocation.render(number, "dark", shard, **failed)

    terminal.progress.finish()

    assert terminal.lines() == ["dailies: dark: load_failed: best.pth is damaged"]


def test_each_note_is_printed_once(invocation, terminal):
    invocation.settings.device = "auto"
    note = "value_range [-1, 1] was assumed"
    for number, (model, shard) in enumerate([("dark", "1"), ("dark", "2"), ("light", "1"), ("light", "2")]):
        invocation.render(number, model, shard, model=LoadedModel(notes=(note,)))

    terminal.progress.finish()

    printed = "\n".join(terminal.lines())
    assert printed.count(f"dark: {note}") == printed.count(note) == 1
    assert printed.count("found no GPU") == 1


def test_frames_that_are_skipped_or_incomplete_are_named(invocation, terminal):
    noted = Frame("x.exr", "x.exr", 7, 5, "RGB", 16, 100, sha256="a", notes=("layer b is ignored",))
    skipped = ({"name": "y.exr", "reason": "frame y.exr cannot be read"},)
    invocation.start(1, "sequence")
    save(Sequence((noted,), skipped), invocation.layout.sequence)

    invocation.finish(1)

    assert terminal.lines() == [
        "dailies: 1 frame skipped: frame y.exr cannot be read",
        "dailies: x.exr: layer b is ignored",
    ]


def test_with_quiet_there_are_notes_but_no_lines(invocation, terminal):
    invocation.shows_progress = False
    invocation.start(1, "infer", model="dark", shard="1")  # Snakemake does not tell that it is finished
    invocation.start(2, "infer", model="dark", shard="2")
    for shard in "12":
        Outcome(status="success", model=LoadedModel(notes=("it was unpickled whole",))).save(
            invocation.layout.outcome("dark", shard)
        )

    terminal.progress.finish()

    assert terminal.lines() == ["dailies: dark: it was unpickled whole"]


def test_a_failing_line_does_not_end_the_invocation(invocation, terminal, capsys):
    invocation.start(1, "infer", model="dark", shard="1")

    invocation.finish(1)  # without an outcome

    assert "FileNotFoundError" in capsys.readouterr().err


# What is running


def running(terminal: SimpleNamespace) -> str:
    return "".join(terminal.progress.running())


def test_a_render_is_followed_from_frame_to_frame(invocation, terminal):
    layout = invocation.layout
    invocation.waiting_jobs = {"infer": [{"model": "light", "shard": "1"}, {"model": "light", "shard": "2"}]}
    invocation.start(1, "infer", model="dark", shard="1")
    assert running(terminal) == "dark: loading; 2 more to render"

    layout.manifests("dark").mkdir(parents=True)
    manifest = Manifest(layout.manifest("dark", "1"), folder=layout.frames("dark"), keys={"0.png": "a", "1.png": "b"})
    manifest.restart()
    assert running(terminal) == "dark: loading; 2 more to render"
    manifest.add("0.png", b"pixels", seconds=0.25, device="cpu", tiled=False)

    assert running(terminal) == "dark: frame 1 of 2, 4.00 fps, 0 s left; 2 more to render"


def test_several_renders_are_summed(invocation, terminal):
    for number, model in enumerate(("dark", "light")):
        invocation.start(number, "infer", model=model, shard="1")

    assert running(terminal) == "2 models: loading"


def test_without_a_render_other_jobs_are_named(invocation, terminal):
    assert running(terminal) == ""
    invocation.start(1, "collect", model="light")
    invocation.start(2, "measure", model="dark", shard="1")
    assert running(terminal) == "dark: measuring"

    invocation.finish(2)

    assert running(terminal) == "light: collecting the results"


def test_a_terminal_has_a_status_line_below_everything_else_until_nothing_runs(invocation, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal(columns=80)
    with printing_to(terminal.stream):
        progress = Progress(invocation)
        invocation.start(1, "infer", model="dark", shard="1")
        logger.warning("careful")
        invocation.finish(1)
        progress.close()

    printed = terminal.printed()

    assert printed.startswith(f"dark: loading{ERASE}")
    assert "careful" in printed
    assert printed.endswith(("\n", ERASE))


def test_jobs_of_a_cluster_have_no_status_line(invocation, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    invocation.is_local = False
    terminal = Terminal(columns=80)
    with printing_to(terminal.stream):
        progress = Progress(invocation)
        invocation.start(1, "infer", model="dark", shard="1")
        progress.close()

    assert terminal.printed() == ""


def test_a_pipe_has_a_line_now_and_then(invocation, terminal, monkeypatch):
    monkeypatch.setattr("dailies.planning.progress.PLAIN_TICK", 0.01)
    invocation.start(1, "infer", model="dark", shard="1")

    ends = time.monotonic() + 10
    while not terminal.lines() and time.monotonic() < ends:
        time.sleep(0.01)
    time.sleep(0.1)

    assert terminal.lines() == ["dark: loading"]
