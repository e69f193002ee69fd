"""Estimates: the memory and time to ask a scheduler for, from the frames and the size of the model."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.catalog import Artifact
from dailies.metrics import LPIPS
from dailies.sequence import Sequence, load
from dailies.state_records import ModelRecord, RunRecord, candidates

if TYPE_CHECKING:
    from dailies.config import Settings

SNAKEMAKE = 350
"""MB of the Snakemake that starts every job on its node, and stays beside it."""

DOWNLOAD_MEMORY = SNAKEMAKE + 450
"""MB of a download: twice MLflow's client (``benchmarks/resources.py``); files go through to the disk."""

SEQUENCE_MEMORY, SEQUENCE_MINUTES = SNAKEMAKE + 1650, 60
"""MB and minutes of reading every frame once, before anything is known of them: four at a time, of 8K and 16 bits."""

LEAST = 600
"""MB below which no job is asked for."""

TORCH, COPIES, PER_PIXEL = 500, 3.0, 1.2e-3
"""MB of torch and the codecs; how often a model's file is in memory while it is read; MB for a pixel of a frame.

The first two with a reserve: ``benchmarks/resources.py`` measures 274 MB, and 1.0 to 1.5 times the file; a
file that is unpickled, converted and tried may be there more often.
"""

IN_FLIGHT = 12
"""Frames between reading and writing, each as its integers and as its file."""

MODEL_BYTES = 500e6
"""Bytes that a model is taken for whose store does not say its size."""

SECONDS_PER_MEGAPIXEL = 10
"""Of a U-Net of base 64 on two cores."""

MEASURED, MEASURE_SECONDS = 3e-4, 1
"""MB for a pixel in each of two threads, and seconds for a megapixel, with a reserve; LPIPS doubles the seconds.

docs/benchmarks.md has what was measured.
"""

PAGE_SECONDS = 0.3
"""For a megapixel of a frame on the comparison page."""

ENCODER = 1000
"""MB of an encoder that looks 60 frames of 4K ahead, and of its libraries."""

AS_8_BITS = 12
"""Bytes of a pixel of a frame that is read and becomes 8 bits, beside its own; ``benchmarks/encoding.py``."""

BANDWIDTH = 5e6
"""Bytes a second of a slow network."""

TRIAL = 5
"""Minutes of loading downloaded files to see which is a network."""

START = 10
"""Minutes that every job may take before its work begins: its node, Python and torch on a slow shared disk."""


def artifact_size(record: str | Path) -> float:
    """Give the bytes of the artifact that a model's discovery record names."""
    size = ModelRecord.load(Path(record)).artifact.size
    return MODEL_BYTES if size is None else size


def render_memory(record: str | Path, shard: Sequence, settings: "Settings") -> int:
    """Give the MB of a render: Snakemake, torch, the model while it is read, frames in flight, those in the network.

    A network on a GPU is in the GPU's memory; the host's is asked for all the same, as a scheduler may give a CPU.
    """
    widest = settings.tile_size**2 if settings.tiled is True else math.inf
    batch = settings.batch
    pixels = min(shard.largest, widest) * (batch if isinstance(batch, int) else 1)
    frames = IN_FLIGHT * shard.largest * _bytes_per_pixel(shard) / 1e6
    return math.ceil(SNAKEMAKE + TORCH + COPIES * artifact_size(record) / 1e6 + PER_PIXEL * pixels + frames)


def render_minutes(record: str | Path, shard: Sequence) -> int:
    """Give the minutes of a render: its start, reading the model, and the frames as on a CPU."""
    return math.ceil(START + (artifact_size(record) / BANDWIDTH + shard.pixels / 1e6 * SECONDS_PER_MEGAPIXEL) / 60)


def download_memory(record: str | Path, about: Path) -> int:
    """Give the MB of a download; where the records name alternatives, files are loaded to see which is a network."""
    sizes = [MODEL_BYTES if each.size is None else each.size for each in _candidates(record, about)]
    return DOWNLOAD_MEMORY + (math.ceil(TORCH + COPIES * sizes[0] / 1e6) if len(sizes) > 1 else 0)


def download_minutes(record: str | Path, about: Path) -> int:
    """Give the minutes of a download: its start, its tries again, and a slow network.

    Where the records name alternatives a second file may be fetched, and each is loaded.
    """
    several = len(_candidates(record, about)) > 1
    return math.ceil(START + artifact_size(record) / BANDWIDTH / 60 * (2 if several else 1) + (TRIAL if several else 0))


def _candidates(record: str | Path, about: Path) -> list[Artifact]:
    return candidates(ModelRecord.load(Path(record)), RunRecord.load_if_there(about))


def measure_memory(shard: Sequence, metrics: Collection[str]) -> int:
    """Give the MB of measuring in two threads: the libraries, torch where LPIPS needs it, a frame of each thread."""
    return math.ceil(LEAST + (TORCH if LPIPS in metrics else 0) + 2 * MEASURED * shard.largest)


def measure_minutes(shard: Sequence, metrics: Collection[str]) -> int:
    """Give the minutes of measuring: its start, and each frame."""
    seconds = MEASURE_SECONDS * (2 if LPIPS in metrics else 1)
    return math.ceil(START + shard.pixels / 1e6 * seconds / 60)


def page_memory(sequence: str | Path) -> int:
    """Give the MB of the comparison page's job, whose threads hold one frame each, as it came and as 8 bits."""
    shot = load(Path(sequence))
    return max(LEAST, math.ceil(SNAKEMAKE + 150 + 4 * shot.largest * (_bytes_per_pixel(shot) + AS_8_BITS) / 1e6))


def video_memory(sequence: str | Path, *, models: int, threads: int) -> int:
    """Give the MB of the videos' job: the encoder, and of each thread a picture of all models and a frame."""
    shot = load(Path(sequence))
    held = (threads + 1) * shot.largest * (3 * (models + 2) + _bytes_per_pixel(shot) + AS_8_BITS)
    return math.ceil(SNAKEMAKE + ENCODER + held / 1e6)


def page_minutes(sequence: str | Path, *, models: int) -> int:
    """Give the minutes of the comparison page's job: a copy or thumbnail of each frame of source and models."""
    return math.ceil(START + (models + 1) * load(Path(sequence)).pixels / 1e6 * PAGE_SECONDS / 60)


def _bytes_per_pixel(shot: Sequence) -> int:
    """Give the most bytes of a pixel in memory: integers as they came, floating-point numbers as float32."""
    return max(len(frame.mode) * (4 if frame.floating else (1 if frame.bit_depth <= 8 else 2)) for frame in shot.frames)
