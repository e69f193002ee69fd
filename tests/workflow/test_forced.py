"""What is told to run again is made again: rendered, measured and read anew, once, also where jobs run on nodes."""

import json
import shutil
import time
from pathlib import Path

import pytest
from helpers import REPOSITORY
from helpers.studio import LEVELS, NAMES, Studio, all_written, jobs, kill_group, only
from helpers.weights import grey, grey_checkpoint, textured_checkpoint


def damage(frame: Path) -> bytes:
    """Overwrite the end of a frame, which stays as long as it was; return what it held."""
    good = frame.read_bytes()
    frame.write_bytes(good[:-30] + bytes(30))
    return good


def test_forced_renders_write_every_frame_again_and_repair_damaged_ones(rendered):
    frame = rendered.folder(rendered.runs["dark"]) / NAMES[1]
    good, before = damage(frame), all_written(rendered)

    planned = rendered.snakemake("-n", "-R", "infer")
    assert jobs(planned, "download") == jobs(planned, "infer") == only(rendered, *LEVELS)
    assert all_written(rendered) == before

    output = rendered.snakemake("-R", "infer")
    after = all_written(rendered)
    assert jobs(output, "infer") == only(rendered, *LEVELS)
    assert all(after[model][name] > before[model][name] for model in LEVELS for name in NAMES)
    assert frame.read_bytes() == good
    assert not list(rendered.state.glob("weights/*/artifact"))
    assert "Nothing to be done" in rendered.snakemake("-n")

    damage(frame)
    rendered.snakemake("--forceall")
    assert frame.read_bytes() == good
    assert all(all_written(rendered)[model][name] > after[model][name] for model in LEVELS for name in NAMES)
    assert "Nothing to be done" in rendered.snakemake("-n")
    assert [rendered.metadata(rendered.runs[name])["render"]["attempt"] for name in LEVELS] == [3, 3, 3]


@pytest.mark.scenarios
def test_one_forced_shard_is_rendered_again_and_no_other(rendered):
    rendered.config["run_ids"] = rendered.runs["dark"]
    rendered.snakemake(shard_frames=2)
    dark = only(rendered, "dark")[0]
    frame, record = rendered.output / dark / NAMES[2], rendered.state / "renders" / dark / "2.json"

    for verb in ("-R", "-f"):
        good, before = damage(frame), all_written(rendered)
        output = rendered.snakemake(verb, str(record), shard_frames=2)

        assert (jobs(output, "download"), jobs(output, "infer")) == ([dark], [f"{dark}/2"])
        assert frame.read_bytes() == good
        after = all_written(rendered)
        changed = {(model, name) for model in LEVELS for name in NAMES if after[model][name] != before[model][name]}
        assert changed == {("dark", NAMES[2]), ("dark", NAMES[3])}
        output = rendered.snakemake(shard_frames=2)  # after -f, which names the one target, the rest follows
        assert jobs(output, "download") == jobs(output, "infer") == []
        assert all_written(rendered) == after


@pytest.mark.scenarios
def test_an_interrupted_forced_render_resumes_where_it_stopped(studio):
    studio.add_frames(120, size=(64, 48))
    run = studio.add_run("net", textured_checkpoint(1))
    studio.snakemake()
    before = studio.written(run)
    frames = {name: (studio.folder(run) / name).read_bytes() for name in before}
    last = damage(studio.folder(run) / max(before))

    process = studio.start("-R", "infer")
    while sum(studio.written(run)[name] != before[name] for name in before) < 60:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    kill_group(process)
    process.stdout.close()
    lines = (studio.state / "frames" / studio.folder(run).name / "all.jsonl").read_text().splitlines()[:-1]
    done = {entry["output"] for entry in map(json.loads, lines) if entry["sha256"]}
    killed = studio.written(run)
    assert 50 < len(done) < 120

    studio.snakemake("--unlock")
    studio.snakemake()

    after = studio.written(run)
    assert {name for name in done if after[name] != killed[name]} == set()
    assert {name for name in before if after[name] == before[name]} == set()
    assert (studio.folder(run) / max(before)).read_bytes() == last
    assert {name: (studio.folder(run) / name).read_bytes() for name in before} == frames | {max(before): last}


@pytest.fixture
def nodes(studio: Studio) -> Studio:
    """A studio whose jobs run as those of a cluster: each is submitted, and plans anew from its own command line."""
    submit = studio.root / "submit"
    submit.write_text('#!/bin/sh\nnohup sh "$1" > "$1.log" 2>&1 &\necho $!\n')
    submit.chmod(0o755)
    command = ("--executor", "cluster-generic", "--cluster-generic-submit-cmd", str(submit), "--jobs", "2")
    quick = ("--seconds-between-status-checks", "1", "--latency-wait", "20")
    studio.machine = ("--workflow-profile", "none", *command, *quick, "--rerun-incomplete", "--keep-going")
    return studio


@pytest.mark.scenarios
def test_forced_renders_on_nodes_are_rendered_again_once(nodes):
    nodes.add_frames(4)
    run = nodes.add_run("net", grey_checkpoint(0.2))
    nodes.snakemake(shard_frames=2)
    frame = nodes.folder(run) / NAMES[1]
    good, before = damage(frame), nodes.written(run)

    output = nodes.snakemake("-R", "infer", shard_frames=2)

    after = nodes.written(run)
    assert jobs(output, "infer") == [f"{nodes.folder(run).name}/{shard}" for shard in "12"]
    assert all(after[name] > before[name] for name in NAMES)
    assert frame.read_bytes() == good
    assert nodes.levels(run) == [grey(0.2)] * 4
    assert "Nothing to be done" in nodes.snakemake("-n", shard_frames=2)
    (nodes.folder(run) / NAMES[0]).unlink()
    nodes.snakemake(shard_frames=2)
    assert [name for name in NAMES if nodes.written(run)[name] != after[name]] == [NAMES[0]]


def test_forced_measures_and_scans_use_nothing_that_is_known(rendered):
    shutil.copytree(rendered.frames, rendered.root / "clean")
    measured = {"reference_dir": str(rendered.root / "clean"), "metrics": "psnr"}
    rendered.snakemake(**measured)
    dark = only(rendered, "dark")[0]

    output = rendered.snakemake("-R", "measure", "sequence", **measured)

    assert jobs(output, "sequence") == [""]
    assert jobs(output, "measure") == only(rendered, *LEVELS)
    assert jobs(output, "infer") == []
    assert "4 of 4 frames to measure" in (rendered.output / "logs" / f"measure_{dark}_all.log").read_text()
    assert "Nothing to be done" in rendered.snakemake("-n", **measured)


def test_a_workflow_that_uses_this_one_forces_renders_by_its_own_names(rendered):
    (rendered.root / "Snakefile").write_text(
        f'module dailies:\n    snakefile: "{REPOSITORY}/Snakefile"\n    config: config\n\n'
        "use rule * from dailies as our_*\n\n"
        "rule all:\n    default_target: True\n    input:\n        rules.our_all.input,\n"
    )
    (rendered.root / "studio.yaml").write_text(json.dumps(rendered.config | {"run_ids": rendered.runs["dark"]}))
    before = all_written(rendered)
    arguments = ("-s", "Snakefile", "--configfile", "studio.yaml")

    output = rendered.snakemake(*arguments, "-R", "our_infer")

    assert jobs(output, "our_infer") == only(rendered, "dark")
    after = all_written(rendered)
    assert all(after["dark"][name] > before["dark"][name] for name in NAMES)
