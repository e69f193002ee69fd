"""Metrics: what can be measured of a rendered frame, and what of it is asked for. Nothing is measured here."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dailies.planning.config import Settings


AUTO = "auto"

LPIPS = "lpips"
"""The metric that depends on a file beside the frames, and alone needs torch."""


@dataclass(frozen=True)
class Metric:
    """A measure of one frame."""

    name: str
    """As the configuration and the tables write it."""
    label: str
    group: str
    """What it is measured from: ``reference`` (the reference's frame), ``still`` (the source's), ``motion`` (the
    source's and both frames before)."""
    higher_is_better: bool
    unit: str = ""
    note: str = ""
    """What a reader has to know."""


METRICS = (
    Metric("psnr", "PSNR", "reference", higher_is_better=True, unit="dB"),
    Metric("ssim", "SSIM", "reference", higher_is_better=True),
    Metric("ms_ssim", "MS-SSIM", "reference", higher_is_better=True),
    Metric("flip", "FLIP", "reference", higher_is_better=False),
    Metric(LPIPS, "LPIPS", "reference", higher_is_better=False),
    Metric(
        "flicker",
        "flicker",
        "motion",
        higher_is_better=False,
        unit="code values",
        note="Advisory: how much more than the source a pixel changes along the source's motion; blur is steady, too.",
    ),
    Metric(
        "detail",
        "detail",
        "still",
        higher_is_better=True,
        unit="×",
        note="Advisory: fine detail over the source's, whose grain counts as detail.",
    ),
    Metric(
        "clipping",
        "clipping",
        "still",
        higher_is_better=False,
        unit="%",
        note="Advisory: pixels at black or white beyond the source's.",
    ),
)
"""Every metric, in the order of tables."""

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}

ADVISORY = tuple(metric.name for metric in METRICS if metric.note)
"""The metrics that need no reference and decide nothing."""

USUAL = ("psnr", "ssim", "ms_ssim", *ADVISORY)
"""What ``auto`` stands for where there is a reference; the advisory ones where there is none."""

ORDER = re.compile(r"measured\.(\w+)(?:\s+(ASC|DESC))?", re.IGNORECASE)
"""How ``order_by`` names a metric that is measured here, in the manner of MLflow's own."""

EXTRAS = {"flip": ("flip_evaluator", "flip-evaluator"), LPIPS: ("lpips", "--no-deps lpips")}
"""Metrics that need a package beyond the project's: the module, and what ``pip install`` is told.

Of lpips its own files are enough; what it asks for are torchvision's gigabytes, and perhaps another torch.
"""


def measured(settings: "Settings") -> tuple[str, ...]:
    """Name the metrics that the settings ask for, in the order of tables."""
    asked = set(settings.metrics or ())
    if AUTO in asked:
        asked |= {*(USUAL if settings.reference_dir else ADVISORY)}
    return tuple(metric.name for metric in METRICS if metric.name in asked)


def automatic(settings: "Settings") -> bool:
    """Tell whether an ordinary invocation measures: there is a reference, or metrics are named."""
    named = {*(settings.metrics or ())} - {AUTO}
    return bool(measured(settings)) and bool(settings.reference_dir or named)


def ranked_by(settings: "Settings") -> str | None:
    """Name the metric that ranks the models; None where there is only advice."""
    if settings.rank_by != AUTO:
        return settings.rank_by
    return next((name for name in measured(settings) if BY_NAME[name].group == "reference"), None)


def is_order(order_by: str) -> bool:
    """Tell whether ``order_by`` is about what is measured here, of which MLflow knows nothing."""
    return order_by.lower().startswith("measured.")


def order(settings: "Settings") -> tuple[str, bool] | None:
    """Name the metric whose mean orders the models, and tell whether the highest comes first; None if MLflow does."""
    found = ORDER.fullmatch(settings.order_by.strip())
    return (found[1].lower(), (found[2] or "").upper() == "DESC") if found else None


def orderable(settings: "Settings") -> tuple[str, ...]:
    """Name the metrics that may order the models: those that an ordinary invocation measures."""
    return measured(settings) if automatic(settings) else ()


def of_group(names: Sequence[str], group: str) -> tuple[str, ...]:
    """Give those of the metrics that are measured from the same frames."""
    return tuple(name for name in names if BY_NAME[name].group == group)
