"""Measure renders on the best device there is: throughput of the whole job over that of the network alone.

python benchmarks/throughput.py [cpu|cuda]

The network alone gets tensors that are on the device already, as many together as the engine found to fit, and its
answers stay there; the job reads, decodes, uploads, renders, encodes and writes. They take turns, and so do the ways to
run a network, each compared with fp32. On a CPU frames are smaller and fewer, and of the ways there are two.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "benchmarks")]

from dailies import environment, frames, sequence  # noqa: E402

if TYPE_CHECKING:
    import torch
    from dailies.engine import Engine, Settings

NETWORKS = {"U-Net, base 64": ("unet", {"base_channels": 64}), "NAFNet base": ("nafnet", {"size": "base"})}
WAYS = {
    "fp32": {},
    "fp32, one by one": {"batch": 1},
    "fp32, autotuned": {"autotune": True},
    "tf32": {"precision": "tf32"},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "fp16, autotuned": {"precision": "fp16", "autotune": True},
    "fp16, compiled": {"precision": "fp16", "compile": True},
}
"""Settings of the engine; the first is what the others are compared with."""
ON_CPU = ("fp32", "bf16")
REPEATS, THREADS = 3, min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Shot:
    """Frames on the disk, all with the same light grain."""

    root: Path
    frames: sequence.Sequence
    height: int
    width: int


def photographed(root: Path, *, height: int, width: int, count: int) -> Shot:
    """Write the frames."""
    from estimates import photograph

    (root / "shot").mkdir()
    picture = frames.Picture(photograph(5)[:height, :width])
    data = frames.encode(picture.pixels, picture)
    for number in range(count):
        (root / "shot" / f"frame_{number:06d}.png").write_bytes(data)
    return Shot(root, sequence.scan(root / "shot", on_bad_frame="error", cache=root / "cache.json"), height, width)


def seconds_of_job(engine: "Engine", shot: Shot) -> float:
    """Render as an infer job does; give the seconds of a frame."""
    from dailies.manifest import Manifest, keys_of
    from dailies.pipeline import Route, render_frames

    with tempfile.TemporaryDirectory(dir=shot.root) as target:
        route = Route(shot.root / "shot", Path(target), "clip", "auto", "fast", THREADS)
        manifest = Manifest(route.folder / "manifest.jsonl", folder=route.folder, keys=keys_of(shot.frames, "", None))
        os.sync()
        start = time.perf_counter()
        render_frames(shot.frames.frames, route, engine, manifest, {})
        return (time.perf_counter() - start) / len(shot.frames.frames)


def seconds_alone(
    network: "Callable[[torch.Tensor], torch.Tensor]", engine: "Engine", shot: Shot, together: int
) -> float:
    """Run a network on tensors of the frames' padded size, so many together; give the seconds of a frame."""
    import torch
    from dailies.levels import padded_length

    sides = (padded_length(side, engine.signature.multiple, 1) for side in (shot.height, shot.width))
    given = torch.rand(together, 3, *sides, device=engine.device).contiguous(memory_format=torch.channels_last)
    calls = -(-len(shot.frames.frames) // together)
    with torch.inference_mode(), arithmetic(engine.settings, engine.device):
        start = time.perf_counter()
        for _ in range(calls):
            network(given)
        if engine.device.type == "cuda":
            torch.cuda.synchronize(engine.device)
        return (time.perf_counter() - start) / (calls * together)


@contextmanager
def arithmetic(settings: "Settings", device: "torch.device") -> Iterator[None]:
    """Set what torch calculates in."""
    import torch
    from dailies.network import AUTOCAST

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"
    torch.backends.cudnn.benchmark = settings.autotune
    kind = AUTOCAST.get(settings.precision)
    with torch.autocast(device.type, dtype=kind) if kind else nullcontext():
        yield


def measure(name: str, shot: Shot, device: "torch.device") -> None:
    """Print for each way medians, and ratios taken in turn."""
    import torch
    from dailies.architectures import ARCHITECTURES
    from dailies.engine import Engine, Settings
    from dailies.models import Model

    architecture, config = NETWORKS[name]
    torch.manual_seed(0)
    network = ARCHITECTURES[architecture](**config).eval()
    first = frames.decode((shot.root / "shot" / shot.frames.frames[0].name).read_bytes(), "").pixels
    ways = {
        way: Settings(**WAYS[way], parity_tolerance=(255, 255)) for way in (ON_CPU if device.type == "cpu" else WAYS)
    }
    engines, networks = {}, {}
    for way, settings in ways.items():
        engine = engines[way] = Engine(Model(network, name), device=device, settings=settings)
        engine.probe()
        engine.settle(first)
        networks[way] = torch.compile(network, dynamic=False) if settings.compile else network
        for note in engine.notes:
            print(f"{name}, {way}: {note}")
    job: dict[str, list[float]] = {way: [] for way in ways}
    alone: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(REPEATS + 1):
        for way, engine in engines.items():
            own = seconds_of_job(engine, shot)
            other = seconds_alone(networks[way], engine, shot, engine.batch)
            if turn:  # before, memory is asked for, algorithms are found and batches tried
                job[way].append(own)
                alone[way].append(other)
    base = next(iter(ways))
    for way, engine in engines.items():
        ratio = statistics.median(a / b for a, b in zip(alone[way], job[way], strict=True))
        faster = statistics.median(a / b for a, b in zip(job[base], job[way], strict=True))
        own, other = (statistics.median(taken) * 1000 for taken in (job[way], alone[way]))
        print(
            f"{name}, {way}: {own:.1f} ms a frame, {other:.1f} in the network alone, {engine.batch} together: "
            f"throughput {ratio:.2f}; {faster:.2f} times as fast as {base}",
            flush=True,
        )


def main() -> None:
    """Measure every network."""
    import torch
    from dailies.engine import find_device

    torch.set_num_threads(THREADS)
    device = find_device(sys.argv[1] if len(sys.argv) > 1 else "auto")
    about = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    height, width, count = (180, 320, 6) if device.type == "cpu" else (1080, 1920, 40)
    print(f"{about}, {THREADS} threads, {count} frames of {width}×{height}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        shot = photographed(Path(folder), height=height, width=width, count=count)
        for name in NETWORKS:
            measure(name, shot, device)


if __name__ == "__main__":
    environment.prepare()
    main()
