"""What the first frame shows about a network: which of its images is the frame, and which value range is plausible."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dailies.core.text import clean, few
from dailies.models.signature import Signature, format_range
from dailies.render.network import Network
from dailies.render.results import Part
from dailies.render.tensors import network_input, padded_size, to_code_values, white_level

log = logging.getLogger(__name__)

ReadFrame = Callable[[], np.ndarray]
"""Reads the first frame, ``(height, width, 3)`` of uint8, uint16 or float32."""

COMMON_RANGES = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))
"""Black and white of most networks."""

RANGE_HINT = "set value_range in signatures, or the run's tag dailies.value_range"

CROP = 256
"""Pixels along each side of the part of the first frame that is used."""

DOUBT_FACTOR, DOUBT_MARGIN = 3, 10 / 255
"""A range is doubted if the output differs from the source this many times as much as in another range, and by at
least this much more, from black 0 to white 1."""

DARK = 0.2
"""The mean, from black 0 to white 1, below which a frame says nothing about the range.

The outputs for a dark frame are all close to it, and a network that brightens is farthest in its own range.
"""


def describe_nearest(network: Network, images: Sequence[Part], read: ReadFrame | None) -> str:
    """Return a sentence on which of the images that a network returns is the nearest to the first frame.

    The sentence is empty if the first frame cannot be read or rendered.
    """
    try:
        crop = _middle(read(), network.signature) if read else None
        if crop is None:
            return ""
        pixels = network_input(torch.tensor(crop), network.signature)
        found = {part.path: part.tensor.float() for part in network.images(pixels)}
        differences = {clean(part.name)[:60]: _difference(found[part.path], crop, network.signature) for part in images}
    except Exception as error:  # the network is foreign code, and reading a frame may fail
        log.info("the images cannot be compared with the first frame", exc_info=error)
        return ""
    nearest = min(differences, key=lambda name: differences[name] if math.isfinite(differences[name]) else math.inf)
    listed = few(f"{name} by {difference * 255:.1f}" for name, difference in differences.items())
    return (
        f". In the first frame, {nearest} is the nearest to the input; the mean differences from it, in code values of "
        f"255: {listed}"
    )


def check_assumed_range(network: Network, read: ReadFrame | None) -> None:
    """Add a note that the value range was assumed, and one if another range changes the first frame far less."""
    assumed = network.signature
    network.note(f"value_range {format_range(assumed.value_range)} was assumed; if that is wrong, {RANGE_HINT}")
    try:
        crop = _middle(read(), assumed) if read else None
        if crop is None or crop.mean() < DARK * white_level(crop.dtype):
            return
        with network.in_baseline():
            differences = {each: _difference_in(each, network, crop) for each in (assumed.value_range, *COMMON_RANGES)}
    except Exception as error:  # the network is foreign code, and reading a frame may fail
        log.info("the first frame cannot be rendered in other value ranges", exc_info=error)
        return
    finally:
        network.signature = assumed
    best, own = min(differences, key=differences.__getitem__), differences[assumed.value_range]
    if own > DOUBT_FACTOR * differences[best] and own - differences[best] > DOUBT_MARGIN:
        network.note(
            f"with value_range {format_range(best)} the network would change the first frame far less: by "
            f"{differences[best] * 255:.1f} code values of 255 on average instead of {own * 255:.1f} with the assumed "
            f"{format_range(assumed.value_range)}; if it was trained on {format_range(best)}, {RANGE_HINT}"
        )


def _difference_in(value_range: tuple[float, float], network: Network, crop: np.ndarray) -> float:
    network.signature = replace(network.signature, value_range=value_range)
    return _difference(network(network_input(torch.tensor(crop), network.signature)), crop, network.signature)


def _middle(frame: np.ndarray, signature: Signature) -> np.ndarray:
    """Return the middle of a frame: at most ``CROP`` pixels a side, and no more than the network takes."""
    limits = (min(CROP, most or CROP) for most in signature.tile or signature.most)
    rows, columns = (
        slice(start := max(0, (side - limit) // 2), start + limit)
        for side, limit in zip(frame.shape[:2], limits, strict=True)
    )
    return np.ascontiguousarray(frame[rows, columns])


def _difference(output: Tensor, crop: np.ndarray, signature: Signature) -> float:
    """Return the mean difference between a crop and the output for it, both from black 0 to white 1."""
    source = _unit(crop).clamp(0, 1)
    values = to_code_values(output, replace(signature, output_channels=output.shape[1]), np.dtype(np.float32))
    result = values.cpu().permute(2, 0, 1)[None, :3].clamp(0, 1)
    scale = output.shape[2] // padded_size(crop.shape[0], crop.shape[1], signature)[0]
    if scale > 1:
        source = torch.nn.functional.interpolate(source, scale_factor=scale, mode="bilinear")
    return float((result[:, :, : source.shape[2], : source.shape[3]] - source).abs().mean())


def _unit(crop: np.ndarray) -> Tensor:
    """Return a crop as float32 ``(1, 3, height, width)``, from black 0 to white 1."""
    return torch.from_numpy(crop.astype(np.float32) / white_level(crop.dtype)).permute(2, 0, 1)[None]
