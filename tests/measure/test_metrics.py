"""What is asked for is what is measured."""

from typing import get_args

from dailies.measure import metrics
from dailies.planning.config import MetricName, Settings, schemas
from dailies.planning.validation import allowed


def test_the_settings_allow_every_metric_and_no_other():
    names = ["auto", *(metric.name for metric in metrics.METRICS)]

    assert list(get_args(MetricName)) == names
    assert all(name in allowed(schemas()["metrics"]) for name in names)


def test_advice_is_labelled_and_a_reference_is_not_needed_for_it():
    assert metrics.ADVISORY == ("flicker", "detail", "clipping")
    for metric in metrics.METRICS:
        assert metric.note.startswith("Advisory: ") == (metric.group != "reference")


def test_a_reference_alone_makes_an_ordinary_invocation_measure():
    assert not metrics.automatic(Settings())
    assert metrics.automatic(Settings(reference_dir="r"))
    assert metrics.automatic(Settings(metrics=["detail"]))
    assert metrics.automatic(Settings(metrics=["auto", "detail"]))
    assert not metrics.automatic(Settings(metrics=None, reference_dir="r"))


def test_auto_takes_what_there_is_a_reference_for():
    assert metrics.measured(Settings()) == metrics.ADVISORY
    assert metrics.measured(Settings(reference_dir="r")) == ("psnr", "ssim", "ms_ssim", *metrics.ADVISORY)
    assert metrics.measured(Settings(metrics=["flip", "auto"], reference_dir="r"))[3] == "flip"
    assert metrics.measured(Settings(metrics=["detail", "psnr"])) == ("psnr", "detail")
    assert metrics.measured(Settings(metrics=None)) == ()


def test_the_first_metric_with_a_reference_ranks():
    assert metrics.ranked_by(Settings(reference_dir="r")) == "psnr"
    assert metrics.ranked_by(Settings(metrics=["ssim", "flip"], reference_dir="r")) == "ssim"
    assert metrics.ranked_by(Settings()) is None
    assert metrics.ranked_by(Settings(rank_by="flicker")) == "flicker"
