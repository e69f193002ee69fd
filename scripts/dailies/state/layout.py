"""Layout: every path below the output folder, in one class.

Every method that takes a model or a shard also takes Snakemake's wildcards: ``layout.outcome("{model}", "{shard}")``.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from dailies.frames.sequence import ScanCache

SOURCE = "@source"
"""Whose measures and pictures lie beside those of the models; no model's folder begins with ``@``."""


@dataclass(frozen=True)
class Weights:
    """The folder of a model's downloaded files."""

    folder: Path

    @property
    def receipt(self) -> Path:
        """How the download went; written by ``download``, also where it failed. It stays when the files are gone."""
        return self.folder / "download.json"

    @property
    def draft(self) -> Path:
        """The folder of files that are on their way."""
        return self.folder / "draft"

    @property
    def whole(self) -> Path:
        """The folder of files that arrived, all of them verified."""
        return self.folder / "artifact"

    @property
    def first(self) -> Path:
        """The folder in which the files of the first candidate wait while others are tried."""
        return self.folder / "first"

    @property
    def are_there(self) -> bool:
        """Whether files of the model are on the disk or on their way."""
        return self.draft.is_dir() or self.whole.is_dir()

    def discard(self) -> None:
        """Delete the files of a model that is rendered; the receipt stays, as the model's other shards depend on it."""
        for folder in (self.draft, self.whole, self.first):
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Layout:
    """Where everything lies that an invocation reads and writes below ``output_dir``."""

    output_dir: Path

    # What a user looks at

    def frames(self, model: str) -> Path:
        """The folder of a model's frames; ``infer`` writes them."""
        return self.output_dir / model

    def metadata(self, model: str) -> Path:
        """What is known of a model and of its render; written by ``collect``."""
        return self.frames(model) / "metadata.json"

    def all_metadata(self) -> list[Path]:
        """List what lies where ``metadata`` does, of models that are no longer selected and of other programs too."""
        return sorted(self.output_dir.glob("*/metadata.json"))

    @property
    def summary(self) -> Path:
        """All models in one file; written by ``summary``."""
        return self.output_dir / "batch_summary.json"

    @property
    def compare(self) -> Path:
        """The folder of what compares the models."""
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
        """The names of what lies beside the page, as a script; written by ``compare`` and ``side_by_side``."""
        return self.page_folder / "extras.js"

    def page_copies(self, layer: str) -> Path:
        """The folder of those frames of a model, or of ``@source``, that the page shows as copies."""
        return self.page_folder / "copies" / layer

    def page_thumbnails(self, layer: str) -> Path:
        """The folder of a model's sheets of thumbnails, or of those of ``@source``."""
        return self.page_folder / "thumbnails" / layer

    def all_page_pictures(self) -> list[Path]:
        """List the copies and the sheets of thumbnails of all models, also of those that the page no longer shows."""
        return [path for kind in ("copies", "thumbnails") for path in (self.page_folder / kind).glob("*/*")]

    @property
    def contact_sheet(self) -> Path:
        """Models x chosen frames in one picture; written by ``contact_sheet``."""
        return self.compare / "contact_sheet.png"

    @property
    def side_by_side(self) -> Path:
        """All models in one video; written by ``side_by_side``."""
        return self.compare / "side_by_side.mp4"

    @property
    def frame_table(self) -> Path:
        """The metrics of every frame of every model; written by ``leaderboard``."""
        return self.compare / "metrics.csv"

    @property
    def leaderboard(self) -> Path:
        """The models in order; written by ``leaderboard``."""
        return self.compare / "leaderboard.csv"

    @property
    def logs(self) -> Path:
        """The folder of the jobs' logs."""
        return self.output_dir / "logs"

    def log(self, job: str) -> Path:
        """The log of a job, such as ``download_{model}``."""
        return self.logs / f"{job}.log"

    # The workflow's own state

    @property
    def state(self) -> Path:
        """The folder of the workflow's own state: all that is named below."""
        return self.output_dir / ".dailies"

    @property
    def lock(self) -> Path:
        """The file that the system locks as long as an invocation runs, and that says which one it is."""
        return self.state / "lock"

    @property
    def forced(self) -> Path:
        """What an invocation is told to run again; written while planning, for jobs on other machines."""
        return self.state / "forced.json"

    def benchmark(self, job: str) -> Path:
        """What a job took, such as ``download_{model}``; written by Snakemake."""
        return self.state / "benchmarks" / f"{job}.tsv"

    # The sequence and its reference

    @property
    def sequence(self) -> Path:
        """The frames of the sequence; written by ``sequence``."""
        return self.state / "sequence.json"

    @property
    def scan(self) -> ScanCache:
        """What ``sequence`` remembers of the input."""
        return _scan_files(self.state)

    @property
    def pairing(self) -> Path:
        """Which file of the reference belongs to which frame; written by ``pairing``."""
        return self.state / "reference.json"

    @property
    def reference_scan(self) -> ScanCache:
        """What ``pairing`` remembers of a reference that is a video."""
        return _scan_files(self.state / "reference")

    # What is known of the models

    @property
    def index(self) -> Path:
        """The names of the selected models; written by ``discover``."""
        return self.state / "discovery.json"

    @property
    def snapshot(self) -> Path:
        """What MLflow answered when an invocation was planned; ``discover`` finds the models in it."""
        return self.state / "snapshot.json"

    @property
    def skipped(self) -> Path:
        """The runs that are passed over, each with its reason; written by ``discover``."""
        return self.state / "skipped.json"

    @property
    def upgraded(self) -> Path:
        """The folder of upgraded copies of stores that are too old to be read as they are."""
        return self.state / "upgraded"

    def record(self, model: str) -> Path:
        """What rendering a model depends on; written by ``discover``."""
        return self.state / "models" / f"{model}.json"

    def all_records(self) -> list[Path]:
        """List the records of all models, also of those that are no longer selected."""
        return sorted((self.state / "models").glob("*.json"))

    def run(self, model: str) -> Path:
        """All else that is known of a model's run; written by ``discover``."""
        return self.state / "runs" / f"{model}.json"

    # Downloads and renders

    def weights(self, model: str) -> Weights:
        """A model's downloaded files; ``download`` writes them."""
        return Weights(self.state / "weights" / model)

    def receipt(self, model: str) -> Path:
        """How the download of a model went; written by ``download``."""
        return self.weights(model).receipt

    def outcome(self, model: str, shard: str) -> Path:
        """How the render of a shard went; written by ``infer``. Snakemake deletes it when the job starts again."""
        return self.state / "renders" / model / f"{shard}.json"

    def attempts(self, model: str) -> Path:
        """The folder of a model's attempts, one file per shard."""
        return self.state / "attempts" / model

    def attempt(self, model: str, shard: str) -> Path:
        """The same as the outcome, which outlives the next attempt at the shard; written by ``infer``."""
        return self.attempts(model) / f"{shard}.json"

    def all_attempts(self) -> list[Path]:
        """List the attempts at all shards of all models."""
        return sorted((self.state / "attempts").glob("*/*.json"))

    def manifests(self, model: str) -> Path:
        """The folder of a model's manifests, one file per shard."""
        return self.state / "frames" / model

    def manifest(self, model: str, shard: str) -> Path:
        """Which frames of a shard are written, and from what: a line for each; ``infer`` adds to it."""
        return self.manifests(model) / f"{shard}.jsonl"

    def forced_mark(self, model: str, shard: str) -> Path:
        """Which invocation has forgotten the frames of a shard, which it does once; written by ``infer``."""
        return self.manifests(model) / f"{shard}.forced"

    def rendered(self) -> list[str]:
        """Name the models of which frames were rendered, also those that are no longer selected."""
        return sorted(path.name for path in (self.state / "frames").glob("*") if path.is_dir())

    # Measures and what is made of them

    def measures(self, subject: str, shard: str) -> Path:
        """What was measured of a shard of a model, or of ``@source``; written by ``measure`` and ``baseline``."""
        return self.state / "measures" / subject / f"{shard}.json"

    def values(self, subject: str, shard: str) -> Path:
        """The values that are known already, under keys: a line for each; ``measure`` and ``baseline`` add to it."""
        return self.state / "measured" / subject / f"{shard}.jsonl"

    def measuring(self, subject: str, shard: str) -> Path:
        """The number and status of the last attempt at measuring; written by ``measure`` and ``baseline``."""
        return self.state / "measured" / subject / f"{shard}.json"

    @property
    def flows(self) -> Path:
        """The folder of the source's motion between frames; ``baseline`` writes it."""
        return self.state / "flow"

    def flow(self, name: str) -> Path:
        """The motion between two frames, under a digest of both; written by ``baseline``."""
        return self.flows / f"{name}.npy"

    @property
    def verdict(self) -> Path:
        """What the page and the end of an invocation tell of the metrics; written by ``leaderboard``."""
        return self.state / "metrics.json"

    @property
    def page_memory(self) -> Path:
        """Of what each copy and thumbnail of the page was made; written by ``compare``."""
        return self.state / "page.json"

    @property
    def evaluations(self) -> Path:
        """What was written back to MLflow; written by ``write_back``."""
        return self.state / "evaluations.json"


def model_of(path: Path) -> str:
    """Name the model, or ``@source``, in whose folder a file lies: a ``metadata.json``, an outcome, measures."""
    return path.parent.name


def _scan_files(folder: Path) -> ScanCache:
    return ScanCache(
        folder=folder, frames=folder / "frames_read.json", video=folder / "video", clip=folder / "video.json"
    )
