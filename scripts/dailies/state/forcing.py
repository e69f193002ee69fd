"""Forcing: which jobs a user told Snakemake to run again, known to every job of that invocation, also on a node."""

import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from dailies.core import files as files_module


@dataclass(frozen=True)
class Forced:
    """The rules and files that one invocation was told to run or make again."""

    token: str = ""
    """Identifies the invocation: what it forces is made again once, however often a job is retried."""
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


def asked(*, everything: bool, names: Iterable[str], rules: Iterable[str]) -> Forced:
    """Return what an invocation forces; ``names`` are those of rules or files, as they stand on the command line."""
    known, given = set(rules), set(names)
    return Forced(
        secrets.token_hex(8),
        everything,
        tuple(sorted(given & known)),
        tuple(sorted(_absolute(Path(name)) for name in given - known)),
    )


def announce(forced: Forced, record: Path) -> None:
    """Write what is forced where jobs on other machines read it, or delete what an earlier invocation left there."""
    if forced:
        files_module.write_json(record, asdict(forced))
    else:
        record.unlink(missing_ok=True)


def announced(record: Path) -> Forced:
    """Return what the invocation that this job belongs to forces."""
    if not record.is_file():
        return Forced()
    known = files_module.read_json(record)
    return Forced(known["token"], known["everything"], tuple(known["rules"]), tuple(known["files"]))


def _absolute(path: Path) -> str:
    return str(path.absolute())
