"""Values: what was measured, kept under keys.

What a value depends on is the key it is kept under: the digests of the files that it is measured from, and the version
of the code. So only new and changed frames are measured, and what was measured stays, whatever else changes, also while
its metric or its reference is left out.
"""

import json
import math
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dailies.core import files

MEASURING = 2
"""Version of the code that measures: raise it when the same frames would measure differently."""

DIGITS = 9
"""Significant digits that are kept of a value."""

Values = dict[str, float | None]


class Kept:
    """Values by key: a file with a line of JSON for each; those of the other shards lie beside it and are read, too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._values: dict[str, Any] = {}
        self._frames: dict[str, str | None] = {}
        """The frame that the values of a key are of, by name."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in sorted(path.parent.glob("*.jsonl")):
            for line in other.read_text(errors="replace").splitlines():
                with suppress(ValueError, TypeError, KeyError):  # a line that a crash cut short
                    entry = json.loads(line)
                    self._values.setdefault(entry["key"], {}).update(entry["values"])
                    self._frames.setdefault(entry["key"], entry.get("frame"))

    def get(self, key: str) -> Values:
        """Give what is known under a key."""
        return self._values.get(key, {})

    def add(self, key: str, values: Mapping[str, Any], *, frame: str | None = None) -> None:
        """Keep values, of a frame if they are of one alone; may be called from several threads."""
        with self._lock:
            self._values.setdefault(key, {}).update(values)
            self._frames[key] = frame
            with self._path.open("a") as file:
                file.write(_line(key, values, frame))

    def prune(self, keys: Sequence[str], asked: Mapping[str, Collection[str]]) -> None:
        """Forget what is known under other keys, but for metrics that are not among those ``asked`` for of its frame.

        A metric or a reference that is left out for one invocation is measured once all the same.
        """
        left_out = (
            key
            for key, frame in self._frames.items()
            if frame in asked and self._values[key].keys() - {"notes", *asked[frame]}
        )
        known = (key for key in dict.fromkeys([*keys, *left_out]) if key in self._values)
        lines = (_line(key, self._values[key], self._frames[key]) for key in known)
        files.write_bytes(self._path, "".join(lines).encode())


def rounded(values: Mapping[str, float | None]) -> Values:
    """Shorten values; None for one that is not finite, as frames before this one may make it."""
    known = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
    return dict.fromkeys(values) | {name: float(f"{value:.{DIGITS}g}") for name, value in known.items()}


def _line(key: str, values: Mapping[str, Any], frame: str | None) -> str:
    return json.dumps({"key": key, "frame": frame, "values": dict(values)}) + "\n"
