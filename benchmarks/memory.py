"""Measure the peak memory of a render with few frames and with many.

python benchmarks/memory.py
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts")]

COUNTS, SIZE = (20, 2000), (270, 480)


def render(count: int) -> float:
    """Render so many frames with a convolution; give the peak memory of this process in MB."""
    import torch
    from dailies.frames import image, scan
    from dailies.models.load import Model
    from dailies.render.engine import Engine, Settings
    from dailies.render.pipeline import Route, render_frames
    from dailies.state.layout import Layout
    from dailies.state.manifest import Manifest, keys_of

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.Conv2d(16, 3, 3, padding=1))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "shot").mkdir()
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            data = image.encode(pixels, image.Picture(pixels))
            (root / "shot" / f"frame_{number:06d}.png").write_bytes(data)
        shot = scan.scan(root / "shot", on_bad_frame="error", cache=Layout(root).scan)
        engine = Engine(Model(network.eval(), "test"), device=torch.device("cpu"), settings=Settings())
        engine.probe()
        route = Route(root / "shot", root / "out", "clip", "auto", 2)
        manifest = Manifest(root / "manifest.jsonl", folder=route.folder, keys=keys_of(shot, "", None))
        render_frames(shot.frames, route, engine, manifest, {})
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Print the peaks, each of a process of its own, and their ratio."""
    peaks = []
    for count in COUNTS:
        done = subprocess.run([sys.executable, __file__, str(count)], check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout))
        print(f"{count} frames of {SIZE[1]}×{SIZE[0]}: {peaks[-1]:.0f} MB", flush=True)
    print(f"ratio {peaks[-1] / peaks[0]:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(render(int(sys.argv[1])))
    else:
        main()
