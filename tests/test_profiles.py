"""Profiles: what they have in common, and several GPUs on one machine; tests/test_slurm.py has the clusters."""

from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, jobs
from stages import Stage

PROFILES = sorted(path.parent for path in REPOSITORY.glob("profiles/*/config.yaml"))
COMMON = ("keep-going", "rerun-incomplete", "show-failed-logs", "max-checksum-file-size")


def settings(profile: Path) -> dict:
    return yaml.safe_load((profile / "config.yaml").read_text())


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.name)
def test_every_profile_repeats_what_all_machines_have_in_common(profile):
    default = settings(REPOSITORY / "profiles" / "default")

    assert {key: settings(profile)[key] for key in COMMON} == {key: default[key] for key in COMMON}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.name)
def test_profiles_of_clusters_try_again_and_those_of_one_machine_do_not(profile):
    remote = "executor" in settings(profile)

    assert settings(profile).get("retries", 0) == (2 if remote else 0)


def test_a_workstation_renders_on_as_many_gpus_as_its_profile_says(blank_store, tmp_path):
    profile = REPOSITORY / "profiles" / "gpu-workstation"
    machine = ("--workflow-profile", str(profile), "--cores", "4", "--set-threads", "infer=1")
    stage = Stage(tmp_path / "studio", blank_store, machine, "one", "two", "three")
    stage.config["device"] = "auto"
    cue = stage.cue(0)
    try:
        stage.start()
        stage.until(lambda: len({event.process for event in stage.events()}) == 2, "two renders")
        stage.until(lambda: stage.told().count("(Rule: download)") == 3, "the third model")
        assert len(jobs(stage.told(), "infer")) == settings(profile)["resources"]["gpu"] == 2
        cue.unlink()
        code, output = stage.ended()
    finally:
        stage.kill()

    assert code == 0, output
    assert [line["status"] for line in stage.summary()] == ["success"] * 3
