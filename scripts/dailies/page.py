"""The comparison page: what a browser needs to show the models side by side, from disk and offline.

``compare/index.html`` shows the rendered frames themselves, from ``../<model>/``. What it cannot show from there it
finds in ``compare/page/``: its own scripts, the data of the models, 8-bit copies of the source and the reference, and
thumbnails of large frames.
"""

import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from dailies import files
from dailies.errors import SequenceError
from dailies.sequence import Sequence as FrameSequence
from dailies.sequence import load as load_sequence
from dailies.shelves import FPS, Shelf, eight_bit, gather, in_order, scale_of

log = logging.getLogger(__name__)

WEB = Path(__file__).parent / "web"
"""The page's own files; ``index.html`` goes beside the others' folder."""

MAKER = 2
"""Version of the code that makes copies and thumbnails: raise it when it would make them differently."""

THUMBNAIL = 480
"""Pixels along the longer side of a thumbnail: sharp in a grid of six on a 1080p screen, about 25 kB."""

LARGE = 720
"""Frames with a side longer than this get thumbnails; a browser decodes smaller ones as fast as it needs them."""

COMPRESSION, QUALITY = 1, 85
"""zlib level of the copies, JPEG quality of the thumbnails."""

SAVE_SECONDS = 10
"""How often the record of what is made is written, so that a build that was killed goes on from there."""

HEADLINE = ("architecture", "epoch", "train_loss", "val_loss")
"""What ``metadata.json`` says of a model itself."""

EXTRAS = ("contact_sheet.png", "side_by_side.mp4", "side_by_side.mkv")
"""What else may lie beside the page, which then links to it."""

RENDERED = ("frames", "fps", "seconds", "device", "precision", "tiled", "tile_size", "overlap")
"""What ``metadata.json`` says of a model's render."""


@dataclass(frozen=True)
class FrameMetric:
    """One metric, measured on every frame of every model."""

    name: str
    values: Mapping[str, Sequence[float | None]]
    """By the model's folder: one value for each frame of the sequence, None where there is none."""
    higher_is_better: bool
    unit: str = ""
    note: str = ""
    """What a reader has to know, such as that it is advisory."""

    def __post_init__(self) -> None:
        lengths = {len(values) for values in self.values.values()}
        if len(lengths) > 1:
            raise ValueError(f"metric {self.name} has a different number of frames for different models: {lengths}")


def build(
    metadata: Sequence[Path],
    *,
    summary: Path,
    sequence: Path,
    input_dir: Path,
    output: Path,
    state: Path,
    tracking_uri: str | None,
    fps: float | None,
    reference_dir: Path | None = None,
    metrics: Sequence[FrameMetric] = (),
    trained: Mapping[str, Collection[str]] | None = None,
    threads: int = 4,
) -> None:
    """Build the page ``output`` and, beside it, the folder ``page/`` with everything it loads.

    Models come in the order of ``summary``; ``metadata`` are their ``metadata.json`` files, each in the folder that
    holds the model's frames. Copies and thumbnails are made of frames that are new or changed, and deleted when
    nothing shows them any more; ``state`` remembers of what each was made. The same inputs give the same bytes.
    ``fps`` is how fast the sequence plays; without it, at its own rate. Frames of the source, the reference or a
    model that are missing or unreadable are reported on the page. ``trained`` names, by a model's folder, the frames
    (as rendered) that its training has seen; they are marked. A model's means over the frames are those of its
    ``metadata.json``, which leaves these out.
    """
    shot = load_sequence(sequence)
    abouts = in_order(metadata, summary)
    shelves = gather(shot, abouts, input_dir=input_dir, reference_dir=reference_dir)
    folder = output.parent / "page"
    made = _make(shot, shelves, folder=folder, state=state, threads=threads)
    seen = {
        model.name: [
            number for number, frame in enumerate(shot.frames) if frame.output in (trained or {}).get(model.name, ())
        ]
        for model, _ in abouts
    }
    data = {
        "id": files.digest([shot.digest, [folder.name for folder, _ in abouts]])[:16],
        "title": ", ".join(sorted({about["experiment"] for _, about in abouts})),
        "sequence": input_dir.resolve().name,
        "fps": fps or shot.fps or FPS,
        "thumbnail": THUMBNAIL,
        "frames": [[frame.output, frame.width, frame.height] for frame in shot.frames],
        "pictures": [_picture(shelf, shot, made) for shelf in shelves],
        "models": [
            _described(path, about, output=output, tracking_uri=tracking_uri) | {"trained": seen[path.name]}
            for path, about in abouts
        ],
        "metrics": [
            {key: getattr(metric, key) for key in ("name", "unit", "higher_is_better", "note")} for metric in metrics
        ],
    }
    files.write_bytes(folder / "data.js", script("const DATA = {}", data))
    files.write_bytes(folder / "metrics.js", script("Metrics.receive({})", _values(metrics)))
    for asset in sorted(WEB.iterdir()):
        if asset.suffix in {".js", ".css"}:
            files.write_bytes(folder / asset.name, asset.read_bytes())
    list_extras(output)
    files.write_bytes(output, (WEB / "index.html").read_bytes())
    log.info("%d models, %d frames, %d copies and thumbnails", len(abouts), len(shot.frames), len(made))


def list_extras(page: Path) -> None:
    """Let a page link to the contact sheet and the videos that lie beside it; where no page was built, do nothing."""
    listed = None
    while (page.parent / "page").is_dir() and (there := _extras(page)) != listed:  # what another job made meanwhile
        files.write_bytes(page.parent / "page" / "extras.js", script("const BESIDE = {}", there))
        listed = there


def _extras(page: Path) -> list[str]:
    return [name for name in EXTRAS if (page.parent / name).is_file()]


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


def _outputs(shelf: Shelf, name: str, *, large: bool) -> list[str]:
    """Name the files that are made of a frame, below the page's folder."""
    copy = [] if shelf.as_it_is else [f"copies/{shelf.key}/{Path(name).stem}.png"]
    return copy + ([f"thumbnails/{shelf.key}/{Path(name).stem}.jpg"] if large else [])


def _make(
    shot: FrameSequence, shelves: Iterable[Shelf], *, folder: Path, state: Path, threads: int
) -> dict[str, dict[str, Any]]:
    """Make the copies and thumbnails that are missing or out of date and delete those that nothing shows.

    Returns the record of each frame that needs any, by shelf and name; a frame that cannot be read has an ``error``.
    """
    known = files.read_json(state) if state.is_file() else {}
    known = known["made"] if known.get("maker") == MAKER else {}
    wanted = {
        f"{shelf.key}/{name}": (original, outputs)
        for shelf in shelves
        for large in [_large(shot, shelf)]
        for name, original in shelf.originals.items()
        if (outputs := _outputs(shelf, name, large=large))
    }
    made: dict[str, dict[str, Any]] = {}

    def save() -> None:
        files.write_json_if_changed(state, {"maker": MAKER, "made": known | made})

    def current(key: str) -> dict[str, Any]:
        original, outputs = wanted[key]
        return _current(original, [folder / output for output in outputs], known.get(key))

    saved = time.monotonic()
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for key, record in zip(wanted, pool.map(current, wanted), strict=True):
            made[key] = record
            if "error" in record:
                log.warning("%s cannot be shown: %s", key, record["error"])
            if time.monotonic() - saved > SAVE_SECONDS:
                save()
                saved = time.monotonic()
    _delete_others({folder / output for _, outputs in wanted.values() for output in outputs}, folder)
    known = {}
    save()
    return made


def _current(original: Path, outputs: Sequence[Path], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Bring the outputs of one frame up to date with its original, by digest, and give its record."""
    there = before is not None and "error" not in before and all(path.is_file() for path in outputs)
    try:
        stat = original.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        if there and before["stamp"] == stamp:
            return dict(before)
        data = original.read_bytes()
        record = {"stamp": stamp, "sha256": hashlib.sha256(data).hexdigest()}
        if there and before["sha256"] == record["sha256"]:
            return record
        image = eight_bit(data, original.name)
    except (SequenceError, OSError) as error:
        return {"error": (error.strerror if isinstance(error, OSError) else None) or str(error)}
    for path in outputs:
        files.write_bytes(path, WRITERS[path.suffix](image))
    return record


def _as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=COMPRESSION, icc_profile=None)
    return buffer.getvalue()


def _as_thumbnail(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, subsampling=0, icc_profile=None)
    return buffer.getvalue()


WRITERS: Mapping[str, Callable[[Image.Image], bytes]] = {".png": _as_png, ".jpg": _as_thumbnail}
"""How a file of a kind is made of a frame."""


def _delete_others(wanted: set[Path], folder: Path) -> None:
    for kind in ("copies", "thumbnails"):
        for path in (folder / kind).glob("*/*"):
            if path not in wanted:
                path.unlink()


def _picture(shelf: Shelf, shot: FrameSequence, made: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Say where a shelf's frames are, and which are missing."""
    unreadable = {frame.output for frame in shot.frames if "error" in made.get(f"{shelf.key}/{frame.output}", {})}
    return {
        "id": shelf.key,
        "copied": not shelf.as_it_is,
        "thumbnails": _large(shot, shelf),
        "bit_depth": shelf.bit_depth,
        "missing": [
            number
            for number, frame in enumerate(shot.frames)
            if frame.output not in shelf.originals or frame.output in unreadable
        ],
    }


def _described(folder: Path, about: Mapping[str, Any], *, output: Path, tracking_uri: str | None) -> dict[str, Any]:
    render = about["render"]
    return {
        "id": folder.name,
        "folder": Path(os.path.relpath(folder, output.parent)).as_posix(),
        "run_id": about["run_id"],
        "name": about["run_name"],
        "status": render["status"],
        "error": render["error"],
        "link": run_link(tracking_uri, about["run_id"]),
        "scale": scale_of(about),
        "facts": {key: about[key] for key in HEADLINE} | {key: render.get(key) for key in RENDERED},
        "means": (about.get("measured") or {}).get("mean_unseen", {}),
        "metrics": about["metrics"],
        "params": about["params"],
    }


def _values(metrics: Sequence[FrameMetric]) -> dict[str, dict[str, list[float | None]]]:
    return {
        metric.name: {
            folder: [None if value is None else float(f"{value:.6g}") for value in values]
            for folder, values in metric.values.items()
        }
        for metric in metrics
    }
