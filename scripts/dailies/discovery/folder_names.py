"""Folder names of models: readable, unique, stable, and safe on file systems that ignore case."""

import re
import string
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from dailies.discovery.selection import Found
from dailies.state.layout import Layout
from dailies.state.records import ModelRecord, RunRecord

LONGEST, LONGEST_FIELD = 120, 60
"""Bytes of a folder name and of one text in it. File systems allow 255 bytes, but files get longer names than this."""

RESERVED = frozenset({"batch_summary", "compare", "logs"})
"""Names of other things in the output folder, with any extension."""


class FolderNames:
    """The folder names of all models, known and new. A model keeps its name, even if its run's best file changes."""

    def __init__(self, layout: Layout, template: str) -> None:
        """Read the names in use; new ones follow the ``template``."""
        self._template = template
        self._in_use: set[str] = set()
        self._by_identity: dict[tuple[str, str, str], str] = {}
        self._by_run: dict[str, str] = {}
        self._assigned: set[str] = set()
        for path in layout.all_records():
            record, about = ModelRecord.load(path), RunRecord.load_if_there(layout.run(path.stem))
            self._in_use.add(path.stem)
            self._by_identity[record.run_id, record.artifact.uri, record.artifact.path] = path.stem
            if not (about and about.registered_model):
                self._by_run[record.run_id] = path.stem

    def assign(self, model: Found) -> str:
        """Return the folder name of a model: the one it had before, or a new one."""
        same_run = None if model.version else self._by_run.get(model.run.run_id)
        known = (self._by_identity.get(model.identity), same_run)
        name = next((name for name in known if name and name not in self._assigned), None) or self._new(model)
        self._assigned.add(name)
        self._in_use.add(name)
        return name

    def _new(self, model: Found) -> str:
        run, version = model.run, model.version
        about = asdict(model.facts) | {"run_id": run.run_id, "run_name": run.run_name, "experiment": run.experiment}
        return folder_name(
            self._template,
            about | {"start_time": run.start_time},
            self._in_use,
            suffix=f"{version.name}-{version.version}" if version else "",
        )


def folder_name(template: str, facts: Mapping[str, Any], taken: Collection[str], *, suffix: str = "") -> str:
    """Return a safe and unused name that follows a template such as ``{run_name}_{epoch}ep_{run_id:.8}``.

    If a field is None or empty, the part that contains it is dropped with its separator (``_``, ``-``, ``.`` or a
    space).

    Args:
        template: the template, in Python's format syntax.
        facts: the values of its fields; ``run_id`` is required.
        taken: the names in use, compared without regard to case.
        suffix: what to append if the name is taken; by default the start of the run's id.
    """
    run_id = safe(str(facts["run_id"]))
    name = safe(_filled(template, facts)) or run_id or "model"
    if _is_reserved(name):
        name = name.replace(".", "_")
    used = {other.casefold() for other in taken}
    suffix = _cut(safe(suffix), LONGEST_FIELD)
    endings = [
        "",
        *([f"_{suffix}"] if suffix else []),
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
    """Return a text with all but letters, digits and ``_ . + =`` as ``-``, and without dots or dashes at its ends."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"[^\w.+=-]+", "-", text)
    return _cut(re.sub(r"-{2,}", "-", text).strip("-. "), LONGEST)


def _cut(text: str, size: int) -> str:
    """Return at most ``size`` bytes of a text, in whole characters, without dots or dashes at the end."""
    return text.encode()[:size].decode(errors="ignore").rstrip("-. ")
