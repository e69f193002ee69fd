"""Profiles: what they have in common, and several GPUs on one machine; tests/cluster has the clusters."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from helpers import REPOSITORY
from helpers.plans import planned
from helpers.studio import JOB, Studio

PROFILES = sorted(path.parent for path in REPOSITORY.glob("profiles/*/config.yaml"))
COMMON = ("keep-going", "rerun-incomplete", "rerun-triggers", "show-failed-logs", "max-checksum-file-size")


def settings(profile: Path) -> dict:
    return yaml.safe_load((profile / "config.yaml").read_text())


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.name)
def test_every_profile_repeats_the_common_settings(profile):
    default = settings(REPOSITORY / "profiles" / "default")

    assert {key: settings(profile)[key] for key in COMMON} == {key: default[key] for key in COMMON}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.name)
def test_profiles_of_clusters_try_again_and_those_of_one_machine_do_not(profile):
    remote = "executor" in settings(profile)

    assert settings(profile).get("retries", 0) == (2 if remote else 0)


def test_a_workstation_renders_on_as_many_gpus_as_its_profile_sets(rendered: Studio, monkeypatch):
    profile = REPOSITORY / "profiles" / "gpu-workstation"
    rendered.machine = ("--workflow-profile", str(profile), "--cores", "4")

    plan = planned(rendered, monkeypatch, "-R", "infer", device="auto")

    assert settings(profile)["resources"]["gpu"] == 2
    renders = [block for rule, block in JOB.findall(plan) if rule == "infer"]
    assert [re.findall(r"\bgpu=\d+", block) for block in renders] == [["gpu=1"]] * 3


@pytest.mark.parametrize(
    ("told", "answer"),
    [
        ("COMPLETED", "success"),
        ("PENDING", "running"),
        ("COMPLETING", "running"),
        ("REQUEUE_HOLD", "running"),
        ("CANCELLED", "failed"),
        ("OUT_OF_MEMORY", "failed"),
        ("PREEMPTED", "failed"),
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", "running"),
        ("slurm_load_jobs error: Invalid job id specified", "failed"),
    ],
)
def test_the_status_command_knows_every_kind_of_answer(tmp_path, told, answer):
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\necho '{told}'\n")
    squeue.chmod(0o755)
    status = REPOSITORY / "profiles" / "cluster-generic" / "status"

    done = subprocess.run(
        [status, "7"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )

    assert done.stdout == f"{answer}\n"


def test_the_submit_command_requests_the_jobs_resources(tmp_path):
    (tmp_path / "sbatch").write_text('#!/bin/sh\necho "$@" > asked\necho "41;tests"\n')
    (tmp_path / "sbatch").chmod(0o755)
    needs = {"mem_mb": 1505, "runtime": 12, "gpu": 1, "tmpdir": "/tmp"}
    properties = json.dumps({"type": "single", "rule": "infer", "threads": 8, "resources": needs})
    (tmp_path / "job.sh").write_text(f"#!/bin/sh\n# properties = {properties}\ntrue\n")
    submit = REPOSITORY / "profiles" / "cluster-generic" / "submit"

    done = subprocess.run(
        [submit, "job.sh"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "41\n"
    asked = (tmp_path / "asked").read_text().split()
    assert {"--cpus-per-task=8", "--mem=1505", "--time=12", "--gpus=1", "--job-name=infer"} <= {*asked}
    assert asked[-1] == "job.sh"
