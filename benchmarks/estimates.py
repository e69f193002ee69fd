"""Measure what a frame costs: seconds in a network on this machine's CPU, and bytes as a PNG.

python benchmarks/estimates.py
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts")]

from dailies.frames import image  # noqa: E402
from dailies.models.architectures.catalog import ARCHITECTURES  # noqa: E402
from dailies.models.load import Model  # noqa: E402
from dailies.render.engine import Engine, Settings  # noqa: E402

NETWORKS = {"unet": {"base_channels": 64}, "nafnet": {"size": "small"}}
DEPTHS_OF_TIFF = tuple(("tiff", dtype) for dtype in ("uint8", "uint16", "float32"))
SIZE, REPEATS = (1920, 1080), 3


def photograph(noise: float) -> np.ndarray:
    """Give a photograph of ``SIZE`` with grain of a standard deviation of ``noise`` code values."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    image = np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize(SIZE, Image.Resampling.LANCZOS))
    grain = np.random.default_rng(0).normal(0, noise, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def grainy(frame: np.ndarray, dtype: str) -> np.ndarray:
    """Give a frame of another depth, whose values are as fine as that depth allows."""
    if dtype == "uint8":
        return frame
    fine = np.random.default_rng(1).uniform(-0.5, 0.5, frame.shape)
    return image.convert_depth(((frame + fine) / 255).astype(np.float32), dtype)


def main() -> None:
    """Print medians."""
    for noise in (0, 5, 15):
        frame = photograph(noise)
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            data = image.encode(frame, image.Picture(frame))
            times.append(time.perf_counter() - start)
        print(f"PNG, grain {noise}: {len(data) / 1e6:.2f} MB, {statistics.median(times) * 1000:.0f} ms", flush=True)
    frame = photograph(5)
    for kind, dtype in (("png", "uint8"), ("png16", "uint16"), ("exr", "float32"), *DEPTHS_OF_TIFF):
        deep = grainy(frame, dtype)
        size = len(image.encode(deep, image.Picture(deep), kind))
        print(f"{kind} of {dtype}, light grain: {size / deep.size:.2f} bytes a value", flush=True)
    for name, config in NETWORKS.items():
        network = ARCHITECTURES[name](**config).eval()
        engine = Engine(Model(network, name), device=torch.device("cpu"), settings=Settings())
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            engine.render(frame)
            times.append(time.perf_counter() - start)
        print(
            f"{name} {config}: {statistics.median(times):.1f} s a frame, {torch.get_num_threads()} threads", flush=True
        )


if __name__ == "__main__":
    main()
