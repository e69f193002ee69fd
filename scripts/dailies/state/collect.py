"""Metadata: what is known of each model and its render, and the summary of all of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from dailies.core.text import clean, columns, counted, few
from dailies.core.typed import load_all, save_all
from dailies.frames.sequence import load as load_sequence
from dailies.frames.sequence import summarise_notes
from dailies.models.progress import Progress
from dailies.state import manifest
from dailies.state.layout import Layout, model_of
from dailies.state.records import (
    SUCCESS,
    DiscoveryIndex,
    Input,
    LoadedModel,
    Means,
    Metadata,
    NetworkReport,
    Outcome,
    PassedOver,
    RenderedArtifact,
    RenderReport,
    RunRecord,
    SummaryLine,
    is_metadata,
    merged,
)
from dailies.store.entities import Artifact


def describe(
    run: Path,
    outcomes: Sequence[Path],
    *,
    sequence: Path,
    manifests: Path,
    folder: Path,
    output: Path,
    measured: Means | None = None,
) -> None:
    """Merge what MLflow says of a model (``run``) and how its shards went (``outcomes``) into ``metadata.json``.

    Of the ``manifests`` of the frames in ``folder`` only those of these shards are needed once all are rendered.
    ``measured`` sums up the metrics, if any were measured.
    """
    about, went = RunRecord.load(run), merged([Outcome.load(path) for path in outcomes])
    shot, model = load_sequence(sequence), went.model
    if went.status == SUCCESS:
        manifest.prune(manifests, folder, [path.stem for path in outcomes])
    checkpoint = Progress(model.epoch, model.train_loss, model.val_loss) if model else Progress()
    metadata = Metadata(
        run_id=about.run_id,
        run_name=about.run_name,
        architecture=(model and model.architecture) or about.architecture,
        epoch=checkpoint.epoch if about.epoch is None else about.epoch,
        train_loss=checkpoint.train_loss if about.train_loss is None else about.train_loss,
        val_loss=checkpoint.val_loss if about.val_loss is None else about.val_loss,
        status=about.status,
        start_time=about.start_time,
        checkpoint=None if checkpoint == Progress() else checkpoint,
        experiment=about.experiment,
        registered_model=about.registered_model,
        params=about.params,
        metrics=about.metrics,
        tags=about.tags,
        datasets=about.datasets,
        not_chosen=_not_chosen(about.not_chosen, went.artifact),
        render=RenderReport(status=went.status, error=went.error, attempt=went.attempt, **vars(went.render)),
        artifact=went.artifact,
        input=Input(
            digest=shot.digest,
            frames=len(shot.frames),
            skipped=len(shot.skipped),
            notes=tuple(summarise_notes(shot.frames)),
        ),
        network=_network(model, went.artifact.tried),
        signature=model and model.signature,
        measured=measured,
    )
    metadata.save(output)


def _network(model: LoadedModel | None, tried: Iterable[PassedOver]) -> NetworkReport:
    if model is None:
        return NetworkReport()
    told = (*model.notes, *map(_passed_over, tried))
    return NetworkReport(builder=model.builder, trust_pickle=model.trust_pickle, notes=told)


def _not_chosen(others: Sequence[str], artifact: RenderedArtifact) -> tuple[str, ...]:
    """Return which files of the run are not the model, where another than discovery's first choice is."""
    label = Artifact(artifact.uri or "", artifact.path or "", ()).label
    if label not in others:
        return tuple(others)
    passed_over = (each.path for each in artifact.tried)
    return tuple(other for other in dict.fromkeys([*passed_over, *others]) if other != label)


LONGEST_REASON = 120
"""Characters of the reason why a file was passed over, in a terminal."""


def _passed_over(tried: PassedOver, longest: int | None = None) -> str:
    return f"{tried.path} was passed over: {tried.reason[:longest].rstrip()}"


def summarize(metadata: Sequence[Path], *, output: Path, order: tuple[str, bool] | None = None) -> None:
    """Merge the models' ``metadata.json`` files into ``batch_summary.json``.

    They come in the order given, or by ``order``: the mean of a metric that was measured, and whether the highest comes
    first. Models without it come last.
    """
    lines = [_line(path.parent, Metadata.load(path)) for path in metadata]
    if order:
        lines.sort(key=lambda line: _place((line.measured or {}).get(order[0]), falling=order[1]))
    save_all(lines, output)


def _place(value: float | None, *, falling: bool) -> tuple[bool, float]:
    return value is None, (-value if falling else value) if value is not None else 0.0


def _line(folder: Path, about: Metadata) -> SummaryLine:
    render = about.render
    succeeded = render.status == SUCCESS
    return SummaryLine(
        run_id=about.run_id,
        run_name=about.run_name,
        architecture=about.architecture,
        status=render.status,
        output_dir=str(folder) if succeeded else None,
        error=None if succeeded else render.error,
        epoch=about.epoch,
        train_loss=about.train_loss,
        val_loss=about.val_loss,
        frames=render.frames,
        seconds=render.seconds,
        fps=render.fps,
        measured=about.measured.mean_unseen if about.measured else None,
        tried=about.artifact.tried,
    )


def table(summary: Path) -> str:
    """Lay out a summary: one line per model."""
    rows = [("model", "status", "frames", "seconds", "fps")]
    for line in load_all(SummaryLine, summary):
        name = Path(line.output_dir).name if line.output_dir else _named(line)
        fps = "-" if line.fps is None else f"{line.fps:.2f}"
        rows.append((name, line.status, str(line.frames), f"{line.seconds:.1f}", fps))
    return columns(rows)


def _named(line: SummaryLine) -> str:
    return f"{line.run_name} ({line.run_id[:8]})"


def failures(summary: Path) -> str | None:
    """Say in one line how many models of a summary failed, and why the first few did; None when none did."""
    lines = load_all(SummaryLine, summary)
    failed = [line for line in lines if line.status != SUCCESS]
    if not failed:
        return None
    reasons = few((f"{_named(line)} {line.status}: {clean(line.error or '')}" for line in failed), separator="; ")
    return f"{len(failed)} of {len(lines)} models failed: {reasons}. The next invocation tries them again"


def substituted(summary: Path) -> str | None:
    """Say in one line of which models another file than the preferred one was rendered, and why; None if of none."""
    found = [line for line in load_all(SummaryLine, summary) if line.status == SUCCESS and line.tried]
    if not found:
        return None
    told = (f"{_named(line)}: {_passed_over(line.tried[0], LONGEST_REASON)}" for line in found)
    return (
        f"{counted(len(found), 'model')} rendered from another file than the preferred one: {few(told, separator='; ')}"
    )


def left_behind(layout: Layout) -> list[str]:
    """Name the folders of models that were rendered once and that discovery's index no longer lists, sorted."""
    listed = DiscoveryIndex.load(layout.index).models
    folders = {model_of(path) for path in layout.all_metadata() if is_metadata(path)}
    return sorted(folders.difference(listed))
