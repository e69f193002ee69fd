"""NAFNet: Chen, Chu, Zhang and Sun, "Simple Baselines for Image Restoration", 2022.

It differs from the paper in three ways: the block does not widen before the depthwise convolution, the input is not
added to the output, and the output goes through tanh.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dailies.core.errors import LoadError


@dataclass(frozen=True)
class Size:
    """The width and depth of a NAFNet."""

    width: int
    """Channels at full resolution."""
    encoder_blocks: tuple[int, ...]
    """Blocks per level on the way down; each level halves the resolution."""
    middle_blocks: int
    decoder_blocks: tuple[int, ...]
    """Blocks per level on the way up, deepest first."""


SIZES = {
    "small": Size(32, (1, 1, 1, 2), 6, (1, 1, 1, 1)),
    "base": Size(64, (2, 2, 4, 8), 12, (2, 2, 2, 2)),
    "large": Size(64, (2, 2, 6, 12), 16, (2, 2, 2, 2)),
}


class NAFNet(nn.Module):
    """A U-shaped network without activation functions except the final tanh; input and output are in [-1, 1].

    Args:
        size: the name of a published size, which sets the defaults of the next four arguments.
        in_channels: channels of the input.
        out_channels: channels of the output.
        width: channels at full resolution, even.
        encoder_blocks: blocks per level on the way down.
        middle_blocks: blocks at the lowest resolution.
        decoder_blocks: blocks per level on the way up, deepest first; as many levels as ``encoder_blocks``.
        dropout: rate after both halves of a block, in training only; also written ``dropout_rate`` or
            ``drop_out_rate``.

    Raises:
        LoadError: the size is unknown, or the numbers do not fit together.
    """

    ANCHOR = "intro.weight"
    """The name of a weight that the network has at every size."""

    @staticmethod
    def settings_in(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """Return the settings of the network with these weights; None if they belong to another network."""
        first, last = state["intro.weight"], state.get("ending.weight")
        if last is None or first.dim() != 4 or last.dim() != 4:
            return None
        down, up = (_blocks(state, part) for part in ("encoders", "decoders"))
        middle = {name.split(".")[1] for name in state if name.startswith("middle_blks.")}
        return {
            "in_channels": first.shape[1],
            "out_channels": last.shape[0],
            "width": first.shape[0],
            "encoder_blocks": down,
            "middle_blocks": len(middle),
            "decoder_blocks": up,
        }

    def __init__(
        self,
        *,
        size: str = "base",
        in_channels: int = 3,
        out_channels: int = 3,
        width: int | None = None,
        encoder_blocks: Sequence[int] | None = None,
        middle_blocks: int | None = None,
        decoder_blocks: Sequence[int] | None = None,
        dropout: float = 0.0,
        dropout_rate: float = 0.0,
        drop_out_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise LoadError("model.unknown_size", f"nafnet has no size {size!r}; its sizes are {', '.join(SIZES)}")
        named = SIZES[size]
        c = named.width if width is None else width
        down = list(named.encoder_blocks if encoder_blocks is None else encoder_blocks)
        middle = named.middle_blocks if middle_blocks is None else middle_blocks
        up = list(named.decoder_blocks if decoder_blocks is None else decoder_blocks)
        if c < 2 or c % 2:
            raise LoadError(
                "model.odd_width", f"nafnet splits its channels in two, so width must be even and positive, not {c}"
            )
        if len(down) != len(up):
            raise LoadError(
                "model.uneven_levels", f"nafnet needs as many encoder as decoder levels, not {down} and {up}"
            )
        rate = max(dropout, dropout_rate, drop_out_rate)

        def stage(channels: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(*(Block(channels, rate) for _ in range(blocks)))

        widths = [c * 2**level for level in range(len(down) + 1)]
        self.multiple = 2 ** len(down)
        self.intro = nn.Conv2d(in_channels, c, kernel_size=3, padding=1)
        self.encoders = nn.ModuleList(map(stage, widths, down))
        self.downs = nn.ModuleList(nn.Conv2d(w, 2 * w, kernel_size=2, stride=2) for w in widths[:-1])
        self.middle_blks = stage(widths[-1], middle)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(w, 2 * w, kernel_size=1, bias=False), nn.PixelShuffle(2))
            for w in reversed(widths[1:])
        )
        self.decoders = nn.ModuleList(map(stage, reversed(widths[:-1]), up))
        self.ending = nn.Conv2d(c, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, in_channels, h, w)`` to ``(n, out_channels, h, w)``, of any size."""
        height, width = x.shape[-2:]
        x = self.intro(_pad(x, self.multiple))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(up(x) + skips.pop())
        return torch.tanh(self.ending(x))[..., :height, :width]


def _blocks(state: Mapping[str, Tensor], part: str) -> list[int]:
    """Count the blocks of each level: ``encoders.{level}.{block}.…``."""
    found = {tuple(name.split(".")[1:3]) for name in state if name.startswith(f"{part}.") and name.count(".") > 2}
    counts = Counter(level for level, _ in found)
    return [counts[level] for level in sorted(counts, key=lambda text: (len(text), text))]


class Block(nn.Module):
    """Spatial mixing, then channel mixing; each is added through a learned scale that starts at 0."""

    def __init__(self, channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        c = channels
        self.norm1 = ChannelNorm(c, eps=1e-6)
        self.conv1 = nn.Conv2d(c, c, kernel_size=1)
        self.conv2 = nn.Conv2d(c, c, kernel_size=3, padding=1, groups=c)
        self.sca = ChannelAttention(c // 2)
        self.conv3 = nn.Conv2d(c // 2, c, kernel_size=1)
        self.norm2 = ChannelNorm(c, eps=1e-6)
        self.conv4 = nn.Conv2d(c, 2 * c, kernel_size=1)
        self.conv5 = nn.Conv2d(c, c, kernel_size=1)
        self.dropout = nn.Dropout(dropout)
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ``(n, channels, h, w)``."""
        spatial = self.conv3(self.sca(_gate(self.conv2(self.conv1(self.norm1(x))))))
        x = x + self.dropout(spatial) * self.beta
        channel = self.conv5(_gate(self.conv4(self.norm2(x))))
        output: Tensor = x + self.dropout(channel) * self.gamma
        return output


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel of ``(n, channels, h, w)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelAttention(nn.Module):
    """Scale each channel by a linear function of all channels' averages over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape."""
        scales: Tensor = self.conv(x.mean(dim=(2, 3), keepdim=True))
        return x * scales


def _gate(x: Tensor) -> Tensor:
    """Multiply the first half of the channels by the second: ``(n, 2c, h, w)`` to ``(n, c, h, w)``."""
    first, second = x.chunk(2, dim=1)
    return first * second


def _pad(x: Tensor, multiple: int) -> Tensor:
    """Pad ``x`` by reflection to the right and below until both sides are multiples, whatever their length."""
    for axis in (2, 3):
        if x.shape[axis] % multiple:
            x = x.index_select(axis, _reflected(x.shape[axis], multiple, x.device))
    return x


def _reflected(length: int, multiple: int, device: torch.device) -> Tensor:
    """Return the indexes that pad ``length`` pixels to a multiple by reflection: length 4 gives 0 1 2 3 2 1 0 1."""
    period = max(2 * (length - 1), 1)
    index = torch.arange(length + -length % multiple, device=device) % period
    return torch.where(index < length, index, period - index)
