"""Metadata: what is known of each model and its render, and the summary of all of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dailies import files, leaderboard, manifest
from dailies.reference import Reference
from dailies.sequence import load as load_sequence
from dailies.tables import columns
from dailies.text import clean, few

FROM_CHECKPOINT = ("architecture", "epoch", "train_loss", "val_loss")
"""What the checkpoint knows better than its run: the run ends later than its best epoch."""

STAGES = ("download_failed", "load_failed", "error", "success")
"""How far a shard may have come, the worst first."""


def describe(
    run: Path,
    outcomes: Sequence[Path],
    *,
    sequence: Path,
    manifests: Path,
    output: Path,
    measures: Sequence[Path] = (),
    training_frames_from: Sequence[str] = (),
    input_dir: Path = Path(),
    reference: Reference | None = None,
) -> None:
    """Merge what MLflow says of a model (``run``) and how its shards went (``outcomes``) into ``metadata.json``.

    Of the ``manifests`` only those of these shards are needed once all frames are rendered. ``measures`` are the
    records of the metrics of its shards; without any, nothing is said of metrics. With them it is said how the frames
    of the ``reference`` were paired.
    """
    about, went = files.read_json(run), merged([files.read_json(path) for path in outcomes])
    shot = load_sequence(sequence)
    if went["status"] == "success":
        manifest.prune(manifests, output.parent, [path.stem for path in outcomes])
    about |= {key: went["model"][key] for key in FROM_CHECKPOINT if went["model"].get(key) is not None}
    files.write_json(
        output,
        {
            **{key: about[key] for key in ("run_id", "run_name", *FROM_CHECKPOINT, "status", "start_time")},
            "experiment": about["experiment"],
            "registered_model": about.get("registered_model"),
            "params": about["params"],
            "metrics": about["metrics"],
            "tags": about["tags"],
            "datasets": about.get("datasets", []),
            "not_chosen": about["not_chosen"],
            "render": {key: went[key] for key in ("status", "error", "attempt")} | went["render"],
            "artifact": went["artifact"],
            "input": {"digest": shot.digest, "frames": len(shot.frames), "skipped": len(shot.skipped)},
            "network": {key: went["model"].get(key) for key in ("builder", "trust_pickle", "notes")},
            "signature": went["model"].get("signature"),
            "measured": leaderboard.summed_up(measures, about, shot, names=training_frames_from, input_dir=input_dir)
            | ({"reference": reference.report} if reference else {})
            if measures
            else None,
        },
    )


def merged(outcomes: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Give the record of a model: its figures are summed over the shards, its status is that of the worst of them."""
    worst = min(outcomes, key=lambda outcome: STAGES.index(outcome["status"]))
    if len(outcomes) == 1:
        return worst
    renders = [outcome["render"] for outcome in outcomes]
    told = next(
        (render for render in renders if render["tiled"]), next((r for r in renders if r["frames"]), renders[0])
    )
    frames, seconds = (sum(render[key] for render in renders) for key in ("frames", "seconds"))
    return worst | {
        "attempt": max(outcome["attempt"] for outcome in outcomes),
        "model": next((outcome["model"] for outcome in outcomes if outcome["model"]), {}),
        "render": told
        | {
            "frames": frames,
            "seconds": round(seconds, 2),
            "fps": round(frames / seconds, 3) if seconds else None,
        },
    }


def summarize(metadata: Sequence[Path], *, output: Path, order: tuple[str, bool] | None = None) -> None:
    """Merge the models' ``metadata.json`` files into ``batch_summary.json``.

    They come in the order given, or by ``order``: the mean of a metric that was measured, and whether the highest comes
    first. Models without it come last.
    """
    lines = [_line(path.parent, files.read_json(path)) for path in metadata]
    if order:
        lines.sort(key=lambda line: _place((line.get("measured") or {}).get(order[0]), falling=order[1]))
    files.write_json(output, lines)


def _place(value: float | None, *, falling: bool) -> tuple[bool, float]:
    return value is None, (-value if falling else value) if value is not None else 0.0


def _line(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    render = about["render"]
    succeeded = render["status"] == "success"
    return {
        "run_id": about["run_id"],
        "run_name": about["run_name"],
        "architecture": about["architecture"],
        "status": render["status"],
        **({"output_dir": str(folder)} if succeeded else {"error": render["error"]}),
        **{key: about[key] for key in ("epoch", "train_loss", "val_loss")},
        "frames": render["frames"],
        "seconds": render["seconds"],
        "fps": render["fps"],
        **({"measured": measured["mean_unseen"]} if (measured := about.get("measured")) else {}),
    }


def table(summary: Path) -> str:
    """Lay out a summary: one line per model."""
    rows = [("model", "status", "frames", "seconds", "fps")]
    for line in files.read_json(summary):
        name = Path(line["output_dir"]).name if "output_dir" in line else f"{line['run_name']} ({line['run_id'][:8]})"
        fps = "-" if line["fps"] is None else f"{line['fps']:.2f}"
        rows.append((name, line["status"], str(line["frames"]), f"{line['seconds']:.1f}", fps))
    return columns(rows)


def failures(summary: Path) -> str | None:
    """Say in one line how many models of a summary failed, and why the first few did; None when none did."""
    lines = files.read_json(summary)
    failed = [line for line in lines if line["status"] != "success"]
    if not failed:
        return None
    reasons = few(
        (f"{line['run_name']} ({line['run_id'][:8]}) {line['status']}: {clean(line['error'])}" for line in failed),
        separator="; ",
    )
    return f"{len(failed)} of {len(lines)} models failed: {reasons}. The next invocation tries them again"


def left_behind(output_dir: Path, index: Path) -> list[str]:
    """Name the folders of models that were rendered once and that discovery's ``index`` no longer lists, sorted."""
    listed = files.read_json(index)["models"]
    folders = {path.parent.name for path in output_dir.glob("*/metadata.json") if _is_ours(path)}
    return sorted(folders.difference(listed))


def _is_ours(metadata: Path) -> bool:
    """Tell a ``metadata.json`` of a render from one that another program wrote."""
    try:
        return {"run_id", "render"} <= files.read_json(metadata).keys()
    except (ValueError, AttributeError):
        return False
