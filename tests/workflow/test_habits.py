"""Habits of people who know Snakemake and MLflow: what they type works, or one sentence says what to type."""

import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest
from helpers import REPOSITORY
from helpers.invocations import Invocation
from helpers.json_files import strict_json
from helpers.locks import holder
from helpers.studio import all_written, check_one_sentence, environment, jobs
from helpers.weights import grey_checkpoint


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run snakemake in a folder; return its exit code and what it printed."""
    command = ["-s", str(REPOSITORY / "Snakefile"), "--cores", "2", *arguments]
    invocation = Invocation(command, folder, environment(), None)
    output, _ = invocation.communicate()
    return invocation.returncode, output


def last_lines(output: str) -> str:
    """What is printed after the last job was done."""
    return output[output.rindex(" steps (100%) done") :]


def test_the_end_counts_what_was_passed_over_and_names_the_page(studio):
    studio.add_frames(1)
    for name in ("good", "better"):
        studio.add_run(name, grey_checkpoint(0.1))
    for name in ("one", "two"):
        studio.add_run(name, grey_checkpoint(0.1), status="FAILED")
    studio.add_run("training", grey_checkpoint(0.1), status="RUNNING")
    studio.add_run("plots", b"", path="plots/loss.svg")
    studio.client.delete_run(studio.add_run("regretted", grey_checkpoint(0.1)))

    end = last_lines(studio.snakemake(compare=True))

    assert "\n2 models; skipped: 2 FAILED, 1 RUNNING, 1 without a model, 1 deleted\n" in end
    assert f"\nCompare the models: open {studio.output}/compare/index.html\n" in end


def test_silence_ends_with_the_sentence_of_what_failed(studio):
    studio.add_frames(2)
    studio.add_run("junk", b"junk")

    output = studio.snakemake("--quiet", "all", expect=1)
    assert re.search(
        r"^dailies: 1 of 1 models failed;.*\n  junk load_failed: best_model_unet\.pth is ", output, re.MULTILINE
    )
    (studio.frames / "frame_000001.png").write_bytes(b"no image")
    output = studio.snakemake("--quiet", "all", expect=1)
    assert "dailies: sequence failed: 1 of 2 frames cannot be used: frame frame_000001.png cannot be read" in output
    assert "dailies: 'no_key' is not a key" in studio.snakemake("--quiet", "all", expect=1, no_key=1)
    assert "nobody" in studio.snakemake("nobody", "--quiet", "all", expect=1)  # what Snakemake itself refuses


def upgraded(folder: Path) -> Path:
    """Copy what the project consists of, as a user has it before an update."""
    for name in ("Snakefile", "rules", "scripts", "config", "profiles", "report", "envs"):
        source = REPOSITORY / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name, **({"ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {}))
    return folder / "Snakefile"


def test_newer_code_makes_page_and_tables_again_and_renders_nothing(compared):
    (compared.root / "project").mkdir()
    snakefile = upgraded(compared.root / "project")
    package = snakefile.parent / "scripts" / "dailies"
    before = all_written(compared)
    for name in ("compare/web/app.js", "state/collect.py", "render/engine.py", "../download.py", "../infer.py"):
        stat = (package / name).stat()
        newer = "// newer\n" if name.endswith("js") else "# newer\n"
        (package / name).write_text((package / name).read_text() + newer)
        os.utime(package / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a copy that keeps times

    output = compared.snakemake("-s", str(snakefile))

    done = set(re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):$", output, re.MULTILINE)) - {"all"}
    assert done == {"collect", "summary", "compare"}
    (served,) = compared.output.glob("compare/**/app.js")
    assert "// newer" in served.read_text()
    assert all_written(compared) == before


FACTORY = """
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dailies.models.architectures.catalog import ARCHITECTURES

def make(config):
    with open({seen!r}, "a") as file:
        print(sorted(os.environ), open("/proc/self/cmdline").read(), file=file)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(abs, -1).result() == 1
    return ARCHITECTURES["unet"](**config)
"""


@pytest.mark.parametrize("has_fork_server", [False, True])
def test_code_of_the_studio_sees_no_credentials_and_its_package_of_the_same_name_does_no_harm(studio, has_fork_server):
    studio.has_fork_server = has_fork_server
    other = studio.root / "site" / "dailies"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit('the studio has a package of this name')\n")
    (other.parent / "networks.py").write_text(FACTORY.format(seen=str(studio.root / "seen")))
    shutil.copytree(other, studio.root / "dailies")
    studio.environment |= {"PYTHONPATH": str(other.parent), "AWS_SECRET_ACCESS_KEY": "hush"}
    studio.add_frames(1)
    run_id = studio.add_run("net", grey_checkpoint(0.1))

    studio.snakemake(python_path=[str(other.parent)], model_factory="networks:make")

    assert studio.metadata(run_id)["render"]["status"] == "success"
    seen = (studio.root / "seen").read_text()
    assert "PATH" in seen
    assert "AWS_SECRET_ACCESS_KEY" not in seen
    assert ("fork_server.main()" in seen) == has_fork_server


def test_a_second_invocation_in_one_output_folder_ends_at_once_from_wherever(studio, tmp_path):
    studio.add_frames(1)
    studio.add_run("net", grey_checkpoint(0.1))
    other = tmp_path / "other"
    (other / "config").mkdir(parents=True)
    (other / "link").symlink_to(studio.root)
    (other / "config" / "config.yaml").write_text(json.dumps(studio.config | {"output_dir": "link/out"}))
    first = holder(studio.layout, "time.sleep(600)")
    started = strict_json(studio.state / "lock")["started"]

    code, output = run(other)
    assert code == 1
    check_one_sentence(
        output,
        f"output_dir link/out is in use by another invocation (process {first.pid} on {socket.gethostname()}, "
        f"since {started}); wait for it, or set another output_dir",
    )
    studio.snakemake("-n")
    code, output = run(other, "--delete-all-output")
    assert code == 1  # what the first works with stays
    assert "is in use by another invocation" in output
    assert "Deleting" not in output
    first.kill()
    first.communicate()


def test_what_a_deletion_of_all_output_leaves_is_said(rendered):
    told = "dailies: --delete-all-output leaves 12 frames of 3 models in place, and their records"

    assert told in rendered.snakemake("--delete-all-output")
    assert not (rendered.output / "batch_summary.json").exists()
    before = all_written(rendered)
    rendered.snakemake()
    assert [line["status"] for line in rendered.summary()] == ["success"] * 3
    assert all_written(rendered) == before


def test_all_keys_on_the_command_line_need_no_file(studio, tmp_path):
    studio.add_frames(1)
    studio.add_run("net", grey_checkpoint(0.1))
    keys = [f"{key}={value}" for key, value in studio.config.items()]
    folder = tmp_path / "elsewhere"
    folder.mkdir()

    code, output = run(folder, "-n", "--config", *keys, "reference_dir=none")
    assert code == 0, output
    assert f"dailies: there is no config/config.yaml in {folder}, so only --config counts (compare, device, " in output

    code, output = run(folder, "-n")
    assert code == 1
    check_one_sentence(
        output,
        f"there is no config/config.yaml in {folder}; name your configuration with --configfile, or give its keys with "
        "--config",
    )


def test_a_workflow_that_uses_this_one_has_its_own_names_and_place(studio):
    studio.add_frames(1)
    run_id = studio.add_run("net", grey_checkpoint(0.1))
    studio.config |= {"output_dir": "out", "compare": True}
    (studio.root / "Snakefile").write_text(
        f'module dailies:\n    snakefile: "{REPOSITORY}/Snakefile"\n    config: config\n    prefix: "shots/a"\n\n'
        "use rule * from dailies as our_*\n\n"
        "rule all:\n    default_target: True\n    input:\n        rules.our_all.input,\n"
    )
    arguments = ("-s", "Snakefile", "--configfile", "config/config.yaml", "--resources", "gpu=1")

    studio.snakemake(*arguments)

    place = studio.root / "shots" / "a" / "out"
    assert [line["status"] for line in strict_json(place / "batch_summary.json")] == ["success"]
    model = f"net_loss0.2500_{run_id[:8]}"
    assert (place / model / "frame_000000.png").is_file()
    assert (place / "compare" / "index.html").is_file()
    assert not (studio.root / "out").exists()
    assert "Nothing to be done" in studio.snakemake(*arguments, "-n")
    planned = studio.snakemake(*arguments, "-n", "-R", "our_infer")
    assert jobs(planned, "our_download") == jobs(planned, "our_infer") == [model]
