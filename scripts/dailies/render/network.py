"""The network of a model on its device: how it is called, and what of its answer counts."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn

from dailies.core.errors import LoadError, RenderError
from dailies.core.text import cause, clean, few
from dailies.models.load import Model
from dailies.models.signature import COLOURS, Signature
from dailies.render.memory import TooMuch, is_out_of_memory
from dailies.render.tensors import fed, padded_length

log = logging.getLogger(__name__)

BYTE, BYTES = torch.uint8, (0.0, 255.0)

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}

PLAIN = "fp32"
"""The way to run a network that all others are measured by."""

STEP = 32
"""Both sides of the first try are odd multiples of it: a network that takes only multiples of 64 pixels fails there."""

COARSER = (64, 96, 128, 160, 192, 224, 256)
"""What both sides are multiples of in further tries, when the first one fails and nobody says what they have to be."""

DEPTH = 5
"""How many lists, dicts and objects inside each other are searched for images."""

SIZES = re.compile(
    r"size|shape|dimension|multiple|divisible|height|width|pad|ind(ex|ices)|length|AssertionError", re.IGNORECASE
)
"""What errors speak of that another size of the input may avoid."""

WRAP = "have model_loader or model_factory wrap it in a network"

OUTPUT = "set output in signatures, or the run's tag dailies.output"
"""How a user chooses between the outputs of a network."""


@dataclass(frozen=True)
class Part:
    """A tensor in a network's answer."""

    path: str
    """The way to it, as records hold it: ``[1]['image']``; empty where the answer is a single tensor."""
    name: str
    """What a user calls it: ``1.image``."""
    tensor: Tensor

    def is_called(self, name: str) -> bool:
        """Return whether a user's ``output`` means this tensor."""
        return name in {self.name, self.path} or f"[{name.replace('.', '][')}]" == self.path

    def __str__(self) -> str:
        return f"{clean(self.name)[:60]} ({_shape(self.tensor)})"


class SeveralImages(LoadError):
    """A network answers several images, and nobody says which of them is the frame."""

    def __init__(self, images: list[Part]) -> None:
        super().__init__(
            "model.several_images", f"the network answers {len(images)} images, {few(map(str, images))}; {OUTPUT}"
        )
        self.images = images


class Unfit(LoadError):
    """A network does not work on inputs of one size; it may work on another."""

    def __init__(self, code: str, message: str, cure: str | None = None) -> None:
        super().__init__(code, message)
        self.cure = cure
        """What a user can do, where it failed and did not answer something else than a frame."""


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
        self.keyed_part: str | None = None
        """``part`` as the key of a frame has it, which never named the first image of an ONNX program."""
        self.told_multiple = model.signature.multiple
        """``multiple`` as it was before ``probe``, which may find that the network needs a larger one."""
        self._is_onnx = model.builder == "onnx"
        self._answers_bytes = False
        """Whether its last answer was of uint8, whose black and white are 0 and 255."""
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
            self.note(f"the network cannot be compiled ({cause(error)}), so it runs as it is")
            return None
        self._compiled = tuple(shape), compiled
        return round(time.monotonic() - start, 2)

    def probe(self, given: Callable[[], tuple[int, int] | None]) -> None:
        """Run a small tensor through the network and learn, or confirm, its scale, output channels and ``multiple``.

        ``given`` returns the height and width of what the network will be given, if known; they are tried where nothing
        smaller works. Raises LoadError that says what was expected and what came, SeveralImages when a choice is due.
        """
        self._refuse_channels()
        failures: list[Unfit] = []
        for multiple, size in self._tries():
            try:
                answer = self._tried(size)
            except SeveralImages:
                self.signature = replace(self.signature, multiple=multiple)
                raise
            except Unfit as error:
                log.info("%s", error)
                failures.append(error)
                continue
            except RuntimeError:  # out of memory, which tells less than what failed first
                if failures:
                    break
                raise
            self._learn(answer, size, multiple)
            return
        first = failures[0]
        if first.cure is None:
            raise first
        if self.signature.tile is None and (size := given()):
            try:
                self._learn(self._tried(size), size, self.signature.multiple)
            except (Unfit, RuntimeError) as error:
                log.info("%s", error)
            else:
                self.note(f"{first}, but takes {size[1]}×{size[0]}; should another size fail, {first.cure}")
                return
        more = f", nor multiples of more pixels up to {COARSER[-1]}" if len(failures) > 1 else ""
        raise LoadError(first.code, f"{first}{more}; {first.cure}") from first.__cause__

    def _refuse_channels(self) -> None:
        signature = self.signature
        if signature.colours in COLOURS or self._takes_colours():
            return
        more = signature.channels - (1 if signature.channels == 2 else 3)
        raise LoadError(
            "model.extra_channels_unset",
            f"the network takes {signature.channels} channels, and a frame has 1, 3 or 4; set extra_channels in "
            f"signatures, or the run's tag dailies.extra_channels, to a list of the {more} "
            f"constant{'s' if more > 1 else ''} that it is to get after the colours",
        )

    def _takes_colours(self) -> bool:
        """Try whether a network takes RGB whose first convolution takes other channels, which it may make of RGB."""
        known = self.signature
        if "channels" in known.stated:
            return False
        self.signature = replace(known, channels=Signature.channels, extra_channels=None)
        try:
            self._tried(probe_size(self.signature))
        except SeveralImages:
            return True
        except (LoadError, RuntimeError) as error:
            log.info("%s", error)
            self.signature = known
            return False
        return True

    def _tries(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield sizes to try, (height, width), each with what both sides are multiples of."""
        signature = self.signature
        yield signature.multiple, probe_size(signature)
        if signature.tile is None and "multiple" not in signature.stated:
            larger = sorted({lcm(signature.multiple, each) for each in COARSER} - {signature.multiple})
            highest = min((most for most in signature.most if most), default=COARSER[-1])
            for multiple in larger:
                if multiple <= min(highest, COARSER[-1]):
                    yield multiple, probe_size(replace(signature, multiple=multiple))

    def _tried(self, size: tuple[int, int]) -> Tensor:
        """Answer a grey ramp. Raises Unfit when the network may work on another size, LoadError when on none."""
        asked = self._asked(size)
        ramp = torch.linspace(0, 1, size[0] * size[1], device=self.device).reshape(1, 1, *size)
        try:
            answer = self._answer(fed(ramp.expand(1, 3, *size), self.signature)[:1])
        except LoadError:
            raise
        except RenderError as error:
            raise Unfit(error.code, str(error)) from None
        except Exception as error:  # the network is foreign code
            if is_out_of_memory(error):
                raise
            log.info("the network failed on %s", asked, exc_info=error)
            raise _failure(f"the network does not take {asked}", cause(error)) from error
        scale = answer.shape[2] // size[0]
        if answer.shape[1] not in COLOURS or answer.shape[2:] != tuple(side * scale for side in size) or not scale:
            raise Unfit(
                "model.answer_without_frame", f"the network answered {_shape(answer)} to {asked}, which is not a frame"
            )
        return answer

    def _learn(self, answer: Tensor, size: tuple[int, int], multiple: int) -> None:
        signature = self.signature
        found: dict[str, Any] = {"output_channels": answer.shape[1], "scale": answer.shape[2] // size[0]}
        for name, got in found.items():
            if getattr(signature, name) not in {None, got}:
                raise LoadError(
                    "model.signature_contradicted",
                    f"expected {name} {getattr(signature, name)}, got {got}: the network answered "
                    f"{_shape(answer)} to {self._asked(size)}",
                )
        if signature.colours == 4 and answer.shape[1] != 4:
            raise LoadError(
                "model.fourth_channel_not_alpha",
                f"the network takes {signature.channels} channels and answers {answer.shape[1]}, so its fourth "
                "channel is probably not alpha; set extra_channels in signatures, or the run's tag "
                "dailies.extra_channels, to the constants that it takes after the three colours, such as [0.06] for a "
                "noise level",
            )
        if not bool(torch.isfinite(answer).all()):
            log.warning("the network's answer to a grey ramp is not finite")
        if multiple != signature.multiple:
            self.note(
                f"the network takes sides that are multiples of {multiple} pixels and not of {signature.multiple}; "
                f"multiple {multiple} is used"
            )
        if self._answers_bytes and signature.output_range is None and signature.effective_output_range != BYTES:
            self.note("the network answers whole numbers of 8 bits, so output_range [0, 255] is used")
            found["output_range"] = BYTES
        self.signature = replace(signature, multiple=multiple, **found)

    def _asked(self, size: tuple[int, int]) -> str:
        return f"{self.signature.channels} channels of {size[1]}×{size[0]} pixels"

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
            reason = cause(error)
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
            raise RenderError(
                "render.wrong_shape", f"the network answered {_shape(answer)} to an input of {_shape(pixels)}"
            )
        return answer

    def images(self, pixels: Tensor) -> list[Part]:
        """Run the network once and return all of its answer that can be a frame."""
        return self._images(list(_parts(self._run(pixels))), pixels)

    def _run(self, pixels: Tensor) -> Any:
        # a copy: a network may work in place, and these pixels are needed again by the next tile or after a failure
        given = pixels.to(self.device, copy=True, memory_format=torch.channels_last)
        shape, compiled = self._compiled or (None, self._module)
        network = compiled if tuple(given.shape) == shape else self._module
        with self._arithmetic():
            return network(given)

    def _answer(self, pixels: Tensor) -> Tensor:
        """Run the network once and return the frame in its answer."""
        frame = self._frame_in(self._run(pixels), pixels)
        self._answers_bytes = frame.dtype == BYTE
        return frame.float()

    def _frame_in(self, result: Any, pixels: Tensor) -> Tensor:
        """Return the frame in an answer: the only image, the largest one, or the one that the signature names.

        Once it is known which part that is, it is the same in every answer.
        """
        wanted = self.signature.output
        parts = list(_parts(result))
        if isinstance(result, Tensor) and wanted in {None, "0", "-1"}:
            return _of_four(parts[0], pixels).tensor
        if self.part is not None:
            if found := next((part for part in parts if part.path == self.part), None):
                return _of_four(found, pixels).tensor
            raise RenderError(
                "render.part_missing", f"the network's answer to an input of {_shape(pixels)} lacks {self.part}"
            )
        chosen = self._only_image(parts, result, pixels) if wanted is None else _called(wanted, parts, result)
        frame = _of_four(chosen, pixels).tensor
        log.info("the network answers a %s; its part %s is used", type(result).__name__, chosen.path)
        first = next((part for part in parts if part.tensor.dim() == 4), chosen)
        self.part = chosen.path
        self.keyed_part = None if self._is_onnx and chosen is first else chosen.path
        return frame

    def _only_image(self, parts: list[Part], result: Any, pixels: Tensor) -> Part:
        images = self._images(parts, pixels)
        largest = [part for part in images if part.tensor.shape[2] == max(each.tensor.shape[2] for each in images)]
        if len(largest) > 1:
            raise SeveralImages(largest)
        if largest:
            return largest[0]
        if len(parts) == 1:
            return _of_four(parts[0], pixels)
        raise RenderError(
            "render.answer_without_frame",
            f"the network answered a {type(result).__name__} without a frame to an input of {_shape(pixels)}: "
            f"{few(map(str, parts))}; {WRAP} that answers one",
        )

    def _images(self, parts: list[Part], pixels: Tensor) -> list[Part]:
        return [part for part in parts if self._can_be_frame(part.tensor, pixels)]

    def _can_be_frame(self, tensor: Tensor, pixels: Tensor) -> bool:
        if tensor.dim() != 4 or len(tensor) != len(pixels) or not (tensor.is_floating_point() or tensor.dtype == BYTE):
            return False
        scale = tensor.shape[2] // pixels.shape[2]
        return (
            tensor.shape[1] in ({self.signature.output_channels} if self.signature.output_channels else COLOURS)
            and scale in ({self.signature.scale} if self.signature.scale else {scale} - {0})
            and tensor.shape[2:] == tuple(side * scale for side in pixels.shape[2:])
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


def probe_size(signature: Signature) -> tuple[int, int]:
    """Return height and width of the small tensor with which a network is tried first.

    They differ, which shows a network that exchanges them, and are multiples of ``multiple`` and hardly of more.
    """
    if signature.tile:
        return signature.tile
    unit = signature.multiple * max(1, STEP // signature.multiple)
    times = (3, 5) if unit <= STEP else (1, 3)
    sides = [
        padded_length(unit * each, signature.multiple, least)
        for each, least in zip(times, signature.least, strict=True)
    ]
    if sides[0] == sides[1]:
        sides[1] += unit
    height, width = (
        min(side, max(signature.multiple, most // signature.multiple * signature.multiple)) if most else side
        for side, most in zip(sides, signature.most, strict=True)
    )
    return height, width


def _failure(text: str, said: str) -> LoadError:
    """Return an error that says what a user can do about a network that failed so when it was tried.

    It is Unfit where another size may do.
    """
    failed = f"{text} ({said})"
    if re.search(r"missing \d+ required|missing value for argument", said):
        return LoadError(
            "model.needs_more_inputs", f"{failed}; it takes more than an image, so {WRAP} that supplies the rest"
        )
    if "channels" in said:
        return LoadError(
            "model.wrong_channels",
            f"{failed}; set channels in signatures, and extra_channels where some are not of the picture",
        )
    if SIZES.search(said):
        return Unfit(
            "model.wrong_size", failed, "set multiple in signatures, or tile where the network takes one size only"
        )
    return Unfit("model.does_not_run", failed, f"where it takes something else than one image, {WRAP} that takes one")


def _called(name: str, parts: list[Part], result: Any) -> Part:
    """Return the part of an answer that a user's ``output`` means; a negative index counts from the end."""
    if re.fullmatch(r"-\d+", name) and isinstance(result, list | tuple) and int(name) >= -len(result):
        name = str(len(result) + int(name))
    if found := next((part for part in parts if part.is_called(name)), None):
        return found
    raise LoadError(
        "model.no_such_output",
        f"output is {clean(name)!r}, which the network does not return; it returns {few(map(str, parts))}",
    )


def _of_four(part: Part, pixels: Tensor) -> Part:
    if part.tensor.dim() == 4:
        return part
    raise RenderError(
        "render.answer_without_frame",
        f"the network answered {_shape(part.tensor)} to an input of {_shape(pixels)}, and a frame has 4 dimensions "
        f"(batch, channels, height, width), so {WRAP} that answers those",
    )


def _parts(result: Any, path: str = "", name: str = "", depth: int = DEPTH) -> Iterator[Part]:
    """Yield the tensors in a tuple, list, dict or object, with the way to each."""
    if isinstance(result, Tensor):
        yield Part(path, name or "0", result)
        return
    for step, key, value in _inside(result) if depth else ():
        yield from _parts(value, f"{path}{step}", f"{name}.{key}" if name else str(key), depth - 1)


def _inside(result: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield what a container holds, each as it is written in Python, with its name."""
    if isinstance(result, Mapping):
        yield from ((f"[{key!r}]", key, value) for key, value in result.items())
    elif isinstance(result, list | tuple):
        fields = getattr(result, "_fields", ())
        names = fields if len(fields) == len(result) else range(len(result))
        for number, (name, value) in enumerate(zip(names, result, strict=True)):
            yield f"[{number}]", name, value
    elif not isinstance(result, nn.Module | type):
        for name in [*getattr(result, "__dict__", {}), *getattr(type(result), "__slots__", ())]:
            if not name.startswith("_") and hasattr(result, name):
                yield f".{name}", name, getattr(result, name)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
