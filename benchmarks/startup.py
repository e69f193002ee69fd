"""Measure the start-up of a render: from the start of its process to its first frame, over importing torch.

The first frame is read beside the import; the network gets it when it is loaded and was tried.

python benchmarks/startup.py
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = REPOSITORY / "scripts"
sys.path[:0] = [str(SCRIPTS)]

from dailies.core import files  # noqa: E402
from dailies.frames import image, scan, sequence  # noqa: E402
from dailies.models.architectures.catalog import ARCHITECTURES  # noqa: E402
from dailies.planning.config import loading_settings, pixel_settings  # noqa: E402
from dailies.planning.validation import validated  # noqa: E402
from dailies.state.layout import Layout  # noqa: E402
from dailies.state.records import ModelRecord  # noqa: E402
from dailies.store.entities import Artifact  # noqa: E402

NETWORKS = {"unet": {"base_channels": 64}, "nafnet": {"size": "base"}}
PLACES = {"read": "image.decode", "in the network": "pipeline.submitted"}
"""The functions that are first called then."""
REPEATS = 5

JOB = """
import builtins, json, os, runpy, sys
from types import SimpleNamespace
sys.path.append({scripts!r})
from dailies.core import job_environment
job_environment.prepare()
from dailies.frames import image
from dailies.render import pipeline


def first_frame(*arguments, **options):
    os._exit(0)


{place} = first_frame
about = json.loads({about!r})
builtins.snakemake = SimpleNamespace(**{{key: SimpleNamespace(**value) if isinstance(value, dict) and key != "config"
                                        else value for key, value in about.items()}})
runpy.run_path({script!r}, run_name="__main__")
sys.exit("no frame was read")
"""


def site(root: Path, name: str) -> dict[str, str]:
    """Prepare what the jobs before a render leave on the disk; give the programs that run the render's script."""
    import torch

    (root / "shot").mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    blank = image.Picture(picture)
    (root / "shot" / "frame_000000.png").write_bytes(image.encode(picture, blank))
    layout = Layout(root / "out")
    sequence.save(scan.scan(root / "shot", on_bad_frame="error", cache=layout.scan), layout.sequence)
    weights = layout.weights("model").whole / "best.pth"
    weights.parent.mkdir(parents=True)
    state = ARCHITECTURES[name](**NETWORKS[name]).state_dict()
    torch.save({"model_state_dict": state, "model_config": NETWORKS[name], "architecture": name}, weights)
    receipt = {"status": "success", "error": None, "uri": "", "path": "best.pth", "sha256": files.sha256_of(weights)}
    files.write_json(layout.receipt("model"), receipt)
    record = ModelRecord(run_id="a", experiment_id="0", architecture=name, artifact=Artifact("", "best.pth", ()))
    record.save(layout.record("model"))
    given = {
        "input_dir": str(root / "shot"),
        "output_dir": str(layout.output_dir),
        "device": "cpu",
        "mlflow_uri": "http://x",
    }
    settings = validated(given, {})
    about = {
        "log": [str(root / "log")],
        "wildcards": {"model": "model", "shard": "all"},
        "input": {
            "record": str(layout.record("model")),
            "receipt": str(layout.receipt("model")),
            "sequence": str(layout.sequence),
        },
        "output": {"outcome": str(layout.outcome("model", "all"))},
        "params": {
            "settings": pixel_settings(settings),
            "loading": loading_settings(settings),
            "attempt": 1,
            "forced": None,
        },
        "config": settings.as_config(),
        "scriptdir": str(SCRIPTS),
        "threads": 2,
    }
    about_text, script = json.dumps(about), str(SCRIPTS / "infer.py")
    return {
        f"{name}, first frame {moment}": JOB.format(scripts=str(SCRIPTS), about=about_text, script=script, place=place)
        for moment, place in PLACES.items()
    }


def seconds(program: str) -> tuple[float, float]:
    """Give the time by the clock, and that of the cores, which other programs disturb less."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cores


def main() -> None:
    """Print medians, and ratios taken in turn."""
    with tempfile.TemporaryDirectory() as folder:
        programs = {"import torch": "import os, torch; os._exit(0)"}
        for name in NETWORKS:
            programs |= site(Path(folder) / name, name)
        for program in programs.values():
            seconds(program)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
        for _ in range(REPEATS):
            for name, program in programs.items():
                times[name].append(seconds(program))
    for name, taken in times.items():
        pairs = list(zip(taken, times["import torch"], strict=True))
        clock, cores = (statistics.median(own[kind] / base[kind] for own, base in pairs) for kind in (0, 1))
        seconds_ = statistics.median(each[0] for each in taken)
        print(f"{name}: {seconds_:.2f} s, {clock:.2f} times import torch, {cores:.2f} times its time of the cores")


if __name__ == "__main__":
    main()
