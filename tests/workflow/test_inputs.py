"""What a user can get wrong, and what can be asked without rendering."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from helpers.frame_files import written
from helpers.json_files import strict_json
from helpers.studio import Studio, check_one_sentence, jobs
from helpers.weights import grey_checkpoint


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A server that notes who knocks, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def nobody_knocked(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return True
    return False


@pytest.fixture
def unanswered(studio: Studio, server: socket.socket) -> Studio:
    """A studio whose MLflow server never answers."""
    studio.config["mlflow_uri"] = f"http://127.0.0.1:{server.getsockname()[1]}"
    return studio


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"input_dir": "typo"}, "input_dir typo does not exist; set input_dir to the folder of your frames"),
        (
            {"max_run": 5, "precision": "fp8"},
            "'max_run' is not a key; did you mean max_runs?\nprecision is 'fp8'; allowed: fp32, tf32, fp16 or bf16.",
        ),
    ],
    ids=["missing input_dir", "wrong key and value"],
)
def test_a_wrong_input_is_one_sentence_before_anything_is_queried(unanswered, server, config, sentence):
    unanswered.add_frames(1)

    output = unanswered.snakemake(expect=1, **config)

    check_one_sentence(output, sentence)
    assert nobody_knocked(server)
    assert not unanswered.output.exists()


def test_no_run_with_a_model_is_one_sentence_that_counts_the_reasons(studio):
    studio.add_frames(1)
    studio.add_run("plots only", b"", path="plots/loss.svg")
    studio.add_run("still training", grey_checkpoint(0.1), status="RUNNING")
    studio.client.delete_run(studio.add_run("regretted", grey_checkpoint(0.1)))

    output = studio.snakemake(expect=1)

    reasons = "1 with another status, 1 without a model, 1 deleted"
    sentence = (
        f"no run with a model was found in exp of {studio.uri}, among 3 runs: {reasons}. "
        "Each with its reason is in .dailies/skipped.json"
    )
    check_one_sentence(output, sentence)
    assert [run["run_name"] for run in strict_json(studio.state / "skipped.json")] == [
        "still training",
        "plots only",
        "regretted",
    ]


def test_an_unreadable_frame_stops_before_rendering(studio):
    studio.add_frames(4)
    (studio.frames / "frame_000001.png").write_bytes(b"no image")
    studio.add_run("a", grey_checkpoint(0.2))

    output = studio.snakemake(expect=1)

    assert "failed: 1 of 4 frames cannot be used: frame frame_000001.png cannot be read" in output
    assert f"dailies: the reason is above, and in {studio.output}/logs; what is rendered is kept" in output
    assert "Traceback" not in output
    assert not list(studio.output.glob("*/*.png"))
    assert not list(studio.state.glob("weights/*/artifact"))


def test_a_layer_in_a_folder_that_yaml_would_cut_short_is_rendered_and_noted(studio):
    shot = studio.root / "take: 1 #2"
    shot.mkdir()
    values = np.repeat(np.float32([0.25, 0.5]), 3) * np.ones((5, 7, 6), np.float32)
    names = [f"{layer}.{c}" for layer in ("matte", "beauty") for c in "RGB"]
    for number in (-1, 0):
        (shot / f"a:b.{number:05d}.exr").write_bytes(written(values, ".exr", depth="half", channels=names))
    run_id = studio.add_run("a", grey_checkpoint(0.2))
    chosen = ("--config", f"input_dir={shot}", f"output_dir={studio.output}: 2 #3")

    output = studio.snakemake(*chosen)

    studio.config["output_dir"] += ": 2 #3"
    noted = "a:b.-0001.exr, a:b.00000.exr: layer beauty is rendered, not matte; set layer to choose another"
    assert f"dailies: {noted}" in output.splitlines()
    assert studio.metadata(run_id)["input"]["notes"][0] == noted
    assert sorted(path.name for path in studio.folder(run_id).glob("*.exr")) == ["a:b.-0001.exr", "a:b.00000.exr"]
    assert jobs(studio.snakemake(*chosen, "layer=mat*", "-n"), "sequence") == [""]


def test_list_models_prints_a_table_and_renders_nothing(studio):
    studio.add_frames(1)
    run_id = studio.add_run("first", grey_checkpoint(0.2), params={"arch": "UNet", "epochs": "2e3"})

    studio.add_run("second", grey_checkpoint(0.1), status="FAILED")

    output = studio.snakemake("list_models")

    assert "\n1 model; skipped: 1 FAILED\n" in output

    heading, _, row = output[output.index("model  ") :].splitlines()[:3]
    assert heading.split() == [
        "model",
        "frames",
        "due",
        "time",
        "disk",
        "architecture",
        "epoch",
        "train",
        "loss",
        "val",
        "loss",
        "artifact",
        "size",
        "value",
        "range",
    ]
    name = f"first_2000ep_loss0.2500_{run_id[:8]}"
    *about, size, unit, black, white = row.split()
    due = ["1", "of", "1", "unknown", "unknown"]  # no frame is read for a plan
    assert about == [name, *due, "UNet", "2000", "0.25", "-", "checkpoints/best_model_unet.pth"]
    assert 0 < float(size) < 1000
    assert (unit, black, white) == ("kB", "[-1,", "1]")
    assert not jobs(output, "download")
    assert not jobs(output, "infer")
    assert {path.name for path in studio.output.iterdir()} == {".dailies", "logs"}

    studio.snakemake()
    assert "Nothing to render: every model has its 1 frame." in studio.snakemake("list_models")
    studio.add_frames(3, start=1)
    studio.add_run("second", grey_checkpoint(0.3), params={"arch": "UNet"})
    plan = studio.snakemake("list_models")
    assert re.search(r"^first\S+ .* 3 of 4 +\d+ s ", plan, re.MULTILINE)
    assert re.search(r"^second\S+ .* 4 of 4 +~\d+ s ", plan, re.MULTILINE)
    assert "To render: 7 frames of 2 models; about " in plan


def test_lint_list_and_unlock_query_nothing(unanswered, server):
    unanswered.state.mkdir(parents=True)
    lock = unanswered.state / "lock"
    lock.write_text('{"host": "node7", "pid": 7, "started": "2026-01-01 00:00:00"}')

    assert "Congratulations" in unanswered.snakemake("--lint")
    assert "list_models" in unanswered.snakemake("--list").splitlines()
    assert lock.exists()
    assert "Unlocked" in unanswered.snakemake("--unlock")
    assert not lock.exists()
    assert nobody_knocked(server)


@pytest.fixture
def small_disk(studio):
    """Mount a disk of 2 MiB where the studio's results go."""
    studio.output.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "dailies-test", str(studio.output)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk is not allowed here")
    yield studio
    subprocess.run(["umount", str(studio.output)], check=True)


def test_a_disk_that_is_too_small_is_one_sentence_before_anything_is_rendered(small_disk):
    small_disk.add_frames(10, size=(400, 300))
    small_disk.add_run("a", grey_checkpoint(0.2))

    output = small_disk.snakemake(expect=1)

    told = "dailies: 10 frames of 1 model, still to be rendered, would take about 2.6 MB (frames 2.5 MB, weights "
    assert told in output
    assert "Traceback" not in output
    assert not jobs(output, "download")
    assert ", motion 540.0 kB)" in small_disk.snakemake("-n", "metrics", expect=1)
    assert "Nothing to be done" not in small_disk.snakemake("-n", "--config", "check_disk=false")
