"""The pipeline of one job: frames are decoded ahead and encoded behind while one of them is in the network."""

import hashlib
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dailies.core import files
from dailies.core.errors import RenderError
from dailies.frames import image
from dailies.frames.image import Picture
from dailies.frames.sequence import Frame
from dailies.state.manifest import Manifest

if TYPE_CHECKING:
    from dailies.render.engine import Engine, Rendering


log = logging.getLogger(__name__)

READERS = 4
"""Threads that decode, at most: a 1080p PNG takes one of them 19 ms, of 16 bits 52."""

PROGRESS_SECONDS = 5
"""How often the log and the terminal say how far the render is."""

BAR = 20
"""Characters of the bar on a terminal."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Route:
    """Where frames come from, where they go, and how they are read and written."""

    source: Path
    """The folder of the sequence's frames."""
    folder: Path
    """Where the rendered frames go."""
    transfer: str
    output_format: str
    threads: int
    """How many threads encode; as many decode, up to ``READERS``."""


def read(frame: Frame, route: Route) -> Picture:
    """Read and decode a frame.

    Raises RenderError when it is no longer the one that the sequence lists, SequenceError when it cannot be decoded.
    """
    data = (route.source / frame.name).read_bytes()
    if hashlib.sha256(data).hexdigest() != frame.sha256:
        raise RenderError(
            "render.frame_changed",
            f"frame {frame.name} has changed since the sequence was read; run again "
            "(touch the file first if its size and date are still the same)",
        )
    return image.decode(data, frame.name, transfer=route.transfer, layer=frame.layer or None)


def begin(frame: Frame, route: Route) -> dict[Frame, "Future[Picture]"]:
    """Begin to read a frame in a thread of its own, for ``render_frames``."""
    reading = ThreadPoolExecutor(1)
    begun = {frame: reading.submit(read, frame, route)}
    reading.shutdown(wait=False)
    return begun


@contextmanager
def naming(frame: Frame) -> Iterator[None]:
    """Add to what the engine says is wrong at which frame it is."""
    try:
        yield
    except RenderError as error:
        raise RenderError(error.code, f"{error} at frame {frame.name}") from error


def render_frames(
    todo: Sequence[Frame],
    route: Route,
    engine: "Engine",
    manifest: Manifest,
    begun: dict[Frame, "Future[Picture]"],
) -> None:
    """Decode ahead, render, and encode behind; return when every frame is in place and in the manifest.

    What ``begin`` reads is taken out of ``begun`` when it is its turn. Frames of one size go to the engine together, as
    many as it wants at a time. The first error of any thread ends it: frames that were rendered by then are still
    written, no other is begun. Of the first frame of each format the values are read again before it counts as done.
    """

    def picture_of(frame: Frame) -> Picture:
        return begun.pop(frame).result() if frame in begun else read(frame, route)

    def write(frame: Frame, picture: Picture, rendering: "Rendering") -> None:
        with naming(frame):
            pixels = rendering.result()
        seconds = progress.lap()
        whole = frame in looked_at
        with naming(frame):
            data = image.encode(pixels, picture, route.output_format, whole=whole)
        files.write_bytes(route.folder / frame.output, data, durable=False)
        lasting.append(persisting.submit(files.persist, route.folder / frame.output))
        manifest.add(frame.output, data, seconds=seconds, device=engine.device.type, tiled=rendering.tiled)

    manifest.restart()
    looked_at = {*{Path(frame.output).suffix: frame for frame in reversed(todo)}.values()}
    writers, readers = max(1, route.threads), min(max(1, route.threads), READERS)
    progress = _Progress(route.folder.name, len(todo))
    pending: set[Future] = set()
    lasting: list[Future] = []
    together = 1
    with (
        ThreadPoolExecutor(files.SYNCERS) as persisting,
        ThreadPoolExecutor(readers) as reading,
        ThreadPoolExecutor(writers) as writing,
    ):
        try:
            decoded = ahead(todo, picture_of, reading, most=lambda: readers + together)
            for group in grouped(decoded, engine):
                together = len(group)
                for frame, picture, rendering in submitted(group, engine, route):
                    pending.add(writing.submit(write, frame, picture, rendering))
                    pending = settled(pending, most=writers + together)
            settled(pending, most=0)
        finally:
            reading.shutdown(wait=False, cancel_futures=True)
        # of a render that is done nobody looks at more than the frames' names
        settled({*lasting}, most=0)
    files.persist(manifest.path)


def grouped(decoded: Iterable[tuple[Frame, Picture]], engine: "Engine") -> Iterator[list[tuple[Frame, Picture]]]:
    """Put consecutive frames of one size together, as many as the engine wants of it.

    An error is raised when all that came before it is given.
    """
    group: list[tuple[Frame, Picture]] = []
    upcoming, failure = iter(decoded), None
    while True:
        try:
            frame, picture = next(upcoming)
        except StopIteration:
            break
        except Exception as error:  # of whoever decodes
            failure = error
            break
        size = picture.pixels.shape[:2]
        if group and group[0][1].pixels.shape[:2] != size:
            yield group
            group = []
        group.append((frame, picture))
        if len(group) >= engine.together(*size):
            yield group
            group = []
    if group:
        yield group
    if failure:
        raise failure


def submitted(
    group: Sequence[tuple[Frame, Picture]], engine: "Engine", route: Route
) -> Iterator[tuple[Frame, Picture, "Rendering"]]:
    """Have the engine begin frames of one size; where several fail, each is begun by itself, to tell which it is."""
    dtypes = [image.output_dtype(picture, route.output_format) for _, picture in group]
    if len(group) > 1:
        try:
            renderings = engine.submit_all([picture.pixels for _, picture in group], dtypes)
        except Exception:  # a network is foreign code
            log.info("%d frames together failed", len(group), exc_info=True)
        else:
            yield from ((*each, rendering) for each, rendering in zip(group, renderings, strict=True))
            return
    for (frame, picture), dtype in zip(group, dtypes, strict=True):
        with naming(frame):
            rendering = engine.submit(picture.pixels, dtype)
        yield frame, picture, rendering


def ahead(
    items: Iterable[Item], function: Callable[[Item], Result], pool: Executor, *, most: Callable[[], int]
) -> Iterator[tuple[Item, Result]]:
    """Give each item with the function's result, in order; at most ``most()`` results wait to be asked for.

    An error of the function is raised when it is the item's turn.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) > most():
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


def settled(pending: set[Future], *, most: int) -> set[Future]:
    """Wait until at most ``most`` of the futures are under way and give those; raise the error of one that failed."""
    done, under_way = wait(pending, timeout=0)
    while len(under_way) > most:
        more, under_way = wait(under_way, return_when=FIRST_COMPLETED)
        done |= more
    for future in done:
        future.result()
    return under_way


class _Progress:
    """Counts rendered frames, and says every few seconds how far the render is: in the log, and on a terminal."""

    def __init__(self, model: str, total: int) -> None:
        self._model = model
        self._total = total
        self._number = 0
        self._started = self._last = self._spoke = time.monotonic()
        self._lock = threading.Lock()

    def lap(self) -> float:
        """Count one more frame, and give the seconds since the one before it."""
        with self._lock:
            now = time.monotonic()
            seconds, self._last = now - self._last, now
            self._number += 1
            if now - self._spoke > PROGRESS_SECONDS:
                self._spoke = now
                self._tell(now - self._started)
            return seconds

    def _tell(self, seconds: float) -> None:
        number, total, rate = self._number, self._total, self._number / seconds
        text = f"frame {number} of {total}, {rate:.2f} fps, {(total - number) / rate:.0f} s left"
        log.info("%s", text)
        # a job's own output goes to its log; Snakemake and the jobs beside this one speak on the terminal, too
        terminal = sys.__stderr__
        if terminal and terminal.isatty():
            bar = "█" * (BAR * number // total)
            print(f"{self._model} {bar:░<{BAR}} {text}", file=terminal, flush=True)
