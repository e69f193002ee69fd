"""A render: one model over one sequence, resumed where it stopped, and its record."""

import hashlib
import logging
import os
import platform
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dailies
from dailies import files, frames
from dailies.download import RECEIPT
from dailies.errors import DailiesError, RenderError
from dailies.frames import Picture
from dailies.manifest import Entry, Manifest, keys_of
from dailies.sequence import Frame
from dailies.sequence import load as load_sequence

if TYPE_CHECKING:
    import numpy as np

    from dailies.engine import Engine
    from dailies.models import Model

log = logging.getLogger(__name__)

READ_AHEAD = 2
"""Frames that are decoded while another is on the device."""

PROGRESS_SECONDS = 5
"""How often the log says how far the render is."""


@dataclass(frozen=True)
class Job:
    """What one render needs to know."""

    record: Path
    """The model's discovery record."""
    weights: Path
    """The folder with the downloaded artifact and its receipt."""
    sequence: Path
    input_dir: Path
    folder: Path
    """Where the frames go."""
    manifest: Path
    state: Path
    """The record of the last attempt, which outlives this one."""
    settings: Mapping[str, Any]
    """Precision, tiled, tile_size, overlap, output_format, transfer: what changes pixels."""
    png_compression: str
    device: str
    threads: int
    attempt: int
    trust_pickle: bool


@dataclass(frozen=True)
class Ending:
    """How an attempt at a model ended."""

    status: str
    """success, download_failed, load_failed or error."""
    error: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    """What the loaded model says of itself; empty when it was not loaded."""


def render(job: Job, *, result: Path) -> None:
    """Render every frame that is missing or out of date, and write the record of it to ``result``.

    A model that cannot be downloaded, loaded or rendered is a result too: its status says so and its error says why.
    Raises RenderError when the device is missing, which concerns all models.
    """
    receipt = files.read_json(job.weights / RECEIPT)
    sequence = load_sequence(job.sequence)
    done: Mapping[str, Entry] = {}
    if receipt["status"] == "success":
        keys = keys_of(sequence, receipt["sha256"], dict(job.settings))
        manifest = Manifest(job.manifest, folder=job.folder, keys=keys)
        ending = _missing_frames(job, receipt, sequence.frames, manifest)
        done = manifest.done()
    else:
        ending = Ending(receipt["status"], receipt["error"])
    outcome = {
        "status": ending.status,
        "error": ending.error,
        "attempt": job.attempt,
        "render": _figures(done, job),
        "model": ending.model,
        "artifact": {key: receipt.get(key) for key in ("uri", "path", "sha256", "size")},
        "input": {"digest": sequence.digest, "frames": len(sequence.frames), "skipped": len(sequence.skipped)},
    }
    files.write_json(job.state, outcome)
    files.write_json(result, outcome)
    if ending.error:
        log.error("%s: %s", ending.status, ending.error)
    else:
        log.info("success")


def _missing_frames(job: Job, receipt: Mapping[str, Any], wanted: Sequence[Frame], manifest: Manifest) -> Ending:
    """Render the frames that the manifest does not hold; torch is not even imported when there are none."""
    done = manifest.done()
    todo = [frame for frame in wanted if frame.output not in done]
    log.info("%d frames, %d of them to render", len(wanted), len(todo))
    last = files.read_json(job.state) if job.state.is_file() else None
    if not todo and last and last["model"] and last["artifact"]["sha256"] == receipt["sha256"]:
        return Ending("success", model=last["model"])
    return _attempt(job, receipt, todo, manifest)


def _attempt(job: Job, receipt: Mapping[str, Any], todo: Sequence[Frame], manifest: Manifest) -> Ending:
    # torch's threads wait by spinning: beside another program one render was 50 times slower, alone none was faster
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from dailies.engine import Engine, Settings, find_device
    from dailies.models import load_model

    torch.set_num_threads(job.threads)
    device = find_device(job.device)
    path = job.weights / "artifact" / receipt["path"]
    hint = files.read_json(job.record)["architecture"]
    try:
        model = load_model(path, architecture=hint, trust_pickle=job.trust_pickle)
    except Exception as error:  # an artifact is foreign data: whatever comes of it is its own failure, not the job's
        return Ending("load_failed", _reason(error, "loading", path))
    log.info("architecture %s, device %s, threads %d", model.architecture, device, job.threads)
    try:
        settings = {each.name: job.settings[each.name] for each in fields(Settings)}
        engine = Engine(model, device=device, settings=Settings(**settings))
        _render_frames(job, todo, manifest, engine)
    except Exception as error:  # a network is foreign code
        return Ending("error", _reason(error, "rendering", job.folder), _about(model))
    return Ending("success", model=_about(model))


def _reason(error: Exception, doing: str, place: Path) -> str:
    """Say in a sentence why something failed; the log gets the traceback of what nobody expected."""
    if isinstance(error, DailiesError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or place}"
    log.error("%s failed", doing, exc_info=error)
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{doing} failed with {type(error).__name__}: {first}"


def _render_frames(job: Job, todo: Sequence[Frame], manifest: Manifest, engine: "Engine") -> None:
    """Decode ahead, render, and encode behind; return when every frame is in place and in the manifest."""

    def write(frame: Frame, picture: Picture, pixels: "np.ndarray", seconds: float, tiled: bool) -> None:
        data = frames.encode(pixels, picture, job.settings["output_format"], job.png_compression)
        files.write_bytes(job.folder / frame.output, data)
        manifest.add(frame.output, data, seconds=seconds, device=engine.device.type, tiled=tiled)

    files.sweep(job.folder)
    manifest.restart()
    writers = max(1, job.threads)
    pending: deque[Future] = deque()
    started = last = spoke = time.monotonic()
    with ThreadPoolExecutor(max_workers=writers) as pool:
        for number, (frame, picture) in enumerate(_decoded(job, todo), start=1):
            try:
                # to become engine.render(picture.pixels, dtype=frames.output_dtype(picture, output_format))
                rendered = engine.render(frames.converted(picture.pixels, "uint8"))
            except RenderError as error:
                raise RenderError(f"{error} at frame {frame.name}") from error
            now = time.monotonic()
            pending.append(pool.submit(write, frame, picture, rendered, now - last, engine.tiled))
            last = now
            if len(pending) > 2 * writers:
                pending.popleft().result()
            if now - spoke > PROGRESS_SECONDS:
                spoke = now
                rate = number / (now - started)
                log.info("frame %d of %d, %.2f fps, %.0f s left", number, len(todo), rate, (len(todo) - number) / rate)
        for future in pending:
            future.result()


def _decoded(job: Job, todo: Sequence[Frame]) -> Iterator[tuple[Frame, Picture]]:
    """Read and decode frames in order, a few ahead of the reader."""
    folder = load_sequence(job.sequence).folder or job.input_dir

    def read(frame: Frame) -> Picture:
        data = (folder / frame.name).read_bytes()
        if hashlib.sha256(data).hexdigest() != frame.sha256:
            raise RenderError(
                f"frame {frame.name} has changed since the sequence was read; run again "
                "(touch the file first if its size and date are still the same)"
            )
        return frames.decode(data, frame.name, transfer=job.settings["transfer"])

    ahead: deque[tuple[Frame, Future]] = deque()
    with ThreadPoolExecutor(max_workers=1) as pool:
        for frame in todo:
            ahead.append((frame, pool.submit(read, frame)))
            if len(ahead) > READ_AHEAD:
                first, picture = ahead.popleft()
                yield first, picture.result()
        for first, picture in ahead:
            yield first, picture.result()


def _about(model: "Model") -> dict[str, Any]:
    signature = model.signature
    return {
        "architecture": model.architecture,
        **model.facts,
        "signature": {
            "value_range": list(signature.value_range),
            "channels": signature.channels,
            "scale": signature.scale,
        },
    }


def _figures(done: Mapping[str, Entry], job: Job) -> dict[str, Any]:
    """Sum up a render from its manifest: the same figures, however often it was interrupted."""
    entries = list(done.values())
    seconds = sum(entry.seconds for entry in entries)
    tiled = any(entry.tiled for entry in entries)
    return {
        "frames": len(entries),
        "seconds": round(seconds, 2),
        "fps": round(len(entries) / seconds, 3) if seconds else None,
        "device": entries[-1].device if entries else None,
        "precision": job.settings["precision"],
        "tiled": tiled,
        "tile_size": job.settings["tile_size"] if tiled else None,
        "overlap": job.settings["overlap"] if tiled else None,
        "versions": {"dailies": dailies.__version__, "torch": version("torch"), "python": platform.python_version()},
    }
