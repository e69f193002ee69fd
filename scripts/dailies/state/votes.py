"""Votes: those of blind tests on the comparison page, imported into one record and counted per model."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Frames:
    """The frames that votes may be about."""

    digests: Mapping[str, str]
    """By output name."""

    @classmethod
    def of(cls, sequence: Sequence) -> "_Frames":
        return cls({frame.output: frame.sha256 for frame in sequence.frames})

    def holds(self, vote: _CastVote | Vote) -> bool:
        """Return whether a vote was cast on one of the frames."""
        return self.digests.get(vote.frame, "").startswith(vote.frame_digest)


@dataclass(frozen=True)
class Standing:
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


def read_export(path: Path, layout: Layout) -> tuple[Vote, ...]:
    """Return the votes of a file that the page exported.

    Raises VotesError if the file is missing or is something else, or if its votes are about other frames or about
    models that are not in the output folder.
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
    _refuse_other_frames(export, path, layout)
    _refuse_unknown_models(export, path, layout)
    return tuple(
        Vote(
            id=vote.id,
            a=VoteSide(model=vote.a.model, artifact=vote.a.artifact),
            b=VoteSide(model=vote.b.model, artifact=vote.b.artifact),
            winner=vote.winner,
            frame=vote.frame,
            time=vote.time,
            page=export.page,
            frame_digest=vote.frame_digest,
        )
        for vote in export.votes
    )


def _refuse_other_frames(export: _Export, path: Path, layout: Layout) -> None:
    if not layout.sequence.is_file():
        raise VotesError("votes.nothing_rendered", f"{layout.output_dir} has no sequence yet; render the models first")
    known = _Frames.of(load_sequence(layout.sequence))
    if unknown := sorted({clean(vote.frame) for vote in export.votes if not known.holds(vote)}):
        raise VotesError(
            "votes.other_frames",
            f"{path} has votes on frames that are not those of {layout.page}: {few(unknown)}; they were cast on the "
            "page of another sequence, or before these frames changed",
        )


def _refuse_unknown_models(export: _Export, path: Path, layout: Layout) -> None:
    # not from metadata.json, which another job may be writing
    known = {each.stem: ModelRecord.load(each).run_id for each in layout.all_records()}
    sides = {side.model: side.run_id for vote in export.votes for side in (vote.a, vote.b)}
    unknown = sorted(clean(model) for model, run_id in sides.items() if known.get(model) != run_id)
    if unknown:
        raise VotesError(
            "votes.unknown_model",
            f"{path} has votes on models that {layout.output_dir} does not hold: {few(unknown)}; it holds "
            f"{few(sorted(known))}",
        )
    if any(vote.a.model == vote.b.model for vote in export.votes):
        raise VotesError("votes.same_model", f"{path} has votes that compare a model with itself")


def import_votes(path: Path, layout: Layout) -> str:
    """Add the votes of an exported file to the record, and return a sentence that says what was added.

    A vote that is in the record already counts once. Raises VotesError as ``read_export`` does.
    """
    votes = {vote.id: vote for vote in read_export(path, layout)}
    before = Votes.load_if_there(layout.votes) or Votes()
    new = votes.keys() - {vote.id for vote in before.votes}
    Votes(votes=(*before.votes, *(vote for vote in votes.values() if vote.id in new))).save(layout.votes)
    repeated = f", {counted(len(votes) - len(new), 'vote')} of it known before" if len(new) < len(votes) else ""
    text = f"{counted(len(new), 'new vote')} imported from {path}{repeated}; {len(before.votes) + len(new)} in all."
    log.info("%s", text)
    return text


def load_standings(path: Path, sequence: Sequence, artifacts: Mapping[str, str | None]) -> dict[str, Standing]:
    """Return the votes of each model, by folder name, from a record that may not exist.

    Only votes on frames and weights as they are now count; the others are logged. ``artifacts`` are the digests of the
    weights by folder name; those of other models are not checked.
    """
    votes = (Votes.load_if_there(path) or Votes()).votes
    known = _Frames.of(sequence)
    current = [
        vote
        for vote in votes
        if known.holds(vote)
        and all((artifacts.get(side.model) or side.artifact).startswith(side.artifact) for side in (vote.a, vote.b))
    ]
    if len(current) < len(votes):
        log.warning(
            "%s of %s do not count: they are about frames or weights that have changed, or frames that are not chosen",
            counted(len(votes) - len(current), "vote"),
            path,
        )
    return standings(current)


def standings(votes: Iterable[Vote]) -> dict[str, Standing]:
    """Return the votes of each model, by folder name."""
    results: dict[str, list[str]] = {}
    for vote in votes:
        for side, model in (("a", vote.a.model), ("b", vote.b.model)):
            kind = "tied" if vote.winner == "tie" else "won" if vote.winner == side else "lost"
            results.setdefault(model, []).append(kind)
    return {
        model: Standing(kinds.count("won"), kinds.count("lost"), kinds.count("tied"))
        for model, kinds in results.items()
    }


def cells(found: Mapping[str, Standing], model: str) -> tuple[int | float | None, ...]:
    """Return the values of ``COLUMNS`` of a model; nothing if no model has votes."""
    return found.get(model, Standing()).cells if found else ()


def tags(standing: Standing | None) -> dict[str, str]:
    """Return what a registered version states about the votes on its model; nothing without votes."""
    if standing is None:
        return {}
    named = zip(COLUMNS, standing.cells, strict=True)
    return {f"dailies.{name.replace('_', '.', 1)}": repr(value) for name, value in named if value is not None}
