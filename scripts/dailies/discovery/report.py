"""What discovery found, as text for the terminal."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dailies.core.text import clean, columns, counted, in_bytes
from dailies.core.typed import load_all
from dailies.discovery.selection import OTHER_STATUS
from dailies.discovery.snapshot import Skipped
from dailies.models.signature import ASSUMED, known_range, signature_hints
from dailies.state.layout import Layout
from dailies.state.records import DiscoveryIndex, ModelRecord, RunRecord

if TYPE_CHECKING:
    from dailies.planning.config import Settings


ABOUT_ASSUMED = (
    f"{ASSUMED}: neither configuration nor run says which values are black and white to these networks. Unless the "
    "checkpoint does, they get [-1, 1]; set value_range in signatures, or the run's tag dailies.value_range, if it is "
    "another."
)


def table(layout: Layout, settings: "Settings | None" = None, more: Sequence[tuple[str, ...]] | None = None) -> str:
    """Return a table with one line per selected model, in order.

    If ``settings`` are given, it shows the value range of each network, as far as it is known. ``more`` are further
    columns, beside the names: a heading, and a row for each model.
    """
    ranges: list[str] = []
    rows: list[tuple[str, ...]] = [("model", "architecture", "epoch", "train loss", "val loss", "artifact", "size")]
    for name in DiscoveryIndex.load(layout.index).models:
        run, record = RunRecord.load(layout.run(name)), ModelRecord.load(layout.record(name))
        size = None if record.artifact.size is None else in_bytes(record.artifact.size)
        losses = (None if loss is None else f"{loss:.4g}" for loss in (run.train_loss, run.val_loss))
        values = (name, run.architecture, run.epoch, *losses, clean(record.artifact.label), size)
        rows.append(tuple("-" if value is None else str(value) for value in values))
        if settings:
            ranges.append(
                known_range(
                    settings.signatures,
                    signature_hints(record.hints),
                    architecture=record.architecture or settings.default_architecture or "",
                    folder=name,
                    factories=settings.model_factory or {},
                )
            )
    if more:
        rows = [(name, *cells, *others) for (name, *others), cells in zip(rows, more, strict=True)]
    if not settings:
        return columns(rows)
    text = columns([(*row, found) for row, found in zip(rows, ["value range", *ranges], strict=True)])
    return f"{text}\n{ABOUT_ASSUMED}" if ASSUMED in ranges else text


def counts(layout: Layout) -> str:
    """Return the number of models and, by reason, of skipped runs: "3 models; skipped: 2 FAILED, 1 deleted"."""
    skipped = load_all(Skipped, layout.skipped) if layout.skipped.is_file() else ()
    reasons = Counter(clean(run.status) if run.kind == OTHER_STATUS else run.kind for run in skipped)
    models = counted(len(DiscoveryIndex.load(layout.index).models), "model")
    skipped_runs = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{models}; skipped: {skipped_runs}" if skipped_runs else models
