"""Measure whole invocations on a simulated device: how long the decision takes over the seconds of the device itself.

python benchmarks/decision.py                       # 5 models × 48 frames of 1920×1080, two cores
python benchmarks/decision.py --models 3 --frames 24
python benchmarks/decision.py --against REV         # the same on another revision, in turn
python benchmarks/decision.py --computes --models 3 --frames 24     # with small networks that compute on the CPU
python benchmarks/decision.py --fixed               # what one more model costs, even with two tiny frames

The device waits for 33 ms per frame without using a core and returns the frame, in place of the engine's ``submit``: as
on a GPU, no core converts code values to the network's input and back. Frames have light grain and a reference; the
metrics are the default ones, and the page is made. What metrics, thumbnails and codecs take of a core per frame and
model is measured in one thread, first: unlike the wall clock it hardly depends on what else is running.
"""

import argparse
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / folder) for folder in ("scripts", "benchmarks")]

from dailies.core import files, job_environment  # noqa: E402
from dailies.frames import image  # noqa: E402
from estimates import photograph  # noqa: E402

DEVICE_SECONDS = 0.033

WIDTH = 16
"""Channels of the network that computes: it takes about 0.22 s for a frame in two threads."""

FEW, MANY = 8, 16
"""Models of the two invocations whose difference is the cost of a model."""

NETWORK = f"""
import os, time
from pathlib import Path
from dailies.render.engine import Engine, Rendering
from torch import nn

class Device(nn.Module):
    '''Returns the frame.'''

    def __init__(self):
        super().__init__()
        self.scale = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return x

class Computer(Device):
    '''Takes its time to compute something, and returns the frame.'''

    def __init__(self):
        super().__init__()
        channels = 3, {WIDTH}, {WIDTH}, 3
        self.layers = nn.ModuleList(nn.Conv2d(*pair, 3, padding=1) for pair in zip(channels, channels[1:]))

    def forward(self, x):
        noting(self.work, x)
        return x

    def work(self, x):
        for layer in self.layers:
            x = layer(x).relu()

def noting(work, frame):
    '''Work on a frame, and note when.'''
    start = time.time()
    work(frame)
    with Path(os.environ["SIMULATED_DEVICE"]).open("a") as log:
        log.write(f"{{start}} {{time.time()}} {{frame.shape[-2]}}\\n")

def submit(engine, frame, dtype=None):
    '''Wait, in place of the engine's method.'''
    noting(lambda _: time.sleep({DEVICE_SECONDS}), frame.transpose(2, 0, 1))
    return Rendering(lambda: frame.astype(dtype or frame.dtype, copy=False), tiled=False)

def device(config):
    Engine.submit = submit
    return Device()

def computer(config):
    return Computer()
"""


@dataclass(frozen=True)
class Times:
    """What one invocation took, in seconds."""

    whole: float
    device: float
    """All frames in the network, without probes and trials."""
    busy: float
    """The share of the time from the first frame to the last in which the device is busy."""
    rules: dict[str, float]
    """The jobs of each rule."""


class Site:
    """A store, a shot with a reference, and the simulated device."""

    def __init__(
        self, root: Path, *, models: int, frames: int, factory: str = "device", size: tuple[int, int] = (1080, 1920)
    ) -> None:
        """Make the site in ``root``, with frames of a ``size`` (height, width)."""
        root.mkdir(exist_ok=True)
        self.root, self.models, self.frames, self.factory, self.height = root, models, frames, factory, size[0]
        pictures = (np.ascontiguousarray(photograph(grain)[: size[0], : size[1]]) for grain in (5, 0))
        noisy, clean = (image.encode(each, image.Picture(each)) for each in pictures)
        for folder, data in (("shot", noisy), ("clean", clean)):
            (root / folder).mkdir()
            for number in range(frames):
                # every frame has bytes of its own, so that nothing is found in a cache
                (root / folder / f"frame_{number:06d}.png").write_bytes(_unlike(data, number))
        (root / "nets.py").write_text(NETWORK)
        (root / "weights").mkdir()
        self._log_models()

    def _log_models(self) -> None:
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{self.root}/mlflow.db")
        experiment = mlflow.create_experiment("exp", artifact_location=(self.root / "artifacts").as_uri())
        networks = runpy.run_path(str(self.root / "nets.py"))
        for number in range(self.models):
            path = self.root / "weights" / "best.pth"
            torch.save(networks[self.factory]({}).state_dict(), path)
            with mlflow.start_run(experiment_id=experiment, run_name=f"model_{number}"):
                mlflow.log_artifact(str(path))

    def invoke(self, project: Path, repeat: int) -> Times:
        """Run snakemake of a checkout of the project in a new folder."""
        place = self.root / f"{project.name} {repeat}"
        (place / "config").mkdir(parents=True)
        given = {
            "mlflow_uri": f"sqlite:///{self.root}/mlflow.db",
            "experiment_name": "exp",
            "input_dir": str(self.root / "shot"),
            "reference_dir": str(self.root / "clean"),
            "output_dir": str(place / "out"),
            "device": "cpu",
            "model_factory": f"nets:{self.factory}",
            "python_path": [str(self.root)],
        }
        (place / "config" / "config.yaml").write_text(yaml.safe_dump(given))
        log = place / "device.log"
        environ = os.environ | {"SIMULATED_DEVICE": str(log), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-m", "snakemake", "-s", str(project / "Snakefile"), "--cores", "2"]
        # there is one device, although it is simulated on the CPU
        command += ["--resources", "gpu=1", "--set-resources", "infer:gpu=1"]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, check=False)
        whole = time.perf_counter() - start
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        calls = [tuple(map(float, line.split())) for line in log.read_text().splitlines()]
        frames = sorted((begun, ended) for begun, ended, height in calls if height >= self.height)
        if self.factory == "device":
            device = DEVICE_SECONDS * self.models * self.frames
        else:
            device = sum(ended - begun for begun, ended in frames)
        span = frames[-1][1] - frames[0][0]
        return Times(whole, device, device / span, _rules(place / ".snakemake" / "metadata"))


def _unlike(png: bytes, number: int) -> bytes:
    """Return a PNG with a text of its own before its end."""
    import zlib

    text = b"tEXtComment\0" + str(number).encode()
    chunk = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
    return png[:-12] + chunk + png[-12:]


def _rules(metadata: Path) -> dict[str, float]:
    """Return the seconds of the jobs of each rule, from what Snakemake recorded of their outputs."""
    jobs = {}
    for path in metadata.rglob("*"):
        if path.is_file():
            record = json.loads(path.read_text())
            jobs[record["rule"], record["starttime"], record["endtime"]] = path
    seconds: dict[str, float] = defaultdict(float)
    for rule, start, end in jobs:
        seconds[rule] += end - start
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def measure_steps(root: Path) -> None:
    """Print what a frame costs of a core, step by step, and in all for one frame of one model."""
    from dailies.frames import thumbnail_sheet
    from dailies.frames.image import convert_depth, decode
    from dailies.measure import flicker, quality
    from dailies.measure.source_frame import SourceFrame

    path = root / "shot" / "frame_000000.png"
    data, clean_data = path.read_bytes(), (root / "clean" / path.name).read_bytes()
    noisy, clean = (convert_depth(photograph(grain), "float32") for grain in (5, 0))
    source = SourceFrame.of(noisy, noisy, associated=False)
    assert source.motion
    motion = source.motion
    steps: dict[str, Callable[[], object]] = {
        "decode the frame": lambda: convert_depth(decode(data, path.name).pixels, "float32"),
        "decode the reference": lambda: convert_depth(decode(clean_data, path.name).pixels, "float32"),
        "PSNR": lambda: quality.psnr(noisy, clean),
        "SSIM and MS-SSIM": lambda: quality.compute(noisy, clean, ("ssim", "ms_ssim")),
        "flicker": lambda: flicker.flicker(noisy, noisy, motion),
        "detail": lambda: quality.detail(noisy, source.still),
        "clipping": lambda: quality.clipping(noisy, source.still),
        "sha256 of the reference": lambda: files.sha256_of(path),
    }
    pixels, size = decode(data, path.name).pixels, (thumbnail_sheet.THUMBNAIL, thumbnail_sheet.THUMBNAIL * 9 // 16)
    thumbnails = [thumbnail_sheet.thumbnail(pixels, size)] * thumbnail_sheet.FRAMES
    page: dict[str, Callable[[], object]] = {
        "thumbnail, while rendering": lambda: thumbnail_sheet.thumbnail(pixels, size),
        f"a sheet of {thumbnail_sheet.FRAMES}, while rendering": lambda: thumbnail_sheet.encode(thumbnails, size, ""),
    }
    for title, group in (("measuring", steps), ("page", page)):
        total = 0.0
        for name, step in group.items():
            costs = []
            for _ in range(5):
                start = time.thread_time()
                step()
                costs.append((time.thread_time() - start) * 1000)
            total += statistics.median(costs)
            print(f"{title}: {name}: {statistics.median(costs):.1f} ms of a core", flush=True)
        print(f"{title}: {total:.0f} ms of a core per frame and model", flush=True)


def measure_job(place: Path) -> None:
    """Print what a frame costs of a core in a job that measures a model, if jobs share decoded frames and if not."""
    from dailies.core import fork_server
    from dailies.measure.job import MeasurementJob, rendered_frames
    from dailies.measure.per_frame import compute_values
    from dailies.planning.validation import validated

    settings = validated(yaml.safe_load((place / "config" / "config.yaml").read_text()))
    model = min(path.parent.name for path in (place / "out").glob("*/metadata.json"))
    job = MeasurementJob.from_settings(settings, subject=model, shard="all", threads=1, attempt=1)

    def cost() -> float:
        costs = []
        for _ in range(3):
            job.cache.unlink(missing_ok=True)
            start = time.process_time()
            compute_values(job, rendered_frames(job))
            costs.append((time.process_time() - start) * 1000 / len(job.measured))
        return statistics.median(costs)

    with tempfile.TemporaryDirectory(dir=fork_server.SHARED_MEMORY, prefix="dailies-") as folder:
        alone = cost()
        os.environ[fork_server.ADDRESS] = Path(folder).name
        job.cache.unlink()
        compute_values(job, rendered_frames(job))  # which decodes each frame for those that follow
        shared = cost()
        del os.environ[fork_server.ADDRESS]
    print(f"measuring, in a job: {alone:.0f} ms of a core per frame and model; with shared frames {shared:.0f}")


def fixed_cost(root: Path, repeats: int) -> None:
    """Print what one more model costs, with two tiny frames and metrics, over importing torch."""
    sites = [Site(root / str(count), models=count, frames=2, size=(48, 64)) for count in (FEW, MANY)]
    costs, imports = [], []
    for repeat in range(repeats):
        few, many = (site.invoke(REPOSITORY, repeat).whole for site in sites)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import os, torch; os._exit(0)"], check=True)
        imports.append(time.perf_counter() - start)
        costs.append((many - few) / (MANY - FEW))
        print(f"{FEW} models {few:.1f} s, {MANY} models {many:.1f} s, import torch {imports[-1]:.2f} s", flush=True)
    cost = statistics.median(costs)
    ratio = statistics.median(cost / base for cost, base in zip(costs, imports, strict=True))
    print(f"one more model: {cost:.2f} s, {ratio:.2f} times import torch")


def describe(name: str, runs: list[Times]) -> None:
    """Print the medians of the invocations of a revision."""

    def median(values: list[float]) -> float:
        return statistics.median(values)

    renders = [run.rules.get("infer", 0.0) for run in runs]
    print(
        f"{name}: device {runs[0].device:.1f} s, invocation {median([run.whole for run in runs]):.1f} s, "
        f"{median([run.whole / run.device for run in runs]):.1f} × the device, "
        f"{median([run.whole / seconds for run, seconds in zip(runs, renders, strict=True)]):.1f} × the jobs that "
        f"render; device busy {median([run.busy for run in runs]):.2f} from the first frame to the last",
        flush=True,
    )
    for rule in runs[0].rules:
        print(f"{name}: {rule}: {median([run.rules.get(rule, 0.0) for run in runs]):.1f} s of jobs", flush=True)


def main() -> None:
    """Print the costs per frame, then medians of whole invocations, of two revisions in turn if another is named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--against", metavar="REV", help="another revision, measured in turn with this one")
    parser.add_argument("--computes", action="store_true", help="the networks compute on the CPU")
    parser.add_argument("--fixed", action="store_true", help="only measure what one more model costs")
    asked = parser.parse_args()
    job_environment.prepare()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if asked.fixed:
            fixed_cost(root, asked.repeats)
            return
        factory = "computer" if asked.computes else "device"
        site = Site(root, models=asked.models, frames=asked.frames, factory=factory)
        measure_steps(root)
        projects = [REPOSITORY]
        if asked.against:
            projects.append(root / asked.against.replace("/", "_"))
            command = ["git", "-C", str(REPOSITORY), "worktree", "add", "--detach", str(projects[1]), asked.against]
            subprocess.run(command, check=True, capture_output=True)
        runs: dict[Path, list[Times]] = {project: [] for project in projects}
        try:
            for repeat in range(asked.repeats):
                for project in projects:
                    runs[project].append(site.invoke(project, repeat))
        finally:
            for project in projects[1:]:
                command = ["git", "-C", str(REPOSITORY), "worktree", "remove", "--force", str(project)]
                subprocess.run(command, check=True, capture_output=True)
        for project, name in zip(projects, ["here", asked.against], strict=False):
            describe(name, runs[project])
        measure_job(root / f"{REPOSITORY.name} 0")


if __name__ == "__main__":
    main()
