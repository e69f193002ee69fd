"""Input functions of the rules; most of what they do is shown by the workflow's own tests."""

import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from dailies.planning.inputs import Inputs
from helpers import REPOSITORY
from helpers.images import write_frame
from helpers.plans import planned
from helpers.studio import JOB, LEVELS, Studio, jobs, only


def test_a_head_node_plans_without_the_libraries_of_the_nodes():
    code = (
        "import sys\n"
        "from dailies.planning import inputs, invocation, final_report\n"
        "print(*{'mlflow', 'torch', 'numpy', 'scipy', 'PIL', 'OpenImageIO', 'av', 'cv2'} & sys.modules.keys())"
    )

    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "scripts", capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == ""


def test_what_is_due_is_planned_and_nothing_else(rendered: Studio, monkeypatch: pytest.MonkeyPatch):
    assert "Nothing to be done" in planned(rendered, monkeypatch)

    write_frame(rendered.frames / "frame_000004.png", seed=4, size=(40, 36))
    plan = planned(rendered, monkeypatch)
    assert jobs(plan, "sequence") == [""]
    assert jobs(plan, "discover") == []


def test_what_is_forced_and_what_is_asked_for_is_planned_for_every_model(
    rendered: Studio, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(rendered.frames, rendered.root / "clean")
    measured = {"reference_dir": str(rendered.root / "clean"), "compare": True}

    plan = planned(rendered, monkeypatch, "-R", "infer", "-q", "host", "--", "all", "videos", **measured)

    everyone = only(rendered, *LEVELS)
    for rule in ("download", "infer", "measure", "collect"):
        assert jobs(plan, rule) == everyone
    for rule in ("pairing", "baseline", "leaderboard", "summary", "contact_sheet", "compare", "side_by_side"):
        assert jobs(plan, rule) == [""]
    assert jobs(plan, "discover") == jobs(plan, "sequence") == []
    downloads = [block for rule, block in JOB.findall(plan) if rule == "download"]
    assert all(re.search(r"threads: 0\n(.+\n)*.*\bdownloads=1\b", block) for block in downloads)
    needs = [block for rule, block in JOB.findall(plan) if rule in {"infer", "measure", "side_by_side"}]
    assert all(re.search(r"mem_mb=\d+", block) and re.search(r"runtime=\d+", block) for block in needs)


def inputs_with(*, cores: int | None, is_main: bool = True) -> Inputs:
    """Return the answers of an invocation as far as they depend on its cores."""
    answers = object.__new__(Inputs)
    answers._invocation = SimpleNamespace(cores=cores, is_main=is_main)
    return answers


@pytest.mark.parametrize(
    ("cores", "render", "measure", "first"),
    [(1, 1, 1, 1), (2, 1, 1, 0), (4, 3, 1, 0), (9, 8, 1, 0), (10, 8, 2, 0), (64, 8, 2, 0)],
)
def test_a_model_is_measured_beside_the_next_render_if_there_are_two_cores(cores, render, measure, first):
    answers = inputs_with(cores=cores)

    assert (answers.threads(8), answers.measure_threads, answers.priority_of_results) == (render, measure, first)
    assert cores == 1 or render + measure <= cores


@pytest.mark.parametrize("answers", [inputs_with(cores=None), inputs_with(cores=8, is_main=False)])
def test_jobs_on_other_machines_use_as_many_threads_as_they_can(answers):
    assert (answers.threads(8), answers.measure_threads, answers.priority_of_results) == (8, 2, 0)
