"""Folder names for models: readable, unique, and safe where letters of either case are the same."""

import re
import string
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

LONGEST, LONGEST_FIELD = 120, 60
"""Bytes of a folder name and of one text in it; file systems allow 255, and file names are made from these."""

RESERVED = frozenset({"batch_summary", "compare", "logs"})
"""Names that the output folder uses itself, with any extension."""


def folder_name(template: str, facts: Mapping[str, Any], taken: Collection[str], *, apart: str = "") -> str:
    """Fill a template such as ``{run_name}_{epoch}ep_{run_id:.8}`` and make the result safe and new.

    A part between separators (``_``, ``-``, ``.`` or a space) whose field is missing (None or empty) is dropped with
    its separator. ``taken`` holds the names in use; letters that differ only in case count as equal. A name that is
    taken ends in ``apart``, else in the run's id.
    """
    run_id = safe(str(facts["run_id"]))
    name = safe(_filled(template, facts)) or run_id or "model"
    if _is_reserved(name):
        name = name.replace(".", "_")
    used = {other.casefold() for other in taken}
    own = _cut(safe(apart), LONGEST_FIELD)
    endings = [
        "",
        *([f"_{own}"] if own else []),
        f"_{run_id[:8]}",
        *(f"_{number}" for number in range(2, len(used) + 3)),
    ]
    candidates = (_cut(name, LONGEST - len(ending.encode())) + ending for ending in endings)
    return next(new for new in candidates if new.casefold() not in used and not _is_reserved(new))


def _is_reserved(name: str) -> bool:
    return name.casefold().split(".", maxsplit=1)[0] in RESERVED


def _filled(template: str, facts: Mapping[str, Any]) -> str:
    values = dict(facts)
    values |= {key: _cut(safe(value), LONGEST_FIELD) for key, value in facts.items() if isinstance(value, str)}
    parts = re.split(r"([_\-. ])(?![^{}]*\})", template)
    filled = ""
    for separator, part in zip(["", *parts[1::2]], parts[::2], strict=True):
        fields = [field for _, field, _, _ in string.Formatter().parse(part) if field is not None]
        if not any(values.get(field) in {None, ""} for field in fields):
            filled += (separator if filled else "") + part.format(**values)
    return filled


def safe(text: str) -> str:
    """Keep letters, digits and ``_ - . + =``; anything else becomes ``-``. No name starts with a dot or dash."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"[^\w.+=-]+", "-", text)
    return _cut(re.sub(r"-{2,}", "-", text).strip("-. "), LONGEST)


def _cut(text: str, size: int) -> str:
    """Shorten a text to so many bytes of UTF-8, in whole characters, and not before a dot or dash."""
    return text.encode()[:size].decode(errors="ignore").rstrip("-. ")
