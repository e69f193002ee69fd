"""The table of metrics, and which of them the settings request. Importing it needs neither OpenCV nor torch."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from dailies.core.text import counted
from dailies.frames.sequence import Sequence

if TYPE_CHECKING:
    from dailies.planning.config import Settings


REFERENCE, STILL, MOTION = "reference", "still", "motion"
"""The kinds of input a metric may need beside the rendered frame. They are part of cache keys and of metrics.json."""


@dataclass(frozen=True)
class Metric:
    """A metric of one rendered frame."""

    name: str
    """Its name in the configuration and in the tables."""
    label: str
    """Its name on the page."""
    needs: str
    """``REFERENCE``: the frame of the reference. ``STILL``: the frame of the source. ``MOTION``: the frame of the
    source, and the frames before both."""
    compute: str
    """``module:function`` of this package. The function takes the frame and what the metric needs, and returns a float,
    or None if the metric is undefined for such frames."""
    higher_is_better: bool
    unit: str = ""
    note: str = ""
    """What it measures, for the reader of the page."""
    ideal: str = ""
    """The value of a frame that equals its reference, as text; empty for metrics without a reference."""
    package: tuple[str, str] | None = None
    """The optional package it needs: the module, and the arguments of ``pip install``."""

    @property
    def suffix(self) -> str:
        """The unit as it follows a number, with a space; empty if the metric has none."""
        return f" {self.unit}" if self.unit else ""

    @property
    def is_advisory(self) -> bool:
        """Whether it needs no reference; an advisory metric ranks nothing unless ``rank_by`` names it."""
        return self.needs != REFERENCE

    def function(self) -> Callable[..., float | None]:
        """Import and return the function that computes it."""
        module, name = self.compute.split(":")
        return getattr(import_module(f"dailies.measure.{module}"), name)


LPIPS = "lpips"
"""The only metric that needs torch, and a file beside the frames: the weights of its backbone."""

METRICS = (
    Metric(
        "psnr",
        "PSNR",
        REFERENCE,
        "quality:psnr",
        higher_is_better=True,
        unit="dB",
        note="Peak signal-to-noise ratio: how small the mean squared error against the reference is.",
        ideal="100",
    ),
    Metric(
        "ssim",
        "SSIM",
        REFERENCE,
        "quality:ssim",
        higher_is_better=True,
        note="Structural similarity: how alike local brightness, contrast and structure are to the reference's.",
        ideal="1",
    ),
    Metric(
        "ms_ssim",
        "MS-SSIM",
        REFERENCE,
        "quality:ms_ssim",
        higher_is_better=True,
        note="Structural similarity at five sizes of the frame, so that coarse structure counts as well.",
        ideal="1",
    ),
    Metric(
        "flip",
        "FLIP",
        REFERENCE,
        "quality:flip",
        higher_is_better=False,
        note="The difference from the reference that a person sees when both frames alternate.",
        ideal="0",
        package=("flip_evaluator", "flip-evaluator"),
    ),
    Metric(
        LPIPS,
        "LPIPS",
        REFERENCE,
        "lpips:Lpips",
        higher_is_better=False,
        note="Perceptual distance from the reference, learned from people's judgements of similarity.",
        ideal="0",
        # only its weight files are used: its dependencies would install torchvision, and perhaps another torch
        package=("lpips", "--no-deps lpips"),
    ),
    Metric(
        "flicker",
        "flicker",
        MOTION,
        "flicker:flicker",
        higher_is_better=False,
        unit="code values",
        note="Advisory: how much more than the source a pixel changes along the source's motion. Blur lowers it, too.",
    ),
    Metric(
        "detail",
        "detail",
        STILL,
        "quality:detail",
        higher_is_better=True,
        unit="×",
        note="Advisory: fine detail relative to the source's. The source's grain counts as detail.",
    ),
    Metric(
        "clipping",
        "clipping",
        STILL,
        "quality:clipping",
        higher_is_better=False,
        unit="%",
        note="Advisory: pixels at black or white beyond the source's.",
    ),
)
"""Every metric, in the order of the tables. ``compute`` of LPIPS is a class that is constructed with the weights."""

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}

ADVISORY = tuple(metric.name for metric in METRICS if metric.is_advisory)

AUTO = "auto"

AUTO_WITH_REFERENCE = ("psnr", "ssim", "ms_ssim", *ADVISORY)
"""What ``auto`` means if there is a reference. Without one, it means the advisory metrics."""


def requested(settings: "Settings") -> tuple[str, ...]:
    """Return the names of the metrics that the settings request, in the order of the tables."""
    names: set[str] = {*(settings.metrics or ())}
    if AUTO in names:
        names |= {*(AUTO_WITH_REFERENCE if settings.reference_dir else ADVISORY)}
    return tuple(metric.name for metric in METRICS if metric.name in names)


def is_automatic(settings: "Settings") -> bool:
    """Return whether every invocation measures: if there is a reference, or if the settings name metrics."""
    named = ({*(settings.metrics or ())} | {settings.rank_by}) - {AUTO}
    return bool(requested(settings)) and bool(settings.reference_dir or named)


def ranking_metric(settings: "Settings") -> str | None:
    """Return the name of the metric that ranks the models; None if only advisory metrics are requested."""
    if settings.rank_by != AUTO:
        return settings.rank_by
    return next((name for name in requested(settings) if not BY_NAME[name].is_advisory), None)


def verdict_advice(settings: "Settings") -> str | None:
    """Return what to set so that models are ranked; None if the settings name a metric that ranks them."""
    if is_automatic(settings) and ranking_metric(settings):
        return None
    if not settings.metrics:
        return "Nothing is measured, because metrics is none. Set metrics to auto and reference_dir to the true frames."
    if not settings.reference_dir:
        return (
            "There is no reference to rank the models by. Set reference_dir to the true frames; without any, set "
            "rank_by to an advisory metric, such as flicker, or vote blind."
        )
    return "The metrics that are measured do not rank. Set rank_by to one of them, or add psnr or ssim to metrics."


def orderable(settings: "Settings") -> tuple[str, ...]:
    """Return the names of the metrics that may order the models: those that every invocation measures."""
    return requested(settings) if is_automatic(settings) else ()


def needing(needs: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the named metrics that need one kind of input."""
    return tuple(name for name in names if BY_NAME[name].needs == needs)


MIN_FRAMES = 12
"""With fewer frames, a comparison of two models has no interval and is a tie."""

NOT_NEIGHBOURS = "flicker is measured between neighbouring frames only"
"""How the note begins that says why frames have no flicker."""


def flicker_note(sequence: Sequence, names: Iterable[str]) -> str | None:
    """Return why chosen frames of a sequence have no flicker; None if it is not requested, or if all were chosen."""
    if sequence.is_whole or not needing(MOTION, names):
        return None
    count = len(sequence.before)
    which = "none" if not count else "only one" if count == 1 else f"only {count}"
    return f"{NOT_NEIGHBOURS}: {which} of {counted(len(sequence.frames), 'chosen frame')} follows its neighbour"
