"""The sequence: an ordered folder of frames, every one of them known to be readable."""

import hashlib
import logging
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from dailies import files
from dailies.errors import SequenceError

log = logging.getLogger(__name__)

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""What counts as a frame, whatever the case of the letters."""

NAMED = 5
"""How many names an error or a note spells out before it counts the rest."""


@dataclass(frozen=True)
class Frame:
    """One readable frame of the sequence."""

    name: str
    """The file's own name."""
    output: str
    """The name of the rendered file in each model's folder."""
    width: int
    height: int
    mode: str
    """Pillow's name for the kind of pixels, such as RGB or L."""
    bit_depth: int
    """Bits per channel."""
    size: int
    """Bytes on disk."""
    sha256: str
    """Digest of the file's bytes."""


@dataclass(frozen=True)
class Sequence:
    """The frames to render, in order."""

    frames: tuple[Frame, ...]
    skipped: tuple[dict[str, str], ...] = ()
    """Unreadable frames that the user chose to pass over: name and reason."""

    @property
    def digest(self) -> str:
        """A sha256 over the frames' output names and contents."""
        return files.digest([[frame.output, frame.sha256] for frame in self.frames])

    @property
    def largest(self) -> int:
        """The number of pixels of the largest frame."""
        return max(frame.width * frame.height for frame in self.frames)


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Give a sort key that puts frame before frame_2, and frame_2 before frame_10."""
    parts = re.split(r"(\d+)", Path(name).stem.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name


def output_name(name: str) -> str:
    """Give the name of the rendered frame: the input's own name, as a PNG."""
    return f"{Path(name).stem}.png"


def listing(input_dir: Path) -> list[os.DirEntry]:
    """List the frames of a folder in natural order; other files are not frames.

    A link that leads nowhere is listed: a frame is missing there. Raises SequenceError when the folder is missing,
    is not a folder, cannot be read, or holds no frame.
    """
    try:
        entries = list(os.scandir(input_dir))
    except FileNotFoundError:
        raise SequenceError(
            f"input_dir {input_dir} does not exist; set input_dir to the folder of your frames"
        ) from None
    except NotADirectoryError:
        raise SequenceError(f"input_dir {input_dir} is a file; set input_dir to the folder of your frames") from None
    except OSError as error:
        raise SequenceError(f"input_dir {input_dir} cannot be read: {error.strerror}") from error
    found = [entry for entry in entries if _is_frame(entry)]
    if not found:
        raise SequenceError(
            f"input_dir {input_dir} holds no frame ({len(entries)} other entries); frames end in {' '.join(EXTENSIONS)}"
        )
    return sorted(found, key=lambda entry: natural(entry.name))


def _is_frame(entry: os.DirEntry) -> bool:
    named = entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith(".")
    return named and (entry.is_file() or entry.is_symlink())


def fingerprint(input_dir: Path) -> str:
    """Give a digest that changes when a frame comes, goes or is written again; nothing is opened.

    Raises SequenceError as ``listing`` does.
    """
    return files.digest([_stamp(entry) for entry in listing(input_dir)])


def _stamp(entry: os.DirEntry) -> str:
    """Name a state of a file: it changes when the file is written again."""
    try:
        stat = entry.stat()
    except OSError:  # a link that leads nowhere, or a file that was there a moment ago
        return f"{entry.name}|gone"
    return f"{entry.name}|{stat.st_size}|{stat.st_mtime_ns}"


def scan(input_dir: Path, *, on_bad_frame: str, cache: Path, threads: int = 4) -> Sequence:
    """Read every frame of a folder once and describe it; frames already in ``cache`` are not read again.

    ``cache`` is a JSON file that maps the name, size and modification time of a frame's file to its description.
    ``on_bad_frame`` is ``error`` (an unreadable frame raises SequenceError, naming the first few) or ``skip``
    (it is left out: the sequence keeps a gap, no name shifts). Two frames that would render to one name raise
    SequenceError.
    """
    entries = listing(input_dir)
    _report_others(input_dir, entries)
    _refuse_clashes([entry.name for entry in entries])
    known = _known(cache)

    def describe(entry: os.DirEntry) -> tuple[str, Frame | SequenceError]:
        stamp = _stamp(entry)
        try:
            return stamp, known.get(stamp) or _read(Path(entry.path))
        except SequenceError as error:
            return stamp, error

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        described = list(pool.map(describe, entries))
    good = {stamp: frame for stamp, frame in described if isinstance(frame, Frame)}
    bad = [
        {"name": entry.name, "reason": str(error)}
        for entry, (_, error) in zip(entries, described, strict=True)
        if isinstance(error, SequenceError)
    ]
    files.write_json(cache, {stamp: asdict(frame) for stamp, frame in good.items()})
    if bad and (on_bad_frame == "error" or not good):
        advice = "Replace them, or set on_bad_frame to skip to leave them out" if good else "Check input_dir"
        reasons = _few([each["reason"] for each in bad], separator="; ")
        raise SequenceError(f"{len(bad)} of {len(entries)} frames cannot be used: {reasons}. {advice}")
    for each in bad:
        log.warning("skipped: %s", each["reason"])
    return Sequence(tuple(good.values()), tuple(bad))


def _known(cache: Path) -> dict[str, Frame]:
    """Give what earlier scans found; nothing when there were none, or when another version of Dailies wrote them."""
    try:
        return {stamp: Frame(**frame) for stamp, frame in files.read_json(cache).items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def _read(path: Path) -> Frame:
    from dailies import frames

    try:
        data = path.read_bytes()
    except OSError as error:
        raise SequenceError(f"frame {path.name} cannot be read: {error.strerror}") from error
    return Frame(
        name=path.name,
        output=output_name(path.name),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        **asdict(frames.inspect(data, path.name)),
    )


def _report_others(input_dir: Path, entries: list[os.DirEntry]) -> None:
    frames = {entry.name for entry in entries}
    others = sorted(path.name for path in input_dir.iterdir() if path.name not in frames)
    if others:
        log.info("not frames, ignored: %s", _few(others))


def _refuse_clashes(names: list[str]) -> None:
    counts = Counter(output_name(name) for name in names)
    clashes = [name for name in names if counts[output_name(name)] > 1]
    if clashes:
        raise SequenceError(
            f"several frames would be rendered to one name: {_few(clashes)}. Rename or remove all but one of each"
        )


def _few(items: list[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return separator.join(items[:NAMED]) + more


def save(sequence: Sequence, path: Path) -> None:
    """Write a sequence as JSON; the same frames give the same bytes."""
    files.write_json(
        path,
        {
            "digest": sequence.digest,
            "skipped": list(sequence.skipped),
            "frames": [asdict(frame) for frame in sequence.frames],
        },
    )


def load(path: Path) -> Sequence:
    """Read what ``save`` wrote."""
    data = files.read_json(path)
    return Sequence(tuple(Frame(**frame) for frame in data["frames"]), tuple(data["skipped"]))
