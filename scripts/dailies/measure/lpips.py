"""LPIPS: the distance of two frames in the features of AlexNet, of Zhang et al. (2018), version 0.1.

Frames are ``(height, width, 3)``, float32, RGB, 0 to 1, as in ``quality``. They stay on the CPU, also beside a GPU.
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
from dailies.measure.backbone import ADVICE, NAME, PUBLISHED, digests, linear
from dailies.models.checkpoints import PERMISSION_ADVICE, read_checkpoint
from dailies.models.weights import fill

torch.set_num_threads(1)  # frames are measured side by side, and a value is the same whatever the count of threads

LEAST = 31
"""Pixels along the shorter side of a frame that AlexNet needs."""

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation of the colours that the features are made for, of values from -1 to 1."""

LAYERS = ((0, 2), (2, 5), (5, 8), (8, 10), (10, 12))
"""Which modules of the network lead from one layer of features, after its ReLU, to the next."""


class Lpips:
    """LPIPS with the backbone in a file."""

    def __init__(self, backbone: Path) -> None:
        """Read the weights, none of which can run code.

        Raises ConfigError when the file is damaged or holds no weights of AlexNet.
        """
        network = _alexnet(backbone).to(memory_format=torch.channels_last)
        self._layers = [network[start:end] for start, end in LAYERS]
        state = read_checkpoint(linear()).groups[0].tensors
        self._linear = [state[f"lin{number}.model.1.weight"].view(-1, 1, 1) for number in range(len(LAYERS))]

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, reference: np.ndarray) -> float | None:
        """Give the distance of a frame from its reference, whole and at its own size: 0 for equal frames.

        It is that of ``lpips.LPIPS(net="alex")`` with ``normalize=True``. None where a side is shorter than 31 pixels.
        """
        if min(image.shape[:2]) < LEAST:
            return None
        both = torch.from_numpy(np.stack([image, reference])).permute(0, 3, 1, 2)
        features = (2 * both - 1 - _colours(SHIFT)) / _colours(SCALE)
        distance = 0.0
        for layer, weights in zip(self._layers, self._linear, strict=True):
            features = layer(features)
            first, second = _normalised(features)
            distance += ((first - second).square() * weights).sum(dim=0).mean().item()
        return distance


def _colours(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)


def _normalised(features: Tensor) -> Tensor:
    """Divide the features of each place by their length."""
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _features(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: values for name, values in tensors.items() if "classifier." not in name}


def _alexnet(path: Path) -> nn.Sequential:
    """Build the convolutions of Krizhevsky (2014) under torchvision's names, with the weights in a file."""
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
        checkpoint = read_checkpoint(path)
        held = [replace(group, tensors=_features(group.tensors)) for group in checkpoint.groups]
        fill(whole, held, checkpoint.file)
    except LoadError as error:
        reason = str(error).removesuffix(f"; {PERMISSION_ADVICE}")
        raise ConfigError(
            "measure.backbone_unusable", f"lpips_backbone {path} cannot be used: {reason}; {ADVICE}"
        ) from error
    return network.eval()


def checked(path: Path) -> str | None:
    """Give a warning when the file holds other weights of AlexNet than the published ones.

    Raises ConfigError when it cannot be read, is damaged, or holds something else. To tell that of another file than
    the published one takes torch; a head node without it leaves that to the jobs that measure.
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
        f"lpips_backbone {path} is not {NAME} as it was published: "
        "values of LPIPS compare only with others that were measured with the same file"
    )
