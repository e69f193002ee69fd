"""Measure the memory that ``estimates`` counts on: of torch and the codecs, of a model while it is read, of MLflow.

python benchmarks/resources.py
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts")]

NETWORKS = {"unet": {"base_channels": 64}, "nafnet": {"size": "base"}}


def peak() -> float:
    """Give the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def imports() -> float:
    """Import what a render imports."""
    import av  # noqa: F401
    import OpenImageIO  # noqa: F401
    import torch  # noqa: F401
    from dailies.render import pipeline  # noqa: F401

    return peak()


def client() -> float:
    """Import what a download imports."""
    from mlflow import MlflowClient  # noqa: F401

    return peak()


def read(name: str, path: str) -> float:
    """Read a model as a render does, and try it."""
    import torch
    from dailies.models.factories import Factories
    from dailies.models.load import Hints, load_model
    from dailies.render.engine import Engine, Settings

    model = load_model(Path(path), hints=Hints(architecture=name), factories=Factories(), trust_code=False)
    Engine(model, device=torch.device("cpu"), settings=Settings()).probe()
    return peak()


def measured(*arguments: str) -> float:
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Print peaks, each of a process of its own."""
    import torch
    from dailies.models.architectures.catalog import ARCHITECTURES

    base = measured("imports")
    print(f"torch and the codecs: {base:.0f} MB", flush=True)
    print(f"MLflow's client: {measured('client'):.0f} MB", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, config in NETWORKS.items():
            path = Path(folder) / f"{name}.pth"
            state = ARCHITECTURES[name](**config).state_dict()
            torch.save({"model_state_dict": state, "model_config": config, "architecture": name}, path)
            size, most = path.stat().st_size / 1e6, measured("read", name, str(path))
            print(f"{name} of {size:.0f} MB: {most:.0f} MB, {(most - base) / size:.2f} times its file more", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print({"imports": imports, "client": client, "read": read}[sys.argv[1]](*sys.argv[2:]))
    else:
        main()
