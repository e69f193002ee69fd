"""What the page and the video were made from, so that contradictory results are never shown together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dailies.core.errors import DailiesError
from dailies.core.files import sha256_of
from dailies.core.text import few
from dailies.core.typed import Record, load_all
from dailies.state.layout import Layout
from dailies.state.records import Leaderboard, SummaryLine


class MixedResults(DailiesError):
    """Files that show the same models are of different invocations."""


@dataclass(frozen=True, kw_only=True)
class Shown(Record):
    """``shown/{product}.json``: what a product shows."""

    models: Mapping[str, str | None] = field(default_factory=dict)
    """The digests of the artifacts of the models of which it shows all frames, by folder."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """The digests of the files that it was made from, by path relative to the output folder."""


def record(path: Path, models: Mapping[str, str | None], *, layout: Layout, parts: Iterable[Path] = ()) -> None:
    """Write what a product shows, and from which files of the output folder it was made."""
    digests = {_relative(part, layout): sha256_of(part) for part in parts}
    Shown(models=models, parts=digests).save(path)


def beside_page(layout: Layout) -> list[str]:
    """Return the names of the tables and pictures that belong to the page, from its own folder.

    Tables are omitted if the page was built without a ranking; a video is omitted if it shows other models.
    """
    page, video = Shown.load_if_there(layout.shown_on_page) or Shown(), Shown.load_if_there(layout.shown_in_video)
    found = [layout.leaderboard, layout.frame_table] if _relative(layout.verdict, layout) in page.parts else []
    found += [layout.contact_sheet]
    found += [layout.side_by_side] if video is None or video.models == page.models else []
    return [path.name for path in found if path.is_file()]


def newer_than_page(layout: Layout) -> list[str]:
    """Return the names of the tables and pictures that have changed since the page was made, and still exist."""
    page = Shown.load_if_there(layout.shown_on_page) or Shown()
    names = {_relative(layout.verdict, layout): layout.leaderboard.name}  # both are written together
    changed = [part for part, digest in page.parts.items() if _digest(layout, part) not in (digest, None)]
    return [names.get(part, Path(part).name) for part in changed]


def refuse_mixed(layout: Layout, *, with_page: bool) -> None:
    """Raise MixedResults if tables, summary, contact sheet and page are not of one invocation.

    Without a page, only the summary and the ranking are compared.
    """
    changed = newer_than_page(layout) if with_page else []
    if not changed and _ranks_differ(layout):
        changed = [layout.leaderboard.name]
    if changed:
        raise MixedResults(
            "output.mixed_report",
            f"The report would show results of different invocations: {few(changed)} changed after the rest was made; "
            "run snakemake to the end, then ask for the report again",
        )


def _relative(path: Path, layout: Layout) -> str:
    return path.relative_to(layout.output_dir).as_posix()


def _digest(layout: Layout, part: str) -> str | None:
    path = layout.output_dir / part
    return sha256_of(path) if path.is_file() else None


def _ranks_differ(layout: Layout) -> bool:
    """Return whether the ranks in the summary differ from the ranking; False if it has none, as without a reference."""
    if not (layout.summary.is_file() and layout.verdict.is_file()):
        return False
    summary = {
        Path(line.output_dir).name: (line.rank, line.verdict)
        for line in load_all(SummaryLine, layout.summary)
        if line.output_dir and line.rank
    }
    ranking = Leaderboard.load(layout.verdict).ranking
    ranked = {each.model: (each.rank, each.verdict) for each in ranking.everyone} if ranking else {}
    return bool(summary) and summary != ranked
