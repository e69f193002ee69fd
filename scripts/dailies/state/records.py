"""Every JSON file that one stage of the workflow writes for another, as a frozen dataclass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from dailies.core.files import digest
from dailies.core.text import redacted
from dailies.core.typed import EMPTIED, OMITTED, Record
from dailies.models.signature import Signature
from dailies.models.training_progress import TrainingProgress
from dailies.state.labels import Label
from dailies.store.entities import Artifact

Values = Mapping[str, float | None]
"""Values by metric; None for one that could not be measured."""

SUCCESS = "success"

BEST, TIE, WORSE, KNOCKED_OUT = "best", "tie", "worse", "knocked out"
"""The verdicts on a model: the first and alone; the first and all that tie with it; all others that rendered every
frame; those that a knockout left out."""

STAGES = ("download_failed", "load_failed", "error", SUCCESS)
"""How far a shard may get, worst first."""


@dataclass(frozen=True, kw_only=True)
class ModelRecord(Record):
    """``models/{model}.json``: everything about a model that its render depends on."""

    run_id: str
    experiment_id: str = ""
    architecture: str | None = None
    artifact: Artifact
    alternatives: tuple[Artifact, ...] = field(default=(), metadata=OMITTED)
    """What to try after the artifact, if it has turned out to hold no network."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """The run's params and tags that determine how the network is built or fed."""


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """The version of a registered model that was selected."""

    name: str
    version: str
    alias: str | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset that a run used."""

    name: str
    source: str
    context: str
    """Such as ``training``."""


@dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """``runs/{model}.json``: everything about a model's run that does not matter for rendering."""

    run_id: str
    run_name: str = ""
    experiment: str = ""
    registered_model: RegisteredModel | None = None
    architecture: str | None = None
    epoch: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    status: str = ""
    start_time: int | None = None
    """Milliseconds since 1970."""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[Dataset, ...] = ()
    not_chosen: tuple[str, ...] = ()
    """Other files of the run that could have been the model."""
    alternatives: tuple[Artifact, ...] = field(default=(), metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class DiscoveryIndex(Record):
    """``discovery.json``: the selected models, in MLflow's order."""

    fingerprint: str = ""
    selection: str = ""
    """Digest of the settings that selected the models."""
    models: tuple[str, ...] = ()
    """The names of their folders."""
    reason: str | None = None
    """Why no model was found."""
    warning: str | None = None
    postponed: int = 0
    """How often changes were postponed to the next invocation because the store did not answer."""


@dataclass(frozen=True, kw_only=True)
class RejectedFile:
    """A file of a run that turned out to hold no network."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Receipt(Record):
    """``weights/{model}/download.json``: how a download went."""

    status: str
    error: str | None = None
    uri: str | None = None
    path: str | None = None
    sha256: str | None = field(default=None, metadata=OMITTED)
    """Digest of the weights."""
    size: int | None = field(default=None, metadata=OMITTED)
    """Bytes of all files."""
    files: tuple[str, ...] | None = field(default=None, metadata=OMITTED)
    config_sha256: str | None = field(default=None, metadata=OMITTED)
    """Digest of a ``config.json`` beside weights."""
    tried: tuple[RejectedFile, ...] = field(default=(), metadata=OMITTED)
    """The files that were tried before."""

    @property
    def artifact(self) -> "RenderedArtifact":
        """The artifact, as a render records it."""
        return RenderedArtifact(**{shared.name: getattr(self, shared.name) for shared in fields(RenderedArtifact)})


@dataclass(frozen=True, kw_only=True)
class RenderedArtifact:
    """The artifact that was rendered."""

    uri: str | None = None
    path: str | None = None
    sha256: str | None = None
    size: int | None = None
    config_sha256: str | None = field(default=None, metadata=OMITTED)
    tried: tuple[RejectedFile, ...] = field(default=(), metadata=OMITTED)

    @property
    def receipt(self) -> Receipt:
        """The receipt of this artifact if it has been rendered and need not be downloaded again."""
        return Receipt(status=SUCCESS, **vars(self))


@dataclass(frozen=True, kw_only=True)
class ParityFigures:
    """The largest and the mean difference from fp32 on one frame, in code values of 255; None if infinite."""

    max: float | None = None
    mean: float | None = None


@dataclass(frozen=True, kw_only=True)
class Versions:
    """The versions of the software that rendered."""

    dailies: str | None = None
    torch: str | None = None
    python: str | None = None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of a render."""

    frames: int = 0
    seconds: float = 0
    fps: float | None = None
    startup_seconds: float | None = field(default=None, metadata=OMITTED)
    """What the jobs took before their first frames: to import torch, to load and to probe the network. None if the
    frames were rendered by an earlier version."""
    device: str | None = None
    precision: str | None = None
    parity: ParityFigures | None = None
    compile_seconds: float | None = None
    autotuned: bool = False
    batch: int | None = None
    tiled: bool = False
    tile_size: int | Sequence[int] | None = None
    overlap: int | None = None
    versions: Versions | None = None


@dataclass(frozen=True, kw_only=True)
class Network:
    """The identity of a network. It is part of the key of each frame that the network renders."""

    builder: str | None = None
    config: str | None = None
    """Digest of the configuration that it was built from."""
    code: str | None = None
    """Digest of the user's code that built it."""
    part: str | None = None
    precision: str | None = None
    compiled: bool = field(default=False, metadata=OMITTED)
    autotuned: bool = field(default=False, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """What loading a model revealed."""

    architecture: str | None = None
    epoch: int | None = field(default=None, metadata=OMITTED)
    """From the checkpoint, like the losses."""
    train_loss: float | None = field(default=None, metadata=OMITTED)
    val_loss: float | None = field(default=None, metadata=OMITTED)
    builder: str | None = None
    network: Network = field(default_factory=Network)
    precision: str | None = None
    compile_seconds: float | None = None
    autotuned: bool = False
    parity: ParityFigures | None = None
    batch: int | None = None
    tile_size: int | Sequence[int] | None = None
    overlap: int | None = None
    notes: tuple[str, ...] = ()
    trust_pickle: bool | None = None
    signature: Signature = field(default_factory=Signature)
    told_multiple: int | None = field(default=None, metadata=OMITTED)
    """The declared multiple of the signature, if trials showed that a larger one is needed."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """The frames that were rendered."""

    digest: str = ""
    frames: int = 0
    skipped: int = 0
    notes: tuple[str, ...] = field(default=(), metadata=OMITTED)
    """The parts of the frames that are ignored, such as further layers."""
    chosen_from: int | None = field(default=None, metadata=OMITTED)
    """The number of all frames of the input, if only some were chosen."""


@dataclass(frozen=True, kw_only=True)
class Attempt(Record):
    """What decides whether a job runs again: part of each Outcome, and a separate file for measuring."""

    status: str
    attempt: int
    basis: str | None = field(default=None, metadata=OMITTED)
    forced: str | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class Outcome(Record):
    """``renders/{model}/{shard}.json``, ``attempts/{model}/{shard}.json``: how the render of a shard went."""

    status: str
    """One of ``STAGES``."""
    error: str | None = None
    attempt: int = 0
    render: Figures = field(default_factory=Figures)
    model: LoadedModel | None = field(default=None, metadata=EMPTIED)
    """None if the model was not loaded."""
    loading: str | None = None
    """Digest of everything but the files that decides which network the artifact becomes."""
    basis: str | None = None
    """Digest of everything that the render depends on. If it changes, the render is due again."""
    artifact: RenderedArtifact = field(default_factory=RenderedArtifact)
    input: Input = field(default_factory=Input)
    forced: str | None = field(default=None, metadata=OMITTED)
    """The invocation that was forced to render all frames again, if any."""


@dataclass(frozen=True, kw_only=True)
class Measures(Record):
    """``measures/{subject}/{shard}.json``: the measurements of every measured frame, by its name."""

    status: str = SUCCESS
    error: str | None = None
    frames: Mapping[str, Values] | None = field(default=None, metadata=OMITTED)
    of: int | None = field(default=None, metadata=OMITTED)
    """The number of frames of the shard, if only some of them were measured."""
    notes: tuple[str, ...] | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class _Ending:
    status: str
    error: str | None = None
    attempt: int = 0


@dataclass(frozen=True, kw_only=True)
class RenderReport(Figures, _Ending):
    """How the render of a model went, for all its shards together."""


@dataclass(frozen=True, kw_only=True)
class NetworkReport:
    """How the network was loaded; every field is None if it was not."""

    builder: str | None = None
    trust_pickle: bool | None = None
    notes: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Means:
    """The means of a model's measurements."""

    frames: int = 0
    """The number of frames that were measured."""
    of: int | None = field(default=None, metadata=OMITTED)
    """The number of frames of the sequence, if only some of them were measured."""
    training_frames: int = 0
    """Number of frames of the sequence on which the model was trained."""
    error: str | None = None
    notes: tuple[str, ...] = ()
    mean: Values = field(default_factory=dict)
    mean_unseen: Values = field(default_factory=dict)
    """Over the frames on which the model was not trained."""
    mean_training: Values | None = None
    reference: tuple[str, ...] | None = field(default=None, metadata=OMITTED)
    """How the frames of the reference were paired."""
    reference_fingerprint: str | None = field(default=None, metadata=OMITTED)
    """Identifies the reference; None without one, and in records of earlier versions."""
    shards: tuple[str, ...] = field(default=(), metadata=OMITTED)
    """The shards whose measures these are the means of; empty in records of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class Metadata(Record):
    """``{model}/metadata.json``: everything known about a model and its render."""

    run_id: str
    run_name: str = ""
    architecture: str | None = None
    epoch: int | None = None
    """The run's value, or else the checkpoint's. The losses follow the same rule.

    ``checkpoint`` holds the checkpoint's own values. They differ if training continued after the best epoch.
    """
    train_loss: float | None = None
    val_loss: float | None = None
    status: str = ""
    """The status of the run."""
    start_time: int | None = None
    checkpoint: TrainingProgress | None = None
    """What the checkpoint says about its training, if anything."""
    experiment: str = ""
    registered_model: RegisteredModel | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[Dataset, ...] = ()
    not_chosen: tuple[str, ...] = ()
    render: RenderReport
    artifact: RenderedArtifact = field(default_factory=RenderedArtifact)
    input: Input = field(default_factory=Input)
    network: NetworkReport = field(default_factory=NetworkReport)
    signature: Signature | None = None
    measured: Means | None = None
    knocked_out: str | None = field(default=None, metadata=OMITTED)
    """Why the model was knocked out, so that only the frames of the first round are rendered."""
    rank: int | None = field(default=None, metadata=OMITTED)
    """The place of the model in the leaderboard; ``summary`` adds it, because it depends on all the others."""
    verdict: str | None = field(default=None, metadata=OMITTED)
    """``BEST``, ``TIE``, ``WORSE`` or ``KNOCKED_OUT``; None for a model without a rank."""
    below_source: bool = field(default=False, metadata=OMITTED)
    """Whether the model is significantly worse than the source; without an interval, whether its mean is worse."""


def is_metadata(path: Path) -> bool:
    """Return whether a ``metadata.json`` was written by ``collect``; other programs use this name, too."""
    try:
        Metadata.load(path)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class SummaryLine:
    """A model in ``batch_summary.json``, which is a list of them."""

    run_id: str
    run_name: str = ""
    architecture: str | None = None
    label: Label | None = field(default=None, metadata=OMITTED)
    """What tells the model from the others."""
    status: str
    rank: int | None = field(default=None, metadata=OMITTED)
    """The place in the leaderboard, as in ``Metadata``; likewise the next two."""
    verdict: str | None = field(default=None, metadata=OMITTED)
    below_source: bool = field(default=False, metadata=OMITTED)
    knocked_out: str | None = field(default=None, metadata=OMITTED)
    output_dir: str | None = field(default=None, metadata=OMITTED)
    """Where the frames are; None after a failure."""
    error: str | None = field(default=None, metadata=OMITTED)
    epoch: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    frames: int = 0
    frames_chosen_from: int | None = field(default=None, metadata=OMITTED)
    """The number of all frames of the input, if only some were chosen."""
    seconds: float = 0
    fps: float | None = None
    measured: Values | None = field(default=None, metadata=OMITTED)
    tried: tuple[RejectedFile, ...] = field(default=(), metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class MetricRecord:
    """A metric of the leaderboard."""

    name: str
    label: str
    group: str
    higher_is_better: bool
    unit: str = ""
    note: str = ""
    """What it measures."""
    ideal: str = field(default="", metadata=OMITTED)
    """The value of a frame that equals its reference; empty if the metric needs none."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """By how much the mean of one model is better than that of another; negative if it is worse."""

    difference: float
    low: float | None = None
    """The bounds of the confidence interval; None if there are too few frames for one."""
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class RankedModel:
    """A model in a ranking."""

    model: str
    rank: int
    verdict: str
    """``BEST``, ``TIE`` or ``WORSE``."""
    mean: float
    """Over the frames that decide."""
    to_first: Difference | None = None
    """The model compared with the first; None for the first itself."""
    to_source: Difference | None = None
    """The model compared with the source; None if the source was not measured on all these frames."""
    below_source: bool = field(default=False, metadata=OMITTED)
    """Whether it is significantly worse than the source; without an interval, whether its mean is worse."""


@dataclass(frozen=True, kw_only=True)
class RankingRecord:
    """The models that can be ranked, the best one first, and how sure that order is."""

    metric: str
    frames: int
    """The number of frames that decide."""
    of: int
    """The number of frames of the sequence."""
    measured: int | None = field(default=None, metadata=OMITTED)
    """The number of frames that were measured, if not all."""
    on_training_frames: bool = False
    """Whether models were trained on some of the frames that decide."""
    source: float | None = None
    """The mean of the source over the same frames."""
    models: tuple[RankedModel, ...] = ()
    knocked_out: tuple[RankedModel, ...] = field(default=(), metadata=OMITTED)
    """The models that were knocked out, compared with the first over the frames of the first round."""
    knockout_frames: int = field(default=0, metadata=OMITTED)
    """The number of frames that decided the first round; 0 without a knockout."""
    frames_needed: int | None = None
    """About how many frames would separate the first two, if they tie and if that can be estimated."""
    settle: tuple[str, ...] = ()
    """What would settle a tie for the first place, in sentences."""

    @property
    def first(self) -> tuple[RankedModel, ...]:
        """The best model, or all that tie for the first place."""
        return tuple(each for each in self.models if each.verdict != WORSE)

    @property
    def everyone(self) -> tuple[RankedModel, ...]:
        """All models with a rank, those that were knocked out last."""
        return (*self.models, *self.knocked_out)


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A model in a knockout."""

    model: str
    is_finalist: bool
    """Whether it renders all frames."""
    reason: str
    """Why it is a finalist, or why it is not, in words."""
    rank: int | None = None
    """The place after the first round; None if it could not be ranked."""
    mean: float | None = None
    to_first: Difference | None = None
    """The model compared with the first; None for the first itself, and without a rank."""
    failed: bool = field(default=False, metadata=OMITTED)
    """Whether its render failed: such a model is not knocked out, and the next invocation tries it again."""


@dataclass(frozen=True, kw_only=True)
class Knockout(Record):
    """``knockout.json``: which models render all frames after a first round, and why."""

    basis: str = ""
    """Digest of everything that the decision depends on. If it has changed, the decision is out of date."""
    metric: str
    frames: tuple[str, ...]
    """Output names of the frames that decided."""
    finalists: int
    """The setting: how many models render all frames at least, if as many can be ranked."""
    models: tuple[Contestant, ...] = ()
    """The best one first; those without a rank last."""

    @property
    def by_model(self) -> Mapping[str, Contestant]:
        """Each model by its name."""
        return {each.model: each for each in self.models}


@dataclass(frozen=True, kw_only=True)
class Leaderboard(Record):
    """``metrics.json``: the measurements of all models and the verdict on them."""

    verdict: str | None = None
    """The result as a sentence; None if there is nothing to rank."""
    remarks: tuple[str, ...] = field(default=(), metadata=OMITTED)
    """What would settle a tie, and which models are worse than the source, in sentences."""
    measured: str | None = field(default=None, metadata=OMITTED)
    """A sentence about the number of measured frames, if not all were measured."""
    uncounted: str | None = field(default=None, metadata=OMITTED)
    """How many imported votes do not count, and why, as a sentence; None if all do."""
    uncounted_of: Mapping[str, str] = field(default_factory=dict, metadata=OMITTED)
    """The same of the votes on each model that has such votes, by its folder name."""
    ranking: RankingRecord | None = field(default=None, metadata=OMITTED)
    reference: tuple[str, ...] = ()
    """How the frames of the reference were paired."""
    missing: str | None = None
    """A sentence about frames without a reference, if there are any."""
    problems: tuple[str, ...] = ()
    metrics: tuple[MetricRecord, ...] = ()
    means: Mapping[str, Values] = field(default_factory=dict, metadata=OMITTED)
    """By model, and for ``@source``: the means over the frames that decide, as in ``leaderboard.csv``."""
    values: Mapping[str, Mapping[str, tuple[float | None, ...]]] = field(default_factory=dict)
    """By metric, then by model, and for ``@source``: a value for each frame of the sequence."""


@dataclass(frozen=True)
class FrameMetric:
    """One metric, measured on every frame of every model."""

    name: str
    values: Mapping[str, Sequence[float | None]]
    """By the model's folder, or ``@source``: a value for each frame of the sequence; None for a frame without one."""
    higher_is_better: bool
    unit: str = ""
    note: str = ""
    """What a reader must know, such as how the frames of the reference were paired."""
    key: str = ""
    """Its name in the configuration and in the tables; that on the page if it is empty."""
    help: str = ""
    """What it measures."""
    ideal: str = ""
    """The value of a perfect frame, as text."""

    def __post_init__(self) -> None:
        lengths = {len(values) for values in self.values.values()}
        if len(lengths) > 1:
            raise ValueError(f"metric {self.name} has a different number of frames for different models: {lengths}")


@dataclass(frozen=True, kw_only=True)
class VoteSide:
    """A model that was shown in a blind test."""

    model: str
    """The name of its folder."""
    artifact: str
    """The beginning of the digest of its weights."""
    run_id: str = field(default="", metadata=OMITTED)
    """Empty in records of earlier versions."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """A vote of a blind test on a pair of models."""

    id: str
    """Set by the page, so that a vote that is imported twice counts once."""
    a: VoteSide
    b: VoteSide
    winner: str
    """``a``, ``b`` or ``tie``."""
    frame: str
    """The output name of the frame that was shown when the vote was cast."""
    time: str
    """In UTC, in the format of ISO 8601."""
    page: str
    """Identifies the page on which the vote was cast."""
    frame_digest: str
    """The beginning of the digest of that frame of the input."""


@dataclass(frozen=True, kw_only=True)
class Votes(Record):
    """``votes.json``: the votes that were imported, in the order of import."""

    votes: tuple[Vote, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model in ``evaluations.json``, which is a list of them."""

    model: str
    run_id: str
    evaluation: str | None = None
    """The id of the run that holds its evaluation."""
    reason: str | None = None
    """Why it has no evaluation."""


def is_same_artifact(one: Receipt | RenderedArtifact, other: Receipt | RenderedArtifact) -> bool:
    """Return whether both artifacts have the same bytes."""
    return (one.sha256, one.config_sha256) == (other.sha256, other.config_sha256)


def loading_digest(record: ModelRecord, loading: Mapping[str, Any]) -> str:
    """Return the digest of everything but the files that decides which network an artifact becomes."""
    return digest([record.architecture, dict(record.hints), loading])


def merged(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome of a model: the sum of its shards' figures, and the status of the worst one."""
    worst = min(outcomes, key=lambda outcome: STAGES.index(outcome.status))
    if len(outcomes) == 1:
        return worst
    renders = [outcome.render for outcome in outcomes]
    render = next((each for each in renders if each.tiled), next((each for each in renders if each.frames), renders[0]))
    frames, seconds = sum(each.frames for each in renders), sum(each.seconds for each in renders)
    fps = round(frames / seconds, 3) if seconds else None
    startups = [each.startup_seconds for each in renders if each.startup_seconds is not None]
    return replace(
        worst,
        attempt=max(outcome.attempt for outcome in outcomes),
        model=next((outcome.model for outcome in outcomes if outcome.model), None),
        render=replace(
            render,
            frames=frames,
            seconds=round(seconds, 2),
            fps=fps,
            startup_seconds=round(sum(startups), 2) if startups else None,
        ),
    )


def candidates(record: ModelRecord, about: RunRecord | None) -> list[Artifact]:
    """Return a model's artifacts in the order in which they are tried.

    While the first one loads, the alternatives are only part of the ``about`` record.
    """
    return [record.artifact, *(record.alternatives or (about.alternatives if about else ()))]


def rendered_artifact(record: ModelRecord, about: RunRecord | None, rendered: RenderedArtifact) -> Artifact:
    """Return the artifact that discovery found and that ``metadata.json`` records as ``rendered``."""
    found = candidates(record, about)
    return next((each for each in found if (redacted(each.uri), each.path) == (rendered.uri, rendered.path)), found[0])


def is_trusted(trust: bool | Sequence[str], record: ModelRecord) -> bool:
    """Return whether loading a model may run code that it contains; ``trust`` is the setting ``trust_code``."""
    return trust if isinstance(trust, bool) else bool({record.run_id, record.experiment_id} & {*trust})


def run_params(about: Path) -> Mapping[str, str]:
    """Return all params of a model's run, which only the file ``about`` the run holds."""
    run = RunRecord.load_if_there(about)
    return run.params if run else {}
