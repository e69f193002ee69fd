"""Measure the pipeline of a render on a simulated device: its throughput over that of the device alone, against loops.

python benchmarks/pipeline.py

The device takes 33 ms for a 1920×1080 frame without using a core. The loops read, wait for the device and write one
after the other, as scripts do; their frames are compared with the pipeline's, pixel by pixel. What one frame costs of a
core, step by step, is measured first, in one thread: unlike the wall clock it hardly depends on what else is running.
As in a render, the C library keeps freed memory.
"""

import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "benchmarks")]

from dailies.core import files, job_environment  # noqa: E402
from dailies.frames import image, scan, sequence  # noqa: E402
from dailies.render.pipeline import Route, render_frames  # noqa: E402
from dailies.state.layout import Layout  # noqa: E402
from dailies.state.manifest import Manifest, keys_of  # noqa: E402
from estimates import photograph  # noqa: E402

DEVICE_SECONDS, COUNT, COUNT_OF_OTHERS, THREADS, REPEATS = 0.033, 200, 6, 2, 3


class Device:
    """Takes its time over a frame and gives it back."""

    device = SimpleNamespace(type="simulated")

    def batch_size(self, height: int, width: int) -> int:
        return 1

    def submit(self, pixels: np.ndarray, dtype: np.dtype) -> SimpleNamespace:
        time.sleep(DEVICE_SECONDS)
        return SimpleNamespace(result=lambda: pixels.astype(dtype, copy=False), tiled=False)


def pipeline(shot: sequence.Sequence, source: Path, target: Path) -> None:
    """Render as an infer job does."""
    route = Route(source, target, "clip", "auto", THREADS)
    manifest = Manifest(target / "manifest.jsonl", folder=route.folder, keys=keys_of(shot, "", None))
    render_frames(shot.frames, route, Device(), manifest, {})


def pillow(level: int) -> Callable[[sequence.Sequence, Path, Path], None]:
    """Give a plain loop with Pillow, whose PNGs are compressed with a level of zlib."""

    def run(shot: sequence.Sequence, source: Path, target: Path) -> None:
        for frame in shot.frames:
            pixels = np.asarray(Image.open(source / frame.name).convert("RGB"))
            rendered = Device().submit(pixels, pixels.dtype).result()
            Image.fromarray(rendered).save(target / frame.output, compress_level=level)

    return run


def opencv(shot: sequence.Sequence, source: Path, target: Path) -> None:
    """Run a plain loop with OpenCV, as it comes."""
    for frame in shot.frames:
        pixels = cv2.imread(str(source / frame.name))
        cv2.imwrite(str(target / frame.output), Device().submit(pixels, pixels.dtype).result())


def alone(shot: sequence.Sequence, source: Path, target: Path) -> None:
    """Keep the device busy and do nothing else."""
    pixels = np.zeros((1, 1, 3), dtype=np.uint8)
    for _ in shot.frames:
        Device().submit(pixels, pixels.dtype)


WAYS = {
    "the device alone": alone,
    "pipeline": pipeline,
    "loop, Pillow, level 6": pillow(6),
    "loop, Pillow, level 1": pillow(1),
    "loop, OpenCV": opencv,
}


def measure_steps(path: Path, folder: Path) -> None:
    """Print what each step of the pipeline takes of a core for one frame, and all of them together."""
    data = path.read_bytes()
    picture = image.decode(data, path.name)
    encoded = image.encode(picture.pixels, picture)
    steps: dict[str, Callable[[], object]] = {
        "read": path.read_bytes,
        "sha256 of the input": lambda: hashlib.sha256(data).hexdigest(),
        "decode": lambda: image.decode(data, path.name),
        "encode": lambda: image.encode(picture.pixels, picture),
        "write": lambda: files.write_bytes(folder / path.name, encoded, durable=False),
        "sha256 of the output": lambda: hashlib.sha256(encoded).hexdigest(),
    }
    costs: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(9):
        for name, step in steps.items():
            start = time.thread_time()
            step()
            costs[name].append((time.thread_time() - start) * 1000)
    medians = {name: statistics.median(each) for name, each in costs.items()}
    for name, cost in [*medians.items(), ("all of them", sum(medians.values()))]:
        print(f"{name}: {cost:.1f} ms of a core", flush=True)


def same(one: Path, other: Path) -> bool:
    """Tell whether two folders hold the same frames, pixel by pixel."""
    pairs = ((path, other / path.name) for path in one.glob("*.png"))
    return all(np.array_equal(*(np.asarray(Image.open(path)) for path in pair)) for pair in pairs)


def main() -> None:
    """Print medians, and throughputs as ratios to the device alone, taken in turn."""
    job_environment.prepare()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "shot").mkdir()
        picture = image.Picture(photograph(5))
        data = image.encode(picture.pixels, picture)
        for number in range(COUNT):
            (root / "shot" / f"frame_{number:06d}.png").write_bytes(data)
        measure_steps(root / "shot" / "frame_000000.png", root)
        shot = scan.scan(root / "shot", on_bad_frame="error", cache=Layout(root).scan)
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        cores: dict[str, list[float]] = {name: [] for name in WAYS}
        for repeat in range(REPEATS):
            for name, way in WAYS.items():
                target = root / f"{name} {repeat}"
                target.mkdir()
                os.sync()  # each way writes what it leaves, not what the one before left
                count = COUNT if name == "pipeline" else COUNT_OF_OTHERS
                start, used = time.perf_counter(), time.process_time()
                way(replace(shot, frames=shot.frames[:count]), root / "shot", target)
                times[name].append((time.perf_counter() - start) / count * 1000)
                cores[name].append((time.process_time() - used) / count * 1000)
        for name in WAYS:
            if name != "the device alone" and not same(root / f"{name} 0", root / "pipeline 0"):
                sys.exit(f"{name} gives other pixels than the pipeline")
    for name, taken in times.items():
        ratio = statistics.median(base / own for own, base in zip(taken, times["the device alone"], strict=True))
        wall, core = statistics.median(taken), statistics.median(cores[name])
        print(f"{name}: {wall:.0f} ms a frame, {core:.0f} of a core, throughput {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
