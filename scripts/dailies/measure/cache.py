"""Keep measured values on the disk, and tell which are missing or out of date.

The key of an entry is a digest of everything that its values depend on: the files they are measured from and the
version of the code. So only new and changed frames are measured. Values are kept while their metric or reference is
left out of the configuration.
"""

import json
import math
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dailies.core import files
from dailies.measure.metrics import LPIPS, MOTION, REFERENCE, STILL
from dailies.state.records import Values

VERSIONS = {REFERENCE: 2, LPIPS: 2, STILL: 2, MOTION: 3}
"""Versions of the code that measures, by what a metric needs; LPIPS has its own. Increment one if the same frames would
get other values."""

UNCLIPPED = {REFERENCE: 3}
"""Further versions, of values of frames that are not clipped to 0 to 1."""

DIGITS = 9
"""Significant digits of a stored value."""


def versions(transfer: str | None) -> dict[str, int]:
    """Return the versions of the code that measures frames read with a ``transfer``, by what a metric needs."""
    return VERSIONS if transfer else VERSIONS | UNCLIPPED


class MeasurementCache:
    """Values by key, in a file with one JSON object per line.

    The files of other shards are beside it. They are read as well, because a frame may have changed its shard.
    """

    def __init__(self, path: Path) -> None:
        """Read all files in the folder of ``path``; new entries are appended to ``path``."""
        self._path = path
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, Any]] = {}
        """By key: values by metric, and ``notes``."""
        self._frames: dict[str, str | None] = {}
        """By key: the output name of the frame."""
        self._own: set[str] = set()
        """The keys in ``path`` itself."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in sorted(path.parent.glob("*.jsonl")):
            for line in other.read_text(errors="replace").splitlines():
                with suppress(ValueError, TypeError, KeyError):  # a crash may truncate a line
                    entry = json.loads(line)
                    self._entries.setdefault(entry["key"], {}).update(entry["values"])
                    self._frames.setdefault(entry["key"], entry.get("frame"))
                    if other == path:
                        self._own.add(entry["key"])

    def values(self, key: str) -> Values:
        """Return the known values under a key, by metric."""
        return {name: value for name, value in self._entries.get(key, {}).items() if name != "notes"}

    def notes(self, key: str) -> Sequence[str]:
        """Return why values under a key are None, or what to know about them."""
        return self._entries.get(key, {}).get("notes", ())

    def missing(self, key: str, metrics: Sequence[str]) -> list[str]:
        """Return those of the metrics that have no value under a key."""
        known = self._entries.get(key, {})
        return [name for name in metrics if name not in known]

    def add(self, key: str, values: Values, *, frame: str, notes: Sequence[str] = ()) -> None:
        """Store values of a frame. Thread-safe."""
        entry = {**values, "notes": [*notes]}
        with self._lock:
            self._entries.setdefault(key, {}).update(entry)
            self._frames[key] = frame
            with self._path.open("a") as file:
                file.write(_line(key, entry, frame))

    def prune(
        self, keys: Sequence[str], requested: Mapping[str, Collection[str]], *, keeps_others: bool = False
    ) -> None:
        """Drop the entries under all other keys, except values of metrics that are not requested now.

        ``requested`` holds the metrics of each frame, by its output name. If a metric or a reference is left out for
        one invocation, its values are still there in the next one. With ``keeps_others``, so are those of other frames.
        """

        def is_left_out(key: str, frame: str | None) -> bool:
            if frame is None:
                return False
            if frame not in requested:
                return keeps_others and key in self._own
            return bool(self._entries[key].keys() - {"notes", *requested[frame]})

        left_out = (key for key, frame in self._frames.items() if is_left_out(key, frame))
        known = (key for key in dict.fromkeys([*keys, *left_out]) if key in self._entries)
        lines = (_line(key, self._entries[key], self._frames[key]) for key in known)
        files.write_bytes(self._path, "".join(lines).encode())


def rounded(values: Values) -> dict[str, float | None]:
    """Return the values with ``DIGITS`` significant digits; None for a value that is not finite."""
    finite = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
    return dict.fromkeys(values) | {name: float(f"{value:.{DIGITS}g}") for name, value in finite.items()}


def _line(key: str, entry: Mapping[str, Any], frame: str | None) -> str:
    return json.dumps({"key": key, "frame": frame, "values": dict(entry)}) + "\n"
