"""Estimates of memory, time and disk space, from the frames and the sizes of models."""

import math
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.core.errors import DiskError
from dailies.core.text import counted, in_bytes
from dailies.frames.sequence import KNOCKOUT, WHOLE_SEQUENCE, Frame, Sequence, load, measured_parts, split
from dailies.measure.metrics import LPIPS
from dailies.state import manifest
from dailies.state.layout import SOURCE, Layout
from dailies.state.records import ModelRecord, Outcome, RunRecord, candidates
from dailies.store.entities import Artifact

if TYPE_CHECKING:
    from dailies.planning.config import Settings


SNAKEMAKE = 350
"""MB of the Snakemake process that starts each job on its node and waits for it."""

DOWNLOAD_MEMORY = SNAKEMAKE + 450
"""MB of a download: twice MLflow's client (``benchmarks/resources.py``). Files are streamed to the disk."""

SEQUENCE_MEMORY, SEQUENCE_MINUTES = SNAKEMAKE + 1650, 60
"""MB and minutes of reading every frame once, before their size is known: for four at a time, of 8K and 16 bits."""

LEAST = 600
"""MB that every job requests at least."""

TORCH, COPIES, PER_PIXEL = 500, 3.0, 1.2e-3
"""MB of torch and the codecs; copies of a model's file in memory while it is read; MB per pixel of a frame.

The first two include a reserve: ``benchmarks/resources.py`` measures 274 MB, and 1.0 to 1.5 copies. A file that is
unpickled, converted and tried may need more.
"""

IN_FLIGHT = 12
"""Frames between reading and writing, each held as integers and as an encoded file."""

MODEL_BYTES = 500e6
"""The assumed size of a model in bytes, if the store does not know it."""

SECONDS_PER_MEGAPIXEL = 10
"""The time of a U-Net of base 64 on two cores."""

MEASURE_PER_PIXEL, MEASURE_SECONDS = 3e-4, 1
"""MB per pixel in each of two threads, and seconds per megapixel, with a reserve; LPIPS doubles the seconds.

docs/benchmarks.md has the figures.
"""

PAGE_SECONDS = 0.3
"""Seconds per megapixel of a frame on the comparison page."""

ENCODER = 1000
"""MB of an encoder with a lookahead of 60 frames of 4K, and of its libraries."""

AS_8_BITS = 12
"""Extra bytes per pixel of a frame that is converted to 8 bits; from ``benchmarks/encoding.py``."""

BANDWIDTH = 5e6
"""Bytes per second of a slow network."""

TRIAL = 5
"""Minutes of loading downloaded files to see which of them holds a network."""

START = 10
"""Minutes before a job's work begins: starting a node, and Python and torch from a slow shared disk."""


BYTES = {(".png", 8): 0.7, (".png", 16): 1.9, (".exr", 16): 1.4, (".tif", 8): 0.7, (".tif", 16): 1.9, (".tif", 32): 3.0}
"""Bytes per value in the file of a frame with light grain, by ending and bits; from ``benchmarks/estimates.py``."""

MOTION_BYTES = 0.5
"""Bytes per pixel of the source's motion (``measure.flicker``): two values of 2 bytes for every 4 × 4 pixels, and one
byte for every 2 × 2."""

THUMBNAIL_BYTES = 12_000
"""Bytes of a thumbnail on the comparison page; the smallest frames have none."""


def artifact_size(record: str | Path) -> float:
    """Return the bytes of the artifact that a model's discovery record names."""
    size = ModelRecord.load(Path(record)).artifact.size
    return MODEL_BYTES if size is None else size


def render_memory(record: str | Path, shard: Sequence, settings: "Settings") -> int:
    """Return the MB of a render: Snakemake, torch, the model while it is read, and the frames in flight.

    Host memory for the network is included even if a GPU is wanted, because the scheduler may assign a CPU.
    """
    widest = settings.tile_size**2 if settings.tiled is True else math.inf
    batch = settings.batch
    pixels = min(shard.largest, widest) * (batch if isinstance(batch, int) else 1)
    frames = IN_FLIGHT * shard.largest * _bytes_per_pixel(shard) / 1e6
    return math.ceil(SNAKEMAKE + TORCH + COPIES * artifact_size(record) / 1e6 + PER_PIXEL * pixels + frames)


def render_minutes(record: str | Path, shard: Sequence) -> int:
    """Return the minutes of a render: its start, reading the model, and the frames on a CPU."""
    return math.ceil(START + (artifact_size(record) / BANDWIDTH + shard.pixels / 1e6 * SECONDS_PER_MEGAPIXEL) / 60)


def download_memory(record: str | Path, about: Path) -> int:
    """Return the MB of a download. If the records name alternatives, this includes loading files to try them."""
    sizes = [MODEL_BYTES if each.size is None else each.size for each in _candidates(record, about)]
    return DOWNLOAD_MEMORY + (math.ceil(TORCH + COPIES * sizes[0] / 1e6) if len(sizes) > 1 else 0)


def download_minutes(record: str | Path, about: Path) -> int:
    """Return the minutes of a download over a slow network, with its start.

    If the records name alternatives, this includes a second file and loading both to try them.
    """
    several = len(_candidates(record, about)) > 1
    return math.ceil(START + artifact_size(record) / BANDWIDTH / 60 * (2 if several else 1) + (TRIAL if several else 0))


def _candidates(record: str | Path, about: Path) -> list[Artifact]:
    return candidates(ModelRecord.load(Path(record)), RunRecord.load_if_there(about))


def measure_memory(shard: Sequence, metrics: Collection[str]) -> int:
    """Return the MB of measuring in two threads: the libraries, torch if LPIPS needs it, and a frame per thread."""
    return math.ceil(LEAST + (TORCH if LPIPS in metrics else 0) + 2 * MEASURE_PER_PIXEL * shard.largest)


def measure_minutes(shard: Sequence, metrics: Collection[str]) -> int:
    """Return the minutes of measuring a shard, of which ``shard`` holds the measured frames, with its start."""
    seconds = MEASURE_SECONDS * (2 if LPIPS in metrics else 1)
    return math.ceil(START + shard.pixels / 1e6 * seconds / 60)


def page_memory(sequence: str | Path) -> int:
    """Return the MB of the job that makes the page. Each of its threads holds one frame, as read and as 8 bits."""
    whole = load(Path(sequence))
    return max(LEAST, math.ceil(SNAKEMAKE + 150 + 4 * whole.largest * (_bytes_per_pixel(whole) + AS_8_BITS) / 1e6))


def video_memory(sequence: str | Path, *, models: int, threads: int) -> int:
    """Return the MB of the job that makes the video: the encoder, and a picture and a frame for each thread."""
    whole = load(Path(sequence))
    held = (threads + 1) * whole.largest * (3 * (models + 2) + _bytes_per_pixel(whole) + AS_8_BITS)
    return math.ceil(SNAKEMAKE + ENCODER + held / 1e6)


def page_minutes(sequence: str | Path, *, models: int) -> int:
    """Return the minutes of the job that makes the page: a copy or thumbnail of each frame of source and models."""
    return math.ceil(START + (models + 1) * load(Path(sequence)).pixels / 1e6 * PAGE_SECONDS / 60)


def _bytes_per_pixel(sequence: Sequence) -> int:
    """Return the bytes of the largest pixel in memory: integers as read, floating-point numbers as float32."""
    return max(
        len(frame.mode) * (4 if frame.floating else (1 if frame.bit_depth <= 8 else 2)) for frame in sequence.frames
    )


def refuse_shortage(
    layout: Layout, models: Iterable[str], sequence: Sequence, settings: "Settings", *, motion: bool
) -> None:
    """Raise DiskError if the disk of ``output_dir`` has no room for everything that is still missing.

    That is: the frames that ``models`` lack; their weights, unless they are downloaded already, but at most
    ``models_on_disk`` at once; copies and thumbnails for the comparison page; and, with ``motion``, that of the
    source. A frame that is rendered again replaces the old one. With a knockout, ``finalists`` models render every
    frame; ties are not foreseen. Folders are listed, but no frame is opened.
    """
    missing = _missing(layout, models, sequence, settings)
    if not missing.frames:
        return
    parts = missing.parts
    if motion:
        part = measured_parts({WHOLE_SEQUENCE: sequence}, settings.measure_frames)[WHOLE_SEQUENCE]
        parts |= {"motion": _motion_size(part, layout.source_frames)}
    output_dir = layout.output_dir
    free = shutil.disk_usage(next(place for place in (output_dir, *output_dir.parents) if place.exists())).free
    if sum(parts.values()) > free:
        several = ", ".join(f"{name} {in_bytes(size)}" for name, size in parts.items())
        raise DiskError(
            "disk.not_enough_space",
            f"{counted(missing.frames, 'frame')} of {counted(missing.models, 'model')}, still to be rendered, would "
            f"take about {in_bytes(sum(parts.values()))} ({several}), but the disk of output_dir {output_dir} has "
            f"{in_bytes(free)} free; make room, set output_dir to another disk, or set check_disk to false to render "
            "what fits",
        )


@dataclass(frozen=True)
class _Missing:
    """What is still to be rendered."""

    frames: int
    models: int
    """The number of models that lack frames."""
    parts: dict[str, float]
    """Bytes by kind of file."""


def _missing(layout: Layout, models: Iterable[str], sequence: Sequence, settings: "Settings") -> _Missing:
    sizes = {frame.output: frame_size(frame, settings.output_format) for frame in sequence.frames}
    count, frames, weights, page = 0, 0.0, [], 0.0
    for model, lacking in _lacking(layout, models, sequence, settings).items():
        if lacking:
            count += len(lacking)
            frames += sum(sizes[output] for output in lacking) * scale_of(layout.attempts(model)) ** 2
            is_downloaded = layout.weights(model).whole.is_dir()
            weights.append(0.0 if is_downloaded else artifact_size(layout.record(model)))
            page += sum(
                _shown_size(frame, settings.output_format) for frame in sequence.frames if frame.output in lacking
            )
    parts = {"frames": frames, "weights": sum(sorted(weights)[-settings.models_on_disk :])}
    if settings.compare:
        copies = layout.page_copies(SOURCE)
        uncopied = [replace(frame, output="x.png") for frame in sequence.frames if not _is_copied(frame, copies)]
        parts["page"] = page + sum(frame_size(frame, "png") + THUMBNAIL_BYTES for frame in uncopied)
    return _Missing(count, len(weights), parts)


def _lacking(
    layout: Layout, models: Iterable[str], sequence: Sequence, settings: "Settings"
) -> dict[str, frozenset[str]]:
    """Return the output names of the frames that each model lacks and may have to render.

    Which models a knockout leaves out is not known yet, so those that lack the most frames are taken for finalists.
    """
    lacking = {model: manifest.missing(sequence.outputs, layout.frames(model)) for model in models}
    if first_round := split(sequence, 0, settings.knockout_frames).get(KNOCKOUT):
        others = sorted(lacking, key=lambda model: len(lacking[model]), reverse=True)[settings.finalists :]
        lacking |= {model: lacking[model] & first_round.outputs for model in others}
    return lacking


def _shown_size(frame: Frame, output_format: str) -> float:
    """Return the estimated bytes of a frame's thumbnail, and of its copy unless a browser can show the frame itself."""
    is_shown = frame.output.endswith(".png") and _bits(frame, output_format) == 8 and not frame.mode.endswith("A")
    return THUMBNAIL_BYTES + (0 if is_shown else frame_size(replace(frame, output="x.png"), "png"))


def _is_copied(frame: Frame, folder: Path) -> bool:
    return f"{Path(frame.output).stem}.png" in manifest.file_names(folder)


def _motion_size(sequence: Sequence, folder: Path) -> float:
    """Return the bytes of the motion of the source that is missing in ``folder``, which has a file for every frame."""
    there = len(manifest.file_names(folder))
    return sum(MOTION_BYTES * frame.width * frame.height for frame in sequence.frames[max(there, 1) :])


def frame_size(frame: Frame, output_format: str) -> float:
    """Return the estimated bytes of a rendered frame that has the width and height of the input."""
    ending = Path(frame.output).suffix
    return frame.width * frame.height * len(frame.mode) * BYTES[ending, _bits(frame, output_format)]


def _bits(frame: Frame, output_format: str) -> int:
    ending = Path(frame.output).suffix
    if ending == ".exr":
        return 16
    if ending == ".tif":
        return 32 if frame.floating else (8 if frame.bit_depth <= 8 else 16)
    return {"png": 8, "png16": 16}.get(output_format) or (8 if frame.bit_depth <= 8 else 16)


def scale_of(attempts: Path) -> int:
    """Return a model's scale along a side as found when it was last loaded; 1 if it was not loaded yet."""
    models = (Outcome.load(path).model for path in attempts.glob("*.json"))
    return max((model.signature.scale or 1 for model in models if model), default=1)
