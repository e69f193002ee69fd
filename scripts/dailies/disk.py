"""Disk: whether the frames that are still to be rendered have room, told before any of them is."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dailies import estimates, manifest
from dailies.errors import DiskError
from dailies.layout import SOURCE, Layout
from dailies.sequence import Frame, Sequence
from dailies.state_records import Outcome
from dailies.text import counted, in_bytes

if TYPE_CHECKING:
    from dailies.config import Settings

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
        lacking = shot.outputs - manifest.names(layout.frames(model))
        if lacking:
            scale = _scale(layout.attempts(model)) ** 2
            missing += len(lacking)
            frames += sum(sizes[output] for output in lacking) * scale
            there = layout.weights(model).whole.is_dir()
            weights.append(0.0 if there else estimates.artifact_size(layout.record(model)))
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
    return f"{Path(frame.output).stem}.png" in manifest.names(folder)


def _flow_size(shot: Sequence, flows: Path) -> float:
    """Give the bytes of the flows that are not there yet: one for every frame but the first."""
    there = len(manifest.names(flows))
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
