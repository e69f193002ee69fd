"""Training frames: which frames of the sequence a model was trained on, according to its run."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from dailies.frames.sequence import Frame, normal_form, numbers

SINGLE = re.compile(r"-?\d{1,12}")
SPAN = re.compile(r"(-?\d{1,12})(?:-|\.\.)(-?\d{1,12})")
SLICE = re.compile(r"(\d{0,12}):(\d{0,12})(?::(\d{1,12}))?")

TRAINING_CONTEXTS = {"", "train", "training", "fit"}
"""Contexts of datasets used for training; MLflow's default is empty."""


class Dataset(Protocol):
    """A dataset that a run logged."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def context(self) -> str: ...


class TrainedRun(Protocol):
    """The parts of a run that record which frames a model was trained on."""

    @property
    def params(self) -> Mapping[str, str]: ...
    @property
    def tags(self) -> Mapping[str, str]: ...
    @property
    def datasets(self) -> Sequence[Dataset]: ...


def training_frames(
    run: TrainedRun, frames: Sequence[Frame], *, names: Iterable[str], input_dir: Path, listing: Sequence[str] = ()
) -> frozenset[str]:
    """Return the names of the rendered frames whose inputs a model was trained on, according to its run.

    Params and tags called ``names`` list frames, in the syntax of ``parse_frame_list``. Name and source of a training
    dataset refer to a frame by its stem, or to all frames if they are the path ``input_dir``. ``listing`` holds the
    names of all frames of the input, if ``frames`` are only some of them.
    """
    texts = [source[name] for name in names for source in (run.tags, run.params) if name in source]
    seen = {output for text in texts for output in parse_frame_list(str(text), frames, listing)}
    for dataset in run.datasets:
        if dataset.context.casefold() in TRAINING_CONTEXTS:
            seen |= _in_dataset(dataset, frames, input_dir)
    return frozenset(seen)


def parse_frame_list(text: str, frames: Sequence[Frame], listing: Sequence[str] = ()) -> set[str]:
    """Return the names of the rendered frames in a list such as ``[0, 6, 12]``, ``0-100``, ``0:201:6``, ``f_0006.png``.

    Items are separated by commas, semicolons or spaces, with or without brackets and quotes. Numbers are those in the
    names of frames, of which ``listing`` holds all if ``frames`` are only some of them. A range ``a-b`` includes its
    end; a slice ``a:b:step`` excludes it, as in Python.
    """
    known = numbers(listing or (frame.name for frame in frames))
    by_number: dict[int, set[str]] = {}
    for frame in frames:
        if (number := known[frame.name]) is not None:
            by_number.setdefault(number, set()).add(frame.output)
    by_stem = {normal_form(Path(frame.name).stem): frame.output for frame in frames}
    found: set[str] = set()
    joined = re.sub(r"(?<=\d)\s*(-|\.\.)\s*(?=-?\d)", r"\1", re.sub(r"[\[\](){}'\"]", " ", text))
    for item in re.split(r"[,;\s]+", joined):
        if wanted := _parse_range(item, max(by_number, default=0)):
            found |= {output for each, outputs in by_number.items() if each in wanted for output in outputs}
        elif (stem := normal_form(Path(item).stem)) in by_stem:
            found.add(by_stem[stem])
    return found


def _parse_range(item: str, last: int) -> range | None:
    """Return the frame numbers of an item, an open slice up to ``last``; None if the item is not numeric."""
    if SINGLE.fullmatch(item):
        return range(int(item), int(item) + 1)
    if span := SPAN.fullmatch(item):
        return range(int(span[1]), int(span[2]) + 1)
    if (part := SLICE.fullmatch(item)) and int(part[3] or 1):
        return range(int(part[1] or 0), int(part[2] or last + 1), int(part[3] or 1))
    return None


def _in_dataset(dataset: Dataset, frames: Sequence[Frame], input_dir: Path) -> set[str]:
    """Return the names of the rendered frames that the name or source of a dataset refers to."""
    places = [dataset.name, *_source_texts(dataset.source)]
    stems = {normal_form(Path(place).stem) for place in places}
    if any(_is_input_dir(place, input_dir) for place in places):
        return {frame.output for frame in frames}
    return {frame.output for frame in frames if normal_form(Path(frame.name).stem) in stems}


def _source_texts(source: str) -> Iterator[str]:
    """Yield the texts in the source of a dataset, which is JSON or a plain path or URL."""
    try:
        value = json.loads(source)
    except ValueError:
        value = source
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    yield from (each for each in values if isinstance(each, str))


def _is_input_dir(place: str, input_dir: Path) -> bool:
    path = Path(place.removeprefix("file://"))
    return path.is_absolute() and path.resolve() == input_dir.resolve()
