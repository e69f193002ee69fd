"""The table of metrics, and which of them the settings request."""

import subprocess
import sys
from typing import get_args

from dailies.measure import metrics
from dailies.planning.config import MetricName, Settings, schemas
from dailies.planning.setting_errors import allowed
from helpers import REPOSITORY


def test_the_settings_allow_every_metric_and_no_other():
    names = ["auto", *(metric.name for metric in metrics.METRICS)]

    assert list(get_args(MetricName)) == names
    assert all(name in allowed(schemas()["metrics"]) for name in names)


def test_metrics_without_a_reference_are_labelled_as_advisory():
    assert metrics.ADVISORY == ("flicker", "detail", "clipping")
    for metric in metrics.METRICS:
        assert metric.note.startswith("Advisory: ") == metric.is_advisory


def test_a_reference_alone_makes_every_invocation_measure():
    assert not metrics.is_automatic(Settings())
    assert metrics.is_automatic(Settings(reference_dir="r"))
    assert metrics.is_automatic(Settings(metrics=["detail"]))
    assert metrics.is_automatic(Settings(metrics=["auto", "detail"]))
    assert not metrics.is_automatic(Settings(metrics=None, reference_dir="r"))


def test_auto_requests_the_metrics_that_there_are_inputs_for():
    assert metrics.requested(Settings()) == metrics.ADVISORY
    assert metrics.requested(Settings(reference_dir="r")) == ("psnr", "ssim", "ms_ssim", *metrics.ADVISORY)
    assert metrics.requested(Settings(metrics=["flip", "auto"], reference_dir="r"))[3] == "flip"
    assert metrics.requested(Settings(metrics=["detail", "psnr"])) == ("psnr", "detail")
    assert metrics.requested(Settings(metrics=None)) == ()


def test_the_first_metric_with_a_reference_ranks():
    assert metrics.ranking_metric(Settings(reference_dir="r")) == "psnr"
    assert metrics.ranking_metric(Settings(metrics=["ssim", "flip"], reference_dir="r")) == "ssim"
    assert metrics.ranking_metric(Settings()) is None
    assert metrics.ranking_metric(Settings(rank_by="flicker")) == "flicker"


def test_every_metric_names_a_function_that_exists():
    assert all(callable(metric.function()) for metric in metrics.METRICS)


def test_head_nodes_import_the_table_and_the_report_without_heavy_packages():
    code = "import sys, dailies.measure.leaderboard, dailies.measure.lpips_weights; print(*sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "scripts", capture_output=True, check=True, text=True
    )

    assert not {"torch", "OpenImageIO", "cv2", "scipy"} & {*done.stdout.split()}
