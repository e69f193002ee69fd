"""Metadata: what is known of each model and its render, and the summary of all of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dailies import files, leaderboard, manifest
from dailies.catalog import Artifact
from dailies.layout import Layout, model_of
from dailies.reference import Reference
from dailies.sequence import load as load_sequence
from dailies.sequence import notes
from dailies.tables import columns
from dailies.text import clean, counted, few

PROGRESS = ("epoch", "train_loss", "val_loss")
"""What the run says, as the model's folder is named, else the checkpoint; what that says is under ``checkpoint``, too.

They differ where the run ended later than its best epoch.
"""

STAGES = ("download_failed", "load_failed", "error", "success")
"""How far a shard may have come, the worst first."""


def describe(
    run: Path,
    outcomes: Sequence[Path],
    *,
    sequence: Path,
    manifests: Path,
    folder: Path,
    output: Path,
    measures: Sequence[Path] = (),
    training_frames_from: Sequence[str] = (),
    input_dir: Path = Path(),
    reference: Reference | None = None,
) -> None:
    """Merge what MLflow says of a model (``run``) and how its shards went (``outcomes``) into ``metadata.json``.

    Of the ``manifests`` of the frames in ``folder`` only those of these shards are needed once all are rendered.
    ``measures`` are the records of the metrics of its shards; without any, nothing is said of metrics. With them it is
    said how the frames of the ``reference`` were paired.
    """
    about, went = files.read_json(run), merged([files.read_json(path) for path in outcomes])
    shot = load_sequence(sequence)
    if went["status"] == "success":
        manifest.prune(manifests, folder, [path.stem for path in outcomes])
    model, tried = went["model"], went["artifact"].get("tried", [])
    checkpoint = {key: files.strict(model.get(key)) for key in PROGRESS}
    about |= {"architecture": model.get("architecture") or about["architecture"]}
    about |= {key: checkpoint[key] for key in PROGRESS if files.strict(about[key]) is None}
    files.write_json(
        output,
        {
            **{key: about[key] for key in ("run_id", "run_name", "architecture", *PROGRESS, "status", "start_time")},
            "checkpoint": checkpoint if any(value is not None for value in checkpoint.values()) else None,
            "experiment": about["experiment"],
            "registered_model": about.get("registered_model"),
            "params": about["params"],
            "metrics": about["metrics"],
            "tags": about["tags"],
            "datasets": about.get("datasets", []),
            "not_chosen": _not_chosen(about["not_chosen"], went["artifact"]),
            "render": {key: went[key] for key in ("status", "error", "attempt")} | went["render"],
            "artifact": went["artifact"],
            "input": {
                **{"digest": shot.digest, "frames": len(shot.frames), "skipped": len(shot.skipped)},
                **({"notes": noted} if (noted := notes(shot.frames)) else {}),
            },
            "network": {
                "builder": model.get("builder"),
                "trust_pickle": model.get("trust_pickle"),
                "notes": [*model["notes"], *map(_passed_over, tried)] if "notes" in model else None,
            },
            "signature": model.get("signature"),
            "measured": leaderboard.summed_up(measures, about, shot, names=training_frames_from, input_dir=input_dir)
            | ({"reference": reference.report} if reference else {})
            if measures
            else None,
        },
    )


def _not_chosen(others: Sequence[str], artifact: Mapping[str, Any]) -> list[str]:
    """Return which files of the run are not the model, where another than discovery's first choice is."""
    label = Artifact(artifact["uri"] or "", artifact["path"] or "", ()).label
    if label not in others:
        return list(others)
    passed_over = (each["path"] for each in artifact.get("tried", ()))
    return [other for other in dict.fromkeys([*passed_over, *others]) if other != label]


LONGEST_REASON = 120
"""Characters of the reason why a file was passed over, in a terminal."""


def _passed_over(tried: Mapping[str, str], longest: int | None = None) -> str:
    return f"{tried['path']} was passed over: {tried['reason'][:longest].rstrip()}"


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
        **{key: about[key] for key in PROGRESS},
        "frames": render["frames"],
        "seconds": render["seconds"],
        "fps": render["fps"],
        **({"measured": measured["mean_unseen"]} if (measured := about.get("measured")) else {}),
        **({"tried": tried} if (tried := about["artifact"].get("tried")) else {}),
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


def substituted(summary: Path) -> str | None:
    """Say in one line of which models another file than the preferred one was rendered, and why; None if of none."""
    found = [line for line in files.read_json(summary) if line["status"] == "success" and "tried" in line]
    if not found:
        return None
    told = (
        f"{line['run_name']} ({line['run_id'][:8]}): {_passed_over(line['tried'][0], LONGEST_REASON)}" for line in found
    )
    return (
        f"{counted(len(found), 'model')} rendered from another file than the preferred one: {few(told, separator='; ')}"
    )


def left_behind(layout: Layout) -> list[str]:
    """Name the folders of models that were rendered once and that discovery's index no longer lists, sorted."""
    listed = files.read_json(layout.index)["models"]
    folders = {model_of(path) for path in layout.all_metadata() if _is_ours(path)}
    return sorted(folders.difference(listed))


def _is_ours(metadata: Path) -> bool:
    """Tell a ``metadata.json`` of a render from one that another program wrote."""
    try:
        return {"run_id", "render"} <= files.read_json(metadata).keys()
    except (ValueError, AttributeError):
        return False
