"""The demo: real frames, a real store with three trained runs, whole or not there."""

import inspect
import shutil
from dataclasses import replace
from pathlib import Path

import make_demo as script
import numpy as np
import pytest
import torch
from dailies.models.architectures.catalog import ARCHITECTURES
from dailies.state.layout import Layout
from make_demo import EXPERIMENT, RECIPES, make_demo
from mlflow import MlflowClient
from PIL import Image

TINY = {
    "size": (70, 45),
    "count": 4,
    "recipes": [replace(recipe, epochs=2, steps=2, batch_size=2) for recipe in RECIPES],
}


@pytest.fixture(scope="module", autouse=True)
def _torch_settings():
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "THREADS", 1)
        yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """Make one tiny demo in a folder whose name is as awkward as a clone's path may be."""
    folder = tmp_path_factory.mktemp("a clone #1") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        make_demo(Path("demo"), **TINY)
    return folder


def images(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.iterdir())}


def runs(folder: Path) -> dict:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def local_artifacts(run) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"))


def test_frames_are_noisy_and_move(demo):
    frames, reference = images(demo / "frames"), images(demo / "reference")
    assert list(frames) == list(reference) == [f"frame_{number:06d}.png" for number in range(4)]
    for name, frame in frames.items():
        assert (frame.shape, frame.dtype) == ((45, 70, 3), np.uint8)
        assert 20 < script.psnr(frame, reference[name]) < 30
    first, *others = reference.values()
    assert all(script.psnr(other, first) < 25 for other in others)


def test_noise_is_fresh_in_every_frame():
    grey = np.full((64, 64, 3), 0.5, dtype=np.float32)
    rng = np.random.default_rng(0)
    first, second = (script.add_noise(grey, rng) - grey for _ in range(2))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1
    assert abs(first.mean()) < 0.005


def test_the_real_demo_is_long_enough_and_of_no_convenient_size():
    defaults = {name: value.default for name, value in inspect.signature(make_demo).parameters.items()}
    assert defaults["count"] >= 24
    assert all(side % 32 for side in defaults["size"])
    assert defaults["recipes"] is RECIPES


def test_store_holds_three_runs_as_training_scripts_log_them(demo):
    logged = runs(demo)
    assert set(logged) == {"unet_adamw", "unet_wide_adamw", "nafnet_adamw"}
    for recipe in TINY["recipes"]:
        run = logged[recipe.run_name]
        assert run.info.status == "FINISHED"
        assert run.data.params["model.architecture"] == recipe.architecture
        assert run.data.params["training.epochs"] == "2"
        assert run.data.params["training.optimizer"] == "adamw"
        assert run.data.params["data.train_frames"] == "0:4:6"
        assert float(run.data.params["training.learning_rate"]) == recipe.learning_rate
        assert {"train/loss", "val/loss", "val/psnr"} == set(run.data.metrics)
    assert logged["unet_wide_adamw"].data.params["model.base_channels"] == "16"
    client = MlflowClient(tracking_uri=f"sqlite:///{demo / 'mlflow.db'}")
    history = client.get_metric_history(logged["nafnet_adamw"].info.run_id, "train/loss")
    assert [metric.step for metric in history] == [1, 2]


def test_checkpoints_are_where_mlflow_lists_them_and_load_without_running_code(demo, tmp_path):
    client = MlflowClient(tracking_uri=f"sqlite:///{demo / 'mlflow.db'}")
    for recipe in TINY["recipes"]:
        run = runs(demo)[recipe.run_name]
        name = f"checkpoints/best_model_{recipe.architecture}.pth"
        assert [file.path for file in client.list_artifacts(run.info.run_id, "checkpoints")] == [name]
        file = client.download_artifacts(run.info.run_id, name, dst_path=str(tmp_path))
        checkpoint = torch.load(file, weights_only=True)
        assert set(checkpoint) == {"model_state_dict", "model_config", "architecture", "epoch", "train_loss"}
        network = ARCHITECTURES[checkpoint["architecture"]](**checkpoint["model_config"])
        network.load_state_dict(checkpoint["model_state_dict"])
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert checkpoint["train_loss"] == history[checkpoint["epoch"] - 1].value


def test_nothing_is_written_beside_the_demo(demo):
    assert [path.name for path in demo.parent.iterdir()] == ["demo"]


def test_second_run_does_no_work(demo, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    monkeypatch.setattr(script, "film", None)
    make_demo(demo, **TINY)
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before
    assert "already" in capsys.readouterr().out


def test_interrupted_build_is_not_taken_for_a_demo(tmp_path, monkeypatch):
    folder = tmp_path / "demo"
    recipes = TINY["recipes"][:1]

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(script, "save_checkpoint", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_demo(folder, **TINY | {"recipes": recipes})
    assert list(tmp_path.iterdir()) == []
    make_demo(folder, **TINY | {"recipes": recipes})
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert set(runs(folder)) == {"unet_adamw"}


def test_folder_that_is_not_a_whole_demo_is_left_alone(tmp_path):
    (tmp_path / "frames").mkdir()
    with pytest.raises(SystemExit, match=r"lacks reference, artifacts, mlflow.db"):
        make_demo(tmp_path, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


def test_moved_demo_finds_its_artifacts_again(demo, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(demo, moved)
    make_demo(moved, **TINY)
    for run in runs(moved).values():
        assert local_artifacts(run).is_relative_to(moved)
        assert len(list(local_artifacts(run).glob("checkpoints/*.pth"))) == 1
    for run in runs(demo).values():
        assert local_artifacts(run).is_relative_to(demo)


def test_training_is_repeatable_and_lowers_the_loss():
    torch.set_num_threads(1)
    shot = script.film((70, 45), 4)
    recipe = replace(RECIPES[0], epochs=4, steps=8, batch_size=4)
    first, second = (script.train(recipe, shot) for _ in range(2))
    assert first.history == second.history
    assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)
    assert first.best()["train/loss"] < first.history[0]["train/loss"]
    assert first.best()["val/loss"] == min(metrics["val/loss"] for metrics in first.history)


def test_the_frames_that_a_run_says_it_was_trained_on_are_those(demo):
    from dailies.frames import training
    from dailies.frames.scan import scan

    frames = scan(demo / "frames", on_bad_frame="error", cache=Layout(demo.parent).scan).frames
    text = runs(demo)["unet_adamw"].data.params["data.train_frames"]
    shot = script.Shot(noisy=list(range(len(frames))), clean=list(range(len(frames))))

    assert training.parse_frame_list(text, frames) == {frames[number].output for number in shot.training_frames()}
