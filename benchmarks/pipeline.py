"""Measure the pipeline of a render on a simulated device: its throughput over that of the device alone, against loops.

python benchmarks/pipeline.py

The device takes 33 ms for a 1920×1080 frame without using a core. The loop reads, waits for the device and writes one
after the other, as scripts do.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "benchmarks")]

from dailies import frames, sequence  # noqa: E402
from dailies.manifest import Manifest, keys_of  # noqa: E402
from dailies.pipeline import Route, render_frames  # noqa: E402
from estimates import photograph  # noqa: E402

DEVICE_SECONDS, COUNT, THREADS, REPEATS = 0.033, 60, 2, 3


class Device:
    """Takes its time over a frame and gives it back."""

    device = SimpleNamespace(type="simulated")

    def submit(self, pixels: np.ndarray, dtype: np.dtype) -> SimpleNamespace:
        time.sleep(DEVICE_SECONDS)
        return SimpleNamespace(result=lambda: pixels.astype(dtype, copy=False), tiled=False)


def pipeline(shot: sequence.Sequence, source: Path, target: Path) -> None:
    """Render as an infer job does."""
    route = Route(source, target / "frames", "clip", "auto", "fast", THREADS)
    manifest = Manifest(target / "manifest.jsonl", folder=route.folder, keys=keys_of(shot, "", None))
    render_frames(shot.frames, route, Device(), manifest)


def loop(level: int) -> Callable[[sequence.Sequence, Path, Path], None]:
    """Give a plain loop with Pillow, whose PNGs are compressed with a level of zlib."""

    def run(shot: sequence.Sequence, source: Path, target: Path) -> None:
        for frame in shot.frames:
            pixels = np.asarray(Image.open(source / frame.name).convert("RGB"))
            rendered = Device().submit(pixels, pixels.dtype).result()
            Image.fromarray(rendered).save(target / frame.output, compress_level=level)

    return run


def alone(shot: sequence.Sequence, source: Path, target: Path) -> None:
    """Keep the device busy and do nothing else."""
    pixels = np.zeros((1, 1, 3), dtype=np.uint8)
    for _ in shot.frames:
        Device().submit(pixels, pixels.dtype)


WAYS = {"the device alone": alone, "pipeline": pipeline, "loop, level 6": loop(6), "loop, level 1": loop(1)}


def main() -> None:
    """Print medians, and throughputs as ratios to the device alone, taken in turn."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "shot").mkdir()
        picture = frames.Picture(photograph(5))
        data = frames.encode(picture.pixels, picture)
        for number in range(COUNT):
            (root / "shot" / f"frame_{number:06d}.png").write_bytes(data)
        shot = sequence.scan(root / "shot", on_bad_frame="error", cache=root / "cache.json")
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        for repeat in range(REPEATS):
            for name, way in WAYS.items():
                target = root / f"{name} {repeat}"
                target.mkdir()
                start = time.perf_counter()
                way(shot, root / "shot", target)
                times[name].append(time.perf_counter() - start)
    for name, taken in times.items():
        ratio = statistics.median(base / own for own, base in zip(taken, times["the device alone"], strict=True))
        print(f"{name}: {statistics.median(taken) / COUNT * 1000:.0f} ms a frame, throughput {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
