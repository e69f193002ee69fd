"""Every path below the output folder, in one class.

Every method that takes a model or a shard also accepts Snakemake's wildcards: ``layout.outcome("{model}", "{shard}")``.
"""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dailies.frames.sequence import ScanCache

SOURCE = "@source"
"""The subject that is the source itself: it is measured and shown like a model. No model's folder begins with ``@``."""


@dataclass(frozen=True)
class Weights:
    """The folder of a model's downloaded files."""

    folder: Path

    @property
    def receipt(self) -> Path:
        """How the download went, even if it failed; written by ``download``. It stays when the files are deleted."""
        return self.folder / "download.json"

    @property
    def draft(self) -> Path:
        """The folder of files that are being downloaded."""
        return self.folder / "draft"

    @property
    def whole(self) -> Path:
        """The folder of complete, verified files."""
        return self.folder / "artifact"

    @property
    def first(self) -> Path:
        """The folder of the first candidate's files while others are tried."""
        return self.folder / "first"

    @property
    def are_on_disk(self) -> bool:
        """Whether files of the model are on the disk or being downloaded."""
        return self.draft.is_dir() or self.whole.is_dir()

    def discard(self) -> None:
        """Delete the files of a model that is rendered, but not the receipt: the model's other shards depend on it."""
        for folder in (self.draft, self.whole, self.first):
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Layout:
    """Where an invocation reads and writes below ``output_dir``."""

    output_dir: Path

    # Results

    def frames(self, model: str) -> Path:
        """The folder of a model's frames; ``infer`` writes them."""
        return self.output_dir / model

    def metadata(self, model: str) -> Path:
        """Everything known about a model and its render; written by ``collect``."""
        return self.frames(model) / "metadata.json"

    def all_metadata(self) -> list[Path]:
        """List all ``metadata.json`` files, including those of deselected models and of other programs."""
        return sorted(self.output_dir.glob("*/metadata.json"))

    @property
    def summary(self) -> Path:
        """All models in one file; written by ``summary``."""
        return self.output_dir / "batch_summary.json"

    @property
    def compare(self) -> Path:
        """The folder of everything that compares the models."""
        return self.output_dir / "compare"

    @property
    def page(self) -> Path:
        """The comparison page; written by ``compare``."""
        return self.compare / "index.html"

    @property
    def page_folder(self) -> Path:
        """The folder of everything that the page loads; written by ``compare``."""
        return self.compare / "page"

    @property
    def page_extras(self) -> Path:
        """The names of the files that the page links to, as a script; written by ``compare`` and ``side_by_side``."""
        return self.page_folder / "extras.js"

    def page_copies(self, subject: str) -> Path:
        """The folder of the copies of frames of a model, or of ``@source``, that a browser cannot show directly."""
        return self.page_folder / "copies" / subject

    def page_alpha(self, subject: str) -> Path:
        """The folder of the alpha channels of a model's frames, or of those of ``@source``, as pictures."""
        return self.page_folder / "alpha" / subject

    def page_thumbnails(self, subject: str) -> Path:
        """The folder of the sheets of thumbnails of a model, or of ``@source``."""
        return self.page_folder / "thumbnails" / subject

    def all_page_pictures(self) -> list[Path]:
        """List all copies, alpha channels and sheets of thumbnails, also of models that the page no longer shows."""
        kinds = ("copies", "alpha", "thumbnails")
        return [path for kind in kinds for path in (self.page_folder / kind).glob("*/*")]

    @property
    def contact_sheet(self) -> Path:
        """Chosen frames of all models in one picture; written by ``contact_sheet``."""
        return self.compare / "contact_sheet.png"

    @property
    def side_by_side(self) -> Path:
        """All models in one video; written by ``side_by_side``."""
        return self.compare / "side_by_side.mp4"

    @property
    def bundle(self) -> Path:
        """The page and everything that it shows, in one file; written by ``bundle``."""
        return self.compare / "dailies.zip"

    @property
    def frame_table(self) -> Path:
        """The metrics of every frame of every model; written by ``leaderboard``."""
        return self.compare / "metrics.csv"

    @property
    def leaderboard(self) -> Path:
        """The ranking of the models; written by ``leaderboard``."""
        return self.compare / "leaderboard.csv"

    @property
    def logs(self) -> Path:
        """The folder of the jobs' logs."""
        return self.output_dir / "logs"

    def log(self, job: str) -> Path:
        """The log of a job, such as ``download_{model}``."""
        return self.logs / f"{job}.log"

    # State of the workflow

    @cached_property
    def state(self) -> Path:
        """The folder of the workflow's own state, which holds everything below."""
        return self.output_dir / ".dailies"

    @property
    def lock(self) -> Path:
        """The file that is locked while an invocation runs, and that says which one it is."""
        return self.state / "lock"

    @property
    def forced(self) -> Path:
        """What the invocation must run again; written while planning, for jobs on other machines."""
        return self.state / "forced.json"

    def benchmark(self, job: str) -> Path:
        """The time and memory that a job, such as ``download_{model}``, took; written by Snakemake."""
        return self.state / "benchmarks" / f"{job}.tsv"

    # The sequence and its reference

    @property
    def sequence(self) -> Path:
        """The frames of the sequence; written by ``sequence``."""
        return self.state / "sequence.json"

    @property
    def scan(self) -> ScanCache:
        """The files in which ``sequence`` caches its scan of the input."""
        return _scan_files(self.state)

    @property
    def pairing(self) -> Path:
        """Which file of the reference belongs to which frame; written by ``pairing``."""
        return self.state / "reference.json"

    @property
    def reference_scan(self) -> ScanCache:
        """The files in which ``pairing`` caches its scan of a reference."""
        return _scan_files(self.state / "reference")

    # The models

    @property
    def index(self) -> Path:
        """The names of the selected models; written by ``discover``."""
        return self.state / "discovery.json"

    @property
    def snapshot(self) -> Path:
        """What MLflow answered while the invocation was planned; ``discover`` finds the models in it."""
        return self.state / "snapshot.json"

    @property
    def store_state(self) -> Path:
        """The state of a local store for which the snapshot is known to be current."""
        return self.state / "store.json"

    @property
    def skipped(self) -> Path:
        """The skipped runs, each with a reason; written by ``discover``."""
        return self.state / "skipped.json"

    @property
    def upgraded(self) -> Path:
        """The folder of upgraded copies of stores that are too old to be read directly."""
        return self.state / "upgraded"

    def record(self, model: str) -> Path:
        """Everything about a model that its render depends on; written by ``discover``."""
        return self.state / "models" / f"{model}.json"

    def all_records(self) -> list[Path]:
        """List the records of all models, including those that are no longer selected."""
        return sorted((self.state / "models").glob("*.json"))

    def run(self, model: str) -> Path:
        """Everything else about a model's run; written by ``discover``."""
        return self.state / "runs" / f"{model}.json"

    # Downloads and renders

    def weights(self, model: str) -> Weights:
        """The downloaded files of a model; written by ``download``."""
        return Weights(self.state / "weights" / model)

    def receipt(self, model: str) -> Path:
        """How the download of a model went; written by ``download``."""
        return self.weights(model).receipt

    def candidate_receipt(self, model: str) -> Path:
        """How the download of a model for the first round of a knockout went; written by ``download_candidate``."""
        return self.state / "candidates" / f"{model}.json"

    @property
    def knockout(self) -> Path:
        """Which models render all frames after the first round, and why; written by ``knockout``."""
        return self.state / "knockout.json"

    def outcome(self, model: str, shard: str) -> Path:
        """How the render of a shard went; written by ``infer``. Snakemake deletes it when the job starts again."""
        return self.state / "renders" / model / f"{shard}.json"

    def attempts(self, model: str) -> Path:
        """The folder of a model's attempts, one file per shard."""
        return self.state / "attempts" / model

    def attempt(self, model: str, shard: str) -> Path:
        """A copy of the outcome that Snakemake does not delete before the next attempt; written by ``infer``."""
        return self.attempts(model) / f"{shard}.json"

    def all_attempts(self) -> list[Path]:
        """List the attempts at all shards of all models."""
        return sorted((self.state / "attempts").glob("*/*.json"))

    def manifests(self, model: str) -> Path:
        """The folder of a model's manifests, one file per shard."""
        return self.state / "frames" / model

    def manifest(self, model: str, shard: str) -> Path:
        """A line for each written frame of a shard; ``infer`` appends to it."""
        return self.manifests(model) / f"{shard}.jsonl"

    def forced_mark(self, model: str, shard: str) -> Path:
        """The last invocation that was forced to render a shard again; written by ``infer``."""
        return self.manifests(model) / f"{shard}.forced"

    def rendered(self) -> list[str]:
        """Return the names of all models with rendered frames, including those that are no longer selected."""
        return sorted(path.name for path in (self.state / "frames").glob("*") if path.is_dir())

    def rendered_thumbnails(self, model: str) -> Path:
        """The folder of a model's sheets of thumbnails until the page takes them; written by ``infer``."""
        return self.state / "sheets" / model

    # Measurements and the page

    def measures(self, subject: str, shard: str) -> Path:
        """The measurements of a shard of a model, or of ``@source``; written by ``measure`` and ``baseline``."""
        return self.state / "measures" / subject / f"{shard}.json"

    def measurement_cache(self, subject: str, shard: str) -> Path:
        """A line for each measured value with its key; ``measure`` and ``baseline`` append to it."""
        return self.state / "measured" / subject / f"{shard}.jsonl"

    def measuring_attempt(self, subject: str, shard: str) -> Path:
        """The last attempt at measuring a shard; written by ``measure`` and ``baseline``."""
        return self.state / "measured" / subject / f"{shard}.json"

    @property
    def source_frames(self) -> Path:
        """The folder of what models are compared with on each frame of the source; written by ``baseline``."""
        return self.state / "source"

    def source_frame(self, name: str) -> Path:
        """What models are compared with on a frame, named by a digest of it and the one before."""
        return self.source_frames / f"{name}.npz"

    @property
    def verdict(self) -> Path:
        """The measurements and the verdict that the page and the final report show; written by ``leaderboard``."""
        return self.state / "metrics.json"

    @property
    def votes(self) -> Path:
        """The votes of blind tests that were imported; written by ``import_votes``."""
        return self.state / "votes.json"

    @property
    def page_memory(self) -> Path:
        """What each copy of the page was made from; written by ``compare``."""
        return self.state / "page.json"

    @property
    def shown_on_page(self) -> Path:
        """What the page shows and was made of; written by ``compare``."""
        return self.state / "shown" / "page.json"

    @property
    def shown_in_video(self) -> Path:
        """Which models the video shows; written by ``side_by_side``."""
        return self.state / "shown" / "video.json"

    @property
    def evaluations(self) -> Path:
        """What was written back to MLflow; written by ``write_back``."""
        return self.state / "evaluations.json"


def model_of(path: Path) -> str:
    """Return the model, or ``@source``, whose folder holds a file, such as ``metadata.json`` or an outcome."""
    return path.parent.name


def _scan_files(folder: Path) -> ScanCache:
    return ScanCache(
        folder=folder, frames=folder / "frames_read.json", video=folder / "video", clip=folder / "video.json"
    )
