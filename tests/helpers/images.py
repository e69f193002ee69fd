"""Small pictures and videos as files, and their pixels."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_frame(path: Path, seed: int, size: tuple[int, int] = (7, 5)) -> None:
    """Write a random 8-bit RGB frame; ``size`` is (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_video(
    path: Path,
    pixels: Sequence[np.ndarray],
    *,
    codec: str = "ffv1",
    kind: str = "bgr0",
    rate: int | Fraction = 24,
    tags: Mapping[str, Any] | None = None,
) -> None:
    """Write RGB frames, of 8 bits, as a video; ``tags`` are set on its codec."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pixels[0].shape[:2]
        stream.pix_fmt = kind
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=kind)))
        container.mux(stream.encode())


def read_frame(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def flat(*colour: int, size: tuple[int, int] = (7, 5)) -> np.ndarray:
    """A frame of one colour; ``size`` is (width, height)."""
    return np.full((size[1], size[0], 3), colour, np.uint8)
