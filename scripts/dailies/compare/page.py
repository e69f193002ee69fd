"""The comparison page: everything that a browser needs to compare the models, from disk and offline.

``compare/index.html`` shows the rendered frames themselves, from ``../<model>/``. The rest is in ``compare/page/``: its
scripts, the data of the models, 8-bit copies of the source and the reference, and thumbnails.
"""

import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from urllib.parse import urlsplit

from dailies.compare import page_pictures
from dailies.compare.files_beside_page import javascript, write_extras
from dailies.compare.layers import DEFAULT_FPS, Layer, RenderedModel, gather, in_order, scale_of
from dailies.core import files
from dailies.core.typed import to_json
from dailies.frames import thumbnail_sheet
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.state import shown_together
from dailies.state.labels import Label, labels, shortest
from dailies.state.layout import SOURCE, Layout
from dailies.state.records import (
    KNOCKED_OUT,
    SUCCESS,
    FrameMetric,
    Leaderboard,
    Metadata,
    RankedModel,
    RankingRecord,
    Values,
)

log = logging.getLogger(__name__)

WEB = Path(__file__).parent / "web"
"""The scripts and styles of the page, and its ``index.html``."""

HEADLINE = ("architecture", "epoch", "train_loss", "val_loss")
"""Fields of ``metadata.json`` that describe the model."""

RENDER = ("frames", "fps", "seconds", "startup_seconds", "device", "precision", "tiled", "tile_size", "overlap")
"""Fields of its ``render`` that the page shows."""

DIGITS = 16
"""How many digits of a digest the page holds."""

REGISTERED_MODEL = "best-model"
"""The proposed name of a registered model if no experiment gives one."""

NO_NAME = frozenset({"true", "false", "null", "none", "nan", "inf", "infinity"})
"""Words that a command line does not read as a name."""

LONGEST_PROPOSAL = 60
"""Characters of a proposed name."""

Fact = str | int | float | bool | Sequence[int] | None


@dataclass(frozen=True, kw_only=True)
class PagePicture:
    """A layer in ``data.js``."""

    id: str
    copied: bool
    """Whether the page shows copies instead of the frames themselves."""
    thumbnails: bool
    """Whether there are sheets of thumbnails."""
    alpha: bool
    """Whether there are pictures of the alpha channel."""
    bit_depth: int
    missing: Sequence[int]
    """The numbers of the frames that cannot be shown."""


@dataclass(frozen=True, kw_only=True)
class PageModel:
    """A model in ``data.js``."""

    id: str
    folder: str
    """The folder of its frames, relative to the page."""
    run_id: str
    name: str
    status: str
    error: str | None
    artifact: str
    """The beginning of the digest of its weights; votes are exported with it."""
    label: Label
    """What tells it from the others."""
    short: str
    """The same for sentences."""
    place: RankedModel | None
    """Its place in the ranking; None if it has no rank."""
    link: str | None
    """The URL of the run on the tracking server."""
    scale: float
    knocked_out: str | None
    """Why the model was knocked out, if it was."""
    notes: Sequence[str]
    facts: Mapping[str, Fact]
    means: Values
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    trained: Sequence[int]
    """The numbers of its training frames."""


@dataclass(frozen=True, kw_only=True)
class PageMetric:
    """A metric in ``data.js``."""

    key: str
    """Its name in the tables."""
    name: str
    unit: str
    higher_is_better: bool
    note: str
    help: str
    ideal: str
    """The value of the reference itself, as text; empty if the metric needs no reference."""

    @classmethod
    def of(cls, metric: FrameMetric) -> "PageMetric":
        """Return a metric without its values."""
        shared = {each.name: getattr(metric, each.name) for each in fields(cls)}
        return cls(**shared | {"key": metric.key or metric.name})


@dataclass(frozen=True, kw_only=True)
class PageData:
    """The content of ``data.js``: everything except the values of metrics, which are in ``metrics.js``."""

    id: str
    """Identifies the sequence and the models; the votes of a blind test are stored under it."""
    title: str
    sequence: str
    choice: str | None
    """How many frames of the input were chosen, such as ``12 of 201 frames``; None if all were."""
    fps: float
    thumbnail: int
    """Pixels of the longer side of a thumbnail."""
    sheet: int
    """Thumbnails per sheet."""
    frames: Sequence[tuple[str, int, int, str]]
    """Output name, width, height and digest of each; votes are exported with the digest."""
    pictures: Sequence[PagePicture]
    models: Sequence[PageModel]
    metrics: Sequence[PageMetric]
    ranking: RankingRecord | None
    """The verdict, without the models, each of which has its own place; None if there is none."""
    registered_model: str
    """A name that ``promote`` can be given as it is."""
    advice: str | None
    """What to set to get a verdict, if there is none."""
    source: Values
    """The means of the source over the same frames as those of the models."""


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
    ranking: Path | None = None,
    advice: str | None = None,
    trained: Mapping[str, Collection[str]] | None = None,
    threads: int = 4,
) -> None:
    """Build the page and the folder with everything it loads.

    ``metadata`` are the ``metadata.json`` files of the models, each in the folder of the model's frames; ``summary``
    decides their order. ``fps`` defaults to the rate of the sequence. ``reference`` holds the files of the reference by
    output name. ``ranking`` is the ``Leaderboard`` record with the verdict; without one, the page shows the ``advice``
    on how to get it. ``trained`` holds the output names of each model's training frames, by folder name; the page marks
    them, and the means in ``metadata.json`` exclude them.

    Copies and thumbnails are made only of frames that are new or changed, and those that are no longer shown are
    deleted. A frame that is missing or unreadable is reported on the page. The same inputs give the same bytes.
    """
    frames = load_sequence(sequence)
    models = in_order(metadata, summary)
    board = Leaderboard.load(ranking) if ranking else Leaderboard()
    places = {each.model: each for each in board.ranking.everyone} if board.ranking else {}
    named = labels({folder.name: about for folder, about in models})
    short = shortest(named)
    rendered = [RenderedModel.from_metadata(folder, about) for folder, about in models]
    layers = gather(frames, rendered, input_dir=input_dir, reference=reference)
    pictures = page_pictures.update(frames, layers, layout=layout, threads=threads)
    trained = trained or {}
    data = PageData(
        id=files.digest([frames.digest, [folder.name for folder, _ in models]])[:16],
        title=", ".join(sorted({about.experiment for _, about in models})),
        sequence=input_dir.resolve().name,
        choice=frames.choice,
        fps=fps or frames.fps or DEFAULT_FPS,
        thumbnail=thumbnail_sheet.THUMBNAIL,
        sheet=thumbnail_sheet.FRAMES,
        frames=[(frame.output, frame.width, frame.height, frame.sha256[:DIGITS]) for frame in frames.frames],
        pictures=[_picture(layer, frames, pictures) for layer in layers],
        models=[
            _model(
                folder,
                about,
                label=named[folder.name],
                short=short[folder.name],
                place=places.get(folder.name),
                means=board.means.get(folder.name),
                uncounted=board.uncounted_of.get(folder.name),
                layout=layout,
                tracking_uri=tracking_uri,
                trained=_numbers(frames, trained.get(folder.name, ())),
            )
            for folder, about in models
        ],
        metrics=list(map(PageMetric.of, metrics)),
        ranking=replace(board.ranking, models=(), knocked_out=()) if board.ranking else None,
        registered_model=proposed_name({about.experiment for _, about in models}),
        advice=None if board.ranking else advice,
        source=board.means.get(SOURCE, {}),
    )
    files.write_bytes(layout.page_folder / "data.js", javascript("const DATA = {}", to_json(data)))
    files.write_bytes(layout.page_folder / "metrics.js", javascript("Metrics.receive({})", _values(metrics)))
    assets = [path for path in sorted(WEB.iterdir()) if path.suffix in {".js", ".css"}]
    for asset in assets:
        files.write_bytes(layout.page_folder / asset.name, asset.read_bytes())
    scripts = {"data.js", "metrics.js", layout.page_extras.name, *(asset.name for asset in assets)}
    for former in layout.page_folder.glob("*.js"):
        if former.name not in scripts:  # of an earlier version; a bundle would pack it
            former.unlink()
    whole = [each for each in models if each[1].render.status == SUCCESS and not each[1].knocked_out]
    shown = {folder.name: about.artifact.sha256 for folder, about in whole}
    parts = [path for path in (summary, layout.contact_sheet, ranking) if path and path.is_file()]
    shown_together.record(layout.shown_on_page, shown, layout=layout, parts=parts)
    write_extras(layout)
    files.write_bytes(layout.page, (WEB / "index.html").read_bytes())
    log.info("%d models, %d frames", len(models), len(frames.frames))


def facts(metadata: Metadata) -> dict[str, Fact]:
    """Return what the page's table shows of a model, apart from its params and metrics.

    Values of the checkpoint are included if they differ from those of the run. If other files were tried first, the
    rendered one and those that were passed over are included as well.
    """
    found: dict[str, Fact] = {key: getattr(metadata, key) for key in HEADLINE}
    checkpoint = vars(metadata.checkpoint) if metadata.checkpoint else {}
    found |= {
        f"checkpoint_{key}": value for key, value in checkpoint.items() if value not in {None, getattr(metadata, key)}
    }
    found |= {key: getattr(metadata.render, key) for key in RENDER}
    if tried := metadata.artifact.tried:
        found["file"] = metadata.artifact.path
        found["passed_over"] = "; ".join(f"{each.path}: {each.reason}" for each in tried)
    return found


def proposed_name(experiments: Collection[str]) -> str:
    """Return a name for the registered model of the winner, after its experiment if there is only one.

    A registry, a shell and ``--config`` all take it literally: ASCII letters, digits and ``. _ -``, a letter first.
    """
    experiment = next(iter(experiments)) if len(experiments) == 1 else ""
    name = re.sub(r"[^a-z0-9._-]+", "-", experiment, flags=re.IGNORECASE)[:LONGEST_PROPOSAL].strip("._-")
    is_name = name[:1].isalpha() and name.lower() not in NO_NAME
    return name if is_name else f"model-{name}" if name else REGISTERED_MODEL


def run_link(tracking_uri: str | None, run_id: str) -> str | None:
    """Return the URL of a run in MLflow's web interface, without credentials; None if the store has no server."""
    parts = urlsplit(tracking_uri or "")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}/#/runs/{run_id}"


def _numbers(sequence: FrameSequence, names: Collection[str]) -> list[int]:
    """Return the numbers of the frames with these output names."""
    return [number for number, frame in enumerate(sequence.frames) if frame.output in names]


def _picture(layer: Layer, sequence: FrameSequence, pictures: page_pictures.PagePictures) -> PagePicture:
    def is_shown(name: str) -> bool:
        return name in layer.originals and pictures.frame(layer, name).error is None

    return PagePicture(
        id=layer.key,
        copied=not layer.is_browser_exact,
        thumbnails=page_pictures.has_thumbnails(sequence, layer),
        alpha=layer.has_alpha,
        bit_depth=layer.bit_depth,
        missing=[number for number, frame in enumerate(sequence.frames) if not is_shown(frame.output)],
    )


def _model(
    folder: Path,
    metadata: Metadata,
    *,
    label: Label,
    short: str,
    place: RankedModel | None,
    means: Values | None,
    uncounted: str | None,
    layout: Layout,
    tracking_uri: str | None,
    trained: Sequence[int],
) -> PageModel:
    """Return a model as the page shows it.

    ``means`` are those of the leaderboard; without it, those in the model's metadata count. ``uncounted`` says which
    votes on the model do not count.
    """
    render = metadata.render
    measured = metadata.measured.mean_unseen if metadata.measured else {}
    return PageModel(
        id=folder.name,
        folder=Path(os.path.relpath(folder, layout.compare)).as_posix(),
        run_id=metadata.run_id,
        name=metadata.run_name or folder.name,
        status=render.status,
        error=render.error,
        artifact=(metadata.artifact.sha256 or "")[:DIGITS],
        label=label,
        short=short,
        place=place,
        link=run_link(tracking_uri, metadata.run_id),
        scale=scale_of(metadata.signature),
        knocked_out=metadata.knocked_out,
        notes=(
            *([f"{KNOCKED_OUT}: {out}"] if (out := metadata.knocked_out) else []),
            *([uncounted] if uncounted else []),
            *(metadata.network.notes or ()),
        ),
        facts=facts(metadata),
        means=means if means and render.status == SUCCESS else measured,
        metrics=metadata.metrics,
        params=metadata.params,
        trained=trained,
    )


def _values(metrics: Sequence[FrameMetric]) -> dict[str, dict[str, list[float | None]]]:
    """Return the values of each metric for each model, with six significant digits."""
    return {
        metric.name: {
            folder: [None if value is None else float(f"{value:.6g}") for value in values]
            for folder, values in metric.values.items()
        }
        for metric in metrics
    }
