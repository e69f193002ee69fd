"""Measure what asking a server costs: the first discovery, one that finds nothing new, and a plain loop over the runs.

python benchmarks/discovery.py 100 1000 5000

The loop does what scripts do: search for the runs, then list the folder of the checkpoints of one after the other.
"""

import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests")]

from dailies.discovery.discover import discover  # noqa: E402
from dailies.discovery.take_snapshot import take_snapshot  # noqa: E402
from dailies.planning.config import Settings  # noqa: E402
from dailies.state.layout import Layout  # noqa: E402
from helpers.stores import BEST, Shelf, configured, multiply, server_folder, server_shelf  # noqa: E402

REPEATS, MANY = 3, 2000
"""Of more runs than this each way is taken once."""


def filled(runs: int, root: Path) -> Shelf:
    """Fill a real server with runs of 20 params, 8 metrics and one checkpoint each."""
    shelf = server_shelf(root)
    values = {"params": {f"model.p{n}": str(n) for n in range(20)}, "metrics": {f"m{n}": n / 3 for n in range(8)}}
    seed = shelf.run("seed", BEST, **values)
    places = server_folder() / "files" / shelf.experiment
    for run_id in multiply(server_folder() / "mlflow.db", seed, runs - 1):
        file = places / run_id / "artifacts" / BEST
        file.parent.mkdir(parents=True)
        file.write_bytes(b"weights")
    return shelf


def loop(shelf: Shelf) -> int:
    """Find the checkpoints of all runs, one after the other."""
    token, found = None, 0
    while True:
        page = shelf.client.search_runs([shelf.experiment], page_token=token)
        for run in page:
            folder = str(Path(BEST).parent)
            found += sum(file.path == BEST for file in shelf.client.list_artifacts(run.info.run_id, folder))
        token = page.token
        if not token:
            return found


def discovered(settings: Settings, layout: Layout) -> None:
    """Do what an invocation does: ask when jobs are planned, and discover in a job."""
    fingerprint = take_snapshot(settings, layout).fingerprint
    discover(settings, fingerprint=fingerprint, layout=layout)


def measure(runs: int, root: Path) -> None:
    """Print medians, and ratios to the loop, taken in turn."""
    shelf = filled(runs, root)
    settings = configured(shelf.uri, experiment_name=shelf.client.get_experiment(shelf.experiment).name)
    times: dict[str, list[float]] = {}
    for repeat in range(REPEATS if runs <= MANY else 1):
        layout = Layout(root / f"output {repeat}")
        layout.state.mkdir(parents=True)
        ways: dict[str, Callable[[], Any]] = {
            "a plain loop": lambda: loop(shelf),
            "the first discovery": lambda layout=layout: discovered(settings, layout),
            "nothing new, planning": lambda layout=layout: take_snapshot(settings, layout),
            "nothing new, the job too": lambda layout=layout: discovered(settings, layout),
        }
        for name, way in ways.items():
            start = time.perf_counter()
            found = way()
            times.setdefault(name, []).append(time.perf_counter() - start)
            if name == "a plain loop" and found != runs:
                sys.exit(f"the loop found {found} of {runs} models")
    for name, taken in times.items():
        ratio = statistics.median(own / base for own, base in zip(taken, times["a plain loop"], strict=True))
        print(f"{runs} runs, {name}: {statistics.median(taken):.1f} s, {ratio:.2f} of the loop's time", flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    for argument in sys.argv[1:] or ["100"]:
        with tempfile.TemporaryDirectory() as folder:
            measure(int(argument), Path(folder))
