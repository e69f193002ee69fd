"""Make the demo: a grainy sequence, its clean reference, and an MLflow store with three denoisers trained for it.

    python scripts/make_demo.py demo

The folder is created atomically. If the demo exists already, running this again is a no-op.
"""

import argparse
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor, nn

EXPERIMENT = "copyair_experiments"
THREADS = 2
TRAINING_STEP = 6
"""The models are trained on one of this many frames, the first."""
PARTS = ("frames", "reference", "artifacts", "mlflow.db")


@dataclass(frozen=True)
class Recipe:
    """How one of the demo's models is trained."""

    run_name: str
    architecture: str
    model_config: dict[str, Any]
    epochs: int
    learning_rate: float
    steps: int = 25
    """Batches per epoch."""
    batch_size: int = 16
    crop_size: int = 32
    """Pixels along each side of a training crop."""
    seed: int = 2


RECIPES = (
    Recipe("unet_adamw", "unet", {"base_channels": 8}, epochs=24, learning_rate=1e-2),
    Recipe("unet_wide_adamw", "unet", {"base_channels": 16}, epochs=18, learning_rate=5e-3),
    Recipe(
        "nafnet_adamw",
        "nafnet",
        {
            "size": "small",
            "width": 12,
            "encoder_blocks": [1, 1],
            "middle_blocks": 1,
            "decoder_blocks": [1, 1],
        },
        epochs=18,
        learning_rate=1e-2,
    ),
)


@dataclass(frozen=True)
class Shot:
    """The sequence: 8-bit frames ``(height, width, 3)``, noisy and clean."""

    noisy: list[np.ndarray]
    clean: list[np.ndarray]

    def training_frames(self) -> list[np.ndarray]:
        """Return the clean frames that models are trained on: every sixth."""
        return self.clean[::TRAINING_STEP]

    def validation_frames(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (noisy, clean) frames that lie between those of the training."""
        return list(zip(self.noisy[3::12], self.clean[3::12], strict=True))


@dataclass(frozen=True)
class Trained:
    """The result of a training: the best epoch's weights, and the metrics of every epoch."""

    epoch: int
    weights: dict[str, "Tensor"]
    history: list[dict[str, float]] = field(repr=False)

    def best(self) -> dict[str, float]:
        """Return the metrics of the epoch whose weights were kept."""
        return self.history[self.epoch - 1]


def make_demo(
    folder: Path,
    *,
    size: tuple[int, int] = (410, 230),
    count: int = 24,
    recipes: Sequence[Recipe] = RECIPES,
) -> None:
    """Create the demo in ``folder`` unless it exists already.

    Args:
        size: width and height of a frame, in pixels.
        count: number of frames, at least 4.

    Raises:
        SystemExit: the folder is not empty, and its demo is incomplete.
    """
    folder = folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        missing = [part for part in PARTS if not (folder / part).exists()]
        if missing:
            raise SystemExit(
                f"{folder} is not a complete demo: it lacks {', '.join(missing)}. Delete it and run this again."
            )
        follow_move(folder)
        print(f"The demo is already in {folder}.")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as unfinished:
        demo = Path(unfinished) / folder.name
        demo.mkdir()
        shot = film(size, count)
        write_sequence(demo, shot)
        print(f"{count} frames of {size[0]}x{size[1]} pixels.", flush=True)
        fill_store(demo, home=folder, shot=shot, recipes=recipes)
        demo.replace(folder)
    print(f"The demo is in {folder}.")


def film(size: tuple[int, int], count: int) -> Shot:
    """Pan and zoom over a photograph that scikit-learn ships, and expose it on grainy stock."""
    from sklearn.datasets import load_sample_image

    photograph = Image.fromarray(load_sample_image("china.jpg"))
    rng = np.random.default_rng(2025)
    clean = [view(photograph, size, position) for position in np.linspace(0, 1, count)]
    return Shot(noisy=[to_bytes(add_noise(to_unit(frame), rng)) for frame in clean], clean=clean)


def view(photograph: Image.Image, size: tuple[int, int], position: float) -> np.ndarray:
    """Crop the photograph at ``position``, 0 to 1, of the camera's path and scale it to ``size``: 8 bits.

    The window moves by fractions of a pixel. The exposure leaves room for noise above the sky.
    """
    width = photograph.width * (0.85 - 0.12 * position)
    height = width * size[1] / size[0]
    left = (photograph.width - width) * 0.55 * position
    top = (photograph.height - height) * (0.1 + 0.6 * position)
    frame = photograph.resize(size, Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))
    return to_bytes(0.86 * to_unit(np.asarray(frame)))


def add_noise(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a sensor's noise and film grain to ``(height, width, 3)`` in 0 to 1.

    The sensor's variance grows with the light and is independent per channel; grain is soft, the same in all
    channels, and strongest in the mid-tones.
    """
    height, width, _ = clean.shape
    sensor = rng.standard_normal(clean.shape, dtype=np.float32) * np.sqrt(0.0006 + 0.0025 * clean)
    specks = rng.standard_normal((height + 2, width + 2, 1), dtype=np.float32)
    grain = sum(
        weight * specks[y : y + height, x : x + width]
        for (y, x), weight in zip(product(range(3), range(3)), (1, 2, 1, 2, 4, 2, 1, 2, 1), strict=True)
    )
    luma = clean.mean(axis=2, keepdims=True)
    return np.clip(clean + sensor + 0.0117 * grain * np.sqrt(0.01 + luma * (1 - luma)), 0, 1)


def to_unit(image: np.ndarray) -> np.ndarray:
    """Scale 8 bits to float32 in 0 to 1."""
    return image.astype(np.float32) / 255


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Round 0 to 1 to 8 bits."""
    return np.rint(image * 255).astype(np.uint8)


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of 8-bit images, in dB."""
    return float(-10 * np.log10(np.mean((to_unit(image) - to_unit(reference)) ** 2)))


def write_sequence(folder: Path, shot: Shot) -> None:
    """Write ``frames/`` and ``reference/`` as PNG."""
    for part, images in (("frames", shot.noisy), ("reference", shot.clean)):
        (folder / part).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / part / f"frame_{number:06d}.png")


def fill_store(folder: Path, *, home: Path, shot: Shot, recipes: Sequence[Recipe]) -> None:
    """Train every recipe and log it to an MLflow store in ``folder`` that will be moved to ``home``.

    MLflow stores absolute artifact locations. They name ``home`` from the start, and the files are written to the
    same places below ``folder``.
    """
    settle_libraries()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.create_experiment(EXPERIMENT, artifact_location=str(home / "artifacts"))
    for recipe in recipes:
        started = time.monotonic()
        run = client.create_run(experiment, run_name=recipe.run_name)
        for key, value in flat_params(recipe).items():
            client.log_param(run.info.run_id, key, value)
        client.log_param(run.info.run_id, "data.train_frames", f"0:{len(shot.clean)}:{TRAINING_STEP}")
        trained = train(recipe, shot)
        for epoch, metrics in enumerate(trained.history, start=1):
            for key, value in metrics.items():
                client.log_metric(run.info.run_id, key, value, step=epoch)
        artifacts = folder / "artifacts" / run.info.run_id / "artifacts"
        save_checkpoint(artifacts / "checkpoints" / f"best_model_{recipe.architecture}.pth", recipe, trained)
        client.set_terminated(run.info.run_id)
        before = np.mean([psnr(noisy, clean) for noisy, clean in shot.validation_frames()])
        print(
            f"{recipe.run_name}: trained in {time.monotonic() - started:.0f} s; "
            f"PSNR {before:.1f} dB before, {trained.best()['val/psnr']:.1f} dB after.",
            flush=True,
        )


def settle_libraries() -> None:
    """Keep MLflow quiet and off the network; make torch repeatable, and its threads sleep while they wait.

    Threads that spin instead made training three to five times slower while other programs used the cores.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import mlflow
    import torch

    logging.getLogger(mlflow.__name__).setLevel(logging.WARNING)
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)


def flat_params(recipe: Recipe) -> dict[str, Any]:
    """Flatten a recipe to the parameters that a training script logs."""
    return {
        "model.architecture": recipe.architecture,
        **{f"model.{key}": value for key, value in recipe.model_config.items()},
        "training.epochs": recipe.epochs,
        "training.steps_per_epoch": recipe.steps,
        "training.batch_size": recipe.batch_size,
        "training.crop_size": recipe.crop_size,
        "training.learning_rate": recipe.learning_rate,
        "training.optimizer": "adamw",
        "training.loss": "l1",
        "training.seed": recipe.seed,
    }


def save_checkpoint(path: Path, recipe: Recipe, trained: Trained) -> None:
    """Write the best weights with what is needed to build their network."""
    import torch

    path.parent.mkdir(parents=True)
    checkpoint = {
        "model_state_dict": trained.weights,
        "model_config": recipe.model_config,
        "architecture": recipe.architecture,
        "epoch": trained.epoch,
        "train_loss": trained.best()["train/loss"],
    }
    torch.save(checkpoint, path)


def train(recipe: Recipe, shot: Shot) -> Trained:
    """Train a network to turn noisy crops into clean ones, and keep the epoch of the lowest validation loss.

    The loss is L1 plus the L1 of each pixel's deviation from grey, so that a short training learns weak colours too.
    """
    import torch
    from dailies.models.architectures.catalog import ARCHITECTURES

    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    model = ARCHITECTURES[recipe.architecture](**recipe.model_config).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * recipe.steps, pct_start=0.2
    )
    frames = [to_unit(frame) for frame in shot.training_frames()]
    history: list[dict[str, float]] = []
    best_epoch, best_weights = 0, {}
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        if epoch > recipe.epochs / 2:
            hold_statistics(model)
        losses = []
        for _ in range(recipe.steps):
            noisy, clean = crops(frames, recipe, rng)
            error = model(noisy) - clean
            loss = error.abs().mean() + (error - error.mean(dim=1, keepdim=True)).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        history.append({"train/loss": float(np.mean(losses)), **validate(model, shot)})
        if best_epoch == 0 or history[-1]["val/loss"] < history[best_epoch - 1]["val/loss"]:
            best_epoch = epoch
            best_weights = {key: value.clone() for key, value in model.state_dict().items()}
    return Trained(epoch=best_epoch, weights=best_weights, history=history)


def hold_statistics(model: "nn.Module") -> None:
    """Let batch norm use its running statistics: those of a small batch hide how bright a crop is."""
    for module in model.modules():
        if hasattr(module, "running_mean"):
            module.eval()


def crops(frames: Sequence[np.ndarray], recipe: Recipe, rng: np.random.Generator) -> tuple["Tensor", "Tensor"]:
    """Cut a batch from random places of ``frames`` and add fresh noise: (noisy, clean), both in -1 to 1.

    Half of the crops are mirrored, and half have their colours exchanged: a short training otherwise learns no
    more than the two or three colours that fill the frames.
    """
    clean = []
    for _ in range(recipe.batch_size):
        frame = frames[rng.integers(len(frames))]
        y, x = (rng.integers(side - recipe.crop_size + 1) for side in frame.shape[:2])
        crop = frame[y : y + recipe.crop_size, x : x + recipe.crop_size][:, :: rng.choice((-1, 1))]
        clean.append(rng.permutation(crop, axis=2) if rng.random() < 0.5 else crop)
    return to_tensor([add_noise(crop, rng) for crop in clean]), to_tensor(clean)


def to_tensor(images: Sequence[np.ndarray]) -> "Tensor":
    """Stack ``(height, width, 3)`` in 0 to 1 to ``(n, 3, height, width)`` in -1 to 1."""
    import torch

    return torch.from_numpy(np.stack(images) * 2 - 1).permute(0, 3, 1, 2)


def validate(model: "nn.Module", shot: Shot) -> dict[str, float]:
    """Render whole frames as Dailies does; return their mean L1 loss in the range of training, and PSNR in dB."""
    import torch

    model.eval()
    losses, ratios = [], []
    for noisy, clean in shot.validation_frames():
        height, width, _ = noisy.shape
        padded = np.pad(to_unit(noisy), ((0, -height % 32), (0, -width % 32), (0, 0)), mode="symmetric")
        with torch.inference_mode():
            answer = model(to_tensor([padded]))[0, :, :height, :width].permute(1, 2, 0).numpy()
        losses.append(np.abs(answer - (to_unit(clean) * 2 - 1)).mean())
        ratios.append(psnr(to_bytes((answer + 1) / 2), clean))
    return {"val/loss": float(np.mean(losses)), "val/psnr": float(np.mean(ratios))}


def follow_move(folder: Path) -> None:
    """Correct the store's absolute artifact locations if the folder was moved or copied since it was created."""
    here = str(folder / "artifacts")
    store = sqlite3.connect(folder / "mlflow.db")
    with store:
        (there,) = store.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
        if there != here:
            store.execute("UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (here, there))
            store.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE substr(artifact_uri, 1, ?) = ?",
                (here, len(there) + 1, len(there), there),
            )
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to put the demo")
    folder = parser.parse_args().folder
    make_demo(folder)


if __name__ == "__main__":
    main()
