"""Inputs: the input functions, parameters and resources of the rules.

Snakemake calls most methods with ``wildcards``, and with ``input``, ``output``, ``threads`` or ``attempt`` if a method
names them. If a method takes ``input`` or ``output``, Snakemake does not run a job again when its value changes.
"""

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from importlib.util import find_spec
from inspect import isfunction, signature
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from snakemake.common import overwrite_function_params
from snakemake.exceptions import IncompleteCheckpointException
from snakemake.io import ancient, checkpoint_target

from dailies.core import code_digest, files
from dailies.discovery.take_snapshot import take_snapshot
from dailies.frames import reference, scan, sequence
from dailies.frames.sequence import KNOCKOUT
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.measure import knockout, lpips_weights, metrics
from dailies.measure.cache import versions
from dailies.planning import estimates
from dailies.planning.config import loading_settings, pixel_settings
from dailies.planning.invocation import Invocation
from dailies.publish import promotion
from dailies.render import devices
from dailies.state import due_shards, labels, votes
from dailies.state.layout import SOURCE
from dailies.state.records import DiscoveryIndex, Knockout, RunRecord
from dailies.store import writer

T = TypeVar("T")

SCRIPTS = Path(__file__).parents[2]
"""The folder of the adapters."""

MANY_CORES = 10
"""Enough threads for a render and for another job with two threads."""


def with_known_parameters(cls: type[T]) -> type[T]:
    """Precompute the parameters of a class's methods, which Snakemake would otherwise inspect on every call.

    With 1000 models, that is an eighth of the time of planning.
    """
    for name, function in vars(cls).items():
        if isfunction(function) and not name.startswith("_"):
            overwrite_function_params(function, dict(islice(signature(function).parameters.items(), 1, None)))
    return cls


@with_known_parameters
class Inputs:
    """Answers the rules while jobs are planned. MLflow and the frames are read only if a rule needs them."""

    def __init__(self, invocation: Invocation, checkpoints: Any) -> None:
        """Prepare the answers for an invocation; ``checkpoints`` is Snakemake's collection of them."""
        self._invocation = invocation
        self._checkpoints = checkpoints
        self._settings = invocation.settings
        self._layout = invocation.layout
        self._listing = self._layout.sequence
        self._metrics = metrics.requested(self._settings)
        self._is_automatic = metrics.is_automatic(self._settings)
        self._reference = reference.ReferenceSettings.from_settings(self._settings)
        self.render_settings = {
            "settings": pixel_settings(self._settings),
            "loading": loading_settings(self._settings),
        }
        """The parameters on which every pixel of a render depends."""
        self.has_codecs = find_spec("OpenImageIO") is not None
        """Whether this machine can read frames. A head node without codecs submits such jobs."""

    def threads(self, most: int) -> int:
        """Return how many threads the jobs of a rule use, at most ``most``.

        On this machine they leave one core to other jobs, so that models are measured while the next one is rendered.
        """
        cores = self._invocation.cores
        if cores is None or not self._invocation.is_main:  # others run the jobs, or have chosen the threads of this one
            return most
        return max(1, min(most, cores - 1))

    @property
    def measure_threads(self) -> int:
        """How many threads a job that measures uses. With few cores it is one, which fits beside a render."""
        return 2 if self.threads(MANY_CORES) >= MANY_CORES - 1 else 1

    @property
    def priority_of_results(self) -> int:
        """The priority of jobs that measure and collect what is rendered.

        If nothing can run beside a render, each model is measured before the next one is rendered: that takes no
        longer, and its line on the terminal has a metric. Otherwise renders come first.
        """
        return int(self._invocation.cores == 1)

    def code(self, script: str) -> str:
        """Return a digest of the code behind a script; as a parameter, it makes a rule run again after an update."""
        return code_digest.digest(SCRIPTS / f"{script}.py")

    def afresh(self, rule: str) -> Callable[..., bool]:
        """Return a parameter that tells the jobs of a rule whether to ignore their caches."""

        def is_forced(wildcards: Any, output: Any) -> bool:
            return self._invocation.is_forced([rule], output)

        return is_forced

    # The sequence

    def input_fingerprint(self, wildcards: Any = None) -> str | None:
        """Return a digest of the input folder's listing, or of the state of a video's file."""
        return self._input_fingerprint

    @cached_property
    def _input_fingerprint(self) -> str | None:
        invocation, settings = self._invocation, self._settings
        if not invocation.plans("sequence"):
            return None
        invocation.check_configured()
        if invocation.refuses_devices():
            invocation.call(devices.refuse_missing, settings.device)
        fingerprint = invocation.call(
            scan.fingerprint, settings.input_dir, self._layout.scan, settings.layer, settings.frames
        )
        invocation.take_output()
        return fingerprint

    def shards(self) -> dict[str, FrameSequence]:
        """Return the frames of each shard by its name; empty until the sequence has been read."""
        try:
            return self._shards()
        except FileNotFoundError:
            return {}

    def _shards(self) -> dict[str, FrameSequence]:
        return sequence.shards(self._listing, self._settings.shard_frames, self._settings.knockout_frames)

    def _measured_shards(self) -> dict[str, FrameSequence]:
        """Return the measured frames of each shard by its name; empty until the sequence has been read."""
        settings, path = self._settings, self._layout.sequence
        if not path.is_file():
            return {}
        return sequence.measured_shards(path, settings.shard_frames, settings.knockout_frames, settings.measure_frames)

    def _shard_names(self) -> list[str]:
        """Return the names of the shards that make up the sequence.

        Snakemake asks again later if the sequence has not been read yet.
        """
        self._checkpoints.sequence.get()
        return [name for name in self._shards() if name != KNOCKOUT]

    def _has_knockout(self) -> bool:
        """Return whether a knockout decides which models render all frames: the sequence may be too short for one."""
        if not self._settings.knockout_frames:
            return False
        self._checkpoints.sequence.get()
        return KNOCKOUT in self._shards()

    def _shards_of(self, model: str) -> list[str]:
        """Return the names of the shards that a model renders. Snakemake asks again after the decision on it."""
        if not self._has_knockout():
            return self._shard_names()
        return self._shard_names() if self._decision().by_model[model].is_finalist else [KNOCKOUT]

    def _decision(self) -> Knockout:
        """Return the decision of the knockout. Snakemake asks again later if it is not there or out of date.

        Snakemake 9.27 itself takes an old decision for a current one if it does not know yet, because of an earlier
        checkpoint, on which files the decision depends.
        """
        checkpoint = self._checkpoints.knockout
        path = Path(checkpoint.get().output.decision)
        decision, is_current = self._loaded_decision(path, path.stat().st_mtime, self._layout.index.stat().st_mtime)
        if not is_current:
            if not self._invocation.runs("knockout"):
                self._invocation.end(
                    f"{path} is out of date, but Snakemake does not know, because its records in .snakemake are "
                    "missing; run snakemake -R knockout"
                )
            raise IncompleteCheckpointException(checkpoint.rule, checkpoint_target(str(path)))
        return decision

    @cache  # noqa: B019 - one object per process
    def _loaded_decision(self, path: Path, written: float, discovered: float) -> tuple[Knockout, bool]:
        """Return the decision of the knockout, and whether it is that of this invocation or still true."""
        del discovered  # part of the cache's key
        decision = Knockout.load(path)
        is_new = written >= self._invocation.started or not self._invocation.is_main
        return decision, is_new or decision.basis == self.knockout_basis()

    def sequence_memory(self, wildcards: Any, attempt: int) -> int:
        """Return the megabytes for reading frames; more on every retry."""
        return attempt * estimates.SEQUENCE_MEMORY

    def sequence_minutes(self, wildcards: Any, attempt: int) -> int:
        """Return the minutes for reading frames; more on every retry."""
        return attempt * estimates.SEQUENCE_MINUTES

    # The models

    def store_fingerprint(self, wildcards: Any = None) -> str | None:
        """Return a digest of the selected runs in MLflow; if MLflow does not answer, the last known digest."""
        return self._store_fingerprint

    @cached_property
    def _store_fingerprint(self) -> str | None:
        invocation = self._invocation
        if not invocation.plans("discover"):
            return None
        invocation.check_configured()
        if invocation.targets != {invocation.rule("list_models")}:
            self.input_fingerprint()
        invocation.take_output()
        snapshot = invocation.call(
            take_snapshot,
            self._settings,
            self._layout,
            dry_run=not invocation.is_executed,
            afresh=invocation.is_forced(["discover"], [self._layout.index]),
        )
        for line in filter(None, (snapshot.warning, snapshot.note)):
            invocation.warn(line)
        return snapshot.fingerprint

    def discovery_index(self, wildcards: Any = None) -> str:
        """Return the path of the list of selected models. Snakemake asks again later if it does not exist yet."""
        return str(self._checkpoints.discover.get().output.index)

    def discovered_models(self) -> Sequence[str]:
        """Return the names of the selected models, in MLflow's order."""
        return DiscoveryIndex.load(Path(self.discovery_index())).models

    def labels_of_models(self, wildcards: Any) -> dict[str, list[str]]:
        """Return name and params of the labels of the selected models, by model, in MLflow's order."""
        found = labels.labels({model: RunRecord.load(self._layout.run(model)) for model in self.discovered_models()})
        return {model: [label.name, label.params] for model, label in found.items()}

    def runs_of_all_models(self, wildcards: Any) -> list[Path]:
        """Return the record of every selected model's run."""
        return [self._layout.run(model) for model in self.discovered_models()]

    def metadata_of_all_models(self, wildcards: Any) -> list[Path]:
        """Return the metadata of every selected model."""
        return [self._layout.metadata(model) for model in self.discovered_models()]

    # Downloads and renders

    def download_threads(self, wildcards: Any) -> int:
        """Return 0 if jobs run on this machine, so that a download does not wait for a render to free a core."""
        return 0 if self._invocation.is_local else 1

    def download_memory(self, wildcards: Any, input: Any, attempt: int) -> int:
        """Return the megabytes for a download; more on every retry."""
        return attempt * estimates.download_memory(input.record, self._layout.run(wildcards.model))

    def download_minutes(self, wildcards: Any, input: Any, attempt: int) -> int:
        """Return the minutes for a download; more on every retry."""
        return attempt * estimates.download_minutes(input.record, self._layout.run(wildcards.model))

    def render_memory(self, wildcards: Any, input: Any, attempt: int) -> int:
        """Return the megabytes for a render; more on every retry."""
        return attempt * estimates.render_memory(input.record, self.shards()[wildcards.shard], self._settings)

    def render_minutes(self, wildcards: Any, input: Any, attempt: int) -> int:
        """Return the minutes for a render; more on every retry."""
        return attempt * estimates.render_minutes(input.record, self.shards()[wildcards.shard])

    def outcomes_of_model(self, wildcards: Any) -> list[Path]:
        """Return the outcomes of a model's shards, whose number is known once the sequence has been read."""
        listing = Path(self._checkpoints.sequence.get().output.sequence)
        self._check_reference(listing)
        self._check_backbone()
        self._check_room(listing)
        return [self._layout.outcome(wildcards.model, shard) for shard in self._shards_of(wildcards.model)]

    def outcomes_of_all_models(self, wildcards: Any) -> list[Path]:
        """Return the outcomes of all shards of all models, which change with the frames but not with a metric."""
        models = self.discovered_models()
        return [self._layout.outcome(model, shard) for model in models for shard in self._shards_of(model)]

    def outcomes_of_finalists(self, wildcards: Any) -> list[Path]:
        """Return the outcomes of all shards of the models that render all frames."""
        models = self.labels_of_finalists(wildcards)
        return [self._layout.outcome(model, shard) for model in models for shard in self._shard_names()]

    def labels_of_finalists(self, wildcards: Any) -> dict[str, list[str]]:
        """Return the labels of the models that render all frames, as ``labels_of_models`` does."""
        found = self.labels_of_models(wildcards)
        return {model: label for model, label in found.items() if KNOCKOUT not in self._shards_of(model)}

    def shard_states(self, wildcards: Any) -> dict[str, dict[str, Any]]:
        """Return, for each shard that makes up the sequence, the digest of its frames and a model's due attempt."""
        return {
            name: self._shard_state(wildcards.model, name, shard.digest)
            for name, shard in self.shards().items()
            if name != KNOCKOUT
        }

    def candidate_states(self, wildcards: Any) -> dict[str, dict[str, Any]]:
        """Return the digest of the frames of the first round of a knockout, and a model's due attempt at it."""
        return {
            name: self._shard_state(wildcards.model, name, shard.digest)
            for name, shard in self.shards().items()
            if name == KNOCKOUT
        }

    @cache  # noqa: B019 - one object per process
    def _shard_state(self, model: str, shard: str, digest: str) -> dict[str, Any]:
        return {"frames": digest, "attempt": self._next_attempt(model, shard)}  # an attempt grows after a failure

    def _state_of(self, wildcards: Any) -> dict[str, Any]:
        return self._shard_state(wildcards.model, wildcards.shard, self.shards()[wildcards.shard].digest)

    def _next_attempt(self, model: str, shard: str) -> int:
        return due_shards.next_attempt(
            self._layout.attempt(model, shard),
            self._layout.sequence,
            self._layout.frames(model),
            shard=shard,
            shard_frames=self._settings.shard_frames,
            knockout_frames=self._settings.knockout_frames,
            forced=self._forced_token(model, shard),
        )

    def shard_digest(self, wildcards: Any) -> str:
        """Return the digest of the frames of a shard."""
        return self._state_of(wildcards)["frames"]

    def render_attempt(self, wildcards: Any) -> int:
        """Return the number of the attempt at a shard that is due."""
        return self._state_of(wildcards)["attempt"]

    def forced_render(self, wildcards: Any, output: Any) -> str | None:
        """Return the token of an invocation that must also render the frames in place again; None otherwise."""
        return self._forced_token(wildcards.model, wildcards.shard)

    def forced_download(self, wildcards: Any, output: Any) -> bool:
        """Return whether this invocation renders shards of a model again, frames in place included."""
        if not self._invocation.forced:
            return False
        shards = [name for name in self.shards() if name != KNOCKOUT] or [sequence.WHOLE_SEQUENCE]
        return any(self._forced_token(wildcards.model, shard) for shard in shards)

    def forced_candidate(self, wildcards: Any, output: Any) -> bool:
        """Return whether this invocation renders the first round of a knockout again, frames in place included."""
        return bool(self._forced_token(wildcards.model, KNOCKOUT))

    def _forced_token(self, model: str, shard: str) -> str | None:
        if not self._invocation.forced:  # nearly always
            return None
        outputs = (self._layout.outcome(model, shard), self._receipt(model, shard))
        rules = ["infer", "download", *(["download_candidate"] if shard == KNOCKOUT else [])]
        return self._invocation.forced.token if self._invocation.is_forced(rules, outputs) else None

    def _receipt(self, model: str, shard: str) -> Path:
        return self._layout.candidate_receipt(model) if shard == KNOCKOUT else self._layout.receipt(model)

    def receipt_of_weights(self, wildcards: Any) -> Any:
        """Return the receipt of a model's download; if the shard is not due, the receipt's age is ignored.

        Otherwise a download for one shard would make the model's other shards run again.
        """
        receipt = self._receipt(wildcards.model, wildcards.shard)
        state = self._state_of(wildcards)
        settings, loading = self.render_settings["settings"], self.render_settings["loading"]
        is_due = due_shards.is_due(
            self._layout, wildcards.model, wildcards.shard, **state, settings=settings, loading=loading
        )
        return receipt if is_due else ancient(receipt)

    @cache  # noqa: B019 - one object per process
    def _check_room(self, listing: Path) -> None:
        """End the invocation if the disk has no room for the missing frames."""
        if self._settings.check_disk and self._invocation.is_main:
            models = DiscoveryIndex.load(self._layout.index).models
            motion = "flicker" in self._metrics and self._is_measured()
            whole = sequence.load(listing)
            self._invocation.call(estimates.refuse_shortage, self._layout, models, whole, self._settings, motion=motion)

    # Measuring

    def reference_fingerprint(self, wildcards: Any = None) -> str | None:
        """Return a digest of the reference's listing and of its pairing; None without a reference."""
        return self._reference_fingerprint

    @cached_property
    def _reference_fingerprint(self) -> str | None:
        asked = self._reference
        return self._invocation.call(reference.fingerprint, asked, self._layout.reference_scan) if asked else None

    @cache  # noqa: B019 - one object per process
    def _check_reference(self, listing: Path) -> None:
        """End the invocation if no frame of the reference belongs to the sequence."""
        if self._reference and self.reference_fingerprint():
            self._invocation.call(reference.check, self._reference, sequence.load(listing))

    @cache  # noqa: B019 - one object per process
    def _check_backbone(self) -> None:
        """End the invocation if LPIPS's file holds other weights; warn if it is not the published one."""
        if metrics.LPIPS not in self._metrics or not self._invocation.is_main:
            return
        from dailies.measure.lpips import check_backbone  # imports torch

        if warning := self._invocation.call(check_backbone, lpips_weights.path_of(self._settings.lpips_backbone)):
            self._invocation.warn(warning)

    def _is_measured(self) -> bool:
        """Return whether this invocation measures: by its configuration, or because the user asked for it."""
        return self._is_automatic or any(target.endswith("metrics") for target in self._invocation.targets)

    def pairing_record(self, wildcards: Any) -> list[Path]:
        """Return the record of the reference's pairing, if there is a reference."""
        return [self._layout.pairing] if self._reference else []

    def decoded_reference(self, wildcards: Any) -> list[Path]:
        """Return the record of a decoded reference video. A folder needs none: a parameter shows its changes."""
        return self.pairing_record(wildcards) if self._reference and self._reference.is_video else []

    def pairing_record_if_measured(self, wildcards: Any) -> list[Path]:
        """Return the record of the pairing if an ordinary invocation measures: it is part of a model's metadata."""
        return self.pairing_record(wildcards) if self._is_automatic else []

    def reference_fingerprint_if_measured(self, wildcards: Any) -> str | None:
        """Return the fingerprint of the reference if ordinary invocations measure; None otherwise."""
        return self.reference_fingerprint() if self._is_automatic else None

    def measuring(self, wildcards: Any) -> list[Any]:
        """Return everything that the measures of a shard depend on, except the frames themselves.

        That includes which frames are measured, unless all are.
        """
        shard, part = (shards.get(wildcards.shard) for shards in (self.shards(), self._measured_shards()))
        is_partial = shard and part and len(part.frames) < len(shard.frames)
        return [*self._measuring, *([part.digest] if part and is_partial else [])]

    @cached_property
    def _measuring(self) -> list[Any]:
        weights = []
        if metrics.LPIPS in self._metrics:
            weights.append(lpips_weights.stamp(lpips_weights.path_of(self._settings.lpips_backbone)))
        transfer = self._settings.transfer
        return [versions(transfer), self._metrics, transfer, self.reference_fingerprint(), *weights]

    def measure_attempt(self, wildcards: Any) -> int:
        """Return the number of the attempt at measuring a shard; it grows only after a failure."""
        return self._measure_attempt(wildcards.model, wildcards.shard)

    @cache  # noqa: B019 - one object per process
    def _measure_attempt(self, model: str, shard: str) -> int:
        return due_shards.attempt_after(self._layout.measuring_attempt(model, shard))

    def baseline_attempt(self, wildcards: Any) -> int:
        """Return the number of the attempt at measuring a shard of the source."""
        return due_shards.attempt_after(self._layout.measuring_attempt(SOURCE, wildcards.shard))

    def outcomes_to_measure(self, wildcards: Any) -> list[Path]:
        """Return the outcomes of a model's shard and of the one before, where the motion of the shard begins."""
        if wildcards.shard == KNOCKOUT:
            return [self._layout.outcome(wildcards.model, KNOCKOUT)]
        names = self._shard_names()
        place = names.index(wildcards.shard)
        return [self._layout.outcome(wildcards.model, shard) for shard in names[max(0, place - 1) : place + 1]]

    def _measures_of(self, subject: str) -> list[Path]:
        names = self._shard_names() if subject == SOURCE else self._shards_of(subject)
        return [self._layout.measures(subject, shard) for shard in names]

    def measures_of_candidates(self, wildcards: Any) -> list[Path]:
        """Return the measures of all models on the frames of the first round of a knockout."""
        return [self._layout.measures(model, KNOCKOUT) for model in self.discovered_models()]

    def knockout_decision(self, wildcards: Any) -> list[Path]:
        """Return the record of the knockout, if there is one. Snakemake asks again after the decision."""
        if not self._has_knockout():
            return []
        self._decision()  # a path alone would hide from Snakemake that the job's other inputs wait for this file
        return [self._layout.knockout]

    def knockout_question(self, wildcards: Any = None) -> list[Any]:
        """Return what the knockout depends on, except the renders of the models."""
        settings, index = self._settings, self._layout.index
        models = DiscoveryIndex.load(index).models if index.is_file() else ()
        return [
            metrics.ranking_metric(settings),
            settings.knockout_frames,
            settings.finalists,
            settings.as_config()["training_frames_from"],
            [files.sha256_of(run) for run in map(self._layout.run, models) if run.is_file()],
            self._measuring,
            self.code("knockout"),
        ]

    def knockout_basis(self, wildcards: Any = None) -> str | None:
        """Return the digest of everything that the knockout depends on; None while the models or frames are unknown.

        As a parameter, it starts the knockout as soon as the first round of a model is due.
        """
        index, parts = self._layout.index, self.shards()
        if not index.is_file() or KNOCKOUT not in parts:
            return None
        rounds = {
            model: self._first_round(model, parts[KNOCKOUT].digest) for model in DiscoveryIndex.load(index).models
        }
        return knockout.basis(self.knockout_question(), rounds)

    def _first_round(self, model: str, digest: str) -> list[Any]:
        """Return the attempts at the first round of a model that are due, or were the last ones if none is due."""
        attempt = self._shard_state(model, KNOCKOUT, digest)["attempt"]
        basis = due_shards.basis(self._layout.record(model), digest, **self.render_settings)
        return [attempt, basis, self._measure_attempt(model, KNOCKOUT)]

    def measures_of_model(self, wildcards: Any) -> list[Path]:
        """Return a model's measures if an ordinary invocation measures: they are part of its metadata."""
        return self._measures_of(wildcards.model) if self._is_automatic else []

    def measures_of_all(self, wildcards: Any) -> list[Path]:
        """Return the measures of all models and of the source."""
        return [path for subject in [*self.discovered_models(), SOURCE] for path in self._measures_of(subject)]

    def leaderboard(self, wildcards: Any) -> Path:
        """Return the result of the target ``metrics``; end the invocation if nothing is to be measured."""
        if not self._metrics:
            self._invocation.end("metrics is none, so there is nothing to measure; set metrics to auto or a list")
        return self._layout.leaderboard

    def ranking_record(self, wildcards: Any) -> list[Path]:
        """Return the ranking if an ordinary invocation measures."""
        return [self._layout.verdict] if self._is_automatic else []

    @property
    def verdict_advice(self) -> str | None:
        """What to set so that the page has a verdict; None if the settings ask for one."""
        return metrics.verdict_advice(self._settings)

    @cached_property
    def ranking_question(self) -> list[Any]:
        """What the leaderboard depends on, apart from values: metrics, the one that ranks, names of training frames."""
        settings = self._settings
        return [self._metrics, metrics.ranking_metric(settings), settings.as_config()["training_frames_from"]]

    @cached_property
    def summary_order(self) -> tuple[str, bool] | None:
        """The metric that orders the models of the summary, and whether it descends; None for MLflow's order."""
        return self._settings.measured_order

    def measure_memory(self, wildcards: Any, input: Any, attempt: int) -> int:
        """Return the megabytes for measuring a shard; more on every retry."""
        return attempt * estimates.measure_memory(self.shards()[wildcards.shard], self._metrics)

    def measure_minutes(self, wildcards: Any, input: Any, attempt: int) -> int:
        """Return the minutes for measuring a shard; more on every retry."""
        return attempt * estimates.measure_minutes(self._measured_shards()[wildcards.shard], self._metrics)

    # Comparing and publishing

    def comparison_page(self, wildcards: Any) -> list[Path]:
        """Return the page, if ``compare`` is set."""
        return [self._layout.page] if self._settings.compare else []

    def video_on_page(self, wildcards: Any) -> list[int] | None:
        """Return size and time of the video of all models, to which the page links; None if there is none."""
        video = self._layout.side_by_side
        return [video.stat().st_size, video.stat().st_mtime_ns] if video.is_file() else None

    def start_minutes(self, wildcards: Any) -> int:
        """Return the minutes of a job that does little more than start."""
        return estimates.START

    def page_memory(self, wildcards: Any, input: Any, attempt: int) -> int:
        """Return the megabytes for the page or the contact sheet; more on every retry."""
        return attempt * estimates.page_memory(input.sequence)

    def page_minutes(self, wildcards: Any, input: Any, attempt: int) -> int:
        """Return the minutes for the page; more on every retry."""
        return attempt * estimates.page_minutes(input.sequence, models=len(input.metadata))

    def video_memory(self, wildcards: Any, input: Any, threads: int, attempt: int) -> int:
        """Return the megabytes for the encoder and the pictures that its threads prepare ahead; more on every retry."""
        return attempt * estimates.video_memory(input.sequence, models=len(input.outcomes), threads=threads)

    def video_minutes(self, wildcards: Any, input: Any, attempt: int) -> int:
        """Return the minutes for the video of all models; more on every retry."""
        return attempt * estimates.page_minutes(input.sequence, models=len(input.outcomes))

    def evaluations(self, wildcards: Any) -> list[Path]:
        """Return the record of what was written back to MLflow, if ``write_back`` is set.

        End the invocation, before anything is rendered, if the store cannot be written to.
        """
        if not self._settings.write_back:
            return []
        self._check_writable()
        return [self._layout.evaluations]

    @cache  # noqa: B019 - one object per process
    def _check_writable(self) -> None:
        if self._invocation.is_local:
            self._invocation.call(writer.refuse_unwritable, self._settings, self._layout.upgraded)

    def counted_votes(self, wildcards: Any) -> list[Path]:
        """Return what the target ``votes`` makes: the record of all votes, and the leaderboard unless metrics is none.

        End the invocation if no file is named.
        """
        if self._settings.file is None:
            self._invocation.end(f"votes needs the file that the page exported: {votes.COMMAND}")
        return [self._layout.votes, *([self._layout.leaderboard] if self._metrics else [])]

    def votes_file(self, wildcards: Any = None) -> Path | list[Path]:
        """Return the file of votes to import; end the invocation if its votes cannot be counted."""
        if self._settings.file is None:
            return []
        self._invocation.call(votes.read_export, self._settings.file, self._layout)
        return self._settings.file

    def votes_digest(self, wildcards: Any = None) -> str | None:
        """Return the digest of the file of votes to import."""
        return files.sha256_of(self._settings.file) if self._settings.file else None

    @property
    def imported_votes(self) -> list[Path]:
        """The record of all votes if this invocation imports some. Otherwise no job may make it again."""
        return [self._layout.votes] if self._settings.file else []

    def votes_record(self, wildcards: Any) -> list[Path]:
        """Return the record of all votes, if there are any."""
        return self.imported_votes or ([self._layout.votes] if self._layout.votes.is_file() else [])

    def chosen_model(self, wildcards: Any) -> str:
        """Return the folder of the model to promote; end the invocation if it cannot be promoted."""
        return self._invocation.call(promotion.requested, self._settings, self._layout).model
