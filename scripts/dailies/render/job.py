"""A render: one model over one sequence, resumed where it stopped, and its record."""

import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dailies
from dailies.core import files
from dailies.core.errors import DailiesError
from dailies.core.text import cause, few
from dailies.core.typed import to_json
from dailies.frames.sequence import Frame, split
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.render import devices
from dailies.render.pipeline import (
    Route,
    begin,
    naming,
    read,
    render_frames,
)
from dailies.state.attempts import basis
from dailies.state.layout import Layout, Weights
from dailies.state.manifest import (
    Entry,
    Manifest,
    forget,
    keys_of,
    restore_names,
)
from dailies.state.records import (
    SUCCESS,
    Figures,
    Input,
    LoadedModel,
    ModelRecord,
    Network,
    Outcome,
    ParityFigures,
    Receipt,
    Versions,
    is_same_artifact,
    is_trusted,
    loading_digest,
    run_params,
)

if TYPE_CHECKING:
    import numpy as np

    from dailies.models.load import Model
    from dailies.render.engine import Engine
    from dailies.render.parity import Parity


log = logging.getLogger(__name__)

OTHERS, LONGEST_REASON = 3, 120
"""How many of the other files that were tried an error names, and characters of the reason of each."""


RENDERING = "rendering"

ABOUT_SIZES = "if frames are of a size that the network does not take, set multiple, most or tile in signatures"

Opened = Callable[[LoadedModel], Manifest]
"""Opens the manifest of a render, once it is known which network the artifact became."""


@dataclass(frozen=True)
class Job:
    """What one render needs to know: of one shard of the sequence."""

    layout: Layout
    model: str
    """The name of its folder."""
    shard: str
    shard_frames: int
    """Into shards of how many frames the sequence is split; 0: it is not."""
    input_dir: Path
    settings: Mapping[str, Any]
    """Precision, compile, autotune, tiled, tile_size, overlap, output_format, transfer: what changes pixels."""
    loading: Mapping[str, Any]
    """Architectures, factories, loaders and signatures: what decides which network the artifact becomes."""
    batch: int | str
    """How many frames go through the network together, or "auto"."""
    device: str
    threads: int
    attempt: int
    trust_code: bool | Sequence[str]
    """Whether loading may run code that the artifact brings along, or the runs and experiments that are trusted."""

    @property
    def record(self) -> Path:
        """The model's discovery record."""
        return self.layout.record(self.model)

    @property
    def weights(self) -> Weights:
        """The downloaded artifact and its receipt."""
        return self.layout.weights(self.model)

    @property
    def folder(self) -> Path:
        """Where the frames go."""
        return self.layout.frames(self.model)

    @property
    def manifest(self) -> Path:
        return self.layout.manifest(self.model, self.shard)

    @property
    def state(self) -> Path:
        """The record of the last attempt, which outlives this one."""
        return self.layout.attempt(self.model, self.shard)

    @property
    def result(self) -> Path:
        """The record of this attempt, for the jobs that come after it."""
        return self.layout.outcome(self.model, self.shard)


@dataclass(frozen=True)
class Ending:
    """How an attempt at a model ended."""

    status: str
    """success, download_failed, load_failed or error."""
    error: str | None = None
    model: LoadedModel | None = None
    """None if it was not loaded."""
    done: Mapping[str, Entry] = field(default_factory=dict)
    """The frames that are in place, by output name; none when the model was not loaded."""


def render(job: Job, *, forced: str | None = None) -> None:
    """Render every frame of a shard that is missing or out of date, and write the record of it.

    ``forced`` is the token of an invocation that was told to render all frames again, those in place included.

    A model that cannot be downloaded, loaded or rendered is a result too: its status says so and its error says why.
    Raises RenderError when the device is missing, which concerns all models.
    """
    receipt, record = Receipt.load(job.weights.receipt), ModelRecord.load(job.record)
    whole = load_sequence(job.layout.sequence)
    plan = split(whole, job.shard_frames)
    sequence = plan[job.shard]
    restore_names(job.folder, sequence.outputs)
    _forget_others(job.result.parent, plan)
    loading = loading_digest(record, job.loading)
    if receipt.status == SUCCESS:
        if forced:
            forget(job.manifest, job.layout.forced_mark(job.model, job.shard), sequence.outputs, forced)
        opened = partial(_manifest, job, receipt, sequence, forced=bool(forced))
        ending = _nothing_to_do(job, receipt, sequence, loading, opened)
        if ending is None and not job.weights.whole.is_dir():
            lost = f"{job.weights.whole} was deleted; the next invocation fetches it again"
            ending = Ending("download_failed", lost)
        if ending is None:
            with devices.taken(job.device) as device:
                ending = _attempt(replace(job, device=device), receipt, sequence, record, opened, first=whole.frames[0])
    else:
        ending = Ending(receipt.status, receipt.error)
    ending = replace(ending, error=ending.error and ending.error + _others_tried(ending.status, receipt))
    outcome = Outcome(
        status=ending.status,
        error=ending.error,
        attempt=job.attempt,
        render=_figures(ending, job),
        model=ending.model,
        loading=loading,
        basis=basis(job.record, sequence.digest, job.settings, job.loading),
        artifact=receipt.artifact,
        input=Input(digest=sequence.digest, frames=len(sequence.frames), skipped=len(sequence.skipped)),
        forced=forced or None,
    )
    outcome.save(job.state)
    outcome.save(job.result)
    if ending.error:
        log.error("%s: %s", ending.status, ending.error)
    else:
        log.info("success")


def _others_tried(status: str, receipt: Receipt) -> str:
    """Say of a model that cannot be loaded which other files of its run were tried, and why they hold no network."""
    if status not in {"load_failed", "download_failed"} or not receipt.tried:
        return ""
    told = (f"{each.path} ({each.reason[:LONGEST_REASON].rstrip()})" for each in receipt.tried)
    return f". Also tried: {few(told, OTHERS)}"


def _forget_others(records: Path, plan: Mapping[str, FrameSequence]) -> None:
    """Delete the records of shards that the sequence is no longer split into: their frames may change unnoticed."""
    for path in records.glob("*.json"):
        with suppress(FileNotFoundError):  # another shard's job, which does the same
            digest = Outcome.load(path).input.digest
            if path.stem not in plan or digest != plan[path.stem].digest:
                path.unlink()


def _nothing_to_do(job: Job, receipt: Receipt, sequence: FrameSequence, loading: str, opened: Opened) -> Ending | None:
    """Succeed without even importing torch, when an earlier attempt knew this very network and left no frame out.

    It may have been an attempt at another shard: the sequence may have been split otherwise.
    """
    paths = sorted(job.layout.attempts(job.model).glob("*.json"), key=lambda path: path != job.state)
    for last in map(Outcome.load, paths):
        if last.model and is_same_artifact(last.artifact, receipt) and last.loading == loading:
            manifest = opened(last.model)
            done = manifest.done()
            if len(done) == len(sequence.frames):
                manifest.restart()
                log.info("%d frames, none of them to render", len(done))
                return Ending(SUCCESS, model=last.model, done=done)
            return None
    return None


def _manifest(job: Job, receipt: Receipt, sequence: FrameSequence, model: LoadedModel, *, forced: bool) -> Manifest:
    """Open the manifest of the frames that this very network renders with these settings."""
    signature = model.signature
    if model.told_multiple is not None and job.settings["tiled"] is not True:
        # frames that were rendered before the multiple was found could only be those of sizes that it divides
        signature = replace(signature, multiple=model.told_multiple)
    depends_on = [dict(job.settings), to_json(model.network), to_json(signature)]
    keys = keys_of(sequence, receipt.sha256, depends_on)
    return Manifest(job.manifest, folder=job.folder, keys=keys, forced=forced)


def _attempt(
    job: Job,
    receipt: Receipt,
    sequence: FrameSequence,
    record: ModelRecord,
    opened: Opened,
    *,
    first: Frame,
) -> Ending:
    """Load the model and render the frames that the manifest does not hold; ``first`` decides on the precision."""
    path = job.weights.whole / receipt.path
    route = _route(job, sequence)
    # both beside the import, which takes longer
    files.fetch(path)
    begun = begin(_due(sequence, job.folder), route)
    import torch

    from dailies.models.factories import Factories
    from dailies.models.load import Hints, load_model
    from dailies.models.loaders import Loaders
    from dailies.render.engine import Engine, Settings, find_device

    torch.set_num_threads(job.threads)
    device = find_device(job.device)
    trusted = is_trusted(job.trust_code, record)

    @cache
    def pixels() -> "np.ndarray":
        return read(first, route).pixels

    try:
        hints = Hints.gather(
            job.model,
            job.loading,
            architecture=record.architecture,
            run_hints=record.hints,
            params=run_params(job.layout.run(job.model)),
        )
        factories, loaders = Factories.from_settings(job.loading), Loaders.from_settings(job.loading)
        model = load_model(path, hints=hints, factories=factories, loaders=loaders, trust_code=trusted)
        settings = {each.name: job.settings[each.name] for each in fields(Settings) if each.name in job.settings}
        engine = Engine(model, device=device, settings=Settings(**settings, batch=job.batch))
        engine.probe(pixels)
    except Exception as error:  # an artifact is foreign data: whatever comes of it is its own failure, not the job's
        return Ending("load_failed", _reason(error, "loading", path))
    try:
        parity = _settle(first, pixels, engine)
    except Exception as error:  # a network is foreign code
        about = _about(model, engine, job, trusted=trusted, parity=None)
        return Ending("error", _reason(error, RENDERING, job.folder), about)
    pixels.cache_clear()
    about = _about(model, engine, job, trusted=trusted, parity=parity)
    manifest = opened(about)
    done = manifest.done()
    todo = [frame for frame in sequence.frames if frame.output not in done]
    log.info("architecture %s, device %s, threads %d", model.architecture, device, job.threads)
    log.info("%d frames, %d of them to render", len(sequence.frames), len(todo))
    files.sweep(job.folder, sequence.outputs)
    status, reason = SUCCESS, None
    try:
        render_frames(todo, route, engine, manifest, begun)
    except Exception as error:  # a network is foreign code
        status, reason = "error", _reason(error, RENDERING, job.folder)
    return Ending(status, reason, _found(about, model, engine), manifest.done())


def _due(sequence: FrameSequence, folder: Path) -> Frame:
    """Guess which frame comes first, before the model is loaded, of which alone it depends whether all are due."""
    return next((frame for frame in sequence.frames if not (folder / frame.output).exists()), sequence.frames[0])


def _route(job: Job, sequence: FrameSequence) -> Route:
    return Route(
        source=sequence.folder or job.input_dir,
        folder=job.folder,
        transfer=job.settings["transfer"],
        output_format=job.settings["output_format"],
        threads=job.threads,
    )


def _reason(error: Exception, doing: str, place: Path) -> str:
    """Say in a sentence why something failed; the log gets the traceback of what nobody expected."""
    if isinstance(error, DailiesError):
        return str(error)
    if isinstance(error, OSError):
        return files.reason(error, place)
    log.error("%s failed", doing, exc_info=error)
    from dailies.render.network import SIZES

    reason = f"{doing} failed with {cause(error)}"
    return f"{reason}; {ABOUT_SIZES}" if doing == RENDERING and SIZES.search(reason) else reason


def _settle(first: Frame, pixels: "Callable[[], np.ndarray]", engine: "Engine") -> "Parity | None":
    """Let the first frame of the whole sequence decide, not of the shard: every attempt and every job decides alike."""
    if engine.is_plain:
        return None
    with naming(first):
        return engine.settle(pixels())


def _about(model: "Model", engine: "Engine", job: Job, *, trusted: bool, parity: "Parity | None") -> LoadedModel:
    """Give what is known of a model once it was tried: for the manifest's keys and for ``metadata.json``."""
    told = engine.told_multiple
    loaded = LoadedModel(
        architecture=model.architecture,
        epoch=model.progress.epoch,
        train_loss=model.progress.train_loss,
        val_loss=model.progress.val_loss,
        builder=model.builder,
        network=Network(
            builder=model.builder,
            config=files.digest(repr(sorted(model.config.items()))),
            code=_code(model.builder, job.loading),
            part=engine.keyed_part,
            # the one used, of which one asked for may fall short: frames of both never mix in a sequence
            precision=engine.precision,
            compiled=engine.compile_seconds is not None,
            autotuned=bool(engine.autotuned),
        ),
        precision=engine.precision,
        compile_seconds=engine.compile_seconds,
        autotuned=engine.autotuned,
        parity=ParityFigures(max=files.strict(parity.max), mean=files.strict(parity.mean)) if parity else None,
        trust_pickle=trusted,
        signature=engine.signature,
        told_multiple=told if told != engine.signature.multiple else None,
    )
    return _found(loaded, model, engine)


def _code(builder: str, loading: Mapping[str, Any]) -> str | None:
    """Return the digest of the user's code that a network came from; None if it is not the user's."""
    loaders = loading.get("loader_code", {})
    return loaders[builder] if builder in loaders else loading["code"] if ":" in builder else None


def _found(loaded: LoadedModel, model: "Model", engine: "Engine") -> LoadedModel:
    """Add what rendering itself may change: what memory allows, and what there is to tell a user."""
    parts = (f"part {engine.part} of the network's answer is used",) if engine.part else ()
    return replace(
        loaded,
        batch=engine.batch,
        tile_size=engine.tile_size,
        overlap=engine.overlap,
        notes=(*model.notes, *parts, *engine.notes),
    )


def _figures(ending: Ending, job: Job) -> Figures:
    """Sum up a render from its manifest: the same figures, however often it was interrupted."""
    entries, model = list(ending.done.values()), ending.model
    seconds = sum(entry.seconds for entry in entries)
    tiled = any(entry.tiled for entry in entries)
    return Figures(
        frames=len(entries),
        seconds=round(seconds, 2),
        fps=round(len(entries) / seconds, 3) if seconds else None,
        device=entries[-1].device if entries else None,
        precision=model.precision if model else job.settings["precision"],
        parity=model.parity if model else None,
        compile_seconds=model.compile_seconds if model else None,
        autotuned=bool(model and model.autotuned),
        batch=model.batch if model and entries else None,
        tiled=tiled,
        tile_size=model.tile_size if model and tiled else None,
        overlap=model.overlap if model and tiled else None,
        versions=Versions(dailies=dailies.__version__, torch=version("torch"), python=platform.python_version()),
    )
