"""Write ``metadata.json`` of each model, and ``batch_summary.json`` of all of them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dailies.core import files
from dailies.core.text import WIDEST, clean, columns, counted, few
from dailies.core.typed import load_all, save_all, to_json
from dailies.frames.sequence import load as load_sequence
from dailies.frames.sequence import summarise_notes
from dailies.models.training_progress import TrainingProgress
from dailies.state import manifest
from dailies.state.labels import Label, labels
from dailies.state.layout import Layout, model_of
from dailies.state.records import (
    KNOCKED_OUT,
    SUCCESS,
    Contestant,
    DiscoveryIndex,
    Input,
    Leaderboard,
    LoadedModel,
    Means,
    Metadata,
    MetricRecord,
    NetworkReport,
    Outcome,
    RankedModel,
    RejectedFile,
    RenderedArtifact,
    RenderReport,
    RunRecord,
    SummaryLine,
    Values,
    is_metadata,
    merged,
)
from dailies.store.entities import Artifact

VARYING = re.compile(r"\S*[/\\]\S*|\S*\d\S*|(?<=['\"])[^'\"]*(?=['\"])|\S+\.\w+\b")
"""What may differ between errors that have the same cause: paths, file names, numbers, ids and what is quoted."""

LONGEST_REASON = 120
"""Characters of the reason why a file was rejected, in a terminal."""


def describe(
    run: Path,
    outcomes: Sequence[Path],
    *,
    sequence: Path,
    manifests: Path,
    folder: Path,
    output: Path,
    means: Means | None = None,
    contestant: Contestant | None = None,
) -> None:
    """Write ``metadata.json`` of a model. Once all its frames are rendered, delete the manifests of former shards.

    Args:
        run: the record of the model's run.
        outcomes: the outcomes of its shards.
        sequence: the sequence that was rendered.
        manifests: the folder of the model's manifests.
        folder: the folder of the model's frames.
        output: where to write.
        means: those of its metrics, if any were measured.
        contestant: the decision of a knockout on the model, if there was one.
    """
    about, outcome = RunRecord.load(run), merged([Outcome.load(path) for path in outcomes])
    rendered, model = load_sequence(sequence), outcome.model
    is_out = contestant is not None and not contestant.is_finalist
    if outcome.status == SUCCESS and rendered.is_whole and not is_out:  # others list frames that may be chosen again
        manifest.prune(manifests, folder, [path.stem for path in outcomes])
    checkpoint = TrainingProgress(model.epoch, model.train_loss, model.val_loss) if model else TrainingProgress()
    metadata = Metadata(
        run_id=about.run_id,
        run_name=about.run_name,
        architecture=(model.architecture if model else None) or about.architecture,
        epoch=checkpoint.epoch if about.epoch is None else about.epoch,
        train_loss=checkpoint.train_loss if about.train_loss is None else about.train_loss,
        val_loss=checkpoint.val_loss if about.val_loss is None else about.val_loss,
        status=about.status,
        start_time=about.start_time,
        checkpoint=None if checkpoint == TrainingProgress() else checkpoint,
        experiment=about.experiment,
        registered_model=about.registered_model,
        params=about.params,
        metrics=about.metrics,
        tags=about.tags,
        datasets=about.datasets,
        not_chosen=_not_chosen(about.not_chosen, outcome.artifact),
        render=RenderReport(
            status=outcome.status, error=outcome.error, attempt=outcome.attempt, **vars(outcome.render)
        ),
        artifact=outcome.artifact,
        input=Input(
            digest=rendered.digest,
            frames=len(rendered.frames),
            skipped=len(rendered.skipped),
            notes=tuple(summarise_notes(rendered.frames)),
            chosen_from=None if rendered.is_whole else len(rendered.names),
        ),
        network=_network_report(model, outcome.artifact.tried),
        signature=model.signature if model else None,
        measured=means,
        knocked_out=contestant.reason if contestant and is_out and not contestant.failed else None,
    )
    metadata.save(output)


def _network_report(model: LoadedModel | None, tried: Iterable[RejectedFile]) -> NetworkReport:
    if model is None:
        return NetworkReport()
    notes = (*model.notes, *map(_rejection, tried))
    return NetworkReport(builder=model.builder, trust_pickle=model.trust_pickle, notes=notes)


def _not_chosen(others: Sequence[str], artifact: RenderedArtifact) -> tuple[str, ...]:
    """Return the files of the run that are not the model, even if discovery's first choice held no network."""
    label = Artifact(artifact.uri or "", artifact.path or "", ()).label
    if label not in others:
        return tuple(others)
    rejected = (each.path for each in artifact.tried)
    return tuple(other for other in dict.fromkeys([*rejected, *others]) if other != label)


def _rejection(tried: RejectedFile, longest: int | None = None) -> str:
    return f"{tried.path} was rejected: {tried.reason[:longest].rstrip()}"


def summarize(
    metadata: Sequence[Path], *, output: Path, order: tuple[str, bool] | None = None, ranking: Path | None = None
) -> None:
    """Merge the models' ``metadata.json`` files into ``batch_summary.json``, and add their ranks to both.

    The models keep the given order, unless ``order`` names a metric and whether its highest mean comes first. Models
    that were knocked out follow the others, because their means are over other frames, and those without the metric
    come last. ``ranking`` is the ``Leaderboard`` record; without it, no model has a rank.
    """
    board = Leaderboard.load(ranking) if ranking else Leaderboard()
    places = {each.model: each for each in board.ranking.everyone} if board.ranking else {}
    models = {model_of(path): Metadata.load(path) for path in metadata}
    named = labels(models)
    lines = []
    for path, (model, about) in zip(metadata, models.items(), strict=True):
        ranked = _ranked(about, places.get(model))
        _amend(path, about, ranked)
        lines.append(_line(path.parent, ranked, named[model], board.means.get(model)))
    if order:
        lines.sort(key=lambda line: _position(line, *order))
    save_all(lines, output)


def _ranked(about: Metadata, place: RankedModel | None) -> Metadata:
    return replace(
        about,
        rank=place.rank if place else None,
        verdict=place.verdict if place else None,
        below_source=bool(place and place.below_source),
    )


def _amend(path: Path, before: Metadata, after: Metadata) -> None:
    """Write a model's metadata if its rank has changed.

    The file keeps its time of modification. Otherwise all that depends on it, such as the page and what is written back
    to MLflow, would run again in the next invocation, and so would the summary itself.
    """
    if after != before:
        files.write_bytes(path, files.dump_json(to_json(after)), keep_time=True)


def _position(line: SummaryLine, metric: str, descending: bool) -> tuple[bool, bool, float]:
    value = (line.measured or {}).get(metric)
    return value is None, bool(line.knocked_out), (-value if descending else value) if value is not None else 0.0


def _line(folder: Path, about: Metadata, label: Label, means: Values | None) -> SummaryLine:
    """Return the line of a model. ``means`` are those of the leaderboard, which are over the frames that all have."""
    render = about.render
    succeeded = render.status == SUCCESS
    own = about.measured.mean_unseen if about.measured else None
    return SummaryLine(
        run_id=about.run_id,
        run_name=about.run_name,
        architecture=about.architecture,
        label=label,
        status=render.status,
        rank=about.rank,
        verdict=about.verdict,
        below_source=about.below_source,
        knocked_out=about.knocked_out,
        output_dir=str(folder) if succeeded else None,
        error=None if succeeded else render.error,
        epoch=about.epoch,
        train_loss=about.train_loss,
        val_loss=about.val_loss,
        frames=render.frames,
        frames_chosen_from=about.input.chosen_from,
        seconds=render.seconds,
        fps=render.fps,
        measured=means if succeeded and means else own,
        tried=about.artifact.tried,
    )


def summary_table(summary: Path, board: Leaderboard | None = None, *, width: int = 0) -> str:
    """Return a summary as a table with one line per model, whose labels are shortened if it exceeds a ``width``.

    If the leaderboard ranks the models, they are in its order, with their verdicts and the metric that decides, and the
    source is the last line. Failed models come last, with their status.
    """
    lines = load_all(SummaryLine, summary)
    text = _table(lines, board, WIDEST)
    excess = max(map(len, text.splitlines())) - width
    if not width or excess <= 0:
        return text
    return _table(lines, board, min(WIDEST, max(len(_name(line)) for line in lines)) - excess)


def _table(lines: Sequence[SummaryLine], board: Leaderboard | None, most: int) -> str:
    """Return the table with labels of at most ``most`` characters."""
    if board is None or board.ranking is None:
        plain = [
            (_name(line, most), KNOCKED_OUT if line.knocked_out else line.status, *_figures(line)) for line in lines
        ]
        return columns([("model", "status", "frames", "fps"), *plain], numbers=(2, 3))
    metric = next(each for each in board.metrics if each.name == board.ranking.metric)
    rows = [
        (str(line.rank or ""), _name(line, most), _verdict(line), _value(line.measured, metric), *_figures(line))
        for line in sorted(lines, key=lambda line: (line.status != SUCCESS, line.rank is None, line.rank or 0))
    ]
    source = ("", "(source)", "", _value({metric.name: board.ranking.source}, metric), "", "")
    heading = ("rank", "model", "verdict", f"{metric.label} {metric.unit}".rstrip(), "frames", "fps")
    return columns([heading, *rows, source], numbers=(0, 3, 4, 5))


def _name(line: SummaryLine, most: int = WIDEST) -> str:
    return (line.label or Label(name=line.run_name)).within(most)


def _verdict(line: SummaryLine) -> str:
    if line.status != SUCCESS:
        return line.status
    return f"{line.verdict or ''}{', below the source' if line.below_source else ''}"


def _value(measured: Values | None, metric: MetricRecord) -> str:
    value = (measured or {}).get(metric.name)
    return "-" if value is None else f"{value:.4g}"


def _figures(line: SummaryLine) -> tuple[str, str]:
    frames = f"{line.frames} of {line.frames_chosen_from}" if line.frames_chosen_from else str(line.frames)
    return frames, "-" if line.fps is None else f"{line.fps:.2f}"


def failures(summary: Path) -> list[str]:
    """Return how many models of a summary failed, and a line for each cause with the models that it concerns."""
    lines = load_all(SummaryLine, summary)
    failed = [line for line in lines if line.status != SUCCESS]
    if not failed:
        return []
    causes: dict[str, list[SummaryLine]] = {}
    for line in failed:
        causes.setdefault(f"{line.status}: {VARYING.sub('', line.error or '')}", []).append(line)
    heading = f"{len(failed)} of {len(lines)} models failed; the next invocation tries them again"
    return [heading, *map(_cause, sorted(causes.values(), key=len, reverse=True))]


def _cause(alike: Sequence[SummaryLine]) -> str:
    """Return a line on models that failed for the same reason, which is that of the first."""
    reason, names = f"{alike[0].status}: {clean(alike[0].error or '')}", few(map(_name, alike))
    return f"{counted(len(alike), 'model')} {reason}; {names}" if len(alike) > 1 else f"{names} {reason}"


def substituted(summary: Path) -> str | None:
    """Return one line on the models that were rendered from another file than the preferred one; None if none were."""
    found = [line for line in load_all(SummaryLine, summary) if line.status == SUCCESS and line.tried]
    if not found:
        return None
    reasons = (f"{_name(line)}: {_rejection(line.tried[0], LONGEST_REASON)}" for line in found)
    models = counted(len(found), "model")
    return f"{models} rendered from another file than the preferred one: {few(reasons, separator='; ')}"


def left_behind(layout: Layout) -> list[str]:
    """Return the sorted names of models that were rendered before but are no longer selected."""
    listed = DiscoveryIndex.load(layout.index).models
    folders = {model_of(path) for path in layout.all_metadata() if is_metadata(path)}
    return sorted(folders.difference(listed))
