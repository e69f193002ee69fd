"""The comparison page: what a browser needs to show the models side by side, from disk and offline.

``compare/index.html`` shows the rendered frames themselves, from ``../<model>/``. What it cannot show from there it
finds in ``compare/page/``: its own scripts, the data of the models, 8-bit copies of the source and the reference, and
thumbnails.
"""

import json
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dailies.compare.layers import (
    FPS,
    RenderedModel,
    Shelf,
    gather,
    in_order,
    scale_of,
)
from dailies.compare.thumbnails import SHEET, THUMBNAIL, FrameSeen, _large, _make
from dailies.core import files
from dailies.core.typed import to_json
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.state.layout import Layout
from dailies.state.records import FrameMetric, Metadata, Values

log = logging.getLogger(__name__)

WEB = Path(__file__).parent / "web"
"""The page's own files; ``index.html`` goes beside the others' folder."""

HEADLINE = ("architecture", "epoch", "train_loss", "val_loss")
"""What ``metadata.json`` says of a model itself."""

RENDERED = ("frames", "fps", "seconds", "device", "precision", "tiled", "tile_size", "overlap")
"""What ``metadata.json`` says of a model's render."""


Fact = str | int | float | bool | Sequence[int] | None


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
