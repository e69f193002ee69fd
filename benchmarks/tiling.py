"""Measure what tiles cost: a frame in tiles over the whole frame, on the CPU.

python benchmarks/tiling.py
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "benchmarks")]

from dailies.models.architectures.catalog import ARCHITECTURES  # noqa: E402
from dailies.models.load import Model  # noqa: E402
from dailies.render.engine import Engine, Settings  # noqa: E402
from estimates import photograph  # noqa: E402

NETWORKS = {"unet": {"base_channels": 16}, "nafnet": {"size": "small"}}
WAYS = {
    "whole": Settings(tiled=False),
    "tiles of 512, overlap 64": Settings(tiled=True),
    "tiles of 256, overlap 64": Settings(tiled=True, tile_size=256),
    "tiles of 256, overlap 32": Settings(tiled=True, tile_size=256, overlap=32),
}
REPEATS = 3


def main() -> None:
    """Print medians and ratios to the whole frame, taken in turn, and the largest difference in code values."""
    frame = photograph(5)[:540, :960]
    for name, config in NETWORKS.items():
        torch.manual_seed(0)
        network = ARCHITECTURES[name](**config).eval()
        engines = {
            way: Engine(Model(network, name), device=torch.device("cpu"), settings=settings)
            for way, settings in WAYS.items()
        }
        results = {way: engine.render(frame).astype(int) for way, engine in engines.items()}
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(REPEATS):
            for way, engine in engines.items():
                start = time.perf_counter()
                engine.render(frame)
                times[way].append(time.perf_counter() - start)
        for way, taken in times.items():
            ratio = statistics.median(own / base for own, base in zip(taken, times["whole"], strict=True))
            seam = np.abs(results[way] - results["whole"]).max()
            print(f"{name}, {way}: {statistics.median(taken):.2f} s, {ratio:.2f} times, seam {seam}", flush=True)


if __name__ == "__main__":
    main()
