"""One run of snakemake: what its command line requests, and how a mistake ends it."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dailies.planning.invocation import Invocation
from dailies.state import lock
from dailies.state.layout import Layout
from helpers.images import write_frame
from snakemake.logging import logger
from snakemake.settings.enums import Quietness, RerunTrigger


class Workflow(SimpleNamespace):
    """What an invocation reads of Snakemake's workflow, whose values tests change."""

    def __init__(self, **changes: Any) -> None:
        modifier = SimpleNamespace(
            is_main_snakefile=lambda: True, path_modifier=SimpleNamespace(replace_prefix=str), skip_configfile=False
        )
        output = SimpleNamespace(quiet=set(), verbose=False, printshellcmds=False, debug_dag=False)
        dag = SimpleNamespace(
            forcerun=set(),
            forceall=False,
            forcetargets=False,
            targets=set(),
            allowed_rules=set(),
            rerun_triggers={RerunTrigger.PARAMS},
        )
        values = {
            "modifier": modifier,
            "config_settings": SimpleNamespace(config_args=()),
            "global_resources": {},
            "output_settings": output,
            "dag_settings": dag,
            "resource_settings": SimpleNamespace(cores=2),
            "rules": [SimpleNamespace(name="infer"), SimpleNamespace(name="measure")],
            "overwrite_configfiles": [],
            "is_main_process": True,
            "executor_plugin": object(),
            "dryrun": False,
            "touch": False,
            "local_exec": True,
        }
        super().__init__(**(values | changes))

    def register_resource(self, name: str, value: int) -> None:
        self.global_resources[name] = value


class Rules:
    """Snakemake's rules; a workflow that uses Dailies as a module may have renamed some and left out others."""

    def __init__(self, **names: str) -> None:
        self.__dict__ |= {name: SimpleNamespace(rule=SimpleNamespace(name=full)) for name, full in names.items()}

    def has(self, name: str) -> bool:
        return name in self.__dict__


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a user configured, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["snakemake"])
    for name in ("GLIBC_TUNABLES", "OMP_WAIT_POLICY"):  # which an invocation sets for its jobs
        monkeypatch.setenv(name, os.environ.get(name, ""))
    (tmp_path / "shot").mkdir()
    write_frame(tmp_path / "shot" / "frame_000000.png", 0)
    return {"mlflow_uri": "http://127.0.0.1:9", "input_dir": "shot", "output_dir": "out", "device": "cpu"}


@pytest.fixture
def printed() -> Iterator[list[str]]:
    """All that is printed."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    handlers = logger.handlers[:]
    logger.handlers[:] = [handler]
    yield lines
    logger.handlers[:] = handlers


def invoked(config: dict[str, Any], workflow: Workflow | None = None, **rules: str) -> Invocation:
    return Invocation(workflow or Workflow(), Rules(**(rules or {"infer": "infer", "measure": "measure"})), config)


def test_the_configuration_is_completed_and_downloads_are_limited_unless_the_user_did(config: dict[str, Any]):
    workflow, chosen = Workflow(), Workflow(global_resources={"downloads": 9})

    invocation = invoked(config, workflow)
    invoked(dict(config), chosen)

    assert (config["fps"], config["tile_size"], config["output_dir"]) == (None, 512, "out")
    assert invocation.layout.output_dir == Path("out")
    assert (workflow.global_resources, chosen.global_resources) == ({"downloads": 4}, {"downloads": 9})


def test_the_prefix_of_a_module_moves_a_relative_output_folder(config: dict[str, Any], tmp_path: Path):
    workflow = Workflow()
    workflow.modifier.path_modifier.replace_prefix = lambda path: f"shots/a/{path}"

    assert invoked(config, workflow).layout.output_dir == tmp_path / "shots" / "a" / "out"


def test_a_wrong_value_is_one_sentence_and_exit_code_1(config: dict[str, Any], printed: list[str]):
    with pytest.raises(SystemExit) as ended:
        invoked(config | {"precision": "fp8"})

    assert ended.value.code == 1
    assert len(printed) == 1
    assert printed[0].startswith("dailies: precision is 'fp8'")


def test_without_a_configuration_the_invocation_ends(config: dict[str, Any], printed: list[str], tmp_path: Path):
    invocation = invoked(config)
    invocation._given = []

    with pytest.raises(SystemExit):
        invocation.check_configured()

    assert f"there is no config/config.yaml in {tmp_path}" in printed[0]


def test_keys_of_the_command_line_alone_are_warned_of_once(config: dict[str, Any], printed: list[str], tmp_path: Path):
    invocation = invoked(config)

    invocation.check_configured()
    invocation.check_configured()

    assert len(printed) == 1
    assert "only --config counts (device, input_dir, mlflow_uri, output_dir)" in printed[0]


@pytest.mark.parametrize("place", ["config.yaml", "--configfile", "module", "job"])
def test_a_configuration_is_looked_for_where_it_may_be(config: dict[str, Any], printed: list[str], place: str):
    workflow = Workflow(overwrite_configfiles=["a.yaml"] if place == "--configfile" else [])
    workflow.modifier.skip_configfile = place == "module"
    workflow.is_main_process = place != "job"
    if place == "config.yaml":
        Path("config").mkdir()
        Path("config/config.yaml").touch()

    invoked(config, workflow).check_configured()

    assert printed == []


@pytest.mark.parametrize(
    ("changes", "is_concise", "shows_progress"),
    [
        ({}, True, True),
        ({"printshellcmds": True}, False, True),
        ({"verbose": True}, False, True),
        ({"quiet": {Quietness.PROGRESS}}, True, False),
        ({"dryrun": True}, False, False),
        ({"touch": True}, False, False),
        ({"is_main_process": False}, False, False),
    ],
)
def test_options_decide_what_is_printed_of_jobs(
    config: dict[str, Any], changes: dict[str, Any], is_concise: bool, shows_progress: bool
):
    workflow = Workflow()
    for key, value in changes.items():
        setattr(workflow.output_settings if hasattr(workflow.output_settings, key) else workflow, key, value)

    invocation = invoked(config, workflow)

    assert (invocation.is_concise, invocation.shows_progress) == (is_concise, shows_progress)


def test_before_an_executor_is_chosen_the_command_line_tells_a_dry_run(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    invocation = invoked(config, Workflow(executor_plugin=None))

    assert invocation.is_concise
    monkeypatch.setattr(sys, "argv", ["snakemake", "-np"])
    assert not invocation.is_concise


def test_silence_still_reports_errors(config: dict[str, Any], printed: list[str], capfd: pytest.CaptureFixture[str]):
    workflow = Workflow()
    workflow.output_settings.quiet = {Quietness.ALL}

    with pytest.raises(SystemExit):
        invoked(config | {"precision": "fp8"}, workflow)

    assert "precision is 'fp8'" in capfd.readouterr().err


def test_the_output_folder_is_taken_once_and_by_one_invocation(
    config: dict[str, Any], printed: list[str], monkeypatch: pytest.MonkeyPatch
):
    taken: list[Layout] = []
    monkeypatch.setattr(lock, "take", taken.append)
    workflow = Workflow()
    workflow.dag_settings.rerun_triggers = {RerunTrigger.MTIME}

    invocation = invoked(config, workflow)
    invocation.take_output()
    invocation.take_output()
    invoked(dict(config), Workflow(dryrun=True)).take_output()

    assert [layout.output_dir for layout in taken] == [Path("out")]
    assert len(printed) == 1
    assert "--rerun-triggers is without params" in printed[0]


def test_what_is_forced_is_known_to_the_main_process_and_announced_to_its_jobs(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lock, "take", lambda layout: None)
    workflow = Workflow()
    workflow.dag_settings.forcerun = {"infer"}

    invocation = invoked(config, workflow)
    job = invoked(dict(config), Workflow(is_main_process=False))
    touched = invoked(dict(config), Workflow(touch=True))

    assert invocation.is_forced(["infer"], [])
    assert not invocation.is_forced(["measure", "a rule that a module leaves out"], [])
    assert job.is_forced(["infer"], [])
    assert not touched.is_forced(["infer"], [])


def test_rules_have_the_names_that_a_module_gave_them(config: dict[str, Any]):
    invocation = invoked(config, infer="our_infer")

    assert (invocation.rule("infer"), invocation.rule("measure")) == ("our_infer", None)


def test_the_jobs_that_will_run_and_wait_are_known_by_rule(config: dict[str, Any]):
    job = SimpleNamespace(rule=SimpleNamespace(name="infer"), wildcards_dict={"model": "a"})
    workflow = Workflow(
        dag=SimpleNamespace(needrun_jobs=lambda: [job]), scheduler=SimpleNamespace(remaining_jobs=[job])
    )

    invocation = invoked(config, workflow)

    assert (invocation.runs("infer"), invocation.runs("measure")) == (True, False)
    assert (invocation.waiting("infer"), invocation.waiting("measure")) == ([{"model": "a"}], [])


def test_a_checkpoint_is_planned_unless_only_other_rules_are_allowed(config: dict[str, Any]):
    workflow = Workflow()
    invocation = invoked(config, workflow)

    assert invocation.plans("discover")
    workflow.dag_settings.allowed_rules = {"infer"}
    assert not invocation.plans("discover")
    workflow.dag_settings.allowed_rules = {"our_discover"}
    assert invocation.plans("discover")


@pytest.mark.parametrize(
    ("changes", "refuses"), [({}, True), ({"local_exec": False}, False), ({"dryrun": True}, False)]
)
def test_a_missing_device_ends_only_an_invocation_whose_jobs_run_here(
    config: dict[str, Any], changes: dict[str, Any], refuses: bool
):
    assert invoked(config, Workflow(**changes)).refuses_devices() is refuses


def test_a_stale_lock_is_cleared_by_unlock(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    path = Layout(Path("out")).state / "lock"
    path.parent.mkdir(parents=True)
    path.write_text('{"host": "node7", "pid": 7, "started": "2026-01-01 00:00:00"}')
    monkeypatch.setattr(sys, "argv", ["snakemake", "--unlock"])

    invoked(dict(config), Workflow(is_main_process=False))
    assert path.exists()
    invoked(config)

    assert not path.exists()
