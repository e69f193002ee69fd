"""The middle of the first frame, and how much a network changes it: by this, ambiguous networks are judged."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dailies.models.signature import Signature
from dailies.render.tensors import padded_size, to_code_values, white_level

ReadFrame = Callable[[], np.ndarray]
"""Reads the first frame, ``(height, width, 3)`` of uint8, uint16 or float32."""

CROP = 256
"""Pixels along each side of the part of the first frame that is used."""


def middle(frame: np.ndarray, signature: Signature) -> np.ndarray:
    """Return the middle of a frame: at most ``CROP`` pixels a side, and no more than the network takes."""
    limits = (min(CROP, most or CROP) for most in signature.tile or signature.most)
    rows, columns = (
        slice(start := max(0, (side - limit) // 2), start + limit)
        for side, limit in zip(frame.shape[:2], limits, strict=True)
    )
    return np.ascontiguousarray(frame[rows, columns])


def difference(output: Tensor, crop: np.ndarray, signature: Signature) -> float:
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
