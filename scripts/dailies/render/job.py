"""A render job: one model over one shard of the sequence, resumed where it stopped, and the record of its outcome."""

import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dailies
from dailies.core import files
from dailies.core.text import few
from dailies.frames.sequence import KNOCKOUT, Frame, split
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.render.devices import claimed, find_device
from dailies.render.pipeline import Route, naming, prefetch, read, render_frames
from dailies.render.sheets import Sheets
from dailies.state.attempts import basis, frame_keys
from dailies.state.layout import Layout, Weights
from dailies.state.manifest import Entry, Manifest, forget, renewed, restore_names
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

MOST_TRIED, LONGEST_REASON = 3, 120
"""How many of the other files that were tried an error lists, and characters of the reason for each."""

FEWEST_CODEC_THREADS = 2
"""Threads that decode, and that encode, even if the job has one core: they run while the device works, and jobs that
measure beside it yield to them."""

OpenManifest = Callable[[LoadedModel], Manifest]
"""Opens the manifest of the frames that a network renders."""


@dataclass(frozen=True)
class Job:
    """One model, one shard of the sequence, and the settings to render it with."""

    layout: Layout
    model: str
    """The name of the model's folder."""
    shard: str
    shard_frames: int
    """Frames per shard; 0 if the sequence is not split."""
    knockout_frames: int = field(default=0, kw_only=True)
    """Frames of the first round of a knockout; 0 without one."""
    input_dir: Path
    settings: Mapping[str, Any]
    """Settings that pixels depend on: those of the engine but ``batch``, ``output_format`` and ``transfer``."""
    loading: Mapping[str, Any]
    """Settings that decide which network the artifact becomes: architectures, factories, loaders, signatures."""
    batch: int | Literal["auto"]
    """How many frames are run together."""
    device: str
    threads: int
    attempt: int
    trust_code: bool | Sequence[str]
    """Whether loading may run code that an artifact contains, or the ids of the runs and experiments it may run of."""

    @property
    def record(self) -> Path:
        """The model's discovery record."""
        return self.layout.record(self.model)

    @property
    def weights(self) -> Weights:
        """The downloaded artifact."""
        return self.layout.weights(self.model)

    @property
    def receipt(self) -> Path:
        """The receipt of the download."""
        is_candidate = self.shard == KNOCKOUT
        return self.layout.candidate_receipt(self.model) if is_candidate else self.layout.receipt(self.model)

    @property
    def folder(self) -> Path:
        """The folder of the rendered frames."""
        return self.layout.frames(self.model)

    @property
    def manifest(self) -> Path:
        return self.layout.manifest(self.model, self.shard)

    @property
    def last_attempt(self) -> Path:
        """The record of the last attempt, which Snakemake does not delete when this job starts."""
        return self.layout.attempt(self.model, self.shard)

    @property
    def outcome(self) -> Path:
        """The record of this attempt, which later jobs read."""
        return self.layout.outcome(self.model, self.shard)


@dataclass(frozen=True)
class Ending:
    """How an attempt ended."""

    status: str
    """success, download_failed, load_failed or error."""
    error: str | None = None
    model: LoadedModel | None = None
    """None if the model was not loaded."""
    done: Mapping[str, Entry] = field(default_factory=dict)
    """The frames that are in place, by output name; empty if the model was not loaded."""


def render(job: Job, *, forced: str | None = None) -> None:
    """Render every frame of a shard that is missing or out of date, and write the outcome.

    ``forced`` is the token of an invocation that renders all frames again, also those in place.

    If the model cannot be downloaded, loaded or rendered, that is an outcome with a status and an error. Raises
    RenderError if the device is missing, because that concerns all models.
    """
    receipt, record = Receipt.load(job.receipt), ModelRecord.load(job.record)
    whole = load_sequence(job.layout.sequence)
    shards = split(whole, job.shard_frames, job.knockout_frames)
    sequence = shards[job.shard]
    restore_names(job.folder, sequence.outputs)
    _delete_stale_outcomes(job.outcome.parent, shards)
    loading = loading_digest(record, job.loading)
    if receipt.status == SUCCESS:
        if forced:
            mark = job.layout.forced_mark(job.model, job.shard)
            forget(job.manifest, mark, sequence.outputs, forced, renewed=_first_round(job, shards, forced))
        open_manifest = partial(_open_manifest, job, receipt, sequence, forced=bool(forced))
        ending = _already_done(job, receipt, sequence, loading, open_manifest)
        if ending is None and not job.weights.whole.is_dir():
            lost = f"{job.weights.whole} was deleted; the next invocation fetches it again"
            ending = Ending("download_failed", lost)
        if ending is None:
            with claimed(job.device) as device:
                claiming = replace(job, device=device)
                ending = _attempt(claiming, receipt, sequence, record, open_manifest, whole=whole)
    else:
        ending = Ending(receipt.status, receipt.error)
    ending = replace(ending, error=ending.error and ending.error + _list_tried(ending.status, receipt))
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
    outcome.save(job.last_attempt)
    outcome.save(job.outcome)
    if ending.error:
        log.error("%s: %s", ending.status, ending.error)
    else:
        log.info("success")


def _open_manifest(
    job: Job, receipt: Receipt, sequence: FrameSequence, model: LoadedModel, *, forced: bool
) -> Manifest:
    assert receipt.sha256 is not None  # the download succeeded
    keys = frame_keys(sequence, receipt.sha256, job.settings, model)
    return Manifest(job.manifest, folder=job.folder, keys=keys, forced=forced)


def _first_round(job: Job, shards: Mapping[str, FrameSequence], forced: str) -> list[Entry]:
    """Return the entries of the frames that the same forced invocation has rendered in the first round of a knockout.

    The frames of the first round are also part of other shards, which need not render them once more.
    """
    if job.shard == KNOCKOUT or KNOCKOUT not in shards:
        return []
    manifest = job.layout.manifest(job.model, KNOCKOUT)
    return renewed(manifest, job.layout.forced_mark(job.model, KNOCKOUT), shards[KNOCKOUT].outputs, forced)


def _list_tried(status: str, receipt: Receipt) -> str:
    """Return the end of an error message: which other files of the run were tried, and why they hold no network."""
    if status not in {"load_failed", "download_failed"} or not receipt.tried:
        return ""
    tried = (f"{each.path} ({each.reason[:LONGEST_REASON].rstrip()})" for each in receipt.tried)
    return f". Also tried: {few(tried, MOST_TRIED)}"


def _delete_stale_outcomes(outcomes: Path, shards: Mapping[str, FrameSequence]) -> None:
    """Delete the outcomes of shards that the sequence is no longer split into; no job updates them."""
    for path in outcomes.glob("*.json"):
        with suppress(FileNotFoundError):  # the job of another shard deletes them too
            digest = Outcome.load(path).input.digest
            if path.stem not in shards or digest != shards[path.stem].digest:
                path.unlink()


def _already_done(
    job: Job, receipt: Receipt, sequence: FrameSequence, loading: str, open_manifest: OpenManifest
) -> Ending | None:
    """Return a success, without importing torch, if an earlier attempt loaded this network and every frame is in place.

    That attempt may have been at another shard, because the sequence may have been split differently.
    """
    paths = sorted(job.layout.attempts(job.model).glob("*.json"), key=lambda path: path != job.last_attempt)
    for last in map(Outcome.load, paths):
        if last.model and is_same_artifact(last.artifact, receipt) and last.loading == loading:
            manifest = open_manifest(last.model)
            done = manifest.done()
            if len(done) == len(sequence.frames):
                manifest.restart()
                log.info("%d frames, none of them to render", len(done))
                return Ending(SUCCESS, model=last.model, done=done)
            return None
    return None


def _attempt(
    job: Job,
    receipt: Receipt,
    sequence: FrameSequence,
    record: ModelRecord,
    open_manifest: OpenManifest,
    *,
    whole: FrameSequence,
) -> Ending:
    """Load the model and render the frames that are missing from the manifest.

    The first frame of the ``whole`` sequence, not of the shard, decides on the precision, so that every attempt and
    every job decides alike.
    """
    began = time.monotonic()
    assert receipt.path is not None  # the download succeeded
    path, first = job.weights.whole / receipt.path, whole.frames[0]
    route = _route(job, sequence)
    # both run while torch is imported, which takes longer
    files.prefetch(path)
    prefetched = prefetch(_probably_due(sequence, job.folder), route)
    import torch

    from dailies.render.engine import Engine, Settings
    from dailies.render.loading import LOADING, RENDERING, failure_reason, load

    torch.set_num_threads(job.threads)
    device = find_device(job.device)
    trusted = is_trusted(job.trust_code, record)

    @cache
    def first_pixels() -> "np.ndarray":
        return read(first, route).pixels

    try:
        params = run_params(job.layout.run(job.model))
        model = load(path, model=job.model, record=record, loading=job.loading, params=params, trusted=trusted)
        settings = {each.name: job.settings[each.name] for each in fields(Settings) if each.name in job.settings}
        engine = Engine(model, device=device, settings=Settings(**settings, batch=job.batch))
        engine.probe(first_pixels)
    except Exception as error:  # an artifact is foreign data: any failure is the model's, not the job's
        return Ending("load_failed", failure_reason(error, LOADING, path))
    parity = None
    try:
        if not engine.is_baseline:
            with naming(first):
                parity = engine.choose_mode(first_pixels())
    except Exception as error:  # the network is foreign code
        loaded = _loaded_model(model, engine, job, trusted=trusted, parity=None)
        return Ending("error", failure_reason(error, RENDERING, job.folder), loaded)
    first_pixels.cache_clear()
    loaded = _loaded_model(model, engine, job, trusted=trusted, parity=parity)
    manifest = open_manifest(loaded)
    done = manifest.done()
    todo = [frame for frame in sequence.frames if frame.output not in done]
    log.info("architecture %s, device %s, threads %d", model.architecture, device, job.threads)
    log.info("%d frames, %d of them to render", len(sequence.frames), len(todo))
    files.delete_drafts(job.folder, sequence.outputs)
    status, reason = SUCCESS, None
    sheets, startup = Sheets(whole, job.layout.sheets(job.model)), time.monotonic() - began
    try:
        render_frames(todo, route, engine, manifest, prefetched, sheets, startup=startup)
    except Exception as error:  # the network is foreign code
        status, reason = "error", failure_reason(error, RENDERING, job.folder)
    return Ending(status, reason, _with_observations(loaded, model, engine), manifest.done())


def _probably_due(sequence: FrameSequence, folder: Path) -> Frame:
    """Guess the first frame to render; whether all frames are due is known only once the model is loaded."""
    return next((frame for frame in sequence.frames if not (folder / frame.output).exists()), sequence.frames[0])


def _route(job: Job, sequence: FrameSequence) -> Route:
    return Route(
        source=sequence.folder or job.input_dir,
        folder=job.folder,
        transfer=job.settings["transfer"],
        output_format=job.settings["output_format"],
        threads=max(FEWEST_CODEC_THREADS, job.threads),
    )


def _loaded_model(model: "Model", engine: "Engine", job: Job, *, trusted: bool, parity: "Parity | None") -> LoadedModel:
    """Return what is known of a model after the probe, for the keys of frames and for ``metadata.json``."""
    initial = engine.initial_multiple
    loaded = LoadedModel(
        architecture=model.architecture,
        epoch=model.progress.epoch,
        train_loss=model.progress.train_loss,
        val_loss=model.progress.val_loss,
        builder=model.builder,
        network=Network(
            builder=model.builder,
            config=files.digest(repr(sorted(model.config.items()))),
            code=_code_digest(model.builder, job.loading),
            part=engine.keyed_part,
            # the precision in use, not that of the settings: frames of both must not mix in a sequence
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
        told_multiple=initial if initial != engine.signature.multiple else None,
    )
    return _with_observations(loaded, model, engine)


def _code_digest(builder: str, loading: Mapping[str, Any]) -> str | None:
    """Return the digest of the user's code that built a network; None if it was not the user's."""
    loaders: Mapping[str, str] = loading.get("loader_code", {})
    if builder in loaders:
        return loaders[builder]
    return loading["code"] if ":" in builder else None


def _with_observations(loaded: LoadedModel, model: "Model", engine: "Engine") -> LoadedModel:
    """Add what may change while frames are rendered: batch and tile size, and the notes."""
    parts = (f"part {engine.part} of the network's output is used",) if engine.part else ()
    return replace(
        loaded,
        batch=engine.batch,
        tile_size=engine.tile_size,
        overlap=engine.overlap,
        notes=(*model.notes, *parts, *engine.notes),
    )


def _figures(ending: Ending, job: Job) -> Figures:
    """Summarise a render from its manifest, so that the figures do not depend on how often it was interrupted."""
    entries, model = list(ending.done.values()), ending.model
    seconds = sum(entry.seconds for entry in entries)
    startups = [entry.startup for entry in entries if entry.startup is not None]
    tiled = any(entry.tiled for entry in entries)
    return Figures(
        frames=len(entries),
        seconds=round(seconds, 2),
        fps=round(len(entries) / seconds, 3) if seconds else None,
        startup_seconds=round(sum(startups), 2) if startups else None,
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
