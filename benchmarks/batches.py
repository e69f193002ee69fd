"""Measure what batches bring on a CPU, and what they change: several inputs through a network over one after the other.

python benchmarks/batches.py
"""

import statistics
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts")]

from dailies.core import job_environment  # noqa: E402

NETWORKS = {
    "U-Net, base 64": ("unet", {"base_channels": 64}, (192, 320)),
    "U-Net, base 16": ("unet", {"base_channels": 16}, (384, 640)),
    "U-Net, base 8": ("unet", {"base_channels": 8}, (64, 64)),
    "NAFNet small": ("nafnet", {"size": "small"}, (192, 320)),
}
TOGETHER, COUNT, REPEATS, WHITE = (2, 4), 4, 7, 127.5


def main() -> None:
    """Print medians of ratios taken in turn, and the largest difference of an answer in code values of 255."""
    import torch
    from dailies.models.architectures.catalog import ARCHITECTURES
    from dailies.models.load import Model
    from dailies.render.network import Network

    torch.manual_seed(0)
    torch.set_num_threads(2)
    for name, (architecture, config, size) in NETWORKS.items():
        built = ARCHITECTURES[architecture](**config).eval()
        for key, values in built.named_parameters():
            if key.endswith(("beta", "gamma")):  # which start at 0, where a NAFNet answers nearly its input
                torch.nn.init.normal_(values, std=0.2)
        network = Network(Model(built, name), torch.device("cpu"), precision="fp32")
        given = torch.rand(COUNT, 3, *size) * 2 - 1
        with torch.inference_mode():
            answers = {n: torch.cat([network(part) for part in given.split(n)]) for n in (1, *TOGETHER)}
            ratios: dict[int, list[float]] = {n: [] for n in TOGETHER}
            for _ in range(REPEATS):
                times = {}
                for n in (1, *TOGETHER):
                    start = time.perf_counter()
                    for part in given.split(n):
                        network(part)
                    times[n] = time.perf_counter() - start
                for n, taken in ratios.items():
                    taken.append(times[1] / times[n])
        for n, taken in ratios.items():
            most = (answers[n] - answers[1]).abs().max().item() * WHITE
            print(
                f"{name}, {n} together: {statistics.median(taken):.2f} times as fast, differs by {most:.1g}", flush=True
            )


if __name__ == "__main__":
    job_environment.prepare()
    main()
