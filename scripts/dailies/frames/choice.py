"""The choice of frames: which positions of a sequence are rendered, and which of those are measured."""

from collections.abc import Sequence

from dailies.core.errors import SequenceError
from dailies.core.text import counted

ALL = "all"
"""The choice of every frame."""

AUTO = "auto"
"""The choice of at most ``ENOUGH`` frames to measure."""

ENOUGH = 64
"""The number of evenly spread frames whose differences tell models apart about as well as all frames of a sequence."""

SLICE = r"^(-?[0-9]+)?:(-?[0-9]+)?(:[1-9][0-9]*)?$"
"""The syntax of a slice: ``start:stop`` or ``start:stop:step``, with Python's meaning."""


def spread(number: int, total: int) -> list[int]:
    """Return ``number`` evenly spread positions out of ``total``, both ends included; all if there are not more."""
    if number >= total:
        return list(range(total))
    gaps = max(1, number - 1)
    return [(2 * place * (total - 1) + gaps) // (2 * gaps) for place in range(number)]


def measured_positions(measure_frames: int | str, total: int) -> Sequence[int]:
    """Return the positions, out of ``total``, that ``measure_frames`` chooses: ``auto``, ``all`` or a number."""
    return chosen_positions(ENOUGH if measure_frames == AUTO else measure_frames, total)


def chosen_positions(frames: int | str, total: int) -> Sequence[int]:
    """Return the positions, out of ``total``, that the setting ``frames`` chooses: ``all``, a number or a slice.

    Raises SequenceError if a slice is empty.
    """
    if frames == ALL:
        return range(total)
    if isinstance(frames, int):
        return spread(frames, total)
    found = range(total)[slice(*(int(part) if part else None for part in frames.split(":")))]
    if not found:
        raise SequenceError(
            "sequence.empty_slice",
            f"frames is {frames}, which chooses none of the {counted(total, 'frame')} of the sequence, whose positions "
            f"are 0 to {total - 1}; correct frames, or set it to all",
        )
    return found
