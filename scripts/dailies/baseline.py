"""The baseline: the source itself, measured as if it were a model's answer, and its motion from frame to frame."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

from dailies import files
from dailies.measures import measured
from dailies.state_records import Measures
from dailies.subjects import Measurement, read_frame, record


def baseline(job: Measurement) -> None:
    """Measure the source itself, as if it were a model's answer, and find its motion from frame to frame."""

    def work() -> Measures:
        if "flicker" in job.metrics:
            _find_motion(job)
        return measured(job, job.source)

    record(job, work)


def _find_motion(job: Measurement) -> None:
    """Find the flow between the frames of the source that has not been found, and delete what no shard needs."""
    pairs = [(before, frame) for before, frame in job.places if before]
    wanted = {job.flow_of(*pair): pair for pair in pairs}
    missing = [path for path in wanted if not path.is_file()]
    size = -(-len(missing) // job.threads) or 1

    def find(paths: Sequence[Path]) -> None:
        import io

        import numpy as np

        from dailies import motion

        read = lru_cache(maxsize=2)(partial(read_frame, transfer=job.transfer))
        for path in paths:
            before, frame = (read(*job.source.place(each.output)).pixels for each in wanted[path])
            found = motion.flow(frame, before)
            if found is not None:
                data = io.BytesIO()
                np.save(data, found)
                files.write_bytes(path, data.getvalue())

    with ThreadPoolExecutor(max_workers=job.threads) as pool:
        for done in [pool.submit(find, missing[start : start + size]) for start in range(0, len(missing), size)]:
            done.result()
    needed = {job.flow_of(*pair) for pair in pairwise(job.shot.frames)}
    for path in job.layout.flows.glob("*.npy"):
        if path not in needed:
            path.unlink(missing_ok=True)  # the job of another shard does the same
