"""Measure what a knockout saves, and how often the best model is among its finalists.

python benchmarks/knockout.py [SWEEPS]

First, 20 models are rendered over 200 tiny frames, with a knockout (12 frames, 5 finalists) and without one, and the
rendered frames are counted. Second, sweeps of such models are simulated. The metric of a model on a frame is the sum of
what the frame does to all models, of the model's quality, and of what is peculiar to both. The latter is half noise and
half an autoregression that neighbouring frames share. The best model is the first one over all frames. Third, sweeps
without a knockout are ranked by the frames that ``measure_frames: auto`` chooses, and by all.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests")]

from dailies.frames import choice, scan  # noqa: E402
from dailies.frames import sequence as sequences  # noqa: E402
from dailies.frames.sequence import KNOCKOUT, Frame, Sequence, split  # noqa: E402
from dailies.measure.job import MeasurementJob  # noqa: E402
from dailies.measure.knockout import contestants, decide  # noqa: E402
from dailies.measure.per_frame import measure  # noqa: E402
from dailies.measure.ranking import rank  # noqa: E402
from dailies.measure.scores import Scores  # noqa: E402
from dailies.planning.config import Settings, loading_settings, pixel_settings  # noqa: E402
from dailies.render.job import Job, render  # noqa: E402
from dailies.state.layout import Layout  # noqa: E402
from dailies.state.records import Knockout, ModelRecord, Receipt, RunRecord  # noqa: E402
from dailies.store.entities import Artifact  # noqa: E402
from helpers.weights import grey_checkpoint  # noqa: E402

LONG = 500
"""The length of the sequences of which some frames are measured."""

MODELS, FRAMES, FIRST, FINALISTS, SWEEPS, SEED = 20, 200, 12, 5, 200, 0
KEPT = 0.9
"""What the values that neighbouring frames share keep from one frame to the next."""

CONTENT = 2.0
"""Standard deviation in dB of what a frame does to all models."""

KINDS = {(quality, own): f"{quality:g} dB, {own:g} dB" for quality in (0.25, 0.5, 1.0) for own in (0.1, 0.3)}
"""Standard deviations of the models' quality, and of what is peculiar to a model on a frame."""


class Shoot:
    """Frames, a reference, and downloaded models, which render grey of different levels."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings(
            input_dir=root / "shot",
            reference_dir=root / "clean",
            output_dir=root / "out",
            metrics="psnr",
            knockout_frames=FIRST,
            finalists=FINALISTS,
        )
        self.layout = Layout(self.settings.output_dir)
        rng = np.random.default_rng(SEED)
        for number in range(FRAMES):
            for folder in ("shot", "clean"):
                (root / folder).mkdir(exist_ok=True)
                pixels = np.clip(rng.normal(60 + 10 * np.sin(number / 20), 5, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / folder / f"frame_{number:04d}.png")
        sequences.save(
            scan.scan(self.settings.input_dir, on_bad_frame="error", cache=self.layout.scan), self.layout.sequence
        )
        self.models = [f"model_{number:02d}" for number in range(MODELS)]
        for number, model in enumerate(self.models):
            self._add(model, level=-0.55 + 0.05 * number)

    def _add(self, model: str, level: float) -> None:
        path = self.layout.weights(model).whole / "best.pth"
        path.parent.mkdir(parents=True)
        torch.save(grey_checkpoint(level), path)
        record = ModelRecord(run_id=model, architecture="unet", artifact=Artifact("store", "best.pth", ()))
        record.save(self.layout.record(model))
        RunRecord(run_id=model, run_name=model).save(self.layout.run(model))
        receipt = Receipt(status="success", uri="store", path="best.pth", sha256=model, size=path.stat().st_size)
        receipt.save(self.layout.receipt(model))
        receipt.save(self.layout.candidate_receipt(model))

    def render(self, model: str, shard: str) -> None:
        """Render and measure a shard as the rules do."""
        settings = self.settings
        render(
            Job(
                layout=self.layout,
                model=model,
                shard=shard,
                shard_frames=0,
                knockout_frames=settings.knockout_frames,
                input_dir=settings.input_dir,
                settings=pixel_settings(settings),
                loading=loading_settings(settings),
                batch="auto",
                device="cpu",
                threads=1,
                attempt=1,
                trust_code=False,
            )
        )
        job = MeasurementJob.from_settings(settings, subject=model, shard=shard, threads=1, attempt=1)
        measure(job, outcomes=[self.layout.outcome(model, shard)])

    def knock_out(self) -> list[str]:
        """Render the first round of all models; return the finalists."""
        for model in self.models:
            self.render(model, KNOCKOUT)
        decide(
            self.settings,
            None,
            sequence=self.layout.sequence,
            runs=[self.layout.run(model) for model in self.models],
            measures=[self.layout.measures(model, KNOCKOUT) for model in self.models],
            output=self.layout.knockout,
        )
        return [each.model for each in Knockout.load(self.layout.knockout).models if each.is_finalist]

    def rendered(self) -> int:
        """Return the number of lines in the manifests of each model, a line for each rendered frame."""
        return sum(1 for model in self.models for _ in self.layout.frames(model).glob("*.png"))


def count() -> None:
    """Print the rendered frames with a knockout and without one."""
    with tempfile.TemporaryDirectory() as folder:
        shoot = Shoot(Path(folder))
        finalists = shoot.knock_out()
        for model in finalists:
            shoot.render(model, "all")
        few = shoot.rendered()
        for model in shoot.models:
            shoot.render(model, "all")
        every = shoot.rendered()
    print(f"{len(finalists)} finalists of {MODELS}: {few} rendered frames instead of {every}, {few / every:.0%}")


def wandering(rng: np.random.Generator, rows: int, frames: int) -> np.ndarray:
    """Simulate autoregressions of variance 1, one a row."""
    values = rng.normal(size=(rows, frames))
    for place in range(1, frames):
        values[:, place] = KEPT * values[:, place - 1] + np.sqrt(1 - KEPT**2) * values[:, place]
    return values


def sweep(rng: np.random.Generator, quality: float, own: float, frames: int = FRAMES) -> np.ndarray:
    """Simulate the PSNR of all models on all frames."""
    peculiar = np.sqrt(0.5) * (wandering(rng, MODELS, frames) + rng.normal(size=(MODELS, frames)))
    return 32 + CONTENT * wandering(rng, 1, frames) + quality * rng.normal(size=(MODELS, 1)) + own * peculiar


def made_up(count: int) -> tuple[Frame, ...]:
    """Return so many frames."""
    return tuple(Frame(f"{n:03d}.png", f"{n:03d}.png", 1, 1, "RGB", 8, 1, "") for n in range(count))


def names_of_models() -> list[str]:
    """Return the names of the models of a sweep."""
    return [f"model {number}" for number in range(MODELS)]


def scores_of(values: np.ndarray, frames: tuple[Frame, ...]) -> list[Scores]:
    """Return the scores of the models, whose values are the rows."""
    return [
        Scores(name, None, None, {f.output: {"psnr": float(v)} for f, v in zip(frames, row, strict=True)}, frozenset())
        for name, row in zip(names_of_models(), values, strict=True)
    ]


def measured_in_part(sweeps: int) -> None:
    """Print how often the best model is the first or ties with it, and how many are the first or tie with it."""
    frames, names = made_up(LONG), names_of_models()
    places = list(choice.measured_positions(choice.AUTO, LONG))
    parts = {len(places): places, LONG: list(range(LONG))}
    columns = [f"{heading}, {count} frames" for count in parts for heading in ("best is first or ties", "in the tie")]
    print(f"\n| quality, peculiar | {' | '.join(columns)} |\n|---|---|---|---|---|")
    for (quality, own), kind in KINDS.items():
        rng = np.random.default_rng(SEED)
        found: dict[int, list[bool]] = {count: [] for count in parts}
        sizes: dict[int, list[int]] = {count: [] for count in parts}
        for _ in range(sweeps):
            values = sweep(rng, quality, own, LONG)
            best = names[int(values.mean(axis=1).argmax())]
            for count, chosen in parts.items():
                shown = tuple(frames[place] for place in chosen)
                ranking = rank(scores_of(values[:, chosen], shown), Sequence(frames), "psnr")
                ties = [name for name, each in ranking.comparisons.items() if each.verdict == "tie"]
                first = {ranking.order[0], *ties}
                found[count].append(best in first)
                sizes[count].append(len(first))
        cells = [f"{np.mean(found[count]):.3f} | {np.mean(sizes[count]):.1f}" for count in parts]
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


def simulate(sweeps: int) -> None:
    """Print how often the best model is a finalist, and how many frames are rendered."""
    frames, names = made_up(FRAMES), names_of_models()
    first_round = split(Sequence(frames), 0, FIRST)[KNOCKOUT]
    labels = dict(zip(names, names, strict=True))
    print("| quality, peculiar | best is a finalist | finalists | rendered frames |\n|---|---|---|---|")
    for (quality, own), kind in KINDS.items():
        rng = np.random.default_rng(SEED)
        found, sizes = 0, []
        for _ in range(sweeps):
            values = sweep(rng, quality, own)
            scores = scores_of(values, frames)
            ranking = rank(scores, first_round, "psnr")
            finalists = [each.model for each in contestants(ranking, scores, FINALISTS, labels) if each.is_finalist]
            found += names[int(values.mean(axis=1).argmax())] in finalists
            sizes.append(len(finalists))
        rendered = (MODELS * FIRST + np.mean(sizes) * (FRAMES - FIRST)) / (MODELS * FRAMES)
        print(f"| {kind} | {found / sweeps:.3f} | {np.mean(sizes):.1f} | {rendered:.0%} |", flush=True)


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else SWEEPS
    simulate(wanted)
    measured_in_part(wanted)
    count()
