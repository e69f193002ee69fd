"""Measure what makes a network fast on a CPU: the layout of tensors, and the C library's memory thresholds.

python benchmarks/cpu.py

The programs take turns, frame by frame; figures are medians, and ratios to the first within each turn.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts")]

from dailies.core.job_environment import TUNING  # noqa: E402

NETWORKS = {"unet": {"base_channels": 64}, "nafnet": {"size": "small"}}
SIZE, REPEATS = (384, 640), 9
VARIANTS = {
    "plain": ("contiguous_format", False),
    "channels_last": ("channels_last", False),
    "plain, thresholds": ("contiguous_format", True),
    "channels_last, thresholds": ("channels_last", True),
}
"""The layout, and whether the thresholds are raised."""


def work() -> None:
    """Answer each line on standard input, a network and a layout, with the seconds of one frame and peak megabytes."""
    import resource

    import torch
    from dailies.models.architectures.catalog import ARCHITECTURES

    torch.manual_seed(0)
    networks = {name: ARCHITECTURES[name](**config).eval() for name, config in NETWORKS.items()}
    pixels = torch.rand(1, 3, *SIZE) * 2 - 1
    for line in sys.stdin:
        name, layout = json.loads(line)
        kind = getattr(torch, layout)
        network, given = networks[name].to(memory_format=kind), pixels.to(memory_format=kind)
        start = time.perf_counter()
        with torch.inference_mode():
            network(given)
        seconds = time.perf_counter() - start
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]), flush=True)


def main() -> None:
    """Print medians and ratios."""
    environ = {name: value for name, value in os.environ.items() if name not in TUNING}
    workers = {
        raised: subprocess.Popen(
            [sys.executable, __file__, "work"],
            env=environ | {name: TUNING[name] for name in TUNING if raised or name != "GLIBC_TUNABLES"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for raised in (False, True)
    }
    peaks = {}
    for network in NETWORKS:
        times: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for turn in range(REPEATS + 1):
            for name, (layout, raised) in VARIANTS.items():
                worker = workers[raised]
                worker.stdin.write(json.dumps([network, layout]) + "\n")
                worker.stdin.flush()
                seconds, peaks[raised] = json.loads(worker.stdout.readline())
                if turn:
                    times[name].append(seconds)
        for name, measured in times.items():
            ratio = statistics.median(a / b for a, b in zip(times["plain"], measured, strict=True))
            print(f"{network}, {name}: {statistics.median(measured):.2f} s, {ratio:.2f} times as fast", flush=True)
    for raised, worker in workers.items():
        worker.stdin.close()
        worker.wait()
        print(f"thresholds {'raised' if raised else 'as they come'}: {peaks[raised]:.0f} MB at most")


if __name__ == "__main__":
    work() if sys.argv[1:] == ["work"] else main()
