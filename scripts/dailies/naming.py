"""Folder names for models: readable, unique, and safe on every file system."""

import re
import string
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

LONGEST, LONGEST_FIELD = 120, 60
"""Characters of a folder name and of one text in it; file systems allow 255 bytes."""

RESERVED = frozenset(
    {"compare", "logs", "con", "prn", "aux", "nul"}
    | {f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10)}
)
"""Names that the output folder uses itself, and names that Windows keeps for devices."""


def folder_name(template: str, facts: Mapping[str, Any], taken: Collection[str]) -> str:
    """Fill a template such as ``{run_name}_{epoch}ep_{run_id:.8}`` and make the result safe and new.

    A part between separators (``_``, ``-``, ``.`` or a space) whose field is missing (None or empty) is dropped with
    its separator. ``taken`` holds the names in use; letters that differ only in case count as equal.
    """
    run_id = str(facts["run_id"])
    name = safe(_filled(template, facts)) or safe(run_id)
    used = {other.casefold() for other in taken} | RESERVED
    for candidate in (name, f"{name[: LONGEST - 9]}_{run_id[:8]}"):
        if candidate.casefold() not in used:
            return candidate
    number = 2
    while f"{name[: LONGEST - 9]}_{number}".casefold() in used:
        number += 1
    return f"{name[: LONGEST - 9]}_{number}"


def _filled(template: str, facts: Mapping[str, Any]) -> str:
    values = {key: safe(value)[:LONGEST_FIELD] if isinstance(value, str) else value for key, value in facts.items()}
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
    return re.sub(r"-{2,}", "-", text)[:LONGEST].strip("-. ")
