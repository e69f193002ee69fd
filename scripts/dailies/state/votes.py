"""Votes: those of blind tests on the comparison page, imported into one record and counted per model."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from dailies.core.errors import VotesError
from dailies.core.text import clean, counted, few
from dailies.frames.sequence import Sequence
from dailies.frames.sequence import load as load_sequence
from dailies.state.layout import Layout
from dailies.state.records import ModelRecord, Vote, Votes, VoteSide

log = logging.getLogger(__name__)

COMMAND = "snakemake votes --config file=votes.json"

COLUMNS = ("votes_won", "votes_lost", "votes_tied", "votes_share", "votes_low", "votes_high")
"""Columns of ``leaderboard.csv``; the share is that of the votes with a preference, with its interval."""

Z = 1.959964
"""Quantile of the normal distribution for an interval of 95 %."""

Short = Annotated[str, Field(min_length=1, max_length=1000)]


class _Side(BaseModel):
    """A model on one side of the screen."""

    model: Short
    run_id: Short
    artifact: Annotated[str, Field(pattern="^[0-9a-f]{0,64}$")]


class _CastVote(BaseModel):
    """A vote in an exported file."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    a: _Side
    b: _Side
    winner: Literal["a", "b", "tie"]
    frame: Short
    frame_digest: Annotated[str, Field(pattern="^[0-9a-f]{16,64}$")]
    time: Short


class _Export(BaseModel):
    """A file of votes, as the page exports it."""

    format: Literal["dailies votes 2"]
    page: Short
    votes: tuple[_CastVote, ...]


class NotCounted(StrEnum):
    """Why a vote does not count: what it was cast on, as part of a sentence."""

    UNKNOWN_MODEL = "models that the output folder does not hold"
    NOT_CHOSEN = "frames that are not chosen"
    OTHER_FRAME = "frames that have changed or are not of this sequence"
    OTHER_WEIGHTS = "weights that have changed"


@dataclass(frozen=True)
class VoteCounts:
    """The votes of one model against all others."""

    won: int = 0
    lost: int = 0
    tied: int = 0

    @property
    def share(self) -> float | None:
        """The share of the votes with a preference that the model won, from 0 to 1; None without such votes."""
        return self.won / (self.won + self.lost) if self.won + self.lost else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the share; None without a share.

        Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference", Journal of the
        American Statistical Association 22, 209–212.
        """
        share, count = self.share, self.won + self.lost
        if share is None:
            return None
        scale = 1 + Z**2 / count
        middle = (share + Z**2 / (2 * count)) / scale
        half = Z / scale * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
        return max(0.0, middle - half), min(1.0, middle + half)

    @property
    def cells(self) -> tuple[int | float | None, ...]:
        """The values of ``COLUMNS``."""
        return self.won, self.lost, self.tied, self.share, *(self.interval or (None, None))


@dataclass(frozen=True)
class Tally:
    """Votes: which of them count, and why the others do not."""

    votes: tuple[Vote, ...]
    uncounted: Mapping[str, tuple[NotCounted, str]]
    """By the id of a vote that does not count: why, and the name of the frame or model."""

    @property
    def counts(self) -> dict[str, VoteCounts]:
        """The votes of each model that count, by folder name."""
        return counts_by_model(vote for vote in self.votes if vote.id not in self.uncounted)

    def note(self, model: str | None = None) -> str | None:
        """Return a sentence on the votes, or those on one model, that do not count; None if all do."""
        votes = [vote for vote in self.votes if model in (None, vote.a.model, vote.b.model)]
        named: dict[NotCounted, list[str]] = {}
        for vote in votes:
            if reason := self.uncounted.get(vote.id):
                named.setdefault(reason[0], []).append(clean(reason[1]))
        count = sum(map(len, named.values()))
        if not count:
            return None
        groups = (f"{len(names)} on {reason} ({few(sorted({*names}))})" for reason, names in named.items())
        verb = "does" if count == 1 else "do"
        return f"{count} of {counted(len(votes), 'imported vote')} {verb} not count: {'; '.join(groups)}."

    @property
    def notes(self) -> dict[str, str]:
        """The ``note`` on each model that has one, by folder name."""
        models = sorted({side.model for vote in self.votes for side in (vote.a, vote.b)})
        return {model: note for model in models if (note := self.note(model))}


@dataclass(frozen=True)
class CastVotes:
    """Votes, and the models of an output folder that they may be about."""

    votes: tuple[Vote, ...]
    run_ids: Mapping[str, str]
    """The run of each model in the output folder, selected or not, by folder name."""

    @classmethod
    def imported(cls, layout: Layout) -> "CastVotes":
        """Return the votes that were imported; none if there is no record."""
        return cls((Votes.load_if_there(layout.votes) or Votes()).votes, _run_ids(layout))

    def count(self, sequence: Sequence, artifacts: Mapping[str, str | None]) -> Tally:
        """Return which votes count: those on frames, models and weights as they are now.

        ``artifacts`` are the digests of the weights by folder name; those of other models are not checked.
        """
        digests = {frame.output: frame.sha256 for frame in sequence.frames}
        listed = {Path(name).stem for name in sequence.names}

        def reason(vote: Vote) -> tuple[NotCounted, str] | None:
            for side in (vote.a, vote.b):
                if not self._holds(side):
                    return NotCounted.UNKNOWN_MODEL, side.model
            if not digests.get(vote.frame, "").startswith(vote.frame_digest):
                is_left_out = vote.frame not in digests and Path(vote.frame).stem in listed
                return NotCounted.NOT_CHOSEN if is_left_out else NotCounted.OTHER_FRAME, vote.frame
            for side in (vote.a, vote.b):
                if not (artifacts.get(side.model) or side.artifact).startswith(side.artifact):
                    return NotCounted.OTHER_WEIGHTS, side.model
            return None

        return Tally(self.votes, {vote.id: found for vote in self.votes if (found := reason(vote))})

    def _holds(self, side: VoteSide) -> bool:
        run_id = self.run_ids.get(side.model)
        return run_id is not None and side.run_id in ("", run_id)


def read_export(path: Path, layout: Layout) -> Tally:
    """Return the votes of a file that the page exported, and which of them do not count as things are now.

    Weights are not compared yet. Raises VotesError if the file is missing or is something else, or if none of its votes
    counts.
    """
    try:
        export = _Export.model_validate_json(path.read_bytes())
    except OSError as error:
        raise VotesError(
            "votes.unreadable", f"the votes in {path} cannot be read: {error.strerror or error}; {COMMAND}"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise VotesError(
            "votes.invalid",
            f"{path} holds no votes that the comparison page exported: {place}: {clean(first['msg'])}",
        ) from error
    if any(vote.a.model == vote.b.model for vote in export.votes):
        raise VotesError("votes.same_model", f"{path} has votes that compare a model with itself")
    if not layout.sequence.is_file():
        raise VotesError("votes.nothing_rendered", f"{layout.output_dir} has no sequence yet; render the models first")
    tally = CastVotes(_votes(export), _run_ids(layout)).count(load_sequence(layout.sequence), {})
    _refuse_others(tally, path, layout)
    return tally


def _votes(export: _Export) -> tuple[Vote, ...]:
    """Return the votes of a file, each once."""
    found = {
        vote.id: Vote(
            id=vote.id,
            a=VoteSide(model=vote.a.model, artifact=vote.a.artifact, run_id=vote.a.run_id),
            b=VoteSide(model=vote.b.model, artifact=vote.b.artifact, run_id=vote.b.run_id),
            winner=vote.winner,
            frame=vote.frame,
            time=vote.time,
            page=export.page,
            frame_digest=vote.frame_digest,
        )
        for vote in export.votes
    }
    return tuple(found.values())


def _run_ids(layout: Layout) -> dict[str, str]:
    # not from metadata.json, which another job may be writing
    return {each.stem: ModelRecord.load(each).run_id for each in layout.all_records()}


def _refuse_others(tally: Tally, path: Path, layout: Layout) -> None:
    """Raise VotesError if there are votes, and none of them counts: they were cast on the page of something else."""
    if len(tally.uncounted) < len(tally.votes) or not tally.votes:
        return
    names = {name for reason, name in tally.uncounted.values() if reason == NotCounted.UNKNOWN_MODEL}
    if names:
        raise VotesError(
            "votes.unknown_model",
            f"no vote in {path} counts, because {layout.output_dir} does not hold {few(sorted(map(clean, names)))}; "
            f"it holds {few(sorted(_run_ids(layout)))}",
        )
    frames = sorted({clean(name) for _, name in tally.uncounted.values()})
    raise VotesError(
        "votes.other_frames",
        f"no vote in {path} counts, because {layout.page} does not show {few(frames)}; the votes were cast on the "
        "page of another sequence, or before these frames changed",
    )


def import_votes(path: Path, layout: Layout) -> str:
    """Add the votes of an exported file to the record, and return what was added, and what does not count, in words.

    A vote that is in the record already counts once. Votes that do not count are recorded as well, because they count
    once their frames are chosen again. Raises VotesError as ``read_export`` does.
    """
    tally = read_export(path, layout)
    before = Votes.load_if_there(layout.votes) or Votes()
    known = {vote.id for vote in before.votes}
    new = tuple(vote for vote in tally.votes if vote.id not in known)
    Votes(votes=(*before.votes, *new)).save(layout.votes)
    old = len(tally.votes) - len(new)
    repeated = f", {counted(old, 'vote')} already imported" if old else ""
    text = f"{counted(len(new), 'new vote')} imported from {path}{repeated}; {len(before.votes) + len(new)} in all."
    if note := tally.note():
        text = f"{text} In this file, {note}"
    log.info("%s", text)
    return text


def counts_by_model(votes: Iterable[Vote]) -> dict[str, VoteCounts]:
    """Return the votes of each model, by folder name."""
    results: dict[str, list[str]] = {}
    for vote in votes:
        for side, model in (("a", vote.a.model), ("b", vote.b.model)):
            kind = "tied" if vote.winner == "tie" else "won" if vote.winner == side else "lost"
            results.setdefault(model, []).append(kind)
    return {
        model: VoteCounts(kinds.count("won"), kinds.count("lost"), kinds.count("tied"))
        for model, kinds in results.items()
    }


def cells(counts: Mapping[str, VoteCounts], model: str) -> tuple[int | float | None, ...]:
    """Return the values of ``COLUMNS`` of a model; nothing if no model has votes."""
    return counts.get(model, VoteCounts()).cells if counts else ()


def tags(counts: VoteCounts | None) -> dict[str, str]:
    """Return what a registered version states about the votes on its model; nothing without votes."""
    if counts is None:
        return {}
    named = zip(COLUMNS, counts.cells, strict=True)
    return {f"dailies.{name.replace('_', '.', 1)}": repr(value) for name, value in named if value is not None}
