"""The order of models by what earlier invocations measured: which runs ``max_runs`` keeps."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dailies.core.text import counted
from dailies.frames import reference
from dailies.frames.sequence import load as load_sequence
from dailies.measure.metrics import BY_NAME, REFERENCE
from dailies.measure.scores import merged, training_frames
from dailies.state.layout import Layout, model_of
from dailies.state.records import Means, Measures, Metadata

if TYPE_CHECKING:
    from dailies.planning.config import Settings

NEVER = "never measured"
OTHER_REFERENCE = "measured against another reference"
OTHER_FRAMES = "measured on other frames"
"""Why a run has no value that can be compared with those of others."""


@dataclass(frozen=True)
class MeasuredRuns:
    """What is known of runs from earlier invocations, over the frames that all of them have in common."""

    means: Mapping[str, float] = field(default_factory=dict)
    """The mean of the metric by run id."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a run that was measured has no mean, by run id."""
    frames: int = 0
    """The number of frames of a mean."""
    most: int = 0
    """The number of frames that were measured of the run that has most of them."""


@dataclass(frozen=True)
class MeasuredOrder:
    """Which runs come first: the best of those that were measured, then the others in the store's order."""

    metric: str
    is_descending: bool
    most: int
    """How many runs are taken: ``max_runs``."""

    @classmethod
    def from_settings(cls, settings: "Settings") -> "MeasuredOrder | None":
        """Return the order if the settings take the best of the measured runs; otherwise None."""
        if settings.measured_order is None or settings.max_runs is None:
            return None
        metric, is_descending = settings.measured_order
        return cls(metric, is_descending, settings.max_runs)

    def measured(self, runs: Collection[str], settings: "Settings", layout: Layout) -> MeasuredRuns:
        """Return the means of runs over the frames that they have in common and no model of them was trained on.

        They are those of each run's model as it was rendered last, even if its artifact has changed since. If a run has
        several models, the best one counts. Values that were measured against another reference are left out, as are
        those of models that have no frame in common with models of more frames.
        """
        if not layout.sequence.is_file():
            return MeasuredRuns()
        sequence = load_sequence(layout.sequence)
        reasons, values, run_of = {}, {}, {}
        fingerprint = self._reference(settings, layout)
        for path in layout.all_metadata():
            with suppress(ValueError):  # other programs use this name, too
                about = Metadata.load(path)
                if about.run_id not in runs or about.measured is None:
                    continue
                seen = training_frames(about, sequence, settings.training_frames_from, settings.input_dir)
                known = self._values(_records(about.measured, model_of(path), layout), sequence.outputs - seen)
                if not known:
                    continue
                if _differ(about.measured.reference_fingerprint, fingerprint):
                    reasons[about.run_id] = OTHER_REFERENCE
                else:
                    values[model_of(path)], run_of[model_of(path)] = known, about.run_id
        common = _common_frames(values.values())
        means: dict[str, float] = {}
        better = max if self.is_descending else min
        for model, known in values.items():
            run = run_of[model]
            if common <= known.keys():
                mean = sum(known[frame] for frame in common) / len(common)
                means[run] = better(mean, means.get(run, mean))
            else:
                reasons[run] = OTHER_FRAMES
        return MeasuredRuns(
            means,
            {run: reason for run, reason in reasons.items() if run not in means},
            len(common),
            max(map(len, values.values()), default=0),
        )

    def best(self, runs: Collection[str], means: Mapping[str, float]) -> tuple[str, ...]:
        """Return the ids of the runs that are taken, in the order of ``runs``, which is the store's.

        The order of the result does not depend on the values, so that measuring changes nothing unless another run
        comes in.
        """
        sign = -1 if self.is_descending else 1
        ranked = sorted(runs, key=lambda run: (run not in means, sign * means.get(run, 0.0)))
        taken = {*ranked[: self.most]}
        return tuple(run for run in runs if run in taken)

    def _reference(self, settings: "Settings", layout: Layout) -> str | None:
        """Return what identifies the present reference; None if the metric needs none, or there is none."""
        asked = reference.ReferenceSettings.from_settings(settings)
        if asked is None or BY_NAME[self.metric].needs != REFERENCE:
            return None
        return reference.fingerprint(asked, layout.reference_scan)

    def _values(self, records: Iterable[Measures], names: Iterable[str]) -> dict[str, float]:
        """Return the values of a model on those of the frames ``names`` that have one, by output name."""
        values = merged(records)
        found = {name: values.get(name, {}).get(self.metric) for name in names}
        return {name: value for name, value in found.items() if value is not None}


def described(order: MeasuredOrder, *, taken: Sequence[str], left: Sequence[str], measured: MeasuredRuns) -> str | None:
    """Return a sentence on what is a guess in the choice of the runs ``taken`` instead of ``left``; None if nothing is.

    A run without a mean has no place in the order. Means over a part of the measured frames are a guess, too.
    """
    unmeasured = [run for run in taken if run not in measured.means]
    unknown = [run for run in left if run not in measured.means]
    is_partial = measured.frames < measured.most
    if not left or not (unmeasured or unknown or is_partial):
        return None
    most = f"max_runs: {order.most}"
    others = "have no value to compare" if measured.reasons else "were never measured"
    if len(unmeasured) == len(taken):
        how = f"no run has a measured {order.metric} yet, so {most} takes the newest runs"
    elif unmeasured:
        how = (
            f"{most} takes {counted(len(taken) - len(unmeasured), 'run')} with a measured {order.metric}, and the "
            f"newest {len(unmeasured)} of those that {others}"
        )
    else:
        how = f"{most} takes the runs with the best measured {order.metric}"
    if is_partial:
        how += f", compared on the {counted(measured.frames, 'frame')} that all of them have"
    counts = Counter(measured.reasons.get(run, NEVER) for run in unknown)
    why = "".join(f", {count} of them {reason}" for reason, count in counts.items())
    advice = "; raise max_runs, or name them in run_ids, to measure them" if unknown else ""
    return f"{how}. Left out: {counted(len(left), 'run')}{why}{advice}"


def _differ(one: str | None, other: str | None) -> bool:
    """Return whether two references differ, as far as both are known."""
    return None not in (one, other) and one != other


def _common_frames(columns: Collection[Mapping[str, float]]) -> frozenset[str]:
    """Return the frames that all columns have, apart from those without a frame in common with longer ones."""
    common: frozenset[str] = frozenset()
    for column in sorted(columns, key=len, reverse=True):
        common = (common & column.keys()) or common or frozenset(column)
    return common


def _records(means: Means, model: str, layout: Layout) -> list[Measures]:
    """Return the measures that the means of a model were made of.

    Earlier versions did not record which ones: then all of them count if they have as many frames.
    """
    if means.shards:
        return [found for shard in means.shards if (found := Measures.load_if_there(layout.measures(model, shard)))]
    records = [Measures.load(path) for path in sorted(layout.measures(model, "*").parent.glob("*.json"))]
    return records if len(merged(records)) == means.frames else []
