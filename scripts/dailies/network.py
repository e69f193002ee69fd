"""The network of a model on its device: how it is called, and what of its answer counts."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dailies.errors import LoadError, RenderError
from dailies.levels import fed, padded_length
from dailies.memory import TooMuch, is_out_of_memory
from dailies.models import Model
from dailies.text import clean

log = logging.getLogger(__name__)

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}

PLAIN = "fp32"
"""The way to run a network that all others are measured by."""

PROBE = 64
"""Pixels along each side of the small tensor with which a network is tried first."""

CHANNELS = {1, 3, 4}
"""How many channels a frame may have."""


class Network:
    """A model's network, ready to be called on one device in one precision."""

    def __init__(self, model: Model, device: torch.device, *, precision: str, autotune: bool = False) -> None:
        self.signature = model.signature
        """How the network is fed; after ``probe``, scale and output channels are known."""
        self.device = device
        self.precision = precision
        self.autotunes = autotune and device.type == "cuda"
        """Whether cuDNN tries which of its ways is the fastest for each shape of input."""
        self.part: str | None = None
        """Which part of the network's answer is used, when it answers several tensors."""
        self.takes_one = False
        """Whether it refused several inputs at once, and gets them one by one."""
        self.notes: list[str] = []
        """What a user may want to know of how it went."""
        self._module = _channels_last(model.network.to(device))
        self._compiled: tuple[tuple[int, ...], Callable[[Tensor], Any]] | None = None
        """The one shape of input for which it is compiled, and the compiled network."""

    def note(self, text: str) -> None:
        """Tell a user, once, in the log and in the record of the render."""
        if text not in self.notes:
            log.warning(text)
            self.notes.append(text)

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Run in fp32, neither compiled nor tuned, meanwhile."""
        before = self.precision, self.autotunes, self._compiled
        self.be_plain()
        try:
            yield
        finally:
            self.precision, self.autotunes, self._compiled = before

    def be_plain(self) -> None:
        """Run in fp32, neither compiled nor tuned, from here on."""
        self.precision, self.autotunes, self._compiled = PLAIN, False, None

    @property
    def is_plain(self) -> bool:
        return self.way == PLAIN

    @property
    def is_compiled(self) -> bool:
        return self._compiled is not None

    @property
    def way(self) -> str:
        """Name the way it runs: ``fp32``, ``bf16``, ``compiled fp32``, ``autotuned compiled tf32``."""
        words = ("autotuned" if self.autotunes else "", "compiled" if self.is_compiled else "", self.precision)
        return " ".join(word for word in words if word)

    @property
    def answered_channels(self) -> int:
        return self.signature.output_channels or self.signature.channels

    def compile(self, shape: tuple[int, ...]) -> float | None:
        """Have torch compile the network for inputs of one shape; give the seconds it took.

        Where it cannot be compiled, that is noted, None is given, and the network runs as it was.
        """
        start = time.monotonic()
        try:
            compiled = torch.compile(self._module, dynamic=False)
            with self._arithmetic():
                compiled(torch.zeros(shape, device=self.device).contiguous(memory_format=torch.channels_last))
        except Exception as error:  # of dynamo, of inductor, of the compiler that it calls, of the foreign network
            log.info("torch.compile failed", exc_info=error)
            self.note(
                f"the network cannot be compiled ({type(error).__name__}: {_first_line(error)}), so it runs as it is"
            )
            return None
        self._compiled = tuple(shape), compiled
        return round(time.monotonic() - start, 2)

    def probe(self) -> None:
        """Run a small tensor through the network and learn, or confirm, its scale and output channels.

        Raises LoadError that says what was expected and what came.
        """
        signature = self.signature
        size = self._probe_size()
        expected = f"{signature.channels} channels of {size[1]}×{size[0]} pixels"
        ramp = torch.linspace(0, 1, size[0] * size[1], device=self.device).reshape(1, 1, *size)
        try:
            answer = self._answer(fed(ramp.expand(1, 3, *size), signature)[:1])
        except (LoadError, RenderError):
            raise
        except Exception as error:  # the network is foreign code
            if is_out_of_memory(error):
                raise
            log.info("the network failed at its first try", exc_info=error)
            raise LoadError(
                f"the network does not take {expected} ({type(error).__name__}: {_first_line(error)}); if it wants "
                "others, set signatures"
            ) from error
        found = {"output_channels": answer.shape[1], "scale": answer.shape[2] // size[0]}
        if found["output_channels"] not in CHANNELS or answer.shape[2:] != tuple(
            side * found["scale"] for side in size
        ):
            raise LoadError(f"the network answered {_shape(answer)} to {expected}: that is no frame")
        for name, got in found.items():
            if getattr(signature, name) not in {None, got}:
                raise LoadError(
                    f"expected {name} {getattr(signature, name)}, got {got}: the network answered "
                    f"{_shape(answer)} to {expected}"
                )
        if not bool(torch.isfinite(answer).all()):
            log.warning("the network's answer to a grey ramp is not finite")
        self.signature = replace(signature, **found)

    def _probe_size(self) -> tuple[int, int]:
        signature = self.signature
        side = max(signature.multiple, PROBE // signature.multiple * signature.multiple)
        if signature.tile:
            return signature.tile
        sides = (padded_length(side, signature.multiple, least) for least in signature.least)
        return tuple(min(own, most or own) for own, most in zip(sides, signature.most, strict=True))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map ``(n, channels, height, width)`` to float32 ``(n, channels, height × scale, width × scale)``.

        Takes pixels on any device, and leaves them as they are. A program that was made for one input gets several one
        by one. Raises TooMuch when memory runs out, RenderError when the answer is not of that shape.
        """
        if len(pixels) == 1:
            return self._checked(pixels)
        if self.takes_one:
            return torch.cat([self._checked(each) for each in pixels.split(1)])
        try:
            return self._checked(pixels)
        except TooMuch:
            raise
        except Exception as error:  # the network is foreign code
            reason = f"{type(error).__name__}: {_first_line(error)}"
        answer = torch.cat([self._checked(each) for each in pixels.split(1)])
        self.takes_one = True
        log.info("the network takes one input at a time; of %d it says %s", len(pixels), reason)
        return answer

    def _checked(self, pixels: Tensor) -> Tensor:
        try:
            answer = self._answer(pixels)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise TooMuch from error
            raise
        scale = self.signature.scale or 1
        expected = (pixels.shape[0], self.answered_channels, pixels.shape[2] * scale, pixels.shape[3] * scale)
        if tuple(answer.shape) != expected:
            raise RenderError(f"the network answered {_shape(answer)} to an input of {_shape(pixels)}")
        return answer

    def _answer(self, pixels: Tensor) -> Tensor:
        """Run the network once; of several tensors in its answer the first that can be a frame counts."""
        # a copy: a network may work in place, and these pixels are needed again by the next tile or after a failure
        given = pixels.to(self.device, copy=True, memory_format=torch.channels_last)
        shape, compiled = self._compiled or (None, self._module)
        network = compiled if tuple(given.shape) == shape else self._module
        with self._arithmetic():
            return self._frame_in(network(given), pixels).float()

    def _frame_in(self, result: Any, pixels: Tensor) -> Tensor:
        """Give the first tensor of an answer that can be a frame."""
        if isinstance(result, Tensor):
            if result.dim() != 4:
                raise RenderError(f"the network answered {_shape(result)} to an input of {_shape(pixels)}")
            return result
        for name, tensor in _parts(result):
            if tensor.dim() == 4 and tensor.shape[1] in CHANNELS and tensor.shape[2] >= pixels.shape[2]:
                if name != self.part:
                    log.info("the network answers a %s; its part %s is used", type(result).__name__, name)
                self.part = name
                return tensor
        raise RenderError(
            f"the network answered a {type(result).__name__} without a frame to an input of {_shape(pixels)}"
        )

    def _arithmetic(self) -> AbstractContextManager:
        if self.device.type == "cuda":
            tf32 = self.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.backends.cudnn.allow_tf32 = tf32
            # what the autotuner finds fastest differs from job to job: with it a resumed render, or a shard's, could
            # differ in a last bit from an undisturbed one, so it is for those who ask for it
            torch.backends.cudnn.benchmark = self.autotunes
            torch.backends.cudnn.deterministic = True
        # it keeps normalisation, sums and what else overflows in fp32
        kind = AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype=kind) if kind else nullcontext()


def _channels_last(module: nn.Module) -> nn.Module:
    """Put the weights of convolutions into the order that is fastest; ``Module.to`` copies also what is in it."""
    with torch.no_grad():
        for weights in (*module.parameters(), *module.buffers()):
            if weights.dim() == 4 and not weights.is_contiguous(memory_format=torch.channels_last):
                weights.data = weights.contiguous(memory_format=torch.channels_last)
    return module


def _parts(result: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Give the tensors of a tuple, list or dict, with the way to each."""
    if isinstance(result, Tensor):
        yield name, result
    elif isinstance(result, Mapping | list | tuple):
        for key, value in result.items() if isinstance(result, Mapping) else enumerate(result):
            yield from _parts(value, f"{name}[{key!r}]")


def _first_line(error: Exception) -> str:
    return clean((str(error).strip().splitlines() or [""])[0])[:200]


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape))
