"""The overview: a table of all models and plots over the frames, each one small file, for Snakemake's report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from dailies import files, leaderboard, manifest
from dailies.evaluation import measured
from dailies.sequence import load as load_sequence
from dailies.text import counted

INKS = ("#1f6fb4", "#d1495b", "#2a9134", "#8e44ad", "#d98200", "#00838f", "#6d4c41", "#c2185b", "#5c6b73", "#827717")
"""Colours of lines; with more models they begin again, dashed."""

MOST_LINES, MOST_POINTS = 20, 600
"""Models in a plot, and points of a line: a point of a longer one is the mean of several frames."""

WIDTH, HEIGHT, LEFT, TOP, LINE = 1000, 220, 90, 40, 18
"""Pixels: of a plot, of the space for its labels and its title, and of a line of text."""

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.failed { color: #a3142a; }
"""

FACTS = ("architecture", "epoch", "train_loss", "val_loss")
FIGURES = ("frames", "seconds", "fps", "device", "precision")


@dataclass(frozen=True)
class Plot:
    """One quantity of all models over the frames."""

    title: str
    lines: Mapping[str, Sequence[float | None]]
    """Values by model, in the frames' order; None where there is none."""


def build(
    metadata: Sequence[Path], *, sequence: Path, measures: Sequence[Path], table: Path, plots: Path, shot: str
) -> None:
    """Write ``table``, HTML, and ``plots``, SVG, of the models in the order of their ``metadata``.

    ``measures`` are the records of what was measured per frame, if anything was: their verdict is told, and each
    metric plotted above the seconds per frame. ``shot`` is the sequence's name.
    """
    models = {path.parent.name: files.read_json(path) for path in metadata}
    frames = load_sequence(sequence)
    names = [frame.output for frame in frames.frames]
    told = [files.read_json(path) for path in measures]
    words = [line for path in measures for line in leaderboard.told(path)]
    files.write_bytes(table, _page(models, words, shot=shot, frames=len(names)).encode())
    drawn = [*(plot for each in told for plot in _measured(each)), _seconds(metadata, sequence.parent, names)]
    files.write_bytes(plots, draw([plot for plot in drawn if plot.lines], frames=len(names)).encode())


def _measured(told: Mapping[str, Any]) -> Iterable[Plot]:
    for metric in told["metrics"]:
        better = "higher" if metric["higher_is_better"] else "lower"
        unit = f", {metric['unit']}" if metric["unit"] else ""
        yield Plot(f"{metric['label']}{unit} ({better} is better)", told["values"].get(metric["name"], {}))


def _seconds(metadata: Sequence[Path], state: Path, names: Sequence[str]) -> Plot:
    lines = {}
    for path in metadata:
        entries = manifest.in_place(state / "frames" / path.parent.name, path.parent, names)
        if entries:
            lines[path.parent.name] = [entries[name].seconds if name in entries else None for name in names]
    return Plot("seconds per frame", lines)


def _page(models: Mapping[str, Mapping[str, Any]], words: Iterable[str], *, shot: str, frames: int) -> str:
    failed = {name: about for name, about in models.items() if about["render"]["status"] != "success"}
    metrics = list(dict.fromkeys(metric for about in models.values() for metric in measured(about)))
    heads = ["model", "status", *FACTS, *metrics, *FIGURES]
    rows = [
        [name, about["render"]["status"], *(about[fact] for fact in FACTS)]
        + [measured(about).get(metric) for metric in metrics]
        + [about["render"][figure] for figure in FIGURES]
        for name, about in models.items()
    ]
    shown = f"{counted(len(models), 'model')} over the {counted(frames, 'frame')} of {shot}"
    told = f"{shown}; {len(failed) or 'none'} failed."
    said = "".join(f"<p>{escape(text)}</p>" for text in (told, *words))
    parts = [f"<h1>Models</h1>{said}", _table(heads, rows)]
    if failed:
        reasons = [[name, about["render"]["status"], about["render"]["error"]] for name, about in failed.items()]
        parts += ["<h2>Failed models</h2>", _table(["model", "status", "reason"], reasons)]
    parts += ["<h2>Versions</h2>", _table(["program", "version", "models"], _versions(models.values()))]
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Models of {escape(shot)}</title>"
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _versions(models: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
    """Say how many models were rendered with which version of what."""
    counts: dict[tuple[str, str], int] = {}
    for about in models:
        for program, version in (about["render"].get("versions") or {}).items():
            counts[program, version] = counts.get((program, version), 0) + 1
    return [[program, version, count] for (program, version), count in counts.items()]


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (
            f"<td class='number'>{value:.6g}</td>" if isinstance(value, float) else f"<td class='number'>{value}</td>"
        )
    text = "–" if value is None else str(value)
    failed = " class='failed'" if text in {"error", "load_failed", "download_failed"} else ""
    return f"<td{failed}>{escape(text)}</td>"


def draw(plots: Sequence[Plot], *, frames: int) -> str:
    """Draw plots one below the other, with one legend, as SVG."""
    models = list(dict.fromkeys(model for plot in plots for model in plot.lines))
    shown = models[:MOST_LINES]
    step = -(-frames // MOST_POINTS)
    parts, top = [], 0
    for plot in plots:
        parts.append(f"<g transform='translate(0 {top})'>{_plot(plot, shown, frames, step)}</g>")
        top += TOP + HEIGHT + 2 * LINE
    notes = [f"each point is the mean of {step} frames"] if step > 1 else []
    notes += [f"the first {len(shown)} of {len(models)} models are drawn"] if len(shown) < len(models) else []
    for number, text in enumerate([*shown, *notes]):
        y = top + LINE * (number + 1)
        mark = f"<path d='M{LEFT} {y - 5}h40' {_ink(number)}/>" if number < len(shown) else ""
        parts.append(f"{mark}<text x='{LEFT + 50}' y='{y}'>{escape(text)}</text>")
    height = top + LINE * (len(shown) + len(notes) + 2)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {LEFT + WIDTH + 20} {height}' "
        f"width='{LEFT + WIDTH + 20}' height='{height}' font-family='system-ui, sans-serif' font-size='13'>"
        f"<rect width='100%' height='100%' fill='#fff'/>{''.join(parts)}</svg>\n"
    )


def _ink(number: int) -> str:
    dash = f" stroke-dasharray='{4 * (number // len(INKS))} 3'" if number >= len(INKS) else ""
    return f"fill='none' stroke='{INKS[number % len(INKS)]}' stroke-width='1.6'{dash}"


def _plot(plot: Plot, models: Sequence[str], frames: int, step: int) -> str:
    lines = {model: _thinned(plot.lines[model], step) for model in models if model in plot.lines}
    values = [value for line in lines.values() for value in line if value is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    span = (high - low) or 1.0
    right, bottom = LEFT + WIDTH, TOP + HEIGHT
    parts = [
        f"<text x='{LEFT}' y='{TOP - 14}' font-weight='600'>{escape(plot.title)}</text>",
        f"<path d='M{LEFT} {TOP}V{bottom}H{right}' fill='none' stroke='#888'/>",
    ]
    for part in (0, 0.25, 0.5, 0.75, 1):
        y = bottom - part * HEIGHT
        parts.append(f"<path d='M{LEFT} {y:g}H{right}' stroke='#e4e4e4'/>")
        parts.append(f"<text x='{LEFT - 8}' y='{y + 4:g}' text-anchor='end'>{low + part * span:.4g}</text>")
    for number in sorted({round(part * (frames - 1)) for part in (0, 0.25, 0.5, 0.75, 1)}):
        x = LEFT + WIDTH * number / max(frames - 1, 1)
        parts.append(f"<text x='{x:g}' y='{bottom + LINE}' text-anchor='middle'>{number}</text>")
    for number, model in enumerate(models):
        if path := _path(lines.get(model, ()), low, span, frames, step):
            parts.append(f"<path d='{path}' {_ink(number)}><title>{escape(model)}</title></path>")
    return "".join(parts)


def _thinned(line: Sequence[float | None], step: int) -> list[float | None]:
    groups = ([value for value in line[i : i + step] if value is not None] for i in range(0, len(line), step))
    return [sum(group) / len(group) if group else None for group in groups]


def _path(line: Sequence[float | None], low: float, span: float, frames: int, step: int) -> str:
    """Give the way of a line, interrupted where it has no value; a lone value is a short dash."""
    way, drawing = [], False
    for number, value in enumerate(line):
        if value is not None:
            x = LEFT + WIDTH * min(number * step / max(frames - 1, 1), 1)
            y = TOP + HEIGHT * (1 - (value - low) / span)
            way.append(f"{'L' if drawing else 'M'}{x:.1f} {y:.1f}")
            if not drawing and (number + 1 == len(line) or line[number + 1] is None):
                way.append("h2")
        drawing = value is not None
    return "".join(way)
