"""Forced jobs: what a user tells Snakemake to run again. Every job of the invocation reads the record."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dailies.core.typed import Record


@dataclass(frozen=True)
class Forced(Record):
    """``forced.json``: the rules and files that an invocation must run or make again."""

    token: str = ""
    """Identifies the invocation, so that a job that is retried does not start from scratch again."""
    everything: bool = False
    rules: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Absolute paths."""

    def __bool__(self) -> bool:
        return bool(self.everything or self.rules or self.files)

    def covers(self, rules: Iterable[str], outputs: Iterable[Path]) -> bool:
        """Return whether one of these rules or outputs is forced."""
        if self.everything or not self:  # nearly always
            return self.everything
        return not (set(self.rules).isdisjoint(rules) and set(self.files).isdisjoint(map(_absolute, outputs)))


def requested(*, everything: bool, names: Iterable[str], rules: Iterable[str]) -> Forced:
    """Return what the command line of an invocation forces.

    Args:
        everything: whether everything is forced.
        names: the rules and files that are forced, as written on the command line.
        rules: the names of all rules, which tell rules from files.
    """
    known, given = set(rules), set(names)
    return Forced(
        secrets.token_hex(8),
        everything,
        tuple(sorted(given & known)),
        tuple(sorted(_absolute(Path(name)) for name in given - known)),
    )


def announce(forced: Forced, record: Path) -> None:
    """Write what is forced for jobs on other machines. If nothing is, delete the record of an earlier invocation."""
    if forced:
        forced.save(record)
    else:
        record.unlink(missing_ok=True)


def announced(record: Path) -> Forced:
    """Return what is forced by the invocation that this job belongs to."""
    return Forced.load_if_there(record) or Forced()


def _absolute(path: Path) -> str:
    return str(path.absolute())
