"""Measure what each metric costs for a 1920×1080 frame, in time of the CPU, and SSIM against scikit-image.

python benchmarks/metrics.py
"""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / folder) for folder in ("scripts", "benchmarks", "tests")]

from dailies.frames.image import Picture, convert_depth, decode, encode  # noqa: E402
from dailies.measure import flicker, quality  # noqa: E402
from dailies.measure.lpips import Lpips  # noqa: E402
from dailies.measure.source_frame import SourceFrame  # noqa: E402
from estimates import photograph  # noqa: E402
from helpers.networks import write_alexnet  # noqa: E402
from skimage.metrics import structural_similarity  # noqa: E402

REPEATS = 5


def scikit(image: np.ndarray, reference: np.ndarray) -> float:
    """Give SSIM as scikit-image computes it, in float64 as ours is."""
    return structural_similarity(
        image.astype(np.float64),
        reference.astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        channel_axis=2,
    )


def main() -> None:
    """Print medians of CPU time, taken in turn, and their ratios to ours of SSIM."""
    image, reference = (convert_depth(photograph(grain), "float32") for grain in (5, 15))
    data = encode(photograph(5), Picture(photograph(5)))
    source = SourceFrame.of(reference, image, associated=False)
    moved = source.motion
    with tempfile.TemporaryDirectory() as folder:
        lpips = Lpips(write_alexnet(Path(folder) / "alexnet.pth"))  # other weights take as long
    ways: dict[str, Callable[[], object]] = {
        "ssim": lambda: quality.ssim(image, reference),
        "ssim, scikit-image": lambda: scikit(image, reference),
        "ssim and ms_ssim": lambda: quality.compute(image, reference, ("ssim", "ms_ssim")),
        "psnr": lambda: quality.psnr(image, reference),
        "flip": lambda: quality.flip(image, reference),
        "lpips": lambda: lpips(image, reference),
        "detail": lambda: quality.detail(image, source.still),
        "clipping": lambda: quality.clipping(image, source.still),
        "the source, once for all models": lambda: SourceFrame.of(reference, image, associated=False),
        "flicker": lambda: flicker.flicker(image, reference, moved),
        "decoding the frame": lambda: convert_depth(decode(data, "x.png").pixels, "float32"),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(REPEATS):
        for way, run in ways.items():
            start = time.process_time()
            run()
            times[way].append(time.process_time() - start)
    for way, taken in times.items():
        ratio = statistics.median(own / base for own, base in zip(taken, times["ssim"], strict=True))
        print(f"{way}: {1000 * statistics.median(taken):.0f} ms of CPU, {ratio:.2f} of SSIM", flush=True)
    difference = quality.ssim(image, reference) - scikit(image, reference)
    print(f"SSIM differs from scikit-image by {difference:.1e}")
    print(f"peak of memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
