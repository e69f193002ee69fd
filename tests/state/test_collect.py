import json
from dataclasses import replace
from pathlib import Path

import pytest
from dailies.core import files
from dailies.core.typed import to_json
from dailies.frames.sequence import Frame, Sequence, save
from dailies.models.signature import Signature
from dailies.state.collect import describe, failures, left_behind, substituted, summarize, summary_table
from dailies.state.layout import Layout
from dailies.state.records import Contestant, Leaderboard, Means, MetricRecord
from helpers.json_files import strict_json

RUN = {
    "run_id": "0123456789abcdef0123456789abcdef",
    "run_name": "night shift",
    "experiment": "exp",
    "architecture": "UNet",
    "epoch": 2500,
    "train_loss": 0.5,
    "val_loss": 0.25,
    "status": "FINISHED",
    "start_time": 1701234567890,
    "params": {"lr": "1e-3"},
    "metrics": {"val/psnr": 31.5},
    "tags": {"team": "comp"},
    "not_chosen": ["checkpoints/last.pth"],
}
OUTCOME = {
    "status": "success",
    "error": None,
    "attempt": 2,
    "render": {
        "frames": 201,
        "seconds": 20.1,
        "fps": 10.0,
        "device": "cpu",
        "precision": "fp32",
        "tiled": False,
        "tile_size": None,
        "overlap": None,
        "versions": {"dailies": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
    },
    "model": {
        "architecture": "unet",
        "epoch": 1800,
        "train_loss": 0.125,
        "builder": "dailies",
        "trust_pickle": False,
        "notes": ["averaged weights (ema) are used"],
        "signature": {"value_range": [-1.0, 1.0], "channels": 3, "scale": 1},
    },
    "artifact": {"uri": "file:///store", "path": "checkpoints/best.pth", "sha256": "ab", "size": 3},
    "input": {"digest": "cd", "frames": 201, "skipped": 0},
}
SEQUENCE = Sequence((Frame("a.jpg", "a.png", 7, 5, "RGB", 8, 100, sha256="digest of a"),), ({"name": "b.jpg"},))
FAILED = OUTCOME | {"status": "load_failed", "error": "best.pth is damaged", "model": {}}
FAILED["render"] = OUTCOME["render"] | {"frames": 0, "seconds": 0, "fps": None, "device": None}


@pytest.fixture
def described(tmp_path):
    """Describe a model in a folder and return the path of its metadata.json."""

    def write(name="night", run=None, outcome=None, outcomes=None, sequence=SEQUENCE, means=None, contestant=None):
        files.write_json(tmp_path / "run.json", RUN | (run or {}))
        save(sequence, tmp_path / "sequence.json")
        records = {}
        for number, each in enumerate(outcomes or [outcome or OUTCOME], start=1):
            records[tmp_path / "renders" / f"{number}.json"] = each
        for path, each in records.items():
            files.write_json(path, each)
        output = tmp_path / "out" / name / "metadata.json"
        describe(
            tmp_path / "run.json",
            list(records),
            sequence=tmp_path / "sequence.json",
            manifests=tmp_path / "frames",
            folder=output.parent,
            output=output,
            means=means,
            contestant=contestant,
        )
        return output

    return write


@pytest.fixture
def summary(tmp_path):
    """Summarize metadata files and return the path of the batch_summary.json."""

    def write(*metadata):
        summarize(metadata, output=tmp_path / "out" / "batch_summary.json")
        return tmp_path / "out" / "batch_summary.json"

    return write


def test_metadata_has_the_promised_fields_in_order(described):
    about = strict_json(described())

    assert list(about) == [
        *("run_id", "run_name", "architecture", "epoch", "train_loss", "val_loss", "status", "start_time"),
        *("checkpoint", "experiment", "registered_model", "params", "metrics", "tags", "datasets", "not_chosen"),
        *("render", "artifact", "input", "network", "signature", "measured"),
    ]
    assert list(about["render"]) == [
        *("status", "error", "attempt", "frames", "seconds", "fps", "device", "precision", "parity"),
        *("compile_seconds", "autotuned", "batch", "tiled", "tile_size", "overlap", "versions"),
    ]
    assert about["artifact"] == OUTCOME["artifact"]
    assert about["input"] == {"digest": SEQUENCE.digest, "frames": 1, "skipped": 1}


def test_notes_on_frames_are_in_the_metadata(described):
    frames = tuple(replace(SEQUENCE.frames[0], name=f"{name}.exr", notes=("layer b is rendered",)) for name in "xy")

    about = strict_json(described(sequence=Sequence(frames)))

    assert about["input"]["notes"] == ["x.exr, y.exr: layer b is rendered"]
    assert about["network"] == {
        "builder": "dailies",
        "trust_pickle": False,
        "notes": ["averaged weights (ema) are used"],
    }
    assert about["signature"] == to_json(Signature(scale=1))
    assert about["not_chosen"] == ["checkpoints/last.pth"]
    assert (about["run_id"], about["run_name"], about["start_time"]) == (
        RUN["run_id"],
        "night shift",
        1701234567890,
    )


def test_epoch_and_losses_are_the_runs_as_in_the_folder_name_and_the_checkpoints_are_labelled(described):
    about = strict_json(described())

    assert (about["architecture"], about["epoch"], about["train_loss"], about["val_loss"]) == ("unet", 2500, 0.5, 0.25)
    assert about["checkpoint"] == {"epoch": 1800, "train_loss": 0.125, "val_loss": None}


def test_the_checkpoint_fills_in_what_the_run_lacks(described):
    about = strict_json(described(run={"epoch": None, "train_loss": float("nan")}))

    assert (about["epoch"], about["train_loss"], about["val_loss"]) == (1800, 0.125, 0.25)
    assert about["checkpoint"]["epoch"] == 1800


def test_a_checkpoint_may_hold_no_progress(described):
    about = strict_json(described(outcome=OUTCOME | {"model": {"architecture": None, "epoch": None}}))

    assert (about["architecture"], about["epoch"], about["train_loss"]) == ("UNet", 2500, 0.5)
    assert about["checkpoint"] is None


TRIED = [{"path": "checkpoints/best.pth", "reason": "it is cut short"}]


def test_rejected_files_are_reported(described, summary):
    artifact = OUTCOME["artifact"] | {"path": "checkpoints/last.pth", "tried": TRIED}

    path = described(outcome=OUTCOME | {"artifact": artifact}, run={"not_chosen": ["checkpoints/last.pth", "e_1.pth"]})

    about = strict_json(path)
    assert about["artifact"] == artifact
    assert about["not_chosen"] == ["checkpoints/best.pth", "e_1.pth"]
    told = "checkpoints/best.pth was rejected: it is cut short"
    assert about["network"]["notes"] == ["averaged weights (ema) are used", told]
    assert strict_json(summary(path))[0]["tried"] == TRIED
    assert substituted(summary(path)) == (
        f"1 model rendered from another file than the preferred one: night shift: {told}"
    )


def test_without_rejected_files_or_a_render_nothing_is_reported(described, summary):
    artifact = OUTCOME["artifact"] | {"tried": [{"path": "checkpoints/last.pth", "reason": "it is empty"}]}
    failed = described("failed", outcome=FAILED | {"artifact": artifact})

    assert substituted(summary(described(), failed)) is None
    assert strict_json(failed)["not_chosen"] == ["checkpoints/last.pth"]


def test_metadata_has_all_means_and_the_summary_those_of_unseen_frames(described, summary):
    means = Means(frames=1, mean={"psnr": 31.5}, mean_unseen={"psnr": 31.0}, reference=("1 frame paired by name",))

    path = described(means=means)

    assert strict_json(path)["measured"] == {
        **{"frames": 1, "training_frames": 0, "error": None, "notes": []},
        **{"mean": {"psnr": 31.5}, "mean_unseen": {"psnr": 31.0}, "mean_training": None},
        "reference": ["1 frame paired by name"],
    }
    assert strict_json(summary(path))[0]["measured"] == {"psnr": 31.0}


@pytest.mark.parametrize(("falling", "names"), [(True, "bcaed"), (False, "abced")])
def test_models_may_come_in_the_order_of_a_metric_and_those_without_it_last(described, tmp_path, falling, names):
    paths = []
    for name, value in {"a": 30.0, "b": 31.0, "c": 31.0, "d": None, "e": 30.5}.items():
        path = tmp_path / name / "metadata.json"
        about = strict_json(described())
        measured = None if value is None else {"mean_unseen": {"psnr": value}}
        out = {"knocked_out": "its mean is over a few frames"} if name == "e" else {}
        files.write_json(path, about | {"run_name": name, "measured": measured} | out)
        paths.append(path)

    summarize(paths, output=tmp_path / "batch_summary.json", order=("psnr", falling))

    assert [line["run_name"] for line in strict_json(tmp_path / "batch_summary.json")] == list(names)


def test_epoch_0_is_an_epoch(described):
    assert strict_json(described(run={"epoch": None}, outcome=OUTCOME | {"model": {"epoch": 0}}))["epoch"] == 0
    assert strict_json(described(run={"epoch": 0}))["epoch"] == 0


def test_a_failed_model_has_metadata_too(described):
    about = strict_json(described(outcome=FAILED))

    assert about["status"] == "FINISHED"
    assert (about["render"]["status"], about["render"]["error"]) == ("load_failed", "best.pth is damaged")
    assert about["signature"] is None
    assert about["epoch"] == 2500


def test_what_json_cannot_hold_is_null(described):
    run = {"train_loss": float("nan"), "metrics": {"a": float("inf"), "b": 1.7976931348623157e308, "c": 1.0}}

    about = strict_json(described(run=run, outcome=OUTCOME | {"model": {"val_loss": float("nan")}}))

    assert (about["train_loss"], about["val_loss"]) == (None, 0.25)
    assert about["metrics"] == {"a": None, "b": None, "c": 1.0}


def test_the_summary_is_in_the_order_given(described, summary):
    paths = [described(name, run={"run_id": name * 32}) for name in ("c", "a", "b")]

    assert [line["run_id"][0] for line in strict_json(summary(*paths))] == ["c", "a", "b"]


def test_a_success_has_an_output_dir_and_no_error(described, summary, tmp_path):
    (line,) = strict_json(summary(described()))

    assert line == {
        "run_id": RUN["run_id"],
        "run_name": "night shift",
        "architecture": "unet",
        "label": {"name": "night shift", "params": ""},
        "status": "success",
        "output_dir": str(tmp_path / "out" / "night"),
        "epoch": 2500,
        "train_loss": 0.5,
        "val_loss": 0.25,
        "frames": 201,
        "seconds": 20.1,
        "fps": 10.0,
    }


@pytest.mark.parametrize("status", ["download_failed", "load_failed", "error"])
def test_a_failure_has_an_error_and_no_output_dir(described, summary, status):
    (line,) = strict_json(summary(described(outcome=FAILED | {"status": status})))

    assert line["status"] == status
    assert line["error"] == "best.pth is damaged"
    assert "output_dir" not in line
    assert line["fps"] is None


def test_no_models_make_an_empty_summary(summary):
    assert strict_json(summary()) == []
    assert failures(summary()) == []


def test_no_failure_needs_no_words(described, summary):
    assert failures(summary(described())) == []


def failed(described, name: str, error: str):
    return described(name, outcome=FAILED | {"error": error}, run={"run_name": name})


def test_failures_are_grouped_by_cause_one_line_each(described, summary):
    misfit = "the weights in {0}.pth do not fit the network: {1} missing (conv.{1}.weight)"
    paths = [failed(described, name, misfit.format(name, number)) for number, name in enumerate("abc", start=2)]
    paths += [failed(described, "d", "best.pth is damaged"), described("good")]

    heading, several, one = failures(summary(*paths))

    assert heading.startswith("4 of 5 models failed")
    assert several == f"3 models load_failed: {misfit.format('a', 2)}; a, b, c"
    assert one == "d load_failed: best.pth is damaged"


def test_a_cause_names_the_first_of_many_models(described, summary):
    _, line = failures(summary(*(failed(described, f"net {name}", "it is damaged") for name in "abcdefghi")))

    assert line.startswith("9 models load_failed: it is damaged; ")
    assert line.endswith(" and 4 more")


def test_the_table_has_one_line_per_model(described, summary):
    lines = summary_table(
        summary(described("good"), described("bad", outcome=FAILED, run={"run_name": "bad"}))
    ).splitlines()

    assert [line.split() for line in lines[2:]] == [
        ["night", "shift", "success", "201", "10.00"],
        ["bad", "load_failed", "0", "-"],
    ]
    assert lines[0].split() == ["model", "status", "frames", "fps"]
    assert lines[2].index("success") == lines[3].index("load_failed")


PSNR = MetricRecord(name="psnr", label="PSNR", group="reference", higher_is_better=True, unit="dB")


def ranked_table(described, tmp_path, *names, width=0):
    """The table of ``names``, best first, of which the last one is worse than the source, and of a failed model."""
    metadata = [described("broken", outcome=FAILED, run={"run_name": "broken"})]
    metadata += [described(name, run={"run_name": name}) for name in sorted(names)]
    output = tmp_path / "out" / "batch_summary.json"
    verdicts = dict.fromkeys(names, "tie") | {names[-1]: "worse"}
    record = ranking(tmp_path, **verdicts)
    summarize(metadata, output=output, ranking=record)
    board = Leaderboard.load(record)
    assert board.ranking
    board = replace(board, metrics=(PSNR,), ranking=replace(board.ranking, source=25.5))
    return summary_table(output, board, width=width).splitlines()


def test_ranked_models_come_by_rank_with_verdict_and_metric_and_the_source_last(described, tmp_path):
    lines = ranked_table(described, tmp_path, "zebra", "lion", "ape")

    assert lines[0].split() == ["rank", "model", "verdict", "PSNR", "dB", "frames", "fps"]
    assert [line.split() for line in lines[2:]] == [
        ["1", "zebra", "tie", "25", "201", "10.00"],
        ["2", "lion", "tie", "25", "201", "10.00"],
        ["3", "ape", "worse,", "below", "the", "source", "25", "201", "10.00"],
        ["broken", "load_failed", "-", "0", "-"],
        ["(source)", "25.5"],
    ]


def test_a_table_fits_a_terminal_and_its_figures_stay_whole(described, tmp_path):
    names = ("first_" + "a" * 40, "second_" + "b" * 40)

    lines = ranked_table(described, tmp_path, *names, width=72)

    assert max(map(len, lines)) <= 72
    assert lines[2].startswith("   1  first_a")
    assert "…" in lines[2]
    assert lines[2].endswith(" 25     201  10.00")


def test_models_that_are_no_longer_listed_are_named(described, tmp_path):
    described("stays")
    for name in ("z_gone", "a_gone"):
        described(name)
    for name, content in (("foreign", '{"run_id": "x"}'), ("broken", "{"), ("list", "[1]"), ("number", "1")):
        (tmp_path / "out" / name).mkdir()
        (tmp_path / "out" / name / "metadata.json").write_text(content)
    layout = Layout(tmp_path / "out")
    files.write_json(layout.index, {"models": ["stays", "new"]})

    assert left_behind(layout) == ["a_gone", "z_gone"]


def test_a_registered_model_is_shown_as_one(described):
    version = {"name": "net", "version": "3", "alias": "champion"}

    assert strict_json(described(run={"registered_model": version}))["registered_model"] == version
    assert strict_json(described())["registered_model"] is None


def test_text_of_any_language_stays_readable(described):
    path = described(run={"run_name": "último ensayo 夜"})

    assert "último ensayo 夜" in path.read_text(encoding="utf-8")
    assert json.loads(Path(path).read_bytes())["run_name"] == "último ensayo 夜"


def shard(frames, seconds, **changes):
    """The outcome of a shard."""
    render = {"frames": frames, "seconds": seconds, "fps": frames / seconds if seconds else None}
    return OUTCOME | {"render": OUTCOME["render"] | render} | changes


def test_the_figures_of_a_models_shards_are_summed(described):
    render = strict_json(described(outcomes=[shard(100, 10.0), shard(100, 30.0, attempt=4), shard(1, 0.2)]))["render"]

    assert (render["status"], render["error"], render["attempt"]) == ("success", None, 4)
    assert (render["frames"], render["seconds"], render["fps"]) == (201, 40.2, 5.0)


def test_one_tiled_shard_makes_a_tiled_render(described):
    tiled = shard(1, 1.0)
    tiled["render"] |= {"tiled": True, "tile_size": 512, "overlap": 64}

    render = strict_json(described(outcomes=[shard(1, 1.0), tiled]))["render"]

    assert (render["frames"], render["tiled"], render["tile_size"], render["overlap"]) == (2, True, 512, 64)


def test_a_model_is_as_its_worst_shard_and_known_from_any(described):
    lost = shard(0, 0, status="error", error="out of memory")
    unloaded = shard(0, 0, status="load_failed", error="no such file", model={})

    about = strict_json(described(outcomes=[unloaded, shard(100, 10.0), lost]))

    assert (about["render"]["status"], about["render"]["error"]) == ("load_failed", "no such file")
    assert (about["render"]["frames"], about["render"]["fps"]) == (100, 10.0)
    assert (about["architecture"], about["signature"]["scale"]) == ("unet", 1)


@pytest.mark.parametrize(("outcomes", "left"), [([OUTCOME, OUTCOME], 2), ([OUTCOME, FAILED], 3)])
def test_manifests_of_another_split_go_when_every_shard_is_rendered(described, tmp_path, outcomes, left):
    (tmp_path / "frames").mkdir()
    for name in ("all", "1", "2"):
        (tmp_path / "frames" / f"{name}.jsonl").touch()

    described(outcomes=outcomes)

    assert len(list((tmp_path / "frames").iterdir())) == left


def test_a_model_that_was_knocked_out_says_why_and_keeps_its_manifests(described, summary, tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "all.jsonl").touch()
    out = Contestant(model="night", is_finalist=False, reason="rank 9 of 9", rank=9)

    metadata = described(contestant=out)

    assert strict_json(metadata)["knocked_out"] == "rank 9 of 9"
    assert (tmp_path / "frames" / "all.jsonl").exists()
    assert strict_json(summary(metadata))[0]["knocked_out"] == "rank 9 of 9"
    assert "knocked out" in summary_table(tmp_path / "out" / "batch_summary.json")
    for contestant in (replace(out, is_finalist=True), replace(out, failed=True), None):
        assert "knocked_out" not in strict_json(described(contestant=contestant))


def ranking(tmp_path, **verdicts):
    """Write a ranking of models by name, best first, and return its path."""
    models = [
        {"model": name, "rank": place, "verdict": verdict, "mean": 30 - place, "below_source": verdict == "worse"}
        for place, (name, verdict) in enumerate(verdicts.items(), start=1)
    ]
    board = {"ranking": {"metric": "psnr", "frames": 9, "of": 9, "models": models}}
    files.write_json(tmp_path / "metrics.json", board | {"means": {name: {"psnr": 25.0} for name in verdicts}})
    return tmp_path / "metrics.json"


def test_ranks_and_verdicts_are_added_to_the_summary_and_to_every_metadata(described, tmp_path):
    metadata = [described("night"), described("day"), described("dusk")]
    output = tmp_path / "out" / "batch_summary.json"

    summarize(metadata, output=output, ranking=ranking(tmp_path, day="best", night="worse"))

    found = {Path(line["output_dir"]).name: line for line in strict_json(output)}
    assert [(line.get("rank"), line.get("verdict"), line.get("below_source")) for line in found.values()] == [
        (2, "worse", True),
        (1, "best", None),
        (None, None, None),
    ]
    assert found["day"]["measured"] == {"psnr": 25.0}
    for path in metadata:
        line, about = found[path.parent.name], strict_json(path)
        assert [about.get(key) for key in ("rank", "verdict")] == [line.get(key) for key in ("rank", "verdict")]


def test_a_metadata_that_gets_a_rank_keeps_its_time_and_one_whose_rank_stays_is_not_written(described, tmp_path):
    metadata = [described("night"), described("day")]
    output = tmp_path / "out" / "batch_summary.json"
    times = [path.stat().st_mtime_ns for path in metadata]

    summarize(metadata, output=output, ranking=ranking(tmp_path, day="best", night="worse"))
    nodes = [path.stat().st_ino for path in metadata]
    assert [path.stat().st_mtime_ns for path in metadata] == times
    summarize(metadata, output=output, ranking=ranking(tmp_path, day="best", night="worse"))
    assert [path.stat().st_ino for path in metadata] == nodes

    summarize(metadata, output=output)
    assert [strict_json(path).get("rank") for path in metadata] == [None, None]
