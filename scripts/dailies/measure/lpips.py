"""LPIPS of Zhang et al. (2018), version 0.1: the distance between two frames in the feature space of AlexNet.

Every frame is a ``(height, width, 3)`` float32 array of RGB from 0 to 1, as in ``quality``. LPIPS runs on the CPU even
if there is a GPU.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dailies.core.errors import ConfigError, LoadError
from dailies.measure.lpips_weights import ADVICE, NAME, PUBLISHED, digests, linear_weights
from dailies.models.checkpoints import PERMISSION_ADVICE, Checkpoint, read_checkpoint
from dailies.models.weights import fill

torch.set_num_threads(1)  # frames are measured in parallel, and a value must not depend on the number of threads

SHORTEST = 31
"""Pixels of the shorter side of a frame that AlexNet needs."""

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and standard deviation, per channel, of the values from -1 to 1 that the network was trained on."""

LAYERS = ((0, 2), (2, 5), (5, 8), (8, 10), (10, 12))
"""The slices of the network's modules, each of which ends with the ReLU of one layer of features."""


class Lpips:
    """LPIPS with the weights of AlexNet in a file."""

    def __init__(self, backbone: Path) -> None:
        """Read the weights without running any code in the files.

        Raises ConfigError if ``backbone`` is damaged or does not hold the weights of AlexNet.
        """
        network = _alexnet(backbone).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._layers = [network[start:end] for start, end in LAYERS]
        state = _checkpoint(linear_weights()).groups[0].tensors
        self._linear = [state[f"lin{number}.model.1.weight"].view(-1, 1, 1) for number in range(len(LAYERS))]

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, reference: np.ndarray) -> float | None:
        """Return the distance of a frame from its reference, at full size; 0 for identical frames.

        It equals ``lpips.LPIPS(net="alex")`` with ``normalize=True``. None if a side is shorter than 31 pixels.
        """
        if min(image.shape[:2]) < SHORTEST:
            return None
        both = torch.from_numpy(np.stack([image, reference])).permute(0, 3, 1, 2)
        features = (2 * both - 1 - _colours(SHIFT)) / _colours(SCALE)
        distance = 0.0
        for layer, weights in zip(self._layers, self._linear, strict=True):
            features = layer(features)
            first, second = _normalised(features)
            distance += ((first - second).square() * weights).sum(dim=0).mean().item()
        return distance


def check_backbone(path: Path) -> str | None:
    """Return a warning if the file holds weights of AlexNet other than the published ones; None if it holds those.

    Raises ConfigError if the file cannot be read, is damaged or holds something else. Only torch can tell that; on a
    head node without torch it is left to the jobs that measure.
    """
    try:
        published = digests(path)[0] == PUBLISHED
    except OSError as error:
        raise ConfigError(
            "measure.backbone_unreadable", f"lpips_backbone {path} cannot be read: {error.strerror}"
        ) from error
    if published:
        return None
    if find_spec("torch"):
        Lpips(path)
    return (
        f"lpips_backbone {path} differs from the published {NAME}: "
        "LPIPS values are comparable only if they were measured with the same file"
    )


def _checkpoint(path: Path) -> Checkpoint:
    checkpoint = read_checkpoint(path)
    assert isinstance(checkpoint, Checkpoint)  # a whole network is returned only from a trusted file
    return checkpoint


def _colours(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)


def _normalised(features: Tensor) -> Tensor:
    """Return the features with the vector at each pixel scaled to length 1."""
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _features(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without those of the classifier, which LPIPS does not use."""
    return {name: values for name, values in tensors.items() if "classifier." not in name}


def _alexnet(path: Path) -> nn.Sequential:
    """Return the convolutions of AlexNet (Krizhevsky, 2014), with weights from a file that uses torchvision's names."""
    network = nn.Sequential(
        nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
    )
    whole = nn.Sequential(OrderedDict(features=network))
    try:
        checkpoint = _checkpoint(path)
        held = [replace(group, tensors=_features(group.tensors)) for group in checkpoint.groups]
        fill(whole, held, checkpoint.file)
    except LoadError as error:
        reason = str(error).removesuffix(f"; {PERMISSION_ADVICE}")
        raise ConfigError(
            "measure.backbone_unusable", f"lpips_backbone {path} cannot be used: {reason}; {ADVICE}"
        ) from error
    return network.eval()
