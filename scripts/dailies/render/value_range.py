"""Whether the value range that was assumed for a network is plausible, judged by what it does to the first frame."""

import logging
from dataclasses import replace

import numpy as np
import torch

from dailies.models.signature import format_range
from dailies.render.first_frame import ReadFrame, difference, middle
from dailies.render.network import Network
from dailies.render.tensors import network_input, white_level

log = logging.getLogger(__name__)

COMMON_RANGES = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))
"""Black and white of most networks."""

RANGE_HINT = "set value_range in signatures, or the run's tag dailies.value_range"

DOUBT_FACTOR, DOUBT_MARGIN = 3, 10 / 255
"""A range is doubted if the output differs from the source this many times as much as in another range, and by at
least this much more, from black 0 to white 1."""

DARK = 0.2
"""The mean, from black 0 to white 1, below which a frame says nothing about the range.

The outputs for a dark frame are all close to it, and a network that brightens is farthest in its own range.
"""


def check_assumed_range(network: Network, read: ReadFrame | None) -> None:
    """Add a note that the value range was assumed, and one if another range changes the first frame far less."""
    assumed = network.signature
    network.note(f"value_range {format_range(assumed.value_range)} was assumed; if that is wrong, {RANGE_HINT}")
    try:
        crop = middle(read(), assumed) if read else None
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
    return difference(network(network_input(torch.tensor(crop), network.signature)), crop, network.signature)
