"""Measure what files of frames cost: time and size of writing and reading, against other libraries, and memory.

python benchmarks/encoding.py

Every program runs in one thread, in turn, on the same frames; figures are medians of the time of a core, which hardly
depends on what else is running, and ratios to the first of a group.
"""

import io
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import OpenImageIO as oiio  # noqa: N813
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts")]

from dailies import frames  # noqa: E402

SIZE, REPEATS = (1920, 1080), 7
GRAINS = {0: "clean", 5: "light grain", 15: "heavy grain"}


def photograph(grain: float, dtype: type[np.unsignedinteger]) -> np.ndarray:
    """Give a photograph of ``SIZE`` with grain of a standard deviation of ``grain`` code values of 255."""
    from sklearn.datasets import load_sample_image

    image = np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize(SIZE, Image.Resampling.LANCZOS))
    noisy = image + np.random.default_rng(0).normal(0, grain, image.shape)
    return np.clip(noisy * (np.iinfo(dtype).max // 255), 0, np.iinfo(dtype).max).astype(dtype)


def ours(output_format: str, compression: str = "fast") -> Callable[[np.ndarray], bytes]:
    return lambda frame: frames.encode(frame, frames.Picture(frame), output_format, compression)


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
        "fast": ours("png"),
        "small": ours("png", "small"),
        "Pillow, level 1": pillow(1),
        "Pillow, level 6": pillow(6),
        "OpenImageIO, run lengths": RLE,
        "OpenImageIO, as it comes": openimageio(),
        "FFmpeg, level 1, paeth": ffmpeg,
    },
    np.uint16: {
        "fast": ours("png16"),
        "small": ours("png16", "small"),
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


def peak(program: Callable[[], object], frame: np.ndarray) -> float:
    """Give the most memory that numpy and Python hold while a program runs, in frames."""
    tracemalloc.start()
    program()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / frame.nbytes


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


def measure_reading(dtype: type[np.unsignedinteger], kinds: tuple[str, ...]) -> None:
    frame = photograph(5, dtype)
    files = {kind: ours(kind)(frame) for kind in kinds}
    programs = {kind: partial(frames.decode, data, kind) for kind, data in files.items()}
    if dtype is np.uint8:
        programs["png, with Pillow"] = partial(with_pillow, files["png"])
    table(f"reading {np.iinfo(dtype).bits} bits, {GRAINS[5]}", medians(programs), {})
    for kind in kinds:
        reading, writing = peak(programs[kind], frame), peak(partial(ours(kind), frame), frame)
        print(f"{kind}: at most {reading:.2f} frames in memory to read, {writing:.2f} to write")


def with_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def main() -> None:
    """Print tables."""
    for dtype in WRITERS:
        for grain in GRAINS:
            measure_writing(dtype, grain)
    measure_reading(np.uint8, ("png", "tiff"))
    measure_reading(np.uint16, ("png16", "tiff", "exr"))


if __name__ == "__main__":
    main()
