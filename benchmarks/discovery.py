"""Measure what asking a server costs: the first discovery, and an invocation that finds nothing new.

python benchmarks/discovery.py 1000
"""

import logging
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests")]

from dailies.discovery import discover, standing  # noqa: E402
from stores import BEST, configured, multiply, server_folder, server_shelf  # noqa: E402


def measure(runs: int, root: Path) -> None:
    """Fill a real server with runs of 20 params, 8 metrics and one checkpoint each, and print seconds."""
    shelf = server_shelf(root)
    values = {"params": {f"model.p{n}": str(n) for n in range(20)}, "metrics": {f"m{n}": n / 3 for n in range(8)}}
    seed = shelf.run("seed", BEST, **values)
    places = server_folder() / "files" / shelf.experiment
    for run_id in multiply(server_folder() / "mlflow.db", seed, runs - 1):
        file = places / run_id / "artifacts" / BEST
        file.parent.mkdir(parents=True)
        file.write_bytes(b"weights")
    config = configured(shelf.uri, experiment_name=shelf.client.get_experiment(shelf.experiment).name)
    for what in ("first", "second"):
        start = time.perf_counter()
        fingerprint = standing(config, root).fingerprint
        asked = time.perf_counter()
        discover(config, fingerprint=fingerprint, state=root, index=root / "discovery.json")
        print(f"{what}: standing {asked - start:.1f} s, discover {time.perf_counter() - asked:.1f} s", flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, Path(folder))
