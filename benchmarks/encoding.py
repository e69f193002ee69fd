"""Measure what files of frames cost: time and size of writing and reading, against other libraries, and memory.

python benchmarks/encoding.py

Every program runs in one thread, in turn, on the same frames; figures are medians of the time of a core, which hardly
depends on what else is running, and ratios to the first of a group. As in a render, the C library keeps freed memory.
"""

import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import av
import cv2
import numpy as np
import OpenImageIO as oiio  # noqa: N813
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts")]

from dailies.core import job_environment  # noqa: E402
from dailies.frames import image  # noqa: E402
from dailies.frames.oiio import open_image, read_channels  # noqa: E402

SIZE, REPEATS = (1920, 1080), 7
GRAINS = {0: "clean", 5: "light grain", 15: "heavy grain"}


def photograph(grain: float, dtype: type[np.unsignedinteger]) -> np.ndarray:
    """Give a photograph of ``SIZE`` with grain of a standard deviation of ``grain`` code values of 255."""
    from sklearn.datasets import load_sample_image

    image = np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize(SIZE, Image.Resampling.LANCZOS))
    noisy = image + np.random.default_rng(0).normal(0, grain, image.shape)
    return np.clip(noisy * (np.iinfo(dtype).max // 255), 0, np.iinfo(dtype).max).astype(dtype)


def ours(output_format: str) -> Callable[[np.ndarray], bytes]:
    return lambda frame: image.encode(frame, image.Picture(frame), output_format)


def pillow(level: int) -> Callable[[np.ndarray], bytes]:
    def encode(frame: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "PNG", compress_level=level)
        return buffer.getvalue()

    return encode


def openimageio(**attributes: str | int) -> Callable[[np.ndarray], bytes]:
    def encode(frame: np.ndarray) -> bytes:
        height, width, channels = frame.shape
        spec = oiio.ImageSpec(width, height, channels, str(frame.dtype))
        for name, value in attributes.items():
            spec.attribute(name.replace("__", ":"), value)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.png"
            file = oiio.ImageOutput.create(str(path))
            file.open(str(path), spec)
            file.write_image(frame)
            file.close()
            return path.read_bytes()

    return encode


def ffmpeg(frame: np.ndarray) -> bytes:
    kind = "rgb24" if frame.dtype == np.uint8 else "rgb48be"
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = frame.shape[:2]
    codec.pix_fmt, codec.time_base = kind, Fraction(1, 24)
    codec.options = {"compression_level": "1", "pred": "paeth"}
    picture = av.VideoFrame.from_ndarray(frame, format=kind)
    return b"".join(bytes(packet) for packet in [*codec.encode(picture), *codec.encode(None)])


RLE = openimageio(Compression="rle", png__compressionLevel=1, png__filter=128)
WRITERS = {
    np.uint8: {
        "ours": ours("png"),
        "Pillow, level 1": pillow(1),
        "Pillow, level 6": pillow(6),
        "OpenImageIO, run lengths": RLE,
        "OpenImageIO, as it comes": openimageio(),
        "FFmpeg, level 1, paeth": ffmpeg,
    },
    np.uint16: {
        "ours": ours("png16"),
        "OpenImageIO, run lengths": RLE,
        "OpenImageIO, as it comes": openimageio(),
        "FFmpeg, level 1, paeth": ffmpeg,
        "EXR, half": ours("exr"),
        "TIFF": ours("tiff"),
    },
}


def medians(programs: dict[str, Callable[[], bytes | np.ndarray]]) -> dict[str, float]:
    """Run programs in turn and give the median seconds that each takes of a core."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(REPEATS):
        for name, program in programs.items():
            start = time.process_time()
            program()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def peaks(kind: str, dtype: type[np.unsignedinteger]) -> tuple[float, float]:
    """Give the most memory to read and to write a frame, in frames; to be run in a process of its own."""
    frame, small = photograph(5, dtype), np.zeros((8, 8, 3), dtype)
    data = ours(kind)(small)
    image.decode(data, kind)
    data = ours(kind)(frame)
    found = []
    for program in (partial(ours(kind), frame), partial(image.decode, data, kind)):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        before = _resident("VmRSS")
        program()
        found.append((_resident("VmHWM") - before) / frame.nbytes)
    writing, reading = found
    return reading, writing


def _resident(name: str) -> int:
    """Give a figure of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def table(title: str, seconds: dict[str, float], sizes: dict[str, int]) -> None:
    """Print milliseconds and megabytes, and their ratios to those of the first line."""
    print(f"\n{title}")
    first = next(iter(seconds))
    for name, each in seconds.items():
        size = f"{sizes[name] / 1e6:6.2f} MB {sizes[name] / sizes[first]:5.2f}" if sizes else ""
        print(f"{name:28} {each * 1000:6.0f} ms {each / seconds[first]:5.2f}  {size}", flush=True)


def measure_writing(dtype: type[np.unsignedinteger], grain: float) -> None:
    frame = photograph(grain, dtype)
    programs = {name: partial(write, frame) for name, write in WRITERS[dtype].items()}
    sizes = {name: len(program()) for name, program in programs.items()}
    table(f"writing {np.iinfo(dtype).bits} bits, {GRAINS[grain]}", medians(programs), sizes)


def with_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def with_opencv(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH)


def with_openimageio(data: bytes) -> np.ndarray:
    with open_image(data, "a.png") as file:
        return read_channels(file, data, "", "a.png")


def with_ffmpeg(data: bytes) -> np.ndarray:
    context = av.CodecContext.create("png", "r")
    context.thread_count = 1
    return [*context.decode(av.Packet(data)), *context.decode(None)][0].to_ndarray()


READERS = {
    "OpenImageIO": with_openimageio,
    "FFmpeg": with_ffmpeg,
    "OpenCV": with_opencv,
    "Pillow": with_pillow,
}


def measure_reading(dtype: type[np.unsignedinteger], kinds: tuple[str, ...]) -> None:
    frame = photograph(5, dtype)
    files = {kind: ours(kind)(frame) for kind in kinds}
    programs = {kind: partial(image.decode, data, kind) for kind, data in files.items()}
    for name, reader in READERS.items():
        # Pillow reads 16-bit RGB as 8-bit
        if dtype is np.uint8 or reader is not with_pillow:
            programs[f"png, with {name}"] = partial(reader, files[kinds[0]])
    table(f"reading {np.iinfo(dtype).bits} bits, {GRAINS[5]}", medians(programs), {})
    # in memory that is kept no peak could be seen: what is freed goes back at once
    os.environ.pop("GLIBC_TUNABLES", None)
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "131072"
    for kind in kinds:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            reading, writing = pool.submit(peaks, kind, dtype).result()
        print(f"{kind}: at most {reading:.1f} frames of memory to read, {writing:.1f} to write", flush=True)


def main() -> None:
    """Print tables."""
    for dtype in WRITERS:
        for grain in GRAINS:
            measure_writing(dtype, grain)
    measure_reading(np.uint8, ("png", "tiff"))
    measure_reading(np.uint16, ("png16", "tiff", "exr"))


if __name__ == "__main__":
    job_environment.prepare()
    main()
