"""Results of different invocations are not shown together."""

from pathlib import Path

import pytest
from dailies.core import files
from dailies.state import shown_together
from dailies.state.layout import Layout
from dailies.state.shown_together import MixedResults
from helpers.raising import refused


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An output folder with a page, made of a summary, a contact sheet and the tables of one model."""
    layout = Layout(tmp_path / "out")
    line = {"run_id": "1", "status": "success", "output_dir": str(layout.frames("a")), "rank": 1, "verdict": "best"}
    files.write_json(layout.summary, [line])
    rank(layout, "best")
    for path in (layout.contact_sheet, layout.leaderboard, layout.frame_table):
        files.write_bytes(path, path.name.encode())
    parts = (layout.summary, layout.contact_sheet, layout.verdict)
    shown_together.record(layout.shown_on_page, {"a": "digest"}, layout=layout, parts=parts)
    return layout


def rank(layout: Layout, verdict: str) -> None:
    model = {"model": "a", "rank": 1, "verdict": verdict, "mean": 30.0}
    files.write_json(layout.verdict, {"ranking": {"metric": "psnr", "frames": 9, "of": 9, "models": [model]}})


def test_results_of_one_invocation_are_reported(layout):
    shown_together.refuse_mixed(layout, with_page=True)
    shown_together.refuse_mixed(layout, with_page=False)
    shown_together.refuse_mixed(Layout(layout.output_dir / "empty"), with_page=True)


@pytest.mark.parametrize(
    ("part", "name"),
    [("summary", "batch_summary.json"), ("contact_sheet", "contact_sheet.png"), ("verdict", "leaderboard.csv")],
)
def test_a_report_is_refused_if_a_part_is_newer_than_the_page(layout, part, name):
    path = getattr(layout, part)
    path.write_bytes(path.read_bytes() + b"\n")

    assert shown_together.newer_than_page(layout) == [name]
    with refused(MixedResults, "output.mixed_report", name):
        shown_together.refuse_mixed(layout, with_page=True)


def test_a_report_without_a_page_is_refused_if_the_ranks_are_not_those_of_the_summary(layout):
    rank(layout, "tie")

    with refused(MixedResults, "output.mixed_report", "leaderboard.csv"):
        shown_together.refuse_mixed(layout, with_page=False)


def test_the_page_links_neither_to_tables_of_an_earlier_configuration_nor_to_a_video_of_other_models(layout):
    layout.side_by_side.touch()
    assert shown_together.beside_page(layout) == [
        "leaderboard.csv",
        "metrics.csv",
        "contact_sheet.png",
        "side_by_side.mp4",
    ]

    shown_together.record(layout.shown_in_video, {"b": "digest"}, layout=layout)
    shown_together.record(layout.shown_on_page, {"a": "digest"}, layout=layout)

    assert shown_together.beside_page(layout) == ["contact_sheet.png"]
