"""The comparison page: what a browser needs to show the models side by side, from disk and offline.

``compare/index.html`` shows the rendered frames themselves, from ``../<model>/``. What it cannot show from there it
finds in ``compare/page/``: its own scripts, the data of the models, 8-bit copies of the source and the reference, and
thumbnails.
"""

import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from dailies import files
from dailies.errors import SequenceError
from dailies.layout import Layout
from dailies.sequence import Sequence as FrameSequence
from dailies.sequence import load as load_sequence
from dailies.shelves import FPS, RenderedModel, Shelf, eight_bit, gather, in_order, scale_of
from dailies.state_records import FrameMetric, Metadata, Values
from dailies.typed import OMITTED, Record, to_json

log = logging.getLogger(__name__)

WEB = Path(__file__).parent / "web"
"""The page's own files; ``index.html`` goes beside the others' folder."""

MAKER = 3
"""Version of the code that makes copies and thumbnails: raise it when it would make them differently."""

THUMBNAIL = 256
"""Pixels along the longer side of a thumbnail: sharp in a grid of fifty on a 1080p screen, about 10 kB."""

SHEET = 8
"""Thumbnails in one file, one below the other: to load a file costs a browser more than to decode one of them."""

LARGE = 400
"""Frames with a side longer than this get thumbnails; smaller ones are decoded about as fast."""

COMPRESSION, QUALITY = 1, 80
"""zlib level of the copies, JPEG quality of the thumbnails."""

SAVE_SECONDS = 10
"""How often the record of what is made is written, so that a build that was killed goes on from there."""

HEADLINE = ("architecture", "epoch", "train_loss", "val_loss")
"""What ``metadata.json`` says of a model itself."""

RENDERED = ("frames", "fps", "seconds", "device", "precision", "tiled", "tile_size", "overlap")
"""What ``metadata.json`` says of a model's render."""


Fact = str | int | float | bool | Sequence[int] | None


@dataclass(frozen=True, kw_only=True)
class FrameSeen:
    """What was seen of a frame when it was looked at: its digest, or why it cannot be shown."""

    stamp: tuple[int | str, ...] | None = field(default=None, metadata=OMITTED)
    """Size and time of its file, and the layer that was asked for."""
    sha256: str | None = field(default=None, metadata=OMITTED)
    error: str | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class PageMemory(Record):
    """``page.json``: of what each copy and thumbnail was made."""

    maker: int = 0
    """The ``MAKER`` that made them."""
    frames: Mapping[str, FrameSeen] = field(default_factory=dict)
    """By shelf and name."""
    sheets: Mapping[str, str] = field(default_factory=dict)
    """By shelf and number, the digest of what each sheet was made of."""


@dataclass(frozen=True, kw_only=True)
class PagePicture:
    """Where the frames of a shelf are, for the page."""

    id: str
    copied: bool
    thumbnails: bool
    bit_depth: int
    missing: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class PageModel:
    """What the page says of a model."""

    id: str
    folder: str
    run_id: str
    name: str
    status: str
    error: str | None
    link: str | None
    scale: float
    notes: Sequence[str]
    facts: Mapping[str, Fact]
    means: Values
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    trained: Sequence[int]
    """The numbers of the frames that it was trained on."""


@dataclass(frozen=True, kw_only=True)
class PageMetric:
    """What the page says of a metric."""

    name: str
    unit: str
    higher_is_better: bool
    note: str


@dataclass(frozen=True, kw_only=True)
class PageData:
    """All that the page knows beside the values of metrics."""

    id: str
    title: str
    sequence: str
    fps: float
    thumbnail: int
    sheet: int
    frames: Sequence[tuple[str, int, int]]
    """Name, width and height of each."""
    pictures: Sequence[PagePicture]
    models: Sequence[PageModel]
    metrics: Sequence[PageMetric]


def build(
    metadata: Sequence[Path],
    *,
    summary: Path,
    sequence: Path,
    input_dir: Path,
    layout: Layout,
    tracking_uri: str | None,
    fps: float | None,
    reference: Mapping[str, Path] | None = None,
    metrics: Sequence[FrameMetric] = (),
    trained: Mapping[str, Collection[str]] | None = None,
    threads: int = 4,
) -> None:
    """Build the page and the folder with everything it loads.

    Models come in the order of ``summary``; ``metadata`` are their ``metadata.json`` files, each in the folder that
    holds the model's frames. Copies are made of frames that are new or changed, and so are the sheets of thumbnails
    that show them; what nothing shows any more is deleted. It is remembered of what each was made. The same inputs
    give the same bytes.
    ``fps`` is how fast the sequence plays; without it, at its own rate. Frames of the source, the reference or a
    model that are missing or unreadable are reported on the page. ``trained`` names, by a model's folder, the frames
    (as rendered) that its training has seen; they are marked. A model's means over the frames are those of its
    ``metadata.json``, which leaves these out.
    """
    shot = load_sequence(sequence)
    abouts = in_order(metadata, summary)
    models = [RenderedModel.described(path, about) for path, about in abouts]
    shelves = gather(shot, models, input_dir=input_dir, reference=reference)
    folder = layout.page_folder
    frames, sheets = _make(shot, shelves, layout=layout, threads=threads)
    trained = trained or {}
    data = PageData(
        id=files.digest([shot.digest, [folder.name for folder, _ in abouts]])[:16],
        title=", ".join(sorted({about.experiment for _, about in abouts})),
        sequence=input_dir.resolve().name,
        fps=fps or shot.fps or FPS,
        thumbnail=THUMBNAIL,
        sheet=SHEET,
        frames=[(frame.output, frame.width, frame.height) for frame in shot.frames],
        pictures=[_picture(shelf, shot, frames) for shelf in shelves],
        models=[
            _described(
                path,
                about,
                layout=layout,
                tracking_uri=tracking_uri,
                trained=_numbers(shot, trained.get(path.name, ())),
            )
            for path, about in abouts
        ],
        metrics=[
            PageMetric(name=metric.name, unit=metric.unit, higher_is_better=metric.higher_is_better, note=metric.note)
            for metric in metrics
        ],
    )
    files.write_bytes(folder / "data.js", script("const DATA = {}", to_json(data)))
    files.write_bytes(folder / "metrics.js", script("Metrics.receive({})", _values(metrics)))
    for asset in sorted(WEB.iterdir()):
        if asset.suffix in {".js", ".css"}:
            files.write_bytes(folder / asset.name, asset.read_bytes())
    list_extras(layout)
    files.write_bytes(layout.page, (WEB / "index.html").read_bytes())
    log.info("%d models, %d frames, %d sheets of thumbnails", len(abouts), len(shot.frames), len(sheets))


def _numbers(shot: FrameSequence, names: Collection[str]) -> list[int]:
    """Give the numbers of the frames of these names."""
    return [number for number, frame in enumerate(shot.frames) if frame.output in names]


def list_extras(layout: Layout) -> None:
    """Let a page link to the contact sheet and the videos that lie beside it; where no page was built, do nothing."""
    listed = None
    while layout.page_folder.is_dir() and (there := _extras(layout)) != listed:  # what another job made meanwhile
        files.write_bytes(layout.page_extras, script("const BESIDE = {}", there))
        listed = there


def _extras(layout: Layout) -> list[str]:
    return [path.name for path in (layout.contact_sheet, layout.side_by_side) if path.is_file()]


def script(statement: str, value: Any) -> bytes:
    """Give a script that hands ``value`` to ``statement``, whose ``{}`` stands for it.

    The value travels as a text of ASCII characters that the browser parses as JSON: nothing in it is ever code or
    markup, whatever a run is called, and no key such as ``__proto__`` has a meaning.
    """
    text = json.dumps(files.strict(value), separators=(",", ":"), allow_nan=False)
    literal = json.dumps(text).replace("<", "\\u003c")
    return (statement.format(f"JSON.parse({literal})") + ";\n").encode("ascii")


def run_link(tracking_uri: str | None, run_id: str) -> str | None:
    """Give the address of a run in MLflow's own pages, without credentials; None where there are no such pages."""
    parts = urlsplit(tracking_uri or "")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}/#/runs/{run_id}"


def _large(shot: FrameSequence, shelf: Shelf) -> bool:
    return max(max(frame.width, frame.height) for frame in shot.frames) * shelf.scale > LARGE


@dataclass(frozen=True)
class _Strip:
    """Neighbouring frames of a shelf, at most ``SHEET``: what one thread makes at a time."""

    shelf: Shelf
    number: int
    names: tuple[str, ...]
    size: tuple[int, int] | None
    """Width and height of their thumbnails, all alike on a sheet; None where they have none."""

    def key(self, name: str) -> str:
        return f"{self.shelf.key}/{name}"

    def copy(self, name: str, layout: Layout) -> Path | None:
        return None if self.shelf.as_it_is else layout.page_copies(self.shelf.key) / f"{Path(name).stem}.png"

    def sheet(self, layout: Layout) -> Path | None:
        return layout.page_thumbnails(self.shelf.key) / f"{self.number}.jpg" if self.size else None

    def files(self, layout: Layout) -> set[Path]:
        """Name all that is made of these frames, in the page's folder."""
        copies = (self.copy(name, layout) for name in self.names if name in self.shelf.originals)
        return {path for path in (*copies, self.sheet(layout)) if path}


def _strips(shot: FrameSequence, shelf: Shelf) -> list[_Strip]:
    large = _large(shot, shelf)
    return [
        _Strip(
            shelf,
            number,
            tuple(frame.output for frame in shot.frames[start : start + SHEET]),
            _thumbnail_size(shot.frames[start].width, shot.frames[start].height) if large else None,
        )
        for number, start in enumerate(range(0, len(shot.frames), SHEET))
        if large or not shelf.as_it_is
    ]


def _thumbnail_size(width: int, height: int) -> tuple[int, int]:
    """Give the width and height of a frame's thumbnail, which the page stretches to the frame's own shape.

    The height is a multiple of 16, so that no block of JPEG holds parts of two thumbnails of a sheet.
    """
    longer = max(width, height)
    return max(1, round(width * THUMBNAIL / longer)), 16 * max(1, round(height * THUMBNAIL / longer / 16))


def _make(
    shot: FrameSequence, shelves: Iterable[Shelf], *, layout: Layout, threads: int
) -> tuple[dict[str, FrameSeen], dict[str, str]]:
    """Make the copies and sheets that are missing or out of date and delete those that nothing shows.

    Returns what was seen of each frame, by shelf and name; and of what each sheet was made, by shelf and number.
    """
    known = PageMemory.load_if_there(layout.page_memory)
    known = known if known and known.maker == MAKER else PageMemory()
    strips = [strip for shelf in shelves for strip in _strips(shot, shelf)]
    frames: dict[str, FrameSeen] = {}
    sheets: dict[str, str] = {}

    def save() -> None:
        kept = PageMemory(maker=MAKER, frames={**known.frames, **frames}, sheets={**known.sheets, **sheets})
        kept.save_if_changed(layout.page_memory)

    saved = time.monotonic()
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for looked_at, sheet in pool.map(lambda strip: _made(strip, layout, known), strips):
            frames |= looked_at
            sheets |= sheet
            for key, seen in looked_at.items():
                if seen.error is not None:
                    log.warning("%s cannot be shown: %s", key, seen.error)
            if time.monotonic() - saved > SAVE_SECONDS:
                save()
                saved = time.monotonic()
    _delete_others({path for strip in strips for path in strip.files(layout)}, layout)
    known = PageMemory()
    save()
    return frames, sheets


def _made(strip: _Strip, layout: Layout, known: PageMemory) -> tuple[dict[str, FrameSeen], dict[str, str]]:
    """Bring the copies of some frames and their sheet up to date, by digest; give what is remembered of both."""
    originals = {name: strip.shelf.originals[name] for name in strip.names if name in strip.shelf.originals}
    before = {name: known.frames.get(strip.key(name), FrameSeen()) for name in originals}
    layers = strip.shelf.layers
    seen = {name: _looked_at(path, before[name], layers.get(name)) for name, path in originals.items()}
    sheet = strip.sheet(layout)
    number = strip.key(str(strip.number))
    again = sheet and not (known.sheets.get(number) == _made_of(strip, seen) and sheet.is_file())
    thumbnails = {}
    for name, path in originals.items():
        copy = strip.copy(name, layout)
        stale = copy and not (seen[name].sha256 == before[name].sha256 and copy.is_file())
        if seen[name].error is not None or not (stale or again):
            continue
        try:
            image = eight_bit(path.read_bytes(), name, layers.get(name))
        except (SequenceError, OSError) as error:
            seen[name] = _unreadable(error)
            continue
        if stale:
            files.write_bytes(copy, _as_png(image))
        if again:
            thumbnails[name] = image.resize(strip.size, Image.Resampling.BOX)
    if again:
        files.write_bytes(sheet, _as_sheet([thumbnails.get(name) for name in strip.names], strip.size))
    return (
        {strip.key(name): each for name, each in seen.items()},
        {number: _made_of(strip, seen)} if sheet else {},
    )


def _made_of(strip: _Strip, seen: Mapping[str, FrameSeen]) -> str:
    return files.digest([strip.size, [seen.get(name, FrameSeen()).sha256 for name in strip.names]])


def _looked_at(original: Path, before: FrameSeen, layer: str | None) -> FrameSeen:
    """Give a frame's digest, which is not computed again while size and time stay the same; or its error."""
    asked = [layer] if layer else []
    try:
        stat = original.stat()
        stamp = (stat.st_size, stat.st_mtime_ns, *asked)
        if before.stamp == stamp:
            return before
        digest = hashlib.sha256(original.read_bytes()).hexdigest()
        return FrameSeen(stamp=stamp, sha256=files.digest([digest, *asked]) if asked else digest)
    except OSError as error:
        return _unreadable(error)


def _unreadable(error: Exception) -> FrameSeen:
    return FrameSeen(error=(error.strerror if isinstance(error, OSError) else None) or str(error))


def _as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=COMPRESSION, icc_profile=None)
    return buffer.getvalue()


def _as_sheet(thumbnails: Sequence[Image.Image | None], size: tuple[int, int]) -> bytes:
    """Put thumbnails below each other; a place stays black for what is missing."""
    width, height = size
    sheet = Image.new("RGB", (width, height * len(thumbnails)))
    for number, thumbnail in enumerate(thumbnails):
        if thumbnail:
            sheet.paste(thumbnail, (0, height * number))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _delete_others(wanted: set[Path], layout: Layout) -> None:
    for path in layout.all_page_pictures():
        if path not in wanted:
            path.unlink()


def _picture(shelf: Shelf, shot: FrameSequence, seen: Mapping[str, FrameSeen]) -> PagePicture:
    """Say where a shelf's frames are, and which are missing."""

    def is_shown(name: str) -> bool:
        return name in shelf.originals and seen.get(f"{shelf.key}/{name}", FrameSeen()).error is None

    return PagePicture(
        id=shelf.key,
        copied=not shelf.as_it_is,
        thumbnails=_large(shot, shelf),
        bit_depth=shelf.bit_depth,
        missing=[number for number, frame in enumerate(shot.frames) if not is_shown(frame.output)],
    )


def _described(
    folder: Path, about: Metadata, *, layout: Layout, tracking_uri: str | None, trained: Sequence[int] = ()
) -> PageModel:
    render = about.render
    return PageModel(
        id=folder.name,
        folder=Path(os.path.relpath(folder, layout.compare)).as_posix(),
        run_id=about.run_id,
        name=about.run_name or folder.name,
        status=render.status,
        error=render.error,
        link=run_link(tracking_uri, about.run_id),
        scale=scale_of(about.signature),
        notes=about.network.notes or (),
        facts={key: getattr(about, key) for key in HEADLINE}
        | _of_checkpoint(about)
        | {key: getattr(render, key) for key in RENDERED}
        | _of_artifact(about),
        means=about.measured.mean_unseen if about.measured else {},
        metrics=about.metrics,
        params=about.params,
        trained=trained,
    )


def _of_checkpoint(about: Metadata) -> dict[str, Fact]:
    """Return what the checkpoint says otherwise than the run, under names that say so."""
    told = vars(about.checkpoint) if about.checkpoint else {}
    return {f"checkpoint_{key}": value for key, value in told.items() if value not in {None, getattr(about, key)}}


def _of_artifact(about: Metadata) -> dict[str, Fact]:
    """Name the file that was rendered, and those that were passed over, where there are any."""
    tried = about.artifact.tried
    passed_over = "; ".join(f"{each.path}: {each.reason}" for each in tried)
    return {"file": about.artifact.path, "passed_over": passed_over} if tried else {}


def _values(metrics: Sequence[FrameMetric]) -> dict[str, dict[str, list[float | None]]]:
    return {
        metric.name: {
            folder: [None if value is None else float(f"{value:.6g}") for value in values]
            for folder, values in metric.values.items()
        }
        for metric in metrics
    }
