"""What metrics without a reference need of a source frame, computed once so that no model reads the source again."""

import io
import threading
from dataclasses import dataclass

import numpy as np

from dailies.measure import flicker
from dailies.measure.flicker import Motion
from dailies.measure.quality import Still

PARSING = threading.Lock()
"""Held while numpy parses headers: in two threads at once, Python 3.11 may raise "AST constructor recursion depth
mismatch"."""


@dataclass(frozen=True)
class SourceFrame:
    """What the metrics without a reference need of a frame of the source."""

    height: int
    width: int
    associated: bool
    """Whether its colours are premultiplied by alpha."""
    still: Still
    motion: Motion | None
    """Its motion since the previous frame; None if that is unknown or not needed."""

    @classmethod
    def of(cls, pixels: np.ndarray, before: np.ndarray | None, *, associated: bool) -> "SourceFrame":
        """Describe a frame, ``(height, width, 3)`` float32 from 0 to 1; the motion is the one since ``before``."""
        found = None if before is None else flicker.flow(pixels, before)
        motion = None if found is None or before is None else Motion.along(found, pixels, before)
        return cls(pixels.shape[0], pixels.shape[1], associated, Still.of(pixels), motion)

    def to_bytes(self) -> bytes:
        """Return the description as an archive of numpy arrays."""
        data = io.BytesIO()
        known: dict[str, object] = {
            "size": [self.height, self.width],
            "associated": self.associated,
            "still": [self.still.detail, self.still.clipped],
        }
        if self.motion:
            error = np.nan if self.motion.source_error is None else self.motion.source_error
            known |= {"flow": self.motion.flow, "weight": self.motion.weight, "error": error}
        np.savez(data, allow_pickle=False, **{name: np.asarray(value) for name, value in known.items()})
        return data.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "SourceFrame":
        """Return the description that ``to_bytes`` wrote."""
        with PARSING, np.load(io.BytesIO(data), allow_pickle=False) as known:
            height, width = map(int, known["size"])
            motion = None
            if "flow" in known:
                error = float(known["error"])
                motion = Motion(known["flow"], known["weight"], None if np.isnan(error) else error)
            return cls(height, width, bool(known["associated"]), Still(*map(float, known["still"])), motion)
