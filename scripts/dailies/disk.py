"""Disk: whether the frames that are still to be rendered have room, told before any of them is."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dailies import files, manifest
from dailies.errors import DiskError
from dailies.sequence import Frame, Sequence

BYTES = {(".png", 8): 0.7, (".png", 16): 1.9, (".exr", 16): 1.4, (".tif", 8): 0.7, (".tif", 16): 1.9, (".tif", 32): 3.0}
"""Bytes that one value of a frame with light grain takes in a file, by ending and bits (benchmarks/estimates.py)."""


def refuse_shortage(output_dir: Path, state: Path, models: Iterable[str], shot: Sequence, output_format: str) -> None:
    """Raise DiskError, with numbers, when the frames that ``models`` lack do not fit on the disk of ``output_dir``.

    A frame that is rendered again takes the place of the old one. Model folders are listed, no frame is looked at.
    """
    sizes = {frame.output: _size(frame, output_format) for frame in shot.frames}
    missing, concerned, needed = 0, 0, 0.0
    for model in models:
        lacking = shot.outputs - manifest.names(output_dir / model)
        if lacking:
            missing, concerned = missing + len(lacking), concerned + 1
            needed += sum(sizes[output] for output in lacking) * _scale(state / "attempts" / model) ** 2
    free = shutil.disk_usage(next(place for place in (output_dir, *output_dir.parents) if place.exists())).free
    if needed > free:
        raise DiskError(
            f"{missing} frames of {concerned} model{'s' if concerned > 1 else ''} are still to be rendered and need "
            f"about {_shown(needed)}, but the disk of output_dir {output_dir} has {_shown(free)} free; make room, set "
            "output_dir to another disk, or set check_disk to false to render what fits"
        )


def _size(frame: Frame, output_format: str) -> float:
    """Estimate the bytes of a rendered frame of the input's own width and height."""
    ending = Path(frame.output).suffix
    if ending == ".exr":
        bits = 16
    elif ending == ".tif":
        bits = 32 if frame.floating else (8 if frame.bit_depth <= 8 else 16)
    else:
        forced = {"png": 8, "png16": 16}.get(output_format)
        bits = forced or (8 if frame.bit_depth <= 8 else 16)
    return frame.width * frame.height * len(frame.mode) * BYTES[ending, bits]


def _scale(attempts: Path) -> int:
    """Give a model's output pixels per input pixel, along a side, as it was found when it was last loaded; else 1."""
    records: Iterable[Mapping[str, Any]] = (files.read_json(path) for path in attempts.glob("*.json"))
    signatures = (record["model"].get("signature") or {} for record in records)
    return max((signature.get("scale") or 1 for signature in signatures), default=1)


def _shown(size: float) -> str:
    """Write a number of bytes for people: in MB, or GB from a thousand of them."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
