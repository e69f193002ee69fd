"""Training frames: which frames of the sequence a model has seen while it was trained, as far as its run says."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from dailies.frames.sequence import Frame, normal_form, numbers

SINGLE = re.compile(r"-?\d{1,12}")
SPAN = re.compile(r"(-?\d{1,12})(?:-|\.\.)(-?\d{1,12})")
SLICE = re.compile(r"(\d{0,12}):(\d{0,12})(?::(\d{1,12}))?")

SEEN = {"", "train", "training", "fit"}
"""The contexts in which a dataset counts as one that was trained on; MLflow leaves it empty where nothing is said."""


class Dataset(Protocol):
    """A dataset that a run was given."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def context(self) -> str: ...


class Trained(Protocol):
    """What says which frames a model was trained on."""

    @property
    def params(self) -> Mapping[str, str]: ...
    @property
    def tags(self) -> Mapping[str, str]: ...
    @property
    def datasets(self) -> Sequence[Dataset]: ...


def frames_seen(run: Trained, frames: Sequence[Frame], *, names: Iterable[str], input_dir: Path) -> frozenset[str]:
    """Name the rendered frames whose inputs a model was trained on, as far as its run says.

    The run's params and tags called ``names`` list frames, in the forms that ``listed`` reads. Of a dataset that was
    trained on, the name or the source names a frame, or the folder ``input_dir``, which stands for all frames.
    """
    texts = [said[name] for name in names for said in (run.tags, run.params) if name in said]
    seen = {output for text in texts for output in listed(str(text), frames)}
    for dataset in run.datasets:
        if dataset.context.casefold() in SEEN:
            seen |= _in_dataset(dataset, frames, input_dir)
    return frozenset(seen)


def listed(text: str, frames: Sequence[Frame]) -> set[str]:
    """Read a list of frames and name those of the sequence: ``[0, 6, 12]``, ``0-100``, ``0:201:6``, ``frame_0006.png``.

    Items are separated by commas, semicolons or spaces, with or without brackets and quotes. A number is that of the
    frame's name, a range ``a-b`` includes its end, a slice ``a:b:step`` does not, as in Python.
    """
    known = numbers(frame.name for frame in frames)
    by_number: dict[int | None, set[str]] = {}
    for frame in frames:
        by_number.setdefault(known[frame.name], set()).add(frame.output)
    by_number.pop(None, None)
    by_stem = {normal_form(Path(frame.name).stem): frame.output for frame in frames}
    found: set[str] = set()
    joined = re.sub(r"(?<=\d)\s*(-|\.\.)\s*(?=-?\d)", r"\1", re.sub(r"[\[\](){}'\"]", " ", text))
    for item in re.split(r"[,;\s]+", joined):
        if wanted := _numbers(item, max(by_number, default=0)):
            found |= {output for each, outputs in by_number.items() if each in wanted for output in outputs}
        elif (stem := normal_form(Path(item).stem)) in by_stem:
            found.add(by_stem[stem])
    return found


def _numbers(item: str, last: int) -> range | None:
    if SINGLE.fullmatch(item):
        return range(int(item), int(item) + 1)
    if span := SPAN.fullmatch(item):
        return range(int(span[1]), int(span[2]) + 1)
    if (part := SLICE.fullmatch(item)) and int(part[3] or 1):
        return range(int(part[1] or 0), int(part[2] or last + 1), int(part[3] or 1))
    return None


def _in_dataset(dataset: Dataset, frames: Sequence[Frame], input_dir: Path) -> set[str]:
    places = [dataset.name, *_texts(dataset.source)]
    stems = {normal_form(Path(place).stem) for place in places}
    if any(_is_folder(place, input_dir) for place in places):
        return {frame.output for frame in frames}
    return {frame.output for frame in frames if normal_form(Path(frame.name).stem) in stems}


def _texts(source: str) -> Iterator[str]:
    """Give the texts in a dataset's source, which is JSON or a plain address."""
    try:
        value = json.loads(source)
    except ValueError:
        value = source
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    yield from (each for each in values if isinstance(each, str))


def _is_folder(place: str, input_dir: Path) -> bool:
    path = Path(place.removeprefix("file://"))
    return path.is_absolute() and path.resolve() == input_dir.resolve()
