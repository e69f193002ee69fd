"""Make golden.tar.xz: a store, its frames and the output folder that this version of the code writes for them.

    PYTHONPATH=scripts:tests python tests/golden/make.py

Make it again only when existing output folders shall be rendered again: it is what users have on their disks.
"""

import lzma
import os
import shutil
import tarfile
from pathlib import Path

import torch
from dailies.models.architectures.catalog import ARCHITECTURES
from helpers.images import write_frame
from helpers.studio import Studio
from helpers.weights import grey_checkpoint

ROOT = Path("/tmp/dailies-golden")
"""Where it is made and unpacked to: digests are taken over absolute paths."""

KEPT = ("mlflow.db", "artifacts", "shot", "reference", "out", ".snakemake/metadata")


def textured(seed: int) -> dict:
    """Give the checkpoint of a small U-Net whose answers are no flat grey."""
    torch.manual_seed(seed)
    config = {"in_channels": 3, "out_channels": 3, "base_channels": 1}
    return grey_checkpoint(0) | {"model_state_dict": ARCHITECTURES["unet"](**config).state_dict()}


def log_model(studio: Studio) -> None:
    """Log a run with a model beside it, as MLflow 3 does."""
    run_id = studio.add_run("logged", None)
    model_id = studio.client.create_logged_model(studio.experiment, name="net", source_run_id=run_id).model_id
    folder = studio.root / "outbox" / "net"
    (folder / "data").mkdir(parents=True)
    torch.save(grey_checkpoint(0.2), folder / "data" / "model.pth")
    (folder / "MLmodel").write_text("flavors:\n  pytorch:\n    model_data: data\n    pytorch_version: 2.13.0\n")
    studio.client.log_model_artifacts(model_id, str(folder))
    studio.client.finalize_logged_model(model_id, "READY")


if __name__ == "__main__":
    studio = Studio(ROOT)
    studio.add_frames(3)
    (ROOT / "reference").mkdir()
    for number in range(3):
        write_frame(ROOT / "reference" / f"frame_{number:06d}.png", seed=100 + number)
    studio.add_run("saved", textured(1))
    log_model(studio)
    for path in ROOT.rglob("*"):
        os.utime(path, (1_790_000_000,) * 2)  # tarfile rounds the fractions of a time
    studio.snakemake(reference_dir=str(ROOT / "reference"))
    with (
        lzma.open(Path(__file__).with_name("golden.tar.xz"), "wb", preset=9) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in KEPT:
            archive.add(ROOT / name, name)
    shutil.rmtree(ROOT)
