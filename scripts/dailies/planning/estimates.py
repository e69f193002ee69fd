"""Estimates: the memory and time to ask a scheduler for, from the frames and the size of the model."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.frames.sequence import Sequence, load
from dailies.measure.metrics import LPIPS
from dailies.state.records import ModelRecord, RunRecord, candidates
from dailies.store.entities import Artifact

if TYPE_CHECKING:
    from dailies.planning.config import Settings


import shutil
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from dailies.core.errors import DiskError
from dailies.core.text import counted, in_bytes
from dailies.frames.sequence import Frame
from dailies.state import manifest
from dailies.state.layout import SOURCE, Layout
from dailies.state.records import Outcome

if TYPE_CHECKING:
    from dailies.planning.config import Settings


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


BYTES = {(".png", 8): 0.7, (".png", 16): 1.9, (".exr", 16): 1.4, (".tif", 8): 0.7, (".tif", 16): 1.9, (".tif", 32): 3.0}
"""Bytes that one value of a frame with light grain takes in a file, by ending and bits (benchmarks/estimates.py)."""

FLOW_BYTES = 0.25
"""Of a flow of the source per pixel: two of 2 bytes for every 4 × 4 (``motion.flow``), an eighth of an 8-bit PNG."""

THUMBNAIL_BYTES = 12_000
"""Of a thumbnail on the comparison page; the smallest frames have none."""


def refuse_shortage(
    layout: Layout, models: Iterable[str], shot: Sequence, settings: "Settings", *, flows: bool
) -> None:
    """Raise DiskError, with numbers, when what is to be rendered does not fit on the disk of ``output_dir``.

    That is the frames that ``models`` lack, their weights, as many at once as there may be and unless they were
    downloaded before, what the comparison page makes of frames, and the ``flows`` of the source, if flicker is to be
    measured along them. A frame that is rendered again takes the place of the old one. Folders are listed, no frame is
    looked at.
    """
    sizes = {frame.output: _size(frame, settings.output_format) for frame in shot.frames}
    missing, frames, weights, page = 0, 0.0, [], 0.0
    for model in models:
        lacking = shot.outputs - manifest.file_names(layout.frames(model))
        if lacking:
            scale = _scale(layout.attempts(model)) ** 2
            missing += len(lacking)
            frames += sum(sizes[output] for output in lacking) * scale
            there = layout.weights(model).whole.is_dir()
            weights.append(0.0 if there else artifact_size(layout.record(model)))
            page += sum(_shown_size(frame, settings.output_format) for frame in shot.frames if frame.output in lacking)
    if not missing:
        return
    output_dir, pages = layout.output_dir, layout.page_copies(SOURCE)
    copies = (_size(replace(frame, output="x.png"), "png") for frame in shot.frames if not _is_copied(frame, pages))
    page += sum(size + THUMBNAIL_BYTES for size in copies)
    parts = {"frames": frames, "weights": sum(sorted(weights)[-settings.models_on_disk :])}
    parts |= {"page": page} if settings.compare else {}
    parts |= {"flow": _flow_size(shot, layout.flows)} if flows else {}
    free = shutil.disk_usage(next(place for place in (output_dir, *output_dir.parents) if place.exists())).free
    if sum(parts.values()) > free:
        several = ", ".join(f"{name} {in_bytes(size)}" for name, size in parts.items())
        raise DiskError(
            "disk.not_enough_space",
            f"{counted(missing, 'frame')} of {counted(len(weights), 'model')}, still to be rendered, would take "
            f"about {in_bytes(sum(parts.values()))} ({several}), but the disk of output_dir {output_dir} has "
            f"{in_bytes(free)} free; make room, set output_dir to another disk, or set check_disk to false to render "
            "what fits",
        )


def _shown_size(frame: Frame, output_format: str) -> float:
    """Estimate the bytes of what the page makes of a rendered frame: a copy unless a browser shows it, a thumbnail."""
    is_shown = frame.output.endswith(".png") and _bits(frame, output_format) == 8 and not frame.mode.endswith("A")
    return THUMBNAIL_BYTES + (0 if is_shown else _size(replace(frame, output="x.png"), "png"))


def _is_copied(frame: Frame, folder: Path) -> bool:
    return f"{Path(frame.output).stem}.png" in manifest.file_names(folder)


def _flow_size(shot: Sequence, flows: Path) -> float:
    """Give the bytes of the flows that are not there yet: one for every frame but the first."""
    there = len(manifest.file_names(flows))
    return sum(FLOW_BYTES * frame.width * frame.height for frame in shot.frames[1 + there :])


def _size(frame: Frame, output_format: str) -> float:
    """Estimate the bytes of a rendered frame of the input's own width and height."""
    ending = Path(frame.output).suffix
    return frame.width * frame.height * len(frame.mode) * BYTES[ending, _bits(frame, output_format)]


def _bits(frame: Frame, output_format: str) -> int:
    ending = Path(frame.output).suffix
    if ending == ".exr":
        return 16
    if ending == ".tif":
        return 32 if frame.floating else (8 if frame.bit_depth <= 8 else 16)
    return {"png": 8, "png16": 16}.get(output_format) or (8 if frame.bit_depth <= 8 else 16)


def _scale(attempts: Path) -> int:
    """Give a model's output pixels per input pixel, along a side, as it was found when it was last loaded; else 1."""
    models = (Outcome.load(path).model for path in attempts.glob("*.json"))
    return max((model.signature.scale or 1 for model in models if model), default=1)
