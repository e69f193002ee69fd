"""Habits of people who know Snakemake and MLflow: what they type works, or one sentence says what to type."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import REPOSITORY
from helpers.json_files import strict_json
from helpers.locks import holder
from helpers.studio import all_written, check_one_sentence
from helpers.weights import grey_checkpoint


def run(folder: Path, *arguments: str, snakefile: Path = REPOSITORY / "Snakefile") -> tuple[int, str]:
    """Run snakemake in a folder; return its exit code and what it printed."""
    command = [sys.executable, "-m", "snakemake", "-s", str(snakefile), "--cores", "2", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


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
    counts = "2 models; skipped: 2 FAILED, 1 RUNNING, 1 without a model, 1 deleted"
    shutil.move(studio.frames, studio.root / "elsewhere")

    assert f"\n{counts}\n" in studio.snakemake("list_models")
    check_one_sentence(
        studio.snakemake("-n", expect=1),
        f"input_dir {studio.frames} does not exist; set input_dir to the folder of your frames",
    )

    shutil.move(studio.root / "elsewhere", studio.frames)
    end = last_lines(studio.snakemake(compare=True))
    assert f"\n{counts}\n" in end
    assert f"\nCompare the models: open {studio.output}/compare/index.html\n" in end


def test_silence_ends_with_the_sentence_of_what_failed(studio):
    studio.add_frames(2)
    studio.add_run("junk", b"junk")

    assert "dailies: 1 of 1 models failed: junk (" in studio.snakemake("--quiet", "all", expect=1)
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
    compared.snakemake("-s", str(snakefile))
    before = all_written(compared)
    expected = {
        "compare/web/app.js": {"compare"},
        "state/collect.py": {"collect", "summary", "compare"},
        "render/engine.py": set(),
    }

    for name, rules in expected.items():
        stat = (package / name).stat()
        (package / name).write_text(
            (package / name).read_text() + ("// newer\n" if name.endswith("js") else "# newer\n")
        )
        os.utime(package / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a copy that keeps times
        output = compared.snakemake("-s", str(snakefile))
        done = set(re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):$", output, re.MULTILINE)) - {"all"}
        assert done == rules, name
    (served,) = compared.output.glob("compare/**/app.js")
    assert "// newer" in served.read_text()
    assert all_written(compared) == before


def test_a_package_of_the_same_name_elsewhere_does_no_harm(studio):
    other = studio.root / "site" / "dailies"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit('the studio has a package of this name')\n")
    shutil.copytree(other, studio.root / "dailies")
    studio.environment["PYTHONPATH"] = str(other.parent)
    studio.add_frames(1)
    run_id = studio.add_run("net", grey_checkpoint(0.1))

    studio.snakemake(python_path=[str(other.parent)])

    assert studio.metadata(run_id)["render"]["status"] == "success"


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
    assert run(other, "-n")[0] == 0
    code, output = run(other, "--delete-all-output")
    assert code == 1  # what the first works with stays
    assert "is in use by another invocation" in output
    assert "Deleting" not in output
    first.kill()
    first.communicate()

    second = studio.start()
    while str(second.pid) not in (studio.state / "lock").read_text():
        assert second.poll() is None, second.stdout.read()
        time.sleep(0.01)
    printed, _ = second.communicate()
    assert second.returncode == 0, printed
    assert not (studio.state / "lock").exists()


def test_what_a_deletion_of_all_output_leaves_is_said(rendered):
    told = "dailies: --delete-all-output leaves 12 frames of 3 models in place, and their records"

    assert told in rendered.snakemake("--delete-all-output")
    assert not (rendered.output / "batch_summary.json").exists()
    assert told not in rendered.snakemake("-n", "--delete-temp-output")
    before = all_written(rendered)
    rendered.snakemake()
    assert [line["status"] for line in rendered.summary()] == ["success"] * 3
    assert all_written(rendered) == before


def test_a_lock_of_another_machine_is_freed_by_unlock(studio):
    studio.add_frames(1)
    studio.add_run("net", grey_checkpoint(0.1))
    studio.state.mkdir(parents=True)
    (studio.state / "lock").write_text('{"host": "node7", "pid": 7, "started": "2026-01-01 00:00:00"}')

    output = studio.snakemake(expect=1)

    check_one_sentence(
        output,
        f"output_dir {studio.output} is in use by an invocation on another machine (process 7 on node7, since "
        "2026-01-01 00:00:00); wait for it, or if it no longer runs there, snakemake --unlock or delete "
        f"{studio.state}/lock",
    )
    assert "Unlocked" in studio.snakemake("--unlock")
    studio.snakemake()


@pytest.mark.scenarios
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
    assert [run(folder, verb)[0] for verb in ("--lint", "--list")] == [0, 0]


@pytest.mark.scenarios
def test_the_prefix_of_a_module_is_where_everything_goes(studio):
    studio.add_frames(1)
    run_id = studio.add_run("net", grey_checkpoint(0.1))
    studio.config |= {"output_dir": "out", "compare": True}
    (studio.root / "Snakefile").write_text(
        f'module dailies:\n    snakefile: "{REPOSITORY}/Snakefile"\n    config: config\n    prefix: "shots/a"\n\n'
        "use rule * from dailies as dailies_*\n\n"
        "rule all:\n    default_target: True\n    input:\n        rules.dailies_all.input,\n"
    )
    arguments = ("--configfile", "config/config.yaml", "--resources", "gpu=1")
    studio.snakemake("--lint")  # which writes the configuration

    code, output = run(studio.root, *arguments, snakefile=Path("Snakefile"))

    assert code == 0, output
    place = studio.root / "shots" / "a" / "out"
    assert [line["status"] for line in strict_json(place / "batch_summary.json")] == ["success"]
    assert (place / f"net_loss0.2500_{run_id[:8]}" / "frame_000000.png").is_file()
    assert (place / "compare" / "index.html").is_file()
    assert not (studio.root / "out").exists()
    code, output = run(studio.root, *arguments, "-n", snakefile=Path("Snakefile"))
    assert "Nothing to be done" in output
