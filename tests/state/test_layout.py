"""Every path is where it was in all versions: Snakemake knows files by their names."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from dailies.state.layout import Layout, Weights, model_of
from helpers import REPOSITORY

ARGUMENTS = {"model": "{model}", "shard": "{shard}", "subject": "@source", "job": "a_{model}"}
ARGUMENTS["name"] = "0123abcd"

PATHS = {
    "frames": "out/{model}",
    "metadata": "out/{model}/metadata.json",
    "summary": "out/batch_summary.json",
    "compare": "out/compare",
    "page": "out/compare/index.html",
    "page_folder": "out/compare/page",
    "page_extras": "out/compare/page/extras.js",
    "page_copies": "out/compare/page/copies/@source",
    "page_alpha": "out/compare/page/alpha/@source",
    "page_thumbnails": "out/compare/page/thumbnails/@source",
    "contact_sheet": "out/compare/contact_sheet.png",
    "side_by_side": "out/compare/side_by_side.mp4",
    "bundle": "out/compare/dailies.zip",
    "frame_table": "out/compare/metrics.csv",
    "leaderboard": "out/compare/leaderboard.csv",
    "logs": "out/logs",
    "shown_on_page": "out/.dailies/shown/page.json",
    "shown_in_video": "out/.dailies/shown/video.json",
    "log": "out/logs/a_{model}.log",
    "state": "out/.dailies",
    "lock": "out/.dailies/lock",
    "forced": "out/.dailies/forced.json",
    "benchmark": "out/.dailies/benchmarks/a_{model}.tsv",
    "sequence": "out/.dailies/sequence.json",
    "pairing": "out/.dailies/reference.json",
    "index": "out/.dailies/discovery.json",
    "snapshot": "out/.dailies/snapshot.json",
    "store_state": "out/.dailies/store.json",
    "skipped": "out/.dailies/skipped.json",
    "upgraded": "out/.dailies/upgraded",
    "record": "out/.dailies/models/{model}.json",
    "run": "out/.dailies/runs/{model}.json",
    "receipt": "out/.dailies/weights/{model}/download.json",
    "candidate_receipt": "out/.dailies/candidates/{model}.json",
    "knockout": "out/.dailies/knockout.json",
    "outcome": "out/.dailies/renders/{model}/{shard}.json",
    "attempts": "out/.dailies/attempts/{model}",
    "attempt": "out/.dailies/attempts/{model}/{shard}.json",
    "manifests": "out/.dailies/frames/{model}",
    "manifest": "out/.dailies/frames/{model}/{shard}.jsonl",
    "forced_mark": "out/.dailies/frames/{model}/{shard}.forced",
    "rendered_thumbnails": "out/.dailies/sheets/{model}",
    "measures": "out/.dailies/measures/@source/{shard}.json",
    "measurement_cache": "out/.dailies/measured/@source/{shard}.jsonl",
    "measuring_attempt": "out/.dailies/measured/@source/{shard}.json",
    "source_frames": "out/.dailies/source",
    "source_frame": "out/.dailies/source/0123abcd.npz",
    "verdict": "out/.dailies/metrics.json",
    "votes": "out/.dailies/votes.json",
    "page_memory": "out/.dailies/page.json",
    "evaluations": "out/.dailies/evaluations.json",
}

GROUPS = {
    "scan": {
        "folder": "out/.dailies",
        "frames": "out/.dailies/frames_read.json",
        "video": "out/.dailies/video",
        "clip": "out/.dailies/video.json",
    },
    "reference_scan": {
        "folder": "out/.dailies/reference",
        "frames": "out/.dailies/reference/frames_read.json",
        "video": "out/.dailies/reference/video",
        "clip": "out/.dailies/reference/video.json",
    },
    "weights": {
        "folder": "out/.dailies/weights/{model}",
        "receipt": "out/.dailies/weights/{model}/download.json",
        "draft": "out/.dailies/weights/{model}/draft",
        "whole": "out/.dailies/weights/{model}/artifact",
        "first": "out/.dailies/weights/{model}/first",
    },
}


def named(layout: Layout, name: str) -> object:
    """What a property or method of the layout gives, with the wildcards of a rule."""
    found = getattr(layout, name)
    if not callable(found):
        return found
    return found(**{argument: ARGUMENTS[argument] for argument in inspect.signature(found).parameters})


@pytest.mark.parametrize("root", ["", "/data/", "../shots/a/"])
def test_every_path_is_where_it_was(root: str) -> None:
    layout = Layout(Path(f"{root}out"))

    assert {name: named(layout, name).as_posix() for name in PATHS} == {
        name: f"{root}{path}" for name, path in PATHS.items()
    }
    for name, group in GROUPS.items():
        found = named(layout, name)
        assert {part: getattr(found, part).as_posix() for part in group} == {
            part: f"{root}{path}" for part, path in group.items()
        }


def test_the_tables_hold_every_path() -> None:
    members = {name for name in vars(Layout) if not name.startswith(("_", "all_"))}

    assert members - {"output_dir", "rendered"} == PATHS.keys() | GROUPS.keys()
    assert all(getattr(Layout, name).__doc__ for name in members - {"output_dir"})


def test_a_name_with_characters_of_patterns_is_a_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for model in ("a[1]", "a1"):
        for path in (layout.record(model), layout.attempt(model, "all"), layout.manifest(model, "all")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        layout.metadata(model).parent.mkdir()
        layout.metadata(model).touch()

    assert [path.stem for path in layout.all_records()] == ["a1", "a[1]"]
    assert [model_of(path) for path in layout.all_attempts()] == ["a1", "a[1]"]
    assert [model_of(path) for path in layout.all_metadata()] == ["a1", "a[1]"]
    assert layout.rendered() == ["a1", "a[1]"]


def test_discarding_weights_keeps_the_receipt(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    for folder in (weights.draft, weights.whole, weights.first):
        folder.mkdir()
    weights.receipt.touch()
    assert weights.are_on_disk

    weights.discard()

    assert list(tmp_path.iterdir()) == [weights.receipt]
    assert not weights.are_on_disk


def test_a_layout_needs_no_library() -> None:
    code = (
        "import sys; from dailies.state import layout;"
        "print({'numpy', 'PIL', 'OpenImageIO', 'av', 'torch', 'mlflow', 'pydantic', 'yaml'} & set(sys.modules))"
    )
    environment = {"PYTHONPATH": str(REPOSITORY / "scripts")}

    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "set()\n"
