"""What is asked for is what is measured."""

import yaml
from dailies import metrics
from helpers import REPOSITORY

SCHEMA = yaml.safe_load((REPOSITORY / "config" / "config.schema.yaml").read_text())["properties"]


def config(**changes) -> dict:
    return {"metrics": ["auto"], "rank_by": "auto", "reference_dir": None} | changes


def test_the_schema_allows_every_metric_and_no_other():
    names = ["auto", *(metric.name for metric in metrics.METRICS)]

    assert SCHEMA["metrics"]["items"]["enum"] == SCHEMA["rank_by"]["enum"] == names
    assert all(name in SCHEMA["metrics"]["items"]["description"] for name in names)


def test_advice_is_labelled_and_a_reference_is_not_needed_for_it():
    assert metrics.ADVISORY == ("flicker", "detail", "clipping")
    for metric in metrics.METRICS:
        assert metric.note.startswith("Advisory: ") == (metric.group != "reference")


def test_a_reference_alone_makes_an_ordinary_invocation_measure():
    assert not metrics.automatic(config())
    assert metrics.automatic(config(reference_dir="r"))
    assert metrics.automatic(config(metrics=["detail"]))
    assert metrics.automatic(config(metrics=["auto", "detail"]))
    assert not metrics.automatic(config(metrics=None, reference_dir="r"))


def test_auto_takes_what_there_is_a_reference_for():
    assert metrics.measured(config()) == metrics.ADVISORY
    assert metrics.measured(config(reference_dir="r")) == ("psnr", "ssim", "ms_ssim", *metrics.ADVISORY)
    assert metrics.measured(config(metrics=["flip", "auto"], reference_dir="r"))[3] == "flip"
    assert metrics.measured(config(metrics=["detail", "psnr"])) == ("psnr", "detail")
    assert metrics.measured(config(metrics=None)) == ()


def test_the_first_metric_with_a_reference_ranks():
    assert metrics.ranked_by(config(reference_dir="r")) == "psnr"
    assert metrics.ranked_by(config(metrics=["ssim", "flip"], reference_dir="r")) == "ssim"
    assert metrics.ranked_by(config()) is None
    assert metrics.ranked_by(config(rank_by="flicker")) == "flicker"
