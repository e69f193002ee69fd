"""A model's network on its device: precision, compilation, and the probe that learns what it takes and returns."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn

from dailies.core.errors import LoadError, RenderError
from dailies.core.text import cause
from dailies.models.load import Model
from dailies.models.signature import COLOURS, Signature
from dailies.render.memory import NetworkOutOfMemory, is_out_of_memory
from dailies.render.results import (
    WRAP_HINT,
    Part,
    SeveralImages,
    frame_of,
    images_among,
    named_part,
    only_image,
    parts_of,
    shape_text,
)
from dailies.render.tensors import padded_length, to_network_input

log = logging.getLogger(__name__)

BYTE_RANGE = (0.0, 255.0)
"""Black and white of an output of type uint8."""

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}

BASELINE = "fp32"
"""The mode that all others are compared with: fp32, neither compiled nor autotuned."""

PROBE_UNIT = 32
"""Both sides of the first probe are odd multiples of it, so a network that needs multiples of 64 pixels fails there."""

LARGER_MULTIPLES = (64, 96, 128, 160, 192, 224, 256)
"""The multiples that further probes try if the first one fails and ``multiple`` is not set."""

SIZE_ERROR = re.compile(
    r"size|shape|dimension|multiple|divisible|height|width|pad|ind(ex|ices)|length|AssertionError", re.IGNORECASE
)
"""What an error mentions that an input of another size may avoid."""


class ProbeFailure(LoadError):
    """The network does not work on inputs of one size; it may work on another size."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(code, message)
        self.hint = hint
        """What a user can do; None if the network ran but did not return a frame."""


class Network:
    """A model's network on one device in one precision."""

    def __init__(self, model: Model, device: torch.device, *, precision: str, autotune: bool = False) -> None:
        self.signature = model.signature
        """What the network takes and returns; scale and output channels are set after ``probe``."""
        self.device = device
        self.precision = precision
        self.is_autotuned = autotune and device.type == "cuda"
        """Whether cuDNN benchmarks its algorithms for each shape of input."""
        self.part: str | None = None
        """The path of the tensor that is used, if the network returns several."""
        self.keyed_part: str | None = None
        """``part`` as the keys of frames hold it; earlier versions left out the first image of an ONNX program."""
        self.initial_multiple = model.signature.multiple
        """``multiple`` before ``probe``, which may find that the network needs a larger one."""
        self.takes_one = False
        """Whether the network rejected a batch, so that its inputs are run singly."""
        self.notes: list[str] = []
        """What a user should know about the render."""
        self._is_onnx = model.builder == "onnx"
        self._returns_bytes = False
        """Whether the last output was of type uint8."""
        self._module = _channels_last(model.network.to(device))
        self._compiled: tuple[tuple[int, ...], Callable[[Tensor], Any]] | None = None
        """The one shape of input that the network is compiled for, and the compiled network."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """Run the network: ``(n, channels, height, width)`` to ``(n, channels, height × scale, width × scale)``.

        ``pixels`` may be on any device and are not changed; the result is float32, on the network's device. If the
        network rejects a batch, its inputs are run singly from then on. Raises NetworkOutOfMemory, and RenderError
        if the output has another shape.
        """
        if len(pixels) == 1:
            return self._run_checked(pixels)
        if self.takes_one:
            return torch.cat([self._run_checked(each) for each in pixels.split(1)])
        try:
            return self._run_checked(pixels)
        except NetworkOutOfMemory:
            raise
        except Exception as error:  # the network is foreign code
            reason = cause(error)
        output = torch.cat([self._run_checked(each) for each in pixels.split(1)])
        self.takes_one = True
        log.info("the network takes one input at a time; a batch of %d failed: %s", len(pixels), reason)
        return output

    def images(self, pixels: Tensor) -> list[Part]:
        """Run the network once and return every part of its output that can be a frame."""
        return images_among(parts_of(self._run(pixels)), pixels, self.signature)

    def note(self, text: str) -> None:
        """Log a warning and add it to the notes, unless it is there already."""
        if text not in self.notes:
            log.warning(text)
            self.notes.append(text)

    @contextmanager
    def in_baseline(self) -> Iterator[None]:
        """Run in the baseline mode inside this block."""
        before = self.precision, self.is_autotuned, self._compiled
        self.use_baseline()
        try:
            yield
        finally:
            self.precision, self.is_autotuned, self._compiled = before

    def use_baseline(self) -> None:
        """Run in the baseline mode from now on."""
        self.precision, self.is_autotuned, self._compiled = BASELINE, False, None

    @property
    def is_baseline(self) -> bool:
        return self.mode == BASELINE

    @property
    def is_compiled(self) -> bool:
        return self._compiled is not None

    @property
    def mode(self) -> str:
        """How the network runs: ``fp32``, ``bf16``, ``compiled fp32``, ``autotuned compiled tf32``."""
        words = ("autotuned" if self.is_autotuned else "", "compiled" if self.is_compiled else "", self.precision)
        return " ".join(word for word in words if word)

    @property
    def output_channels(self) -> int:
        return self.signature.output_channels or self.signature.channels

    def compile(self, shape: tuple[int, ...]) -> float | None:
        """Compile the network for inputs of one shape with torch and return the seconds that it took.

        If it cannot be compiled, a note says so, the network stays as it is, and None is returned.
        """
        start = time.monotonic()
        try:
            compiled = torch.compile(self._module, dynamic=False)
            with self._arithmetic():
                compiled(torch.zeros(shape, device=self.device).contiguous(memory_format=torch.channels_last))
        except Exception as error:  # from dynamo, inductor, the C++ compiler, or the network, which is foreign code
            log.info("torch.compile failed", exc_info=error)
            self.note(f"the network cannot be compiled ({cause(error)}); it runs uncompiled")
            return None
        self._compiled = tuple(shape), compiled
        return round(time.monotonic() - start, 2)

    def probe(self, real_size: Callable[[], tuple[int, int] | None]) -> None:
        """Run small tensors through the network to find, or confirm, its scale, output channels and ``multiple``.

        ``real_size`` returns the height and width of the inputs to come, if known; they are tried if nothing smaller
        works. Raises LoadError with what was expected and what came, SeveralImages if the user has to choose.
        """
        self._check_channels()
        failures: list[ProbeFailure] = []
        for multiple, size in self._probe_sizes():
            try:
                output = self._run_probe(size)
            except SeveralImages:
                self.signature = replace(self.signature, multiple=multiple)
                raise
            except ProbeFailure as error:
                log.info("%s", error)
                failures.append(error)
                continue
            except RuntimeError:  # out of memory, which says less than the first failure
                if failures:
                    break
                raise
            self._learn(output, size, multiple)
            return
        first = failures[0]
        if first.hint is None:
            raise first
        if self.signature.tile is None and (real := real_size()):
            try:
                self._learn(self._run_probe(real), real, self.signature.multiple)
            except (ProbeFailure, RuntimeError) as error:
                log.info("%s", error)
            else:
                self.note(f"{first}, but it takes {real[1]}×{real[0]}; if frames of another size fail, {first.hint}")
                return
        more = f", nor multiples of more pixels up to {LARGER_MULTIPLES[-1]}" if len(failures) > 1 else ""
        raise LoadError(first.code, f"{first}{more}; {first.hint}") from first.__cause__

    def _check_channels(self) -> None:
        """Raise LoadError if the network takes channels that a frame lacks and ``extra_channels`` is not set."""
        signature = self.signature
        if signature.colours in COLOURS or self._takes_rgb():
            return
        more = signature.channels - (1 if signature.channels == 2 else 3)
        raise LoadError(
            "model.extra_channels_unset",
            f"the network takes {signature.channels} channels, but a frame has 1, 3 or 4; set extra_channels in "
            f"signatures, or the run's tag dailies.extra_channels, to a list of the {more} "
            f"constant{'s' if more > 1 else ''} that it gets after the colours",
        )

    def _takes_rgb(self) -> bool:
        """Try RGB on a network whose first convolution takes other channels, which it may make of RGB itself."""
        known = self.signature
        if "channels" in known.stated:
            return False
        self.signature = replace(known, channels=Signature.channels, extra_channels=None)
        try:
            self._run_probe(probe_size(self.signature))
        except SeveralImages:
            return True
        except (LoadError, RuntimeError) as error:
            log.info("%s", error)
            self.signature = known
            return False
        return True

    def _probe_sizes(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield the multiples to try, each with the (height, width) of its probe."""
        signature = self.signature
        yield signature.multiple, probe_size(signature)
        if signature.tile is None and "multiple" not in signature.stated:
            larger = sorted({lcm(signature.multiple, each) for each in LARGER_MULTIPLES} - {signature.multiple})
            highest = min((most for most in signature.most if most), default=LARGER_MULTIPLES[-1])
            for multiple in larger:
                if multiple <= min(highest, LARGER_MULTIPLES[-1]):
                    yield multiple, probe_size(replace(signature, multiple=multiple))

    def _run_probe(self, size: tuple[int, int]) -> Tensor:
        """Return the output for a grey ramp of a size, (height, width).

        Raises ProbeFailure if the network may work on another size, LoadError if it works on none.
        """
        given = self._describe(size)
        ramp = torch.linspace(0, 1, size[0] * size[1], device=self.device).reshape(1, 1, *size)
        try:
            output = self._run_frame(to_network_input(ramp.expand(1, 3, *size), self.signature)[:1])
        except LoadError:
            raise
        except RenderError as error:
            raise ProbeFailure(error.code, str(error)) from None
        except Exception as error:  # the network is foreign code
            if is_out_of_memory(error):
                raise
            log.info("the network failed on %s", given, exc_info=error)
            raise _failure(f"the network does not take {given}", cause(error)) from error
        scale = output.shape[2] // size[0]
        if output.shape[1] not in COLOURS or output.shape[2:] != tuple(side * scale for side in size) or not scale:
            raise ProbeFailure(
                "model.answer_without_frame",
                f"the network returned {shape_text(output)} for {given}, which is not a frame",
            )
        return output

    def _learn(self, output: Tensor, size: tuple[int, int], multiple: int) -> None:
        """Add what a successful probe shows to the signature. Raises LoadError if it contradicts the signature."""
        signature = self.signature
        found: dict[str, Any] = {"output_channels": output.shape[1], "scale": output.shape[2] // size[0]}
        for name, got in found.items():
            if getattr(signature, name) not in {None, got}:
                raise LoadError(
                    "model.signature_contradicted",
                    f"expected {name} {getattr(signature, name)}, got {got}: the network returned "
                    f"{shape_text(output)} for {self._describe(size)}",
                )
        if signature.colours == 4 and output.shape[1] != 4:
            raise LoadError(
                "model.fourth_channel_not_alpha",
                f"the network takes {signature.channels} channels and returns {output.shape[1]}, so its fourth "
                "channel is probably not alpha; set extra_channels in signatures, or the run's tag "
                "dailies.extra_channels, to the constants that it takes after the three colours, such as [0.06] for a "
                "noise level",
            )
        if not bool(torch.isfinite(output).all()):
            log.warning("the network's output for a grey ramp is not finite")
        if multiple != signature.multiple:
            self.note(
                f"the network takes sides that are multiples of {multiple} pixels and not of {signature.multiple}; "
                f"multiple {multiple} is used"
            )
        if self._returns_bytes and signature.output_range is None and signature.effective_output_range != BYTE_RANGE:
            self.note("the network returns 8-bit integers, so output_range [0, 255] is used")
            found["output_range"] = BYTE_RANGE
        self.signature = replace(signature, multiple=multiple, **found)

    def _describe(self, size: tuple[int, int]) -> str:
        return f"{self.signature.channels} channels of {size[1]}×{size[0]} pixels"

    def _run_checked(self, pixels: Tensor) -> Tensor:
        try:
            output = self._run_frame(pixels)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise NetworkOutOfMemory from error
            raise
        scale = self.signature.scale or 1
        expected = (pixels.shape[0], self.output_channels, pixels.shape[2] * scale, pixels.shape[3] * scale)
        if tuple(output.shape) != expected:
            raise RenderError(
                "render.wrong_shape",
                f"the network returned {shape_text(output)} for an input of {shape_text(pixels)}",
            )
        return output

    def _run_frame(self, pixels: Tensor) -> Tensor:
        """Run the network once and return the frame in its output."""
        frame = self._frame_in(self._run(pixels), pixels)
        self._returns_bytes = frame.dtype == torch.uint8
        return frame.float()

    def _run(self, pixels: Tensor) -> Any:
        # a copy: a network may work in place, and the next tile or a retry needs these pixels
        copied = pixels.to(self.device, copy=True, memory_format=torch.channels_last)
        shape, compiled = self._compiled or (None, self._module)
        network = compiled if tuple(copied.shape) == shape else self._module
        with self._arithmetic():
            return network(copied)

    def _frame_in(self, output: Any, pixels: Tensor) -> Tensor:
        """Return the frame in an output: the only image, the largest one, or the one that the signature names.

        The first output decides which part that is in all later ones.
        """
        wanted = self.signature.output
        parts = parts_of(output)
        if isinstance(output, Tensor) and wanted in {None, "0", "-1"}:
            return frame_of(parts[0], pixels)
        if self.part is not None:
            if found := next((part for part in parts if part.path == self.part), None):
                return frame_of(found, pixels)
            raise RenderError(
                "render.part_missing", f"the network's output for an input of {shape_text(pixels)} lacks {self.part}"
            )
        if wanted is None:
            chosen = only_image(parts, output, pixels, self.signature)
        else:
            chosen = named_part(wanted, parts, output)
        frame = frame_of(chosen, pixels)
        log.info("the network returns a %s; its part %s is used", type(output).__name__, chosen.path)
        first = next((part for part in parts if part.tensor.dim() == 4), chosen)
        self.part = chosen.path
        self.keyed_part = None if self._is_onnx and chosen is first else chosen.path
        return frame

    def _arithmetic(self) -> AbstractContextManager[Any]:
        """Set torch's precision and algorithms for this network."""
        if self.device.type == "cuda":
            tf32 = self.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.backends.cudnn.allow_tf32 = tf32
            # the autotuner's choice differs from job to job, so a resumed render, or that of another shard, could
            # differ in a last bit; therefore it is off by default
            torch.backends.cudnn.benchmark = self.is_autotuned
            torch.backends.cudnn.deterministic = True
        # autocast keeps normalisation, sums and other operations that overflow in fp32
        kind = AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype=kind) if kind else nullcontext()


def probe_size(signature: Signature) -> tuple[int, int]:
    """Return the height and width of the first probe.

    They differ, to reveal a network that swaps them, and are odd multiples of ``multiple`` where possible.
    """
    if signature.tile:
        return signature.tile
    unit = signature.multiple * max(1, PROBE_UNIT // signature.multiple)
    factors = (3, 5) if unit <= PROBE_UNIT else (1, 3)
    sides = [
        padded_length(unit * factor, signature.multiple, least)
        for factor, least in zip(factors, signature.least, strict=True)
    ]
    if sides[0] == sides[1]:
        sides[1] += unit
    height, width = (
        min(side, max(signature.multiple, most // signature.multiple * signature.multiple)) if most else side
        for side, most in zip(sides, signature.most, strict=True)
    )
    return height, width


def _channels_last(module: nn.Module) -> nn.Module:
    """Convert convolution weights to channels-last, the fastest layout; ``Module.to`` would copy all of them."""
    with torch.no_grad():
        for weights in (*module.parameters(), *module.buffers()):
            if weights.dim() == 4 and not weights.is_contiguous(memory_format=torch.channels_last):
                weights.data = weights.contiguous(memory_format=torch.channels_last)
    return module


def _failure(text: str, reason: str) -> LoadError:
    """Return the error for a network that failed in a probe, with what a user can do about it.

    It is a ProbeFailure if another size may work.
    """
    failed = f"{text} ({reason})"
    if re.search(r"missing \d+ required|missing value for argument", reason):
        return LoadError(
            "model.needs_more_inputs", f"{failed}; it takes more than an image, so {WRAP_HINT} that supplies the rest"
        )
    if "channels" in reason:
        return LoadError(
            "model.wrong_channels",
            f"{failed}; set channels in signatures, and extra_channels if some are not of the picture",
        )
    if SIZE_ERROR.search(reason):
        return ProbeFailure(
            "model.wrong_size", failed, "set multiple in signatures, or tile if the network takes one size only"
        )
    return ProbeFailure(
        "model.does_not_run", failed, f"if it takes something other than one image, {WRAP_HINT} that takes one"
    )
