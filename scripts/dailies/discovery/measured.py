"""The order of models by what earlier invocations measured: which runs ``max_runs`` keeps."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dailies.core.text import counted
from dailies.state.layout import Layout
from dailies.state.records import Metadata

if TYPE_CHECKING:
    from dailies.planning.config import Settings


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

    def values(self, layout: Layout) -> dict[str, float]:
        """Return the mean of the metric by run id, over frames that the model was not trained on.

        It is that of the run's model as it was rendered last, even if its artifact has changed since. If a run has
        several models, the best one counts.
        """
        found: dict[str, float] = {}
        better = max if self.is_descending else min
        for path in layout.all_metadata():
            with suppress(ValueError):  # other programs use this name, too
                about = Metadata.load(path)
                value = about.measured.mean_unseen.get(self.metric) if about.measured else None
                if value is not None:
                    found[about.run_id] = better(value, found.get(about.run_id, value))
        return found

    def best(self, runs: Collection[str], values: Mapping[str, float]) -> tuple[str, ...]:
        """Return the ids of the runs that are taken, in the order of ``runs``, which is the store's.

        The order of the result does not depend on the values, so that measuring changes nothing unless another run
        comes in.
        """
        sign = -1 if self.is_descending else 1
        ranked = sorted(runs, key=lambda run: (run not in values, sign * values.get(run, 0.0)))
        taken = {*ranked[: self.most]}
        return tuple(run for run in runs if run in taken)


def described(
    order: MeasuredOrder, *, taken: Sequence[str], left: Sequence[str], values: Mapping[str, float]
) -> str | None:
    """Return a sentence that says what is a guess in taking ``taken`` and not ``left``; None if nothing is.

    A run that was never measured has no place in the order.
    """
    unmeasured = [run for run in taken if run not in values]
    unknown = [run for run in left if run not in values]
    if not left or not (unmeasured or unknown):
        return None
    most = f"max_runs: {order.most}"
    if len(unmeasured) == len(taken):
        how = f"no run has a measured {order.metric} yet, so {most} takes the newest runs"
    elif unmeasured:
        how = (
            f"{most} takes {counted(len(taken) - len(unmeasured), 'run')} with a measured {order.metric}, and the "
            f"newest {len(unmeasured)} of those that were never measured"
        )
    else:
        how = f"{most} takes the runs with the best measured {order.metric}"
    advice = "; raise max_runs, or name them in run_ids, to measure them" if unknown else ""
    return f"{how}. Left out: {counted(len(left), 'run')}, {len(unknown)} of them never measured{advice}"
