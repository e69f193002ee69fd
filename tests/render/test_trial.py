import importlib.util
import json
import os
import sys
from dataclasses import replace

import pytest
import torch
from dailies.render import trial
from dailies.render.trial import Verdict, tried
from dailies.state.records import ModelRecord, is_trusted
from dailies.store.entities import Artifact
from helpers.weights import LOADING, grey_checkpoint

RECORD = ModelRecord(run_id="ab12", experiment_id="7", artifact=Artifact("", "", ()))


def verdict(path, *, record=None, trusted=False, **loading):
    return tried(
        path,
        model="model",
        record=replace(RECORD, **(record or {})),
        loading=LOADING | loading,
        trusted=trusted,
    )


def saved(path, content):
    torch.save(content, path)
    return path


def test_a_network_is_known_by_loading_and_running_it(tmp_path):
    assert verdict(saved(tmp_path / "best.pth", grey_checkpoint(0.5))) == Verdict()


def test_what_is_no_network_says_why(tmp_path):
    optimizer = torch.optim.Adam(torch.nn.Linear(1, 1).parameters()).state_dict()

    found = verdict(saved(tmp_path / "optimizer.pth", optimizer))

    assert found.unknown is None
    assert found.reason.startswith("optimizer.pth holds ")
    assert len(found.reason) <= trial.LONGEST_REASON


def test_the_run_and_the_users_own_function_build_it_as_in_a_render(tmp_path):
    (tmp_path / "nets.py").write_text("import torch\ndef conv(config):\n    return torch.nn.Conv2d(3, 3, 1)\n")
    path = saved(tmp_path / "last.pth", torch.nn.Conv2d(3, 3, 1).state_dict())

    assert verdict(path, model_factory="nets:conv", python_path=[str(tmp_path)]) == Verdict()
    assert verdict(path).reason is not None


def test_a_network_that_cannot_be_run_is_none(tmp_path):
    (tmp_path / "nets.py").write_text("import torch\ndef lines(config):\n    return torch.nn.Linear(5, 5)\n")
    path = saved(tmp_path / "last.pth", torch.nn.Linear(5, 5).state_dict())

    assert verdict(path, model_factory="nets:lines", python_path=[str(tmp_path)]).reason is not None


def test_code_of_others_runs_without_credentials_and_without_the_device(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hush")
    told = tmp_path / "environment.json"
    (tmp_path / "nets.py").write_text(
        "import json, os, torch\ndef conv(config):\n"
        f"    json.dump(dict(os.environ), open({str(told)!r}, 'w'))\n    return torch.nn.Conv2d(3, 3, 1)\n"
    )

    verdict(
        saved(tmp_path / "a.pth", torch.nn.Conv2d(3, 3, 1).state_dict()),
        model_factory="nets:conv",
        python_path=[str(tmp_path)],
    )

    environment = json.loads(told.read_text())
    assert "hush" not in environment.values()
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


def test_a_process_that_dies_says_nothing_about_the_file(tmp_path):
    (tmp_path / "nets.py").write_text("import os, sys\nsys.stderr.write('no more memory\\n')\nos._exit(9)\n")
    path = saved(tmp_path / "a.pth", torch.nn.Conv2d(3, 3, 1).state_dict())

    found = verdict(path, model_factory="nets:conv", python_path=[str(tmp_path)])

    assert found == Verdict(unknown="the process that loads it ended with 9: no more memory")


def test_a_trial_that_takes_too_long_says_nothing_about_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "PATIENCE", 0.1)

    assert verdict(tmp_path / "a.pth") == Verdict(unknown="it was not loaded within 0.1 s")


def test_where_torch_is_not_installed_nothing_is_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert verdict(tmp_path / "a.pth") == Verdict(unknown="torch is not installed here")


def test_a_torch_that_cannot_be_imported_says_nothing_about_the_file(tmp_path, monkeypatch):
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text("raise OSError('libcudart.so: cannot open')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'broken'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    found = verdict(tmp_path / "a.pth")

    assert found == Verdict(unknown="torch cannot be imported (OSError: libcudart.so: cannot open)")


def test_the_module_that_decides_imports_no_torch():
    assert "torch" in sys.modules  # by this test; importing trial alone must not need it
    source = importlib.util.find_spec("dailies.render.trial").loader.get_source("dailies.render.trial")

    assert "\nimport torch" not in source


@pytest.mark.parametrize(
    ("trust", "trusted"), [(True, True), (False, False), (["ab12"], True), (["7"], True), (["8"], False)]
)
def test_trust_is_given_to_all_or_to_runs_and_experiments(trust, trusted):
    assert is_trusted(trust, RECORD) == trusted
