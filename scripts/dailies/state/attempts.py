"""Attempts: whether a shard is due, and which attempt at it comes next."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from dailies.core import files
from dailies.frames.sequence import (
    shards,
)
from dailies.state.layout import Layout
from dailies.state.manifest import _after, names
from dailies.state.records import SUCCESS, Attempt


def next_attempt(
    state: Path, sequence: Path, folder: Path, *, shard: str, shard_frames: int, forced: str | None = None
) -> int:
    """Give the number of the attempt at a shard of a model that is due.

    It is the last attempt's own number while that one succeeded and all its frames are in ``folder``, else one more:
    as a rule's parameter it makes Snakemake run again exactly what failed or lost frames. It is one more, too, where
    the invocation ``forced`` has to render the shard and has not done so yet. ``state`` is the record of the last
    attempt, ``sequence`` the sequence that it rendered; both may be missing.
    """
    last = Attempt.load_if_there(state)
    due = _after(last)
    if last is None or last.status != SUCCESS:
        return due
    missing = shards(sequence, shard_frames)[shard].outputs - names(folder) if sequence.is_file() else ()
    lost = any(not (folder / name).exists() for name in missing)  # macOS lists a name in another Unicode form
    again = forced is not None and last.forced != forced
    return due + 1 if lost or again else due


def attempt_after(state: Path) -> int:
    """Give the number of the attempt that is due after the one that ``state`` records: the same after a success."""
    return _after(Attempt.load_if_there(state))


def basis(record: Path, frames: str, settings: Any, loading: Any) -> str:
    """Give the digest of what makes a render of a shard due when it changes: the model's record, frames, settings."""
    return files.digest([_record(record, record.stat().st_mtime_ns), frames, settings, loading])


@lru_cache(maxsize=4)
def _record(path: Path, modified: int) -> str:
    del modified  # part of the cache's key
    return files.sha256_of(path)


def is_due(
    layout: Layout, model: str, shard: str, *, frames: str, attempt: int, settings: Mapping, loading: Mapping
) -> bool:
    """Tell whether a shard of a model is to be rendered: for the first time, for what has changed, or once more.

    ``frames`` is the digest of the shard, ``attempt`` what ``next_attempt`` gives.
    """
    last = layout.attempt(model, shard)
    if not (last.is_file() and layout.outcome(model, shard).is_file()):
        return True
    known = Attempt.load(last)
    return known.attempt != attempt or known.basis != basis(layout.record(model), frames, settings, loading)
