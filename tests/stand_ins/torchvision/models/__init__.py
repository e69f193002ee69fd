"""See torchvision: the convolutions of AlexNet (Krizhevsky 2014), of which lpips makes its own network."""

from types import SimpleNamespace

from torch.nn import Conv2d, MaxPool2d, ReLU, Sequential


def alexnet(*, pretrained: bool) -> SimpleNamespace:
    """Build it with random weights, the only ones that can be had."""
    assert not pretrained
    return SimpleNamespace(
        features=Sequential(
            *(Conv2d(3, 64, 11, stride=4, padding=2), ReLU(), MaxPool2d(3, stride=2)),
            *(Conv2d(64, 192, 5, padding=2), ReLU(), MaxPool2d(3, stride=2)),
            *(Conv2d(192, 384, 3, padding=1), ReLU()),
            *(Conv2d(384, 256, 3, padding=1), ReLU()),
            *(Conv2d(256, 256, 3, padding=1), ReLU(), MaxPool2d(3, stride=2)),
        )
    )
