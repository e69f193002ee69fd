"""The consensus: the median of all models, and how far each of them is from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dailies import files
from dailies.subjects import Measurement, Subject, model_of, read_frame, record
from dailies.values import MEASURING, Kept, Values, rounded

LEAST_MODELS = 3
"""Models of one size that a consensus needs at least."""

SAMPLES = 256 * 2**20
"""Bytes of the frames that a consensus holds at once; where they are more, every n-th row and column stands for all."""


def consensus(job: Measurement, *, output_dir: Path, outcomes: Sequence[Path]) -> None:
    """Measure how far each rendered model is from the median of all.

    ``outcomes`` are the records of this shard of all models, each in a folder of the model's name.
    """

    def work() -> dict[str, Any]:
        rendered = [path.parent.name for path in outcomes if files.read_json(path)["status"] == "success"]
        return {"models": _consensus(job, [model_of(job, output_dir / name) for name in rendered])}

    record(job, work)


def _consensus(job: Measurement, subjects: Sequence[Subject]) -> dict[str, Values]:
    """Give, by model and frame, the difference from the median of the models whose frames are of the same size."""
    kept = Kept(job.kept)
    found: dict[str, Values] = {subject.name: {} for subject in subjects}
    keys = []
    for _, frame in job.places:
        name = frame.output
        digests = [[subject.name, subject.digests[name]] for subject in subjects]
        key = files.digest([MEASURING, "consensus", job.transfer, sorted(digests)])
        keys.append(key)
        if not kept.get(key):
            kept.add(key, _differences(job, {subject.name: subject.paths[name] for subject in subjects}))
        for model, value in kept.get(key).items():
            found[model][name] = value
    kept.prune(keys, {})
    return found


def _differences(job: Measurement, paths: Mapping[str, Path]) -> Values:
    import numpy as np

    from dailies import quality

    found: Values = dict.fromkeys(paths)
    by_shape: dict[tuple[int, ...], dict[str, np.ndarray]] = {}
    for name, path in paths.items():
        image = read_frame(path, transfer=job.transfer).pixels
        step = 1
        while image.nbytes // step**2 * len(paths) > SAMPLES:
            step += 1
        by_shape.setdefault(image.shape, {})[name] = image[::step, ::step].copy()
    for images in by_shape.values():
        if len(images) >= LEAST_MODELS:
            median = np.median(np.stack(list(images.values())), axis=0)
            found |= {name: quality.difference(image, median) for name, image in images.items()}
    return rounded(found)
