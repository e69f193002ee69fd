"""Shelves: the pictures that there are to compare, the source, the reference and every rendered model."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dailies.compare import captions
from dailies.core.errors import SequenceError
from dailies.core.typed import load_all
from dailies.frames import image
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.models.signature import Signature
from dailies.state.layout import SOURCE, Layout, model_of
from dailies.state.records import (
    SUCCESS,
    Metadata,
    Outcome,
    SummaryLine,
    merged,
)

FPS = 24
"""How fast a sequence plays that has no rate of its own."""

REFERENCE = "@reference"


@dataclass(frozen=True)
class Shelf:
    """The frames of one source of pictures: a model, the source or the reference."""

    key: str
    """A model's folder name, ``@source`` or ``@reference``; no folder name starts with ``@``."""
    title: str
    """What it is called; a run's name may hold anything."""
    originals: Mapping[str, Path]
    """Output name of a frame -> the file it comes from; frames that are not there are left out."""
    bit_depth: int
    """Bits per channel of the originals; an 8-bit picture of more is a proxy."""
    as_it_is: bool
    """Whether a browser can reach the originals and shows their values as they are."""
    scale: float = 1
    """How many times wider and higher than the source's its frames are."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """Output name of a frame -> the layer of an EXR that is its picture, or a glob, where that is not plain."""


@dataclass(frozen=True)
class RenderedModel:
    """What is known of a model whose pictures are compared."""

    folder: Path
    """Where its frames are."""
    run_name: str
    is_whole: bool
    """Whether all of its frames were rendered."""
    scale: float = 1
    """How many output pixels it makes of one, along each side."""

    @classmethod
    def described(cls, folder: Path, about: Metadata) -> "RenderedModel":
        """Take what counts of a model's metadata."""
        return cls(folder, about.run_name, about.render.status == SUCCESS, scale_of(about.signature))


def in_order(metadata: Sequence[Path], summary: Path) -> list[tuple[Path, Metadata]]:
    """Give each model's folder and metadata in the summary's order; ``metadata`` are ``metadata.json`` files."""
    order: dict[str, int] = {}
    for number, line in enumerate(load_all(SummaryLine, summary)):
        order.setdefault(line.run_id, number)
        if line.output_dir:  # a run may hold several models, which their folders tell apart
            order[Path(line.output_dir).name] = number
    abouts = [(path.parent, Metadata.load(path)) for path in metadata]
    return sorted(abouts, key=lambda model: order.get(model[0].name, order[model[1].run_id]))


def rendered(names: Mapping[str, str], records: Sequence[Path], layout: Layout) -> list[RenderedModel]:
    """Give what ``gather`` needs to know of each model, from the ``records`` of its renders.

    ``names`` are those of the runs, by the model's folder, in order. A record changes when frames are rendered;
    ``metadata.json`` also when a metric changes, which changes no picture.
    """
    outcomes = {model: [Outcome.load(path) for path in records if model_of(path) == model] for model in names}
    found = []
    for model, name in names.items():
        went = merged(outcomes[model])
        scale = scale_of(went.model and went.model.signature)
        found.append(RenderedModel(layout.frames(model), name, went.status == SUCCESS, scale))
    return found


def gather(
    shot: FrameSequence,
    models: Sequence[RenderedModel],
    *,
    input_dir: Path,
    reference: Mapping[str, Path] | None = None,
) -> list[Shelf]:
    """Give the source, the reference where there is one, and every model that was rendered, in this order.

    ``reference`` holds the files of the reference by the names of the rendered frames.
    """
    shelves = [_source(shot, shot.folder or input_dir)]
    if reference is not None:
        depth, _ = _first(reference.values())
        layers = _layers_asked_for(shot, reference)
        shelves.append(Shelf(REFERENCE, "Reference", reference, bit_depth=depth, as_it_is=False, layers=layers))
    return shelves + [_model(shot, model) for model in models if model.is_whole]


def scale_of(signature: Signature | None) -> float:
    """Give how many output pixels a model makes of one, along each side."""
    return (signature and signature.scale) or 1


def labels(shelves: Sequence[Shelf]) -> list[str]:
    """Give what is written over the pictures: models have numbers, which tell even those of one name apart."""
    models = [shelf.key for shelf in shelves if not shelf.key.startswith("@")]
    return [f"{models.index(shelf.key) + 1} {shelf.title}" if shelf.key in models else shelf.title for shelf in shelves]


def eight_bit(data: bytes, name: str, layer: str | None = None) -> Image.Image:
    """Give a frame as 8-bit RGB without colour profile, the values that a network is given, from 0 to 1.

    ``layer`` is the one of an EXR that is its picture. Raises SequenceError when it cannot be decoded.
    """
    picture = image.decode(data, name, layer=layer)
    return Image.fromarray(np.ascontiguousarray(image.convert_depth(picture.pixels, "uint8")))


def picture(shelf: Shelf, name: str) -> Image.Image | None:
    """Give a shelf's picture of a frame, as ``eight_bit`` does; None where it is missing or cannot be read."""
    if name not in shelf.originals:
        return None
    with suppress(SequenceError, OSError):
        return eight_bit(shelf.originals[name].read_bytes(), name, shelf.layers.get(name))
    return None


def fitted(image: Image.Image | None, size: tuple[int, int]) -> Image.Image:
    """Give a picture of ``size`` (width, height) with an image in its middle, None being said to be missing.

    A larger image is reduced, a smaller one enlarged by a whole number to squares; one that fits stays as it is.
    """
    cell = Image.new("RGB", size, captions.GROUND)
    if image is None:
        cell.paste(captions.strip("missing", size[0], min(28, size[1]), ink=captions.QUIET))
        return cell
    factor = min(size[0] / image.width, size[1] / image.height)
    if factor >= 1:
        shown = image.resize((image.width * int(factor), image.height * int(factor)), Image.Resampling.NEAREST)
    else:
        reduced = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        shown = image.resize(reduced, Image.Resampling.LANCZOS)
    cell.paste(shown, ((size[0] - shown.width) // 2, (size[1] - shown.height) // 2))
    return cell


def _source(shot: FrameSequence, input_dir: Path) -> Shelf:
    return Shelf(
        key=SOURCE,
        title="Source",
        originals={frame.output: input_dir / frame.name for frame in shot.frames},
        bit_depth=max(frame.bit_depth for frame in shot.frames),
        as_it_is=False,
        layers={frame.output: frame.layer for frame in shot.frames if frame.layer},
    )


def _layers_asked_for(shot: FrameSequence, originals: Mapping[str, Path]) -> dict[str, str]:
    """Return the layer that the sequence is rendered from, for those of the reference's frames that have it, too."""
    found = {}
    for name, path in originals.items() if shot.layer else ():
        with suppress(SequenceError, OSError):  # one that cannot be read is found later
            if image.has_layer(path.read_bytes(), path.name, shot.layer):
                found[name] = shot.layer
    return found


def _model(shot: FrameSequence, model: RenderedModel) -> Shelf:
    folder = model.folder
    there = {path.name for path in folder.iterdir()}
    originals = {frame.output: folder / frame.output for frame in shot.frames if frame.output in there}
    kinds: dict[tuple[str, int, bool], list[Path]] = {}
    for frame in shot.frames:
        if frame.output in there:
            kinds.setdefault((frame.mode, frame.bit_depth, frame.floating), []).append(originals[frame.output])
    told = [_first(paths) for paths in kinds.values()]
    depth, shown = max((bits for bits, _ in told), default=8), all(each for _, each in told)
    title = model.run_name or folder.name
    return Shelf(folder.name, title, originals, bit_depth=depth, as_it_is=shown, scale=model.scale)


def _first(originals: Iterable[Path]) -> tuple[int, bool]:
    """Tell of the first of some frames its bits per channel, and whether a browser shows its values as they are.

    One that cannot be read is taken for an ordinary frame; that is found out later.
    """
    for path in originals:
        with suppress(SequenceError, OSError):
            data = path.read_bytes()
            return image.inspect(data, path.name).bit_depth, image.is_browser_exact(data)
    return 8, True
