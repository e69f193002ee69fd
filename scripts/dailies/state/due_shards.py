"""Whether a shard must be rendered: the number of the next attempt at it, and whether its frames are in place."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from dailies.core import files
from dailies.core.typed import to_json
from dailies.frames.sequence import WHOLE_SEQUENCE, Sequence, shards
from dailies.state.layout import Layout
from dailies.state.manifest import Manifest, in_place, keys_of, missing
from dailies.state.records import SUCCESS, Attempt, LoadedModel, Outcome, RenderedArtifact


def next_attempt(
    state: Path,
    sequence: Path,
    folder: Path,
    *,
    shard: str,
    shard_frames: int,
    knockout_frames: int = 0,
    forced: str | None = None,
) -> int:
    """Return the number of the next attempt at a shard of a model.

    As a parameter of a rule, this number makes Snakemake run exactly those jobs again that failed or lost frames: it
    stays the same while the last attempt succeeded and all its frames are in ``folder``, and grows by one otherwise.
    It also grows if the invocation ``forced`` must render the shard and has not done so yet.

    Args:
        state: the record of the last attempt; it may be missing.
        sequence: the sequence that the last attempt rendered; it may be missing.
        folder: the folder of the model's frames.
        shard: the name of the shard.
        shard_frames: the frames of one shard; 0 for a single shard.
        knockout_frames: the frames of the first round of a knockout; 0 without one.
        forced: the token of an invocation that renders everything again.
    """
    last = Attempt.load_if_there(state)
    due = _after(last)
    if last is None or last.status != SUCCESS:
        return due
    is_known = sequence.is_file()
    outputs = shards(sequence, shard_frames, knockout_frames)[shard].outputs if is_known else frozenset()
    # asked once more, because macOS lists a name in another Unicode form
    lost = any(not (folder / name).exists() for name in missing(outputs, folder))
    again = forced is not None and last.forced != forced
    return due + 1 if lost or again else due


def attempt_after(state: Path) -> int:
    """Return the number of the attempt after the one that ``state`` records: the same number after a success."""
    return _after(Attempt.load_if_there(state))


def _after(last: Attempt | None) -> int:
    return 1 if last is None else last.attempt + (last.status != SUCCESS)


def is_due(
    layout: Layout,
    model: str,
    shard: str,
    *,
    frames: str,
    attempt: int,
    settings: Mapping[str, Any],
    loading: Mapping[str, Any],
) -> bool:
    """Return whether a shard of a model must be rendered: for the first time, after a change, or once more.

    ``frames`` is the digest of the shard, ``attempt`` the result of ``next_attempt``.
    """
    last = layout.attempt(model, shard)
    if not (last.is_file() and layout.outcome(model, shard).is_file()):
        return True
    known = Attempt.load(last)
    return known.attempt != attempt or known.basis != basis(layout.record(model), frames, settings, loading)


def artifact_in_place(
    layout: Layout,
    model: str,
    due: Iterable[Sequence],
    *,
    settings: Mapping[str, Any],
    loading: Mapping[str, Any],
) -> RenderedArtifact | None:
    """Return the artifact that rendered all frames of the shards ``due``; None if one is missing or out of date.

    Shards whose frames are in place are due if the sequence was split differently, or if other frames were chosen.
    """
    due = list(due)
    for last in _current_outcomes(layout, model, settings, loading):
        if all(_kept(layout, model, shard, settings, last) == shard.outputs for shard in due):
            return last.artifact
    return None


def frames_in_place(
    layout: Layout, model: str, frames: Sequence, *, settings: Mapping[str, Any], loading: Mapping[str, Any]
) -> frozenset[str]:
    """Return the output names of those of the ``frames`` that a render with these settings would keep.

    Those of a first render that was interrupted are included if its files are in place: its settings are not known.
    """
    if not any(layout.attempts(model).glob("*.json")):
        return frozenset(in_place(layout.manifests(model), layout.frames(model), frames.outputs))
    last = next(_current_outcomes(layout, model, settings, loading), None)
    return _kept(layout, model, frames, settings, last) if last else frozenset()


def _current_outcomes(
    layout: Layout, model: str, settings: Mapping[str, Any], loading: Mapping[str, Any]
) -> Iterator[Outcome]:
    """Yield the outcomes of a model that was loaded with these settings, and whose record is unchanged since."""
    for last in map(Outcome.load, sorted(layout.attempts(model).glob("*.json"))):
        if last.model and last.basis == basis(layout.record(model), last.input.digest, settings, loading):
            yield last


def _kept(layout: Layout, model: str, frames: Sequence, settings: Mapping[str, Any], last: Outcome) -> frozenset[str]:
    """Return the output names of those of the ``frames`` that the network of an outcome need not render again."""
    if last.model is None or last.artifact.sha256 is None:
        return frozenset()
    keys = frame_keys(frames, last.artifact.sha256, settings, last.model)
    manifest = Manifest(layout.manifest(model, WHOLE_SEQUENCE), folder=layout.frames(model), keys=keys)
    return frozenset(manifest.done())  # the manifests of all shards are read


def frame_keys(sequence: Sequence, artifact: str, settings: Mapping[str, Any], model: LoadedModel) -> dict[str, str]:
    """Return the key of each frame that a network renders from an artifact (its sha256), by output name."""
    signature = model.signature
    if model.told_multiple is not None and settings["tiled"] is not True:
        # whole frames rendered before the larger multiple was found have sizes that it divides, so their keys stay
        signature = replace(signature, multiple=model.told_multiple)
    return keys_of(sequence, artifact, [dict(settings), to_json(model.network), to_json(signature)])


def basis(record: Path, frames: str, settings: Mapping[str, Any], loading: Mapping[str, Any]) -> str:
    """Return the digest of everything whose change makes a shard due: the model's record, the frames, the settings."""
    return files.digest([_digest_of_record(record, record.stat().st_mtime_ns), frames, settings, loading])


@lru_cache(maxsize=4)
def _digest_of_record(path: Path, modified: int) -> str:
    del modified  # part of the cache's key
    return files.sha256_of(path)
