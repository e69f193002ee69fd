"""What is printed while an invocation's jobs run: a line per finished model, notes, and what is running now."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from dailies.core.text import clean, counted, duration, few
from dailies.frames import sequence
from dailies.measure import knockout, metrics
from dailies.planning.invocation import Invocation
from dailies.planning.status_line import StatusLine, width_of
from dailies.planning.terminal_filter import JobFilter, terminal_handler
from dailies.state.labels import labels
from dailies.state.manifest import Follower
from dailies.state.records import SUCCESS, DiscoveryIndex, Knockout, Metadata, Outcome, RunRecord, Values, merged

RESULT = logging.INFO + 5
"""The level of our own lines. Snakemake colours the lines of its own levels; ours keep the terminal's colour."""

TICK, PLAIN_TICK = 0.5, 30
"""Seconds between updates of what is running: in the status line of a terminal, and as lines of a log or pipe."""

PHASES = {
    "infer": "rendering",
    "side_by_side": "encoding the video",
    "download": "downloading",
    "download_candidate": "downloading",
    "measure": "measuring",
    "baseline": "measuring the source",
    "sequence": "reading the frames",
    "pairing": "pairing the reference",
    "discover": "reading the experiment",
    "collect": "collecting the results",
    "knockout": "choosing the finalists",
    "leaderboard": "ranking the models",
    "summary": "collecting the results",
    "contact_sheet": "drawing the contact sheet",
    "compare": "building the page",
}
"""What the jobs of a rule do. If several are running, the first in this order is shown."""

WIDEST_LABEL = 40
"""Characters of a model's label in a line."""


@dataclass(frozen=True)
class Running:
    """A job that is running, or submitted."""

    rule: str
    wildcards: Mapping[str, str]
    started: float = field(default_factory=time.time)


class Progress(logging.Handler):
    """Follows Snakemake's events. A render, which is a process of its own, is followed through its manifest."""

    def __init__(self, invocation: Invocation) -> None:
        """Follow the jobs of an invocation, if this process is the user's own."""
        super().__init__()
        self._invocation = invocation
        self._layout = invocation.layout
        self._running: dict[int, Running] = {}
        self._renders: dict[int, Follower] = {}
        self._waiting: Counter[str] = Counter()
        self._rendered: dict[str, Outcome] = {}
        self._labels: dict[str, str] | None = None
        self._noted: set[str] = set()
        self._printed = ""
        self._status: StatusLine | None = None
        self.width: int | None = None
        """The width of the terminal in characters; None if the output is not a terminal."""
        self._ticker: threading.Thread | None = None
        self._is_closed = threading.Event()
        if not invocation.is_main:
            return
        logger.addHandler(self)
        if handler := terminal_handler():
            handler.addFilter(JobFilter(lambda: invocation.is_concise))
            self.width = width_of(handler.stream)
            if handler.is_tty and handler.can_color_tty():
                self._status = StatusLine(handler.stream)
                handler.setStream(self._status)

    def emit(self, record: logging.LogRecord) -> None:
        """Record the start or end of a job."""
        if not (event := getattr(record, "event", None)) or not self._invocation.is_executed:
            return
        try:
            if event == LogEvent.JOB_STARTED:  # once for all jobs that are about to start
                self._waiting = Counter(wildcards["model"] for wildcards in self._invocation.waiting("infer"))
            elif event == LogEvent.JOB_INFO:
                self._start(record)
            elif event == LogEvent.JOB_FINISHED:
                self._finish(self._take(record.job_id))  # type: ignore[attr-defined]
            elif event == LogEvent.JOB_ERROR:
                self._take(record.jobid)  # type: ignore[attr-defined]
            self._show()
        except Exception:  # a line that cannot be printed must not end the invocation
            self.handleError(record)

    def finish(self) -> None:
        """Print the remaining lines after all jobs have succeeded."""
        for number in list(self._running):  # with --quiet, Snakemake does not report that they are finished
            self._finish(self._take(number))
        self._report_rendered()

    def close(self) -> None:
        """Remove the status line, and follow no more jobs."""
        self._is_closed.set()
        self._running.clear()
        self._renders.clear()
        if self._status:
            self._status.show("", "")
        super().close()

    # Jobs

    def _start(self, record: Any) -> None:
        rule = next((rule for rule in PHASES if self._invocation.rule(rule) == record.rule_name), None)
        if rule is None:
            return
        job = Running(rule, dict(record.wildcards))
        self._running[record.jobid] = job
        if rule == "infer":
            model, shard = job.wildcards["model"], job.wildcards["shard"]
            names = self._shards()[shard].outputs
            manifest = self._layout.manifest(model, shard)
            self._renders[record.jobid] = Follower(manifest, names, since=job.started)
        if self._ticker is None and self._invocation.shows_progress:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()

    def _take(self, number: int) -> Running | None:
        self._renders.pop(number, None)
        return self._running.pop(number, None)

    def _finish(self, job: Running | None) -> None:
        if job is None:
            return
        if job.rule == "discover":
            self._labels = None
        elif job.rule == "sequence":
            self._report_frames()
        elif job.rule == "knockout":
            self._report_rendered()
            for line in knockout.summary(Knockout.load(self._layout.knockout), self._label):
                logger.log(RESULT, line)
        elif job.rule == "infer":
            self._note_render(job.wildcards["model"], job.wildcards["shard"])
        elif job.wildcards.get("model") not in self._rendered:
            return
        elif job.rule == "measure" and job.wildcards["shard"] == sequence.KNOCKOUT:
            self._report_model(job.wildcards["model"], None)  # the summary of the knockout has the metric
        elif job.rule == "collect":
            measured = Metadata.load(self._layout.metadata(job.wildcards["model"])).measured
            self._report_model(job.wildcards["model"], measured.mean_unseen if measured else None)

    def _shards(self) -> dict[str, sequence.Sequence]:
        settings = self._invocation.settings
        return sequence.shards(self._layout.sequence, settings.shard_frames, settings.knockout_frames)

    # What is finished

    def _report_frames(self) -> None:
        """Warn of frames that are skipped, and of what is ignored in others."""
        read = sequence.load(self._layout.sequence)
        if read.skipped:
            reasons = few((each["reason"] for each in read.skipped), separator="; ")
            self._invocation.warn(f"{counted(len(read.skipped), 'frame')} skipped: {clean(reasons)}")
        settings = self._invocation.settings
        if settings.knockout_frames and sequence.KNOCKOUT not in self._shards():
            self._invocation.warn(
                f"knockout_frames is {settings.knockout_frames}, and the sequence has "
                f"{counted(len(read.frames), 'frame')}, so every model renders all of them"
            )
        chosen = [f"frames is {settings.frames}: {read.choice}"] if read.choice else []
        for note in (*chosen, *sequence.summarise_notes(read.frames)):
            self._invocation.warn(clean(note))

    def _note_render(self, model: str, shard: str) -> None:
        """Once the last shard of a model is finished, remember how its render went; if it is measured, its line waits.

        The first round of a knockout is a render of its own.
        """
        renders = (self._running[number].wildcards["model"] for number in self._renders)
        if not self._waiting[model] and model not in renders:
            is_first_round = shard == sequence.KNOCKOUT
            names = [name for name in self._shards() if (name == sequence.KNOCKOUT) == is_first_round]
            outcome = merged([Outcome.load(self._layout.outcome(model, name)) for name in names])
            self._rendered[model] = outcome
            is_measured = any(wildcards["model"] == model for wildcards in self._invocation.waiting("measure"))
            if outcome.status != SUCCESS or not is_measured:
                self._report_model(model, None)

    def _report_rendered(self) -> None:
        """Print the lines that wait for a metric without it, because nothing will provide one."""
        for model in list(self._rendered):
            self._report_model(model, None)

    def _report_model(self, model: str, measured: Values | None) -> None:
        """Print the line of a finished model, and each of its notes unless another model's was the same."""
        label = self._label(model)
        outcome = self._rendered.pop(model)
        if self._invocation.shows_progress:  # otherwise the result at the end says it
            self._report_render(label, outcome, measured or {})
        notes = outcome.model.notes if outcome.model else ()
        for note in (*self._notes_on_device(outcome), *(f"{label}: {clean(note)}" for note in notes)):
            self._note(note)

    def _report_render(self, label: str, outcome: Outcome, measured: Values) -> None:
        if outcome.status != SUCCESS:
            self._invocation.warn(f"{label}: {outcome.status}: {clean(outcome.error or '')}")
            return
        render = outcome.render
        speed = [] if render.fps is None else [f"{render.fps:6.2f} fps"]
        parts = [label.ljust(self._widest), f"{render.frames:4} frames", *speed, *self._metric(measured)]
        logger.log(RESULT, "  ".join(parts))

    def _notes_on_device(self, outcome: Outcome) -> Iterator[str]:
        if outcome.render.device == "cpu" and self._invocation.settings.device == "auto":
            yield "device: auto found no GPU, so models are rendered on the CPU"

    def _note(self, text: str) -> None:
        _, _, note = text.partition(": ")
        if note not in self._noted:
            self._noted.add(note)
            self._invocation.warn(text)

    def _metric(self, measured: Values) -> list[str]:
        name = metrics.ranking_metric(self._invocation.settings)
        value = measured.get(name) if name else None
        metric = metrics.BY_NAME.get(name or "")
        return [f"{metric.label} {value:.4g} {metric.unit}".rstrip()] if metric and value is not None else []

    def _label(self, model: str) -> str:
        if self._labels is None:
            runs = {
                name: RunRecord.load(self._layout.run(name)) for name in DiscoveryIndex.load(self._layout.index).models
            }
            self._labels = {name: label.within(WIDEST_LABEL) for name, label in labels(runs).items()}
        return self._labels[model]

    @property
    def _widest(self) -> int:
        return max(map(len, (self._labels or {}).values()), default=0)

    # What is running

    def _tick(self) -> None:
        while not self._is_closed.wait(TICK if self._is_live else PLAIN_TICK):
            self.acquire()
            try:
                if self._is_live:
                    self._show()
                elif (text := "".join(self.running())) and text != self._printed:
                    self._printed = text
                    logger.log(RESULT, text)
            finally:
                self.release()

    @property
    def _is_live(self) -> bool:
        """Whether a status line is updated. If a scheduler runs the jobs for hours, an occasional line is enough."""
        return self._status is not None and self._invocation.is_local

    def _show(self) -> None:
        if self._status and self._is_live and self._invocation.shows_progress:
            self._status.show(*self.running())

    def running(self) -> tuple[str, str]:
        """Return what is running, as the label of a model and the text after it; both are empty if nothing is."""
        if self._renders:
            return self._renders_in_words()
        if not self._running:
            return "", ""
        order = list(PHASES)
        rule = min((job.rule for job in self._running.values()), key=order.index)
        jobs = [job.wildcards for job in self._running.values() if job.rule == rule]
        models = {wildcards["model"] for wildcards in jobs if "model" in wildcards}
        return (self._label_of(models), f": {PHASES[rule]}") if models else ("", PHASES[rule])

    def _renders_in_words(self) -> tuple[str, str]:
        for render in self._renders.values():
            render.update()
        label = self._label_of({self._running[number].wildcards["model"] for number in self._renders})
        done = sum(len(render.written) for render in self._renders.values())
        total = sum(render.total for render in self._renders.values())
        parts = [f"frame {done} of {total}" if done else "loading"]
        if rate := sum(render.rate for render in self._renders.values()):
            parts += [f"{rate:.2f} fps", f"{duration((total - done) / rate)} left"]
        waiting = sum(self._waiting.values())
        more = f"; {waiting} more to render" if waiting else ""
        return label, f": {', '.join(parts)}{more}"

    def _label_of(self, models: Collection[str]) -> str:
        return counted(len(models), "model") if len(models) > 1 else self._label(*models)
