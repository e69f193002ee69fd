"""U-Net: Ronneberger, Fischer and Brox, "Convolutional Networks for Biomedical Image Segmentation", 2015.

It differs from the paper in four ways: the convolutions are padded, so that they keep the size; batch norm follows each
of them; upsampling is bilinear; and the output goes through tanh.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DoubleConv(nn.Module):
    """3x3 convolution, batch norm and ReLU, twice: ``(n, inputs, h, w)`` to ``(n, outputs, h, w)``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel_size=3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, kernel_size=3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the size, and change the channels."""
        output: Tensor = self.conv(x)
        return output


class UNet(nn.Module):
    """A U-Net of four levels, with ``base_channels`` features at full size; input and output are in [-1, 1]."""

    ANCHOR = "inc.conv.0.weight"
    """The name of a weight that the network has at every size."""

    @staticmethod
    def settings_in(state: Mapping[str, Tensor]) -> dict[str, int] | None:
        """Return the settings of the network with these weights; None if they belong to another network."""
        first, last = state["inc.conv.0.weight"], state.get("outc.weight")
        if last is None or first.dim() != 4 or last.dim() != 4:
            return None
        return {"in_channels": first.shape[1], "out_channels": last.shape[0], "base_channels": first.shape[0]}

    def __init__(self, in_channels: int = 3, out_channels: int = 3, base_channels: int = 64) -> None:
        super().__init__()
        b = base_channels
        self.inc = DoubleConv(in_channels, b)
        self.down1 = _down(b, 2 * b)
        self.down2 = _down(2 * b, 4 * b)
        self.down3 = _down(4 * b, 8 * b)
        self.conv3 = DoubleConv(8 * b + 4 * b, 4 * b)
        self.conv2 = DoubleConv(4 * b + 2 * b, 2 * b)
        self.conv1 = DoubleConv(2 * b + b, b)
        self.outc = nn.Conv2d(b, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, in_channels, h, w)`` to ``(n, out_channels, h, w)``; both sides at least 8 pixels."""
        full = self.inc(x)
        half = self.down1(full)
        quarter = self.down2(half)
        x = self.down3(quarter)
        x = self.conv3(_join(x, quarter))
        x = self.conv2(_join(x, half))
        x = self.conv1(_join(x, full))
        return torch.tanh(self.outc(x))


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.MaxPool2d(2), DoubleConv(inputs, outputs))


def _join(x: Tensor, skip: Tensor) -> Tensor:
    """Double the size of ``x``, resize it to ``skip`` if an odd side lost a pixel, and concatenate both."""
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    if x.shape[-2:] != skip.shape[-2:]:
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=True)
    return torch.cat([x, skip], dim=1)
