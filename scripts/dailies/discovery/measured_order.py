"""The order of models by what earlier invocations measured, which decides the runs that ``max_runs`` keeps."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dailies.core.text import counted
from dailies.frames import reference
from dailies.frames.sequence import KNOCKOUT, WHOLE_SEQUENCE
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
class KnownMeans:
    """What is known of runs from earlier invocations, over the frames that all of them have in common."""

    means: Mapping[str, float] = field(default_factory=dict)
    """The mean of the metric by run id."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a run that was measured has no mean, by run id."""
    frames: int = 0
    """The number of frames of a mean."""
    most: int = 0
    """The number of frames that were measured of the run that has most of them."""
    is_former_reference: bool = False
    """Whether the values are of another reference than the present one, of which there are none yet."""


@dataclass(frozen=True)
class _Model:
    """A model that was measured."""

    run: str
    """The id of its run."""
    reference: str | None
    """What identifies the reference; None if there was none, or if an earlier version measured."""
    values: Mapping[str, float]
    """By the output name of the frame."""


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

    def known_means(self, runs: Collection[str], settings: "Settings", layout: Layout) -> KnownMeans:
        """Return the means of runs over the frames that they have in common and no model of them was trained on.

        They are those of each run's model as it was rendered last, even if its artifact has changed since. If a run has
        several models, the best one counts. Only values of the present reference count. If there are none yet, because
        the reference was changed, those of the reference that most models were measured against count. Models that
        have no frame in common with models of more frames are left out.
        """
        models = list(self._models(runs, settings, layout))
        counted_against, is_former = self._reference(models, settings, layout)
        comparable = [each for each in models if each.reference in counted_against]
        common = _common_frames(each.values for each in comparable)
        reasons = {each.run: OTHER_FRAMES if each.reference in counted_against else OTHER_REFERENCE for each in models}
        means: dict[str, float] = {}
        better = max if self.is_descending else min
        for each in comparable:
            if common <= each.values.keys():
                mean = sum(each.values[frame] for frame in common) / len(common)
                means[each.run] = better(mean, means.get(each.run, mean))
        return KnownMeans(
            means=means,
            reasons={run: reason for run, reason in reasons.items() if run not in means},
            frames=len(common),
            most=max((len(each.values) for each in comparable), default=0),
            is_former_reference=is_former,
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

    def _models(self, runs: Collection[str], settings: "Settings", layout: Layout) -> Iterator[_Model]:
        """Yield the models of runs that have values on frames of the sequence on which they were not trained."""
        if not layout.sequence.is_file():
            return
        sequence = load_sequence(layout.sequence)
        for path in layout.all_metadata():
            with suppress(ValueError):  # other programs use this name, too
                about = Metadata.load(path)
                if about.run_id not in runs or about.measured is None:
                    continue
                seen = training_frames(about, sequence, settings.training_frames_from, settings.input_dir)
                frames = merged(_records(about.measured, model_of(path), layout))
                found = {name: frames.get(name, {}).get(self.metric) for name in sequence.outputs - seen}
                if values := {name: value for name, value in found.items() if value is not None}:
                    yield _Model(about.run_id, about.measured.reference_fingerprint, values)

    def _reference(
        self, models: Sequence[_Model], settings: "Settings", layout: Layout
    ) -> tuple[Collection[str | None], bool]:
        """Return which references values may be of, and whether they are other ones than the present one."""
        known = Counter(each.reference for each in models)
        asked = reference.ReferenceSettings.from_settings(settings)
        if asked is None or BY_NAME[self.metric].needs != REFERENCE:
            return known, False
        present = {reference.fingerprint(asked, layout.reference_scan), None}
        if not models or present & known.keys():
            return present, False
        return {known.most_common(1)[0][0]}, True


def caution(order: MeasuredOrder, *, taken: Sequence[str], left: Sequence[str], known: KnownMeans) -> str | None:
    """Return a warning if the choice of ``taken`` over ``left`` is uncertain; None if it is not.

    A run without a mean has no place in the order. Means over a part of the frames, or by a former reference, are less
    than certain.
    """
    unmeasured = [run for run in taken if run not in known.means]
    unknown = [run for run in left if run not in known.means]
    is_partial = known.frames < known.most
    if not left or not (unmeasured or unknown or is_partial or known.is_former_reference):
        return None
    most = f"max_runs: {order.most}"
    others = "have no value to compare" if known.reasons else "were never measured"
    if len(unmeasured) == len(taken):
        how = f"no run has a measured {order.metric} yet, so {most} takes the newest runs"
    elif unmeasured:
        how = (
            f"{most} takes {counted(len(taken) - len(unmeasured), 'run')} with a measured {order.metric}, and the "
            f"newest {len(unmeasured)} of those that {others}"
        )
    else:
        how = f"{most} takes the runs with the best measured {order.metric}"
    if known.is_former_reference:
        how += ", by a former reference, because no run was measured against the present one yet"
    if is_partial:
        how += f", compared on the {counted(known.frames, 'frame')} that all of them have"
    counts = Counter(known.reasons.get(run, NEVER) for run in unknown)
    why = "".join(f", {count} of them {reason}" for reason, count in counts.items())
    advice = "; raise max_runs, or name them in run_ids, to measure them" if unknown else ""
    return f"{how}. Left out: {counted(len(left), 'run')}{why}{advice}"


def _common_frames(columns: Iterable[Mapping[str, float]]) -> frozenset[str]:
    """Return the frames that all columns have, apart from those without a frame in common with longer ones."""
    common: frozenset[str] = frozenset()
    for column in sorted(columns, key=len, reverse=True):
        common = (common & column.keys()) or common or frozenset(column)
    return common


def _records(means: Means, model: str, layout: Layout) -> list[Measures]:
    """Return the measures that the means of a model were made of.

    Earlier versions did not record which ones: then they are those of a split of the sequence with as many frames.
    """
    if means.shards:
        return [found for shard in means.shards if (found := Measures.load_if_there(layout.measures(model, shard)))]
    known = {path.stem: Measures.load(path) for path in sorted(layout.measures(model, "*").parent.glob("*.json"))}
    whole, first_round = ([known[shard]] if shard in known else [] for shard in (WHOLE_SEQUENCE, KNOCKOUT))
    parts = [record for shard, record in known.items() if shard not in (WHOLE_SEQUENCE, KNOCKOUT)]
    return next((each for each in (whole, parts, first_round) if len(merged(each)) == means.frames), [*known.values()])
