"""The pipeline of a render job: it decodes frames ahead and encodes them behind while the network works on others."""

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dailies.core import files
from dailies.core.errors import RenderError
from dailies.frames import frame_cache, image, png
from dailies.frames.image import Picture
from dailies.frames.sequence import Frame
from dailies.render.thumbnails import Thumbnails
from dailies.state.manifest import Manifest

if TYPE_CHECKING:
    from dailies.render.engine import Engine, Rendering


log = logging.getLogger(__name__)

MAX_READERS = 4
"""The most threads that decode: one takes 19 ms for a 1080p PNG of 8 bits, 52 ms for 16 bits."""

PROGRESS_SECONDS = 5
"""How often progress is logged."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Route:
    """Where frames come from and go to, and how they are read and written."""

    source: Path
    """The folder of the sequence's frames."""
    folder: Path
    """The folder of the rendered frames."""
    transfer: str
    output_format: str
    threads: int
    """How many threads encode; as many decode, up to ``MAX_READERS``."""


def read(frame: Frame, route: Route) -> Picture:
    """Read and decode a frame.

    Raises RenderError if the file is no longer the one that the sequence lists, SequenceError if it cannot be decoded.
    """
    data = (route.source / frame.name).read_bytes()
    if hashlib.sha256(data).hexdigest() != frame.sha256:
        raise RenderError(
            "render.frame_changed",
            f"frame {frame.name} has changed since the sequence was read; run again "
            "(touch the file first if its size and date are still the same)",
        )
    layer, digest = frame.layer or None, "".join(frame.contents)
    return image.decode(data, frame.name, transfer=route.transfer, layer=layer, digest=digest)


def prefetch(frame: Frame, route: Route) -> dict[Frame, "Future[Picture]"]:
    """Start to read a frame in a separate thread; pass the result to ``render_frames``."""
    reading = ThreadPoolExecutor(1)
    prefetched = {frame: reading.submit(read, frame, route)}
    reading.shutdown(wait=False)
    return prefetched


@contextmanager
def naming(frame: Frame) -> Iterator[None]:
    """Add the name of the frame to any RenderError raised in this block."""
    try:
        yield
    except RenderError as error:
        raise RenderError(error.code, f"{error} at frame {frame.name}") from error


def render_frames(
    todo: Sequence[Frame],
    route: Route,
    engine: "Engine",
    manifest: Manifest,
    prefetched: dict[Frame, "Future[Picture]"],
    thumbnails: Thumbnails | None = None,
    *,
    startup: float | None = None,
) -> None:
    """Render frames, write them and add them to the manifest; return once all of them are on the disk.

    Frames of one size are submitted to the engine in batches of the size that it wants. The first frame of each
    output format is read back to verify its values. Frames are removed from ``prefetched`` as they are used, and added
    to ``thumbnails`` once they are written. ``startup`` is what the job took until now, in seconds. After the first
    error of any thread no further frame is started, and it is raised once those already rendered have been written.
    """

    def picture_of(frame: Frame) -> Picture:
        return prefetched.pop(frame).result() if frame in prefetched else read(frame, route)

    def write(frame: Frame, picture: Picture, rendering: "Rendering") -> None:
        with naming(frame):
            pixels = rendering.result()
        seconds, is_first = progress.advance()
        with naming(frame):
            data = image.encode(pixels, picture, route.output_format, whole=frame in verified)
        files.write_bytes(route.folder / frame.output, data, durable=False)
        syncs.append(syncing.submit(files.persist, route.folder / frame.output))
        digest = manifest.add(
            frame.output,
            data,
            seconds=seconds,
            device=engine.device.type,
            tiled=rendering.tiled,
            startup=startup if is_first else None,
        )
        if picture.alpha is None:  # with alpha, the file's colours may be others
            if thumbnails:
                thumbnails.add(frame, pixels, digest)
            if data.startswith(png.SIGNATURE) and not picture.grey:
                frame_cache.keep(digest, pixels, owner=route.folder.name)

    manifest.restart()
    verified = {*{Path(frame.output).suffix: frame for frame in reversed(todo)}.values()}
    writers, readers = max(1, route.threads), min(max(1, route.threads), MAX_READERS)
    progress = _Progress(len(todo))
    pending: set[Future[None]] = set()
    syncs: list[Future[None]] = []
    batch = 1
    with (
        ThreadPoolExecutor(files.SYNCERS) as syncing,
        ThreadPoolExecutor(readers) as reading,
        ThreadPoolExecutor(writers) as writing,
    ):
        try:
            decoded = ahead(todo, picture_of, reading, limit=lambda: readers + batch)
            for group in grouped(decoded, engine):
                batch = len(group)
                for frame, picture, rendering in submitted(group, engine, route):
                    pending.add(writing.submit(write, frame, picture, rendering))
                    pending = settle(pending, limit=writers + batch)
            settle(pending, limit=0)
        finally:
            reading.shutdown(wait=False, cancel_futures=True)
        # later stages check only the names of a finished render's frames, so these have to be on the disk
        settle({*syncs}, limit=0)
    files.persist(manifest.path)


def grouped(decoded: Iterable[tuple[Frame, Picture]], engine: "Engine") -> Iterator[list[tuple[Frame, Picture]]]:
    """Yield batches of consecutive frames of one size, as many frames as the engine wants.

    An error of ``decoded`` is raised after everything before it has been yielded.
    """
    group: list[tuple[Frame, Picture]] = []
    upcoming, failure = iter(decoded), None
    while True:
        try:
            frame, picture = next(upcoming)
        except StopIteration:
            break
        except Exception as error:  # whatever decoding raises
            failure = error
            break
        size = picture.pixels.shape[:2]
        if group and group[0][1].pixels.shape[:2] != size:
            yield group
            group = []
        group.append((frame, picture))
        if len(group) >= engine.batch_size(*size):
            yield group
            group = []
    if group:
        yield group
    if failure:
        raise failure


def submitted(
    group: Sequence[tuple[Frame, Picture]], engine: "Engine", route: Route
) -> Iterator[tuple[Frame, Picture, "Rendering"]]:
    """Submit frames of one size to the engine; if a batch fails, submit them singly to find the frame that fails."""
    dtypes = [image.output_dtype(picture, route.output_format) for _, picture in group]
    if len(group) > 1:
        try:
            renderings = engine.submit_all([picture.pixels for _, picture in group], dtypes)
        except Exception:  # the network is foreign code
            log.info("a batch of %d frames failed", len(group), exc_info=True)
        else:
            yield from ((*each, rendering) for each, rendering in zip(group, renderings, strict=True))
            return
    for (frame, picture), dtype in zip(group, dtypes, strict=True):
        with naming(frame):
            rendering = engine.submit(picture.pixels, dtype)
        yield frame, picture, rendering


def ahead(
    items: Iterable[Item], function: Callable[[Item], Result], pool: Executor, *, limit: Callable[[], int]
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with the function's result, in order, computing at most ``limit()`` results ahead.

    An error of the function is raised when its item is due.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) > limit():
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


def settle(pending: set[Future[Any]], *, limit: int) -> set[Future[Any]]:
    """Wait until at most ``limit`` futures are unfinished and return those; raise the error of one that failed."""
    done, unfinished = wait(pending, timeout=0)
    while len(unfinished) > limit:
        more, unfinished = wait(unfinished, return_when=FIRST_COMPLETED)
        done |= more
    for future in done:
        future.result()
    return unfinished


class _Progress:
    """Counts rendered frames and logs them every few seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._count = 0
        self._started = self._last = self._reported = time.monotonic()
        self._lock = threading.Lock()

    def advance(self) -> tuple[float, bool]:
        """Count one more frame; return the seconds since the previous one, and whether this is the first."""
        with self._lock:
            now = time.monotonic()
            seconds, self._last = now - self._last, now
            self._count += 1
            if now - self._reported > PROGRESS_SECONDS:
                self._reported = now
                self._report(now - self._started)
            return seconds, self._count == 1

    def _report(self, seconds: float) -> None:
        count, total, rate = self._count, self._total, self._count / seconds
        log.info("frame %d of %d, %.2f fps, %.0f s left", count, total, rate, (total - count) / rate)
