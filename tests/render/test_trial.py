"""Whether a file holds a network, in the separate process and in what it runs."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from dailies.render import trial
from dailies.render.trial import Candidate, Verdict, try_candidate
from dailies.state.records import ModelRecord
from dailies.store.entities import Artifact
from helpers import REPOSITORY
from helpers.weights import LOADING, grey_checkpoint

RECORD = ModelRecord(run_id="ab12", experiment_id="7", artifact=Artifact("", "", ()))


def verdict(path, **loading):
    """Try a file in a separate process."""
    return try_candidate(path, model="model", record=RECORD, loading=LOADING | loading, trusted=False)


@pytest.fixture
def verdict_here(tmp_path):
    """Return a function that tries a file in this process."""

    def read(path, *, architecture=None, **loading):
        question, answer = tmp_path / "question.json", tmp_path / "answer.json"
        record = replace(RECORD, architecture=architecture)
        Candidate(str(path), "model", record, LOADING | loading, trusted=False, params={}).save(question)
        trial.main(question, answer)
        return Verdict.load(answer)

    return read


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """Return a function that writes a module with a factory, and returns the settings that name it."""

    def write(network, before=""):
        (tmp_path / "nets.py").write_text(
            f"import json, os, torch\ndef build(config):\n    {before}\n    return {network}\n"
        )
        return {"model_factory": "nets:build", "python_path": [str(tmp_path)]}

    monkeypatch.setattr(sys, "path", [*sys.path])
    yield write
    sys.modules.pop("nets", None)


def saved(path, content):
    torch.save(content, path)
    return path


def test_a_network_is_recognised_by_loading_and_running_it(tmp_path, verdict_here):
    assert verdict_here(saved(tmp_path / "best.pth", grey_checkpoint(0.5))) == Verdict()


def test_the_reason_why_a_file_holds_no_network_names_it_and_is_short(tmp_path, verdict_here):
    optimizer = {"state": {}, "param_groups": [{"lr": 0.001, "betas": (0.9, 0.999), "params": [0, 1]}]}

    found = verdict_here(saved(tmp_path / "optimizer.pth", optimizer))

    assert found.unknown is None
    assert "optimizer.pth" in found.reason
    assert len(found.reason) <= trial.LONGEST_REASON


def test_the_users_own_factory_builds_it_as_in_a_render(tmp_path, verdict_here, factory):
    path = saved(tmp_path / "last.pth", torch.nn.Conv2d(3, 3, 1).state_dict())

    assert verdict_here(path).reason is not None
    assert verdict_here(path, **factory("torch.nn.Conv2d(3, 3, 1)")) == Verdict()


def test_a_network_that_cannot_be_run_is_refused(tmp_path, verdict_here, factory):
    path = saved(tmp_path / "last.pth", torch.nn.Linear(5, 5).state_dict())

    assert verdict_here(path, **factory("torch.nn.Linear(5, 5)")).reason is not None


def test_lack_of_memory_says_nothing_about_the_file(tmp_path, verdict_here, monkeypatch):
    def load_model(*_arguments, **_options):
        raise MemoryError

    monkeypatch.setattr("dailies.render.loading.load_model", load_model)

    found = verdict_here(saved(tmp_path / "best.pth", grey_checkpoint(0.5)))

    assert found.reason is None
    assert "memory" in found.unknown


def test_foreign_code_runs_in_a_process_without_credentials_and_without_the_device(tmp_path, monkeypatch, factory):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hush")
    dump = tmp_path / "environment.json"
    settings = factory("torch.nn.Conv2d(3, 3, 1)", f"json.dump(dict(os.environ), open({str(dump)!r}, 'w'))")

    found = verdict(saved(tmp_path / "a.pth", torch.nn.Conv2d(3, 3, 1).state_dict()), **settings)

    environment = json.loads(dump.read_text())
    assert found == Verdict()
    assert "hush" not in environment.values()
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


def test_a_process_that_dies_says_nothing_about_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "PROGRAM", "import os, sys; sys.stderr.write('no more memory'); os._exit(9)")

    found = verdict(tmp_path / "a.pth")

    assert found.reason is None
    assert "ended with 9: no more memory" in found.unknown


def test_a_trial_that_takes_too_long_says_nothing_about_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "TIMEOUT", 0.1)

    found = verdict(tmp_path / "a.pth")

    assert found.reason is None
    assert "0.1 s" in found.unknown


def test_nothing_is_tried_if_torch_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert "torch is not installed" in verdict(tmp_path / "a.pth").unknown


def test_a_torch_that_cannot_be_imported_says_nothing_about_the_file(tmp_path, monkeypatch):
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text("raise OSError('libcudart.so: cannot open')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'broken'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    found = verdict(tmp_path / "a.pth")

    assert found.reason is None
    assert "OSError: libcudart.so: cannot open" in found.unknown


def test_importing_the_module_imports_no_torch():
    code = "import sys; from dailies.render import trial; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]

    shown = subprocess.check_output(command, env={"PYTHONPATH": str(REPOSITORY / "scripts")}, text=True)

    assert shown.strip() == "False"
