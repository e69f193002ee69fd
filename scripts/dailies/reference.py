"""The reference: ground-truth frames, matched to those of the sequence by name and number."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dailies import files
from dailies.errors import SequenceError
from dailies.sequence import EXTENSIONS, Frame, in_order, normal_form, numbers
from dailies.text import counted, few


@dataclass(frozen=True)
class Reference:
    """Which frame of the reference belongs to which frame of the sequence."""

    paths: Mapping[str, Path]
    """By the name of the rendered frame."""
    missing: tuple[str, ...]
    """The input frames that have none, by name."""


def fingerprint(folder: Path) -> str:
    """Give a digest that changes when a frame of the reference comes, goes or is written again.

    Raises SequenceError when the folder is none, or holds no frame.
    """
    stats = ((path.name, path.stat()) for path in _listed(folder))
    return files.digest([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def matched(frames: Iterable[Frame], folder: Path) -> Reference:
    """Match frames by name, whatever it ends in; those that are left by number, where that is one frame's alone.

    The number of a frame is the last one in its name: the reference of ``plate_0012.png`` may be ``clean.0012.exr``.
    Two frames of the reference with one name and different endings, and two with one number, belong to no frame.

    Raises SequenceError when the folder is none or holds no frame, and when none belongs to any of the sequence.
    """
    frames, found = list(frames), _listed(folder)
    theirs, ours = numbers(path.name for path in found), numbers(frame.name for frame in frames)
    by_stem, by_number = _single(found, lambda path: _stem(path.name)), _single(found, lambda path: theirs[path.name])
    own = _single([Path(frame.name) for frame in frames], lambda path: ours[path.name])
    paths = {}
    for frame in frames:
        path = by_stem.get(_stem(frame.name))
        if path is None and ours[frame.name] in own:
            path = by_number.get(ours[frame.name])
        if path is not None:
            paths[frame.output] = path
    if not paths:
        raise SequenceError(
            f"no frame of reference_dir {folder} belongs to a frame of the sequence: there are "
            f"{few([path.name for path in found])}, and wanted are {few([frame.name for frame in frames])}; "
            "names or numbers have to agree, or set reference_dir to none"
        )
    return Reference(paths, tuple(frame.name for frame in frames if frame.output not in paths))


def _stem(name: str) -> str:
    """Return a file name without its ending, in the form in which names are compared."""
    return normal_form(Path(name).stem)


def told_missing(missing: Iterable[str]) -> str | None:
    """Say which frames have no reference; None when all do."""
    names = list(missing)
    frames = counted(len(names), "frame")
    return f"{frames} without a reference cannot be compared with one: {few(names)}" if names else None


def _single(paths: Iterable[Path], key) -> dict:
    """Give the paths by key, without the keys that several have."""
    found: dict = {}
    for path in paths:
        found.setdefault(key(path), []).append(path)
    return {name: several[0] for name, several in found.items() if name is not None and len(several) == 1}


def _listed(folder: Path) -> list[Path]:
    advice = "set reference_dir to the folder of the reference's frames, or to none"
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        raise SequenceError(f"reference_dir {folder} does not exist; {advice}") from None
    except NotADirectoryError:
        raise SequenceError(f"reference_dir {folder} is no folder; {advice}") from None
    except OSError as error:
        raise SequenceError(f"reference_dir {folder} cannot be read: {error.strerror}") from error
    names = [entry.name for entry in entries if entry.name.lower().endswith(EXTENSIONS) and entry.is_file()]
    if not names:
        raise SequenceError(f"reference_dir {folder} holds no frame; frames end in {' '.join(EXTENSIONS)}")
    return [folder / name for name in in_order(names) if not name.startswith(".")]
