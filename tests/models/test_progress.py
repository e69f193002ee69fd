import os
import re
import subprocess
import sys

import pytest
import torch
from dailies.models.progress import finished_epochs

TRAINING = """
import sys
from pathlib import Path

import pytorch_lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint


class Tiny(pytorch_lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, number):
        return self.layer(batch[0]).sum()

    def validation_step(self, batch, number):
        self.log("val_loss", self.layer(batch[0]).sum())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def train(folder, saving, **training):
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(8, 1)), batch_size=2)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    callbacks = [ModelCheckpoint(dirpath=folder, save_top_k=-1, **saving)]
    trainer = pytorch_lightning.Trainer(max_epochs=2, callbacks=callbacks, **quiet, **training)
    trainer.fit(Tiny(), batches, batches)
    trainer.save_checkpoint(folder / "after.ckpt")


root = Path(sys.argv[1])
train(root / "epoch end", {"save_on_train_epoch_end": True})
train(root / "validation", {"monitor": "val_loss"})
train(root / "within epochs", {"every_n_train_steps": 3})
train(root / "two validations", {"monitor": "val_loss"}, val_check_interval=2)
"""
"""Four batches an epoch, two epochs."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What Lightning saved, by the occasion and the steps before it; it does not import beside our torchvision."""
    root = tmp_path_factory.mktemp("trained")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", TRAINING, str(root)], check=True, env=environment, capture_output=True)
    return {
        (path.parent.name, int(steps[1]) if (steps := re.search(r"step=(\d+)", path.name)) else path.stem): torch.load(
            path, weights_only=False
        )
        for path in root.glob("*/*.ckpt")
    }


@pytest.mark.parametrize(
    ("occasion", "counted"),
    [
        ("epoch end", {4: 1, 8: 2, "after": 2}),
        ("validation", {4: 1, 8: 2, "after": 2}),
        ("within epochs", {3: 0, 6: 1, "after": 2}),
        ("two validations", {2: 0, 4: 1, 6: 1, 8: 2, "after": 2}),
    ],
)
def test_epochs_are_counted_whenever_lightning_saves(trained, occasion, counted):
    found = {steps: finished_epochs(saved) for (name, steps), saved in trained.items() if name == occasion}

    assert found == counted


def test_the_epoch_of_lightning_is_one_less_than_the_count_until_training_ends(trained):
    assert [trained["epoch end", steps]["epoch"] for steps in (4, 8, "after")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("version", "epoch", "counted"),
    [
        ("1.5.10", 10, 10),
        ("1.6.0", 9, 10),
        ("2.1.0", 9, 10),
        ("2.1.0", 0, 1),
        ("a fork's", 9, 10),
        ("2.1.0", None, None),
    ],
)
def test_without_loops_the_version_says_whether_epochs_begin_at_0(version, epoch, counted):
    assert finished_epochs({"pytorch-lightning_version": version, "epoch": epoch, "state_dict": {}}) == counted


def test_checkpoints_of_other_trainers_are_not_counted():
    assert finished_epochs({"epoch": 9, "state_dict": {}}) is None


@pytest.mark.parametrize(
    "loops", [None, 3, {}, {"fit_loop": 3}, {"fit_loop": {"epoch_progress": {"current": {"processed": "many"}}}}]
)
def test_loops_of_any_shape_are_harmless(loops):
    assert finished_epochs({"pytorch-lightning_version": "2.1.0", "epoch": 4, "loops": loops}) == 5
