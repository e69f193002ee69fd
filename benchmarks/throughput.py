"""Measure renders on the best device there is: throughput of the whole job over that of the network alone.

python benchmarks/throughput.py [cpu|cuda]

The network alone gets tensors that are on the device already, as many together as the engine found to fit, and its
answers stay there; the job reads, decodes, uploads, renders, encodes and writes. They take turns, and so do the ways to
run a network, each compared with fp32, and each with as many frames as the network alone renders in SECONDS. What is
known is printed after every turn: a run that is cut short has told of those before. On a CPU frames are smaller, and of
the ways there are two.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "benchmarks")]

from dailies.core import job_environment  # noqa: E402
from dailies.frames import image, scan, sequence  # noqa: E402
from dailies.state.layout import Layout  # noqa: E402

if TYPE_CHECKING:
    import torch
    from dailies.render.engine import Engine

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
SECONDS = 2
"""How long the frames of a turn take in the network alone, as far as they suffice."""


@dataclass(frozen=True)
class Shot:
    """Frames on the disk, all with the same light grain."""

    root: Path
    frames: sequence.Sequence
    height: int
    width: int
    least: int
    """How many frames a turn takes at least."""

    def beginning(self, count: int) -> "Shot":
        """Give the first frames."""
        return replace(self, frames=replace(self.frames, frames=self.frames.frames[:count]))


def photographed(root: Path, *, height: int, width: int, least: int, most: int) -> Shot:
    """Write the frames."""
    from estimates import photograph

    (root / "shot").mkdir()
    picture = image.Picture(photograph(5)[:height, :width])
    data = image.encode(picture.pixels, picture)
    for number in range(most):
        (root / "shot" / f"frame_{number:06d}.png").write_bytes(data)
    return Shot(root, scan.scan(root / "shot", on_bad_frame="error", cache=Layout(root).scan), height, width, least)


def seconds_of_job(engine: "Engine", shot: Shot) -> float:
    """Render as an infer job does; give the seconds of a frame."""
    from dailies.render.pipeline import Route, render_frames
    from dailies.state.manifest import Manifest, keys_of

    with tempfile.TemporaryDirectory(dir=shot.root) as target:
        route = Route(shot.root / "shot", Path(target), "clip", "auto", THREADS)
        manifest = Manifest(route.folder / "manifest.jsonl", folder=route.folder, keys=keys_of(shot.frames, "", None))
        os.sync()
        start = time.perf_counter()
        render_frames(shot.frames.frames, route, engine, manifest, {})
        return (time.perf_counter() - start) / len(shot.frames.frames)


def seconds_alone(network: "Callable[[torch.Tensor], torch.Tensor]", engine: "Engine", shot: Shot) -> float:
    """Run a network on tensors of the frames' padded size, a batch together; give the seconds of a frame."""
    import torch
    from dailies.render.tensors import padded_length

    sides = (padded_length(side, engine.signature.multiple, 1) for side in (shot.height, shot.width))
    calls = -(-len(shot.frames.frames) // engine.batch)
    with torch.inference_mode(), arithmetic(engine):
        given = torch.rand(engine.batch, 3, *sides, device=engine.device).contiguous(memory_format=torch.channels_last)
        network(given)  # compiles, where another than the engine's is compiled
        finish(engine.device)
        start = time.perf_counter()
        for _ in range(calls):
            network(given)
        finish(engine.device)
        return (time.perf_counter() - start) / (calls * engine.batch)


def finish(device: "torch.device") -> None:
    """Wait for what a device was asked for."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def arithmetic(engine: "Engine") -> Iterator[None]:
    """Set what torch calculates in to what an engine came to."""
    import torch
    from dailies.render.network import AUTOCAST

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = engine.precision == "tf32"
    torch.backends.cudnn.benchmark = engine.autotuned
    torch.backends.cudnn.deterministic = True
    kind = AUTOCAST.get(engine.precision)
    with torch.autocast(engine.device.type, dtype=kind) if kind else nullcontext():
        yield


@contextmanager
def failing_alone(way: str, engines: "dict[str, Engine]") -> Iterator[None]:
    """Say that a way to run a network failed, and go on without it."""
    try:
        yield
    except Exception as error:
        engines.pop(way, None)
        print(f"{way}: failed with {type(error).__name__}: {error}", flush=True)


def measure(name: str, shot: Shot, device: "torch.device") -> None:
    """Print for each way medians, and ratios taken in turn."""
    import torch
    from dailies.models.architectures.catalog import ARCHITECTURES
    from dailies.models.load import Model
    from dailies.render.engine import Engine, Settings

    architecture, config = NETWORKS[name]
    torch.manual_seed(0)
    network = ARCHITECTURES[architecture](**config).eval()
    first = image.decode((shot.root / "shot" / shot.frames.frames[0].name).read_bytes(), "").pixels
    engines: dict[str, Engine] = {}
    for way in ON_CPU if device.type == "cpu" else WAYS:
        with failing_alone(f"{name}, {way}", engines):
            settings = Settings(**WAYS[way], parity_tolerance=(255, 255))
            engine = Engine(Model(network, name), device=device, settings=settings)
            engine.probe()
            engine.choose_mode(first)
            for note in engine.notes:
                print(f"{name}, {way}: {note}", flush=True)
            if engine.compile_seconds or not settings.compile:
                engines[f"{name}, {way}"] = engine
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in engines}
    counts = dict.fromkeys(engines, shot.least)
    for turn in range(REPEATS + 1):
        for way, engine in [*engines.items()]:
            with failing_alone(way, engines):
                some = shot.beginning(counts[way])
                own = seconds_of_job(engine, some)
                other = seconds_alone(
                    torch.compile(network, dynamic=False) if engine.compile_seconds else network, engine, some
                )
                if turn:
                    taken[way].append((own, other))
                    tell(way, engine, taken)
                else:  # memory is asked for, algorithms are found and batches tried
                    wanted = max(shot.least, min(len(shot.frames.frames), round(SECONDS / other)))
                    counts[way] = -(-wanted // engine.batch) * engine.batch


def tell(way: str, engine: "Engine", taken: dict[str, list[tuple[float, float]]]) -> None:
    """Print what is known by now of a way to run a network; ``taken`` are the seconds of the job and of the network."""
    base = next(each for each in taken if taken[each])
    jobs, alone = (list(each) for each in zip(*taken[way], strict=True))
    ratio = statistics.median(other / own for own, other in taken[way])
    faster = statistics.median(first / own for (first, _), own in zip(taken[base], jobs, strict=False))
    own, other = (statistics.median(each) * 1000 for each in (jobs, alone))
    print(
        f"{way}: {own:.1f} ms a frame, {other:.1f} in the network alone, {engine.batch} together: "
        f"throughput {ratio:.2f}; {faster:.2f} times as fast as the first; {len(jobs)} of {REPEATS} turns",
        flush=True,
    )


def main() -> None:
    """Measure every network."""
    import torch
    from dailies.render.devices import find_device

    torch.set_num_threads(THREADS)
    device = find_device(sys.argv[1] if len(sys.argv) > 1 else "auto")
    about = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    height, width, least, most = (180, 320, 6, 6) if device.type == "cpu" else (1080, 1920, 16, 200)
    print(
        f"{about}, torch {torch.__version__}, {THREADS} threads, {most} frames of {width}×{height}, or fewer",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        shot = photographed(Path(folder), height=height, width=width, least=least, most=most)
        for name in NETWORKS:
            measure(name, shot, device)


if __name__ == "__main__":
    job_environment.prepare()
    main()
