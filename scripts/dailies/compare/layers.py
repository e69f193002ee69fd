"""Layers: the sets of pictures to compare, which are the source, the reference and every rendered model."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from dailies.compare import captions
from dailies.core.errors import SequenceError
from dailies.core.typed import load_all
from dailies.frames.image import convert_depth, decode, has_layer, inspect, is_browser_exact
from dailies.frames.sequence import KNOCKOUT, Frame
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.models.signature import Signature
from dailies.state.labels import Label
from dailies.state.layout import SOURCE, Layout, model_of
from dailies.state.records import KNOCKED_OUT, SUCCESS, Metadata, Outcome, SummaryLine, merged

DEFAULT_FPS = 24
"""The rate at which a sequence plays if neither the settings nor a video define one."""

REFERENCE = "@reference"


@dataclass(frozen=True)
class Layer:
    """One set of pictures of the sequence: those of a model, of the source or of the reference."""

    key: str
    """A model's folder name, ``@source`` or ``@reference``; no folder name starts with ``@``."""
    label: Label
    """What tells it from the others."""
    originals: Mapping[str, Path]
    """The file of each frame, by output name. Frames that do not exist are absent."""
    bit_depth: int
    """Bits per channel of the originals. If there are more than 8, 8-bit pictures are proxies."""
    is_browser_exact: bool
    """Whether a browser can load the originals themselves and shows their exact values."""
    has_alpha: bool = False
    """Whether any of the originals has an alpha channel."""
    scale: float = 1
    """How many times wider and higher than the source's its frames are."""
    exr_layers: Mapping[str, str] = field(default_factory=dict)
    """The layer to read from an EXR with several, or a glob, by output name; absent for all other frames."""
    is_knocked_out: bool = False
    """Whether these are the pictures of a model that was knocked out, which lacks most frames."""

    @property
    def is_model(self) -> bool:
        """Whether these are the pictures of a model."""
        return not self.key.startswith("@")


@dataclass(frozen=True)
class RenderedModel:
    """What ``gather`` needs to know about a model."""

    folder: Path
    """The folder of its frames."""
    label: Label
    is_complete: bool
    """Whether all of its frames were rendered."""
    scale: float = 1
    """How many output pixels it makes of one input pixel, along each side."""
    artifact: str | None = None
    """The digest of the artifact that rendered them."""
    is_knocked_out: bool = False
    """Whether it was knocked out, so that only some of its frames were rendered."""

    @classmethod
    def from_metadata(cls, folder: Path, metadata: Metadata, label: Label | None = None) -> "RenderedModel":
        """Return the model that a ``metadata.json`` describes; by default its label is its name."""
        label = label or Label(name=metadata.run_name or folder.name)
        is_complete, is_out = metadata.render.status == SUCCESS, metadata.knocked_out is not None
        return cls(folder, label, is_complete, scale_of(metadata.signature), metadata.artifact.sha256, is_out)


def in_order(metadata: Sequence[Path], summary: Path) -> list[tuple[Path, Metadata]]:
    """Return each model's folder and metadata in the order of the summary; ``metadata`` are ``metadata.json`` files."""
    order: dict[str, int] = {}
    for number, line in enumerate(load_all(SummaryLine, summary)):
        order.setdefault(line.run_id, number)
        if line.output_dir:  # a run may have several models, which differ in their folders
            order[Path(line.output_dir).name] = number
    models = [(path.parent, Metadata.load(path)) for path in metadata]
    return sorted(models, key=lambda model: order.get(model[0].name, order[model[1].run_id]))


def rendered_models(
    labels: Mapping[str, Sequence[str]], records: Sequence[Path], layout: Layout
) -> list[RenderedModel]:
    """Return the models that the ``records`` of their renders describe.

    ``labels`` are names and params by the models' folder names, in order. Records are used instead of
    ``metadata.json`` because they change only when frames are rendered; ``metadata.json`` also changes with the
    metrics.
    """
    models = []
    for folder, (name, params) in labels.items():
        own = [path for path in records if model_of(path) == folder]
        outcome, is_out = merged(list(map(Outcome.load, own))), KNOCKOUT in {path.stem for path in own}
        scale = scale_of(outcome.model.signature if outcome.model else None)
        label = Label(name=name, params=params)
        is_complete = outcome.status == SUCCESS
        models.append(RenderedModel(layout.frames(folder), label, is_complete, scale, outcome.artifact.sha256, is_out))
    return models


def gather(
    sequence: FrameSequence,
    models: Sequence[RenderedModel],
    *,
    input_dir: Path,
    reference: Mapping[str, Path] | None = None,
) -> list[Layer]:
    """Return the layers of the source, of the reference if there is one, and of every complete model, in this order.

    ``reference`` holds the files of the reference by output name.
    """
    layers = [_source(sequence, sequence.folder or input_dir)]
    if reference is not None:
        depth, _, has_alpha = _first_readable(reference.values())
        exr_layers = _exr_layers(sequence, reference)
        layers.append(
            Layer(
                REFERENCE,
                Label(name="Reference"),
                reference,
                bit_depth=depth,
                is_browser_exact=False,
                has_alpha=has_alpha,
                exr_layers=exr_layers,
            )
        )
    return layers + [_rendered(sequence, model) for model in models if model.is_complete]


def scale_of(signature: Signature | None) -> float:
    """Return how many output pixels a model makes of one input pixel, along each side; 1 if that is unknown."""
    return (signature and signature.scale) or 1


def to_8_bit(data: bytes, name: str, exr_layer: str | None = None) -> np.ndarray:
    """Decode a frame to 8-bit RGB without alpha or colour profile: the values that a network takes, from 0 to 1.

    Returns ``(height, width, 3)`` uint8. ``exr_layer`` is the layer to read from an EXR. Raises SequenceError if the
    frame cannot be decoded.
    """
    return with_alpha_8_bit(data, name, exr_layer)[0]


def with_alpha_8_bit(
    data: bytes, name: str, exr_layer: str | None = None, digest: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what ``to_8_bit`` does, and the alpha channel as ``(height, width)`` uint8, 255 if there is none.

    ``digest`` is that of the file and the EXR layer, if it is known.
    """
    picture = decode(data, name, layer=exr_layer, digest=digest)
    colour = np.ascontiguousarray(convert_depth(picture.pixels, "uint8"))
    if picture.alpha is None:
        return colour, np.full(colour.shape[:2], 255, np.uint8)
    return colour, np.ascontiguousarray(convert_depth(picture.alpha, "uint8"))


def read_picture(layer: Layer, name: str) -> Image.Image | None:
    """Return a layer's picture of a frame in 8-bit RGB; None if the file is missing or unreadable."""
    if name not in layer.originals:
        return None
    with suppress(SequenceError, OSError):
        return Image.fromarray(to_8_bit(layer.originals[name].read_bytes(), name, layer.exr_layers.get(name)))
    return None


def fit(image: Image.Image | None, size: tuple[int, int]) -> Image.Image:
    """Return a picture of ``size`` (width, height) with an image at its centre; for None, with the word "missing".

    A larger image is reduced. A smaller one is enlarged by a whole number, so that its pixels become squares.
    """
    cell = Image.new("RGB", size, captions.BACKGROUND)
    if image is None:
        cell.paste(captions.draw("missing", size[0], min(28, size[1]), colour=captions.MUTED))
        return cell
    factor = min(size[0] / image.width, size[1] / image.height)
    if factor >= 1:
        resized = image.resize((image.width * int(factor), image.height * int(factor)), Image.Resampling.NEAREST)
    else:
        smaller = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        resized = image.resize(smaller, Image.Resampling.LANCZOS)
    cell.paste(resized, ((size[0] - resized.width) // 2, (size[1] - resized.height) // 2))
    return cell


def _source(sequence: FrameSequence, folder: Path) -> Layer:
    return Layer(
        key=SOURCE,
        label=Label(name="Source"),
        originals={frame.output: folder / frame.name for frame in sequence.frames},
        bit_depth=max(frame.bit_depth for frame in sequence.frames),
        is_browser_exact=False,
        has_alpha=any(frame.mode.endswith("A") for frame in sequence.frames),
        exr_layers={frame.output: frame.layer for frame in sequence.frames if frame.layer},
    )


def _exr_layers(sequence: FrameSequence, originals: Mapping[str, Path]) -> dict[str, str]:
    """Return, for the frames of the reference that have the EXR layer of the sequence, that layer."""
    found: dict[str, str] = {}
    if sequence.layer is None:
        return found
    for name, path in originals.items():
        with suppress(SequenceError, OSError):  # an unreadable frame is reported when it is shown
            if has_layer(path.read_bytes(), path.name, sequence.layer):
                found[name] = sequence.layer
    return found


def _rendered(sequence: FrameSequence, model: RenderedModel) -> Layer:
    """Return the layer of a model. Frames of one kind of input are written alike, so one file of each kind is read."""
    present = {path.name for path in model.folder.iterdir()}
    frames = [frame for frame in sequence.frames if frame.output in present]
    originals = {frame.output: model.folder / frame.output for frame in frames}
    kinds: dict[tuple[str, int, bool], list[Frame]] = {}
    for frame in frames:
        kinds.setdefault((frame.mode, frame.bit_depth, frame.floating), []).append(frame)
    formats = [_first_readable(originals[frame.output] for frame in kind) for kind in kinds.values()]
    return Layer(
        model.folder.name,
        replace(model.label, name=f"{model.label.name} ({KNOCKED_OUT})") if model.is_knocked_out else model.label,
        originals,
        bit_depth=max((depth for depth, _, _ in formats), default=8),
        is_browser_exact=all(exact for _, exact, _ in formats),
        has_alpha=any(has_alpha for _, _, has_alpha in formats),
        scale=model.scale,
        is_knocked_out=model.is_knocked_out,
    )


def _first_readable(originals: Iterable[Path]) -> tuple[int, bool, bool]:
    """Return the bits per channel of the first readable frame, whether a browser shows its exact values, and whether it
    has an alpha channel.

    If none is readable, an ordinary 8-bit frame is assumed; the frames are reported when they are shown.
    """
    for path in originals:
        with suppress(SequenceError, OSError):
            data = path.read_bytes()
            header = inspect(data, path.name)
            return header.bit_depth, is_browser_exact(data), header.mode.endswith("A")
    return 8, True, False
