"""What a network returns: its tensors, and which of them is the frame."""

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dailies.core.errors import LoadError, RenderError
from dailies.core.text import clean, few
from dailies.models.signature import COLOURS, Signature
from dailies.render.first_frame import ReadFrame, difference, middle
from dailies.render.tensors import network_input

if TYPE_CHECKING:
    from dailies.render.network import Network

log = logging.getLogger(__name__)

MAX_DEPTH = 5
"""How many nested lists, dicts and objects are searched for tensors."""

WRAP_HINT = "have model_loader or model_factory wrap it in a network"

OUTPUT_HINT = "set output in signatures, or the run's tag dailies.output"


@dataclass(frozen=True)
class Part:
    """A tensor in a network's output."""

    path: str
    """How to reach it, as records hold it: ``[1]['image']``; empty if the output is a single tensor."""
    name: str
    """What a user calls it: ``1.image``."""
    tensor: Tensor

    def is_called(self, name: str) -> bool:
        """Return whether a user's setting ``output`` means this tensor."""
        return name in {self.name, self.path} or f"[{name.replace('.', '][')}]" == self.path

    def __str__(self) -> str:
        return f"{clean(self.name)[:60]} ({shape_text(self.tensor)})"


class SeveralImages(LoadError):
    """The network returns several images, and nothing says which of them is the frame."""

    def __init__(self, images: list[Part]) -> None:
        super().__init__(
            "model.several_images",
            f"the network returns {len(images)} images, {few(map(str, images))}; {OUTPUT_HINT}",
        )
        self.images = images


def parts_of(output: Any) -> list[Part]:
    """Return the tensors in a network's output: a tensor, or a tuple, list, dict or object that holds some."""
    return list(_parts(output, path="", name="", depth=MAX_DEPTH))


def images_among(parts: list[Part], pixels: Tensor, signature: Signature) -> list[Part]:
    """Return those parts of the output for the input ``pixels`` that can be the frame."""
    return [part for part in parts if _can_be_frame(part.tensor, pixels, signature)]


def only_image(parts: list[Part], output: Any, pixels: Tensor, signature: Signature) -> Part:
    """Return the only image among the parts of an output, or the largest one.

    Raises SeveralImages if several are equally large, RenderError if no part can be the frame.
    """
    images = images_among(parts, pixels, signature)
    largest = [part for part in images if part.tensor.shape[2] == max(each.tensor.shape[2] for each in images)]
    if len(largest) > 1:
        raise SeveralImages(largest)
    if largest:
        return largest[0]
    if len(parts) == 1:
        return parts[0]
    raise RenderError(
        "render.answer_without_frame",
        f"the network returned a {type(output).__name__} without a frame for an input of {shape_text(pixels)}: "
        f"{few(map(str, parts))}; {WRAP_HINT} that returns one",
    )


def named_part(name: str, parts: list[Part], output: Any) -> Part:
    """Return the part that a user's setting ``output`` means; a negative index counts from the end.

    Raises LoadError if there is no such part.
    """
    if re.fullmatch(r"-\d+", name) and isinstance(output, list | tuple) and int(name) >= -len(output):
        name = str(len(output) + int(name))
    if found := next((part for part in parts if part.is_called(name)), None):
        return found
    raise LoadError(
        "model.no_such_output",
        f"output is {clean(name)!r}, which the network does not return; it returns {few(map(str, parts))}",
    )


def describe_nearest(network: "Network", images: Sequence[Part], read: ReadFrame | None) -> str:
    """Return a sentence on which of the images that a network returns is the nearest to the first frame.

    The sentence is empty if the first frame cannot be read or rendered.
    """
    try:
        crop = middle(read(), network.signature) if read else None
        if crop is None:
            return ""
        pixels = network_input(torch.tensor(crop), network.signature)
        found = {part.path: part.tensor.float() for part in network.images(pixels)}
        differences = {clean(part.name)[:60]: difference(found[part.path], crop, network.signature) for part in images}
    except Exception as error:  # the network is foreign code, and reading a frame may fail
        log.info("the images cannot be compared with the first frame", exc_info=error)
        return ""
    nearest = min(differences, key=lambda name: differences[name] if math.isfinite(differences[name]) else math.inf)
    listed = few(f"{name} by {difference * 255:.1f}" for name, difference in differences.items())
    return (
        f". In the first frame, {nearest} is the nearest to the input; the mean differences from it, in code values of "
        f"255: {listed}"
    )


def frame_of(part: Part, pixels: Tensor) -> Tensor:
    """Return the tensor of a part as frames, ``(batch, channels, height, width)``.

    Raises RenderError if it does not have four dimensions.
    """
    if part.tensor.dim() == 4:
        return part.tensor
    raise RenderError(
        "render.answer_without_frame",
        f"the network returned {shape_text(part.tensor)} for an input of {shape_text(pixels)}, but a frame has 4 "
        f"dimensions (batch, channels, height, width); {WRAP_HINT} that returns those",
    )


def shape_text(tensor: Tensor) -> str:
    """Return a tensor's shape for messages: ``1×3×96×160``."""
    return "×".join(map(str, tensor.shape)) or "scalar"


def _can_be_frame(tensor: Tensor, pixels: Tensor, signature: Signature) -> bool:
    if tensor.dim() != 4 or len(tensor) != len(pixels):
        return False
    if not (tensor.is_floating_point() or tensor.dtype == torch.uint8):
        return False
    scale = tensor.shape[2] // pixels.shape[2]
    return (
        tensor.shape[1] in ({signature.output_channels} if signature.output_channels else COLOURS)
        and scale > 0
        and scale == (signature.scale or scale)
        and tensor.shape[2:] == tuple(side * scale for side in pixels.shape[2:])
    )


def _parts(output: Any, *, path: str, name: str, depth: int) -> Iterator[Part]:
    if isinstance(output, Tensor):
        yield Part(path, name or "0", output)
        return
    for step, key, value in _items(output) if depth else ():
        yield from _parts(value, path=f"{path}{step}", name=f"{name}.{key}" if name else str(key), depth=depth - 1)


def _items(container: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the items of a container: the Python expression that reaches it, its name, the item."""
    if isinstance(container, Mapping):
        yield from ((f"[{key!r}]", key, value) for key, value in container.items())
    elif isinstance(container, list | tuple):
        fields = getattr(container, "_fields", ())
        names = fields if len(fields) == len(container) else range(len(container))
        for number, (name, value) in enumerate(zip(names, container, strict=True)):
            yield f"[{number}]", name, value
    elif not isinstance(container, nn.Module | type):
        for name in [*getattr(container, "__dict__", {}), *getattr(type(container), "__slots__", ())]:
            if not name.startswith("_") and hasattr(container, name):
                yield f".{name}", name, getattr(container, name)
