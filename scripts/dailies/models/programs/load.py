"""Which kind of program a file is, and how it is loaded."""

import logging
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from dailies.core.errors import LoadError
from dailies.core.text import cause, shown
from dailies.models.checkpoints import PERMISSION_ADVICE
from dailies.models.programs.exported import load_exported
from dailies.models.programs.onnx import load_onnx
from dailies.models.programs.program import FixedBatch, Program, member_name
from dailies.models.programs.torchscript import load_torchscript

log = logging.getLogger(__name__)

TITLES = {"torchscript": "TorchScript", "export": "torch.export", "onnx": "ONNX"}
"""The name of each kind in messages."""

LOADERS: Mapping[str, Callable[[Path], Program]] = {
    "torchscript": load_torchscript,
    "export": load_exported,
    "onnx": load_onnx,
}

SAFE = frozenset({"onnx"})
"""The kinds that can be loaded without permission: onnxruntime runs only its own operators, no code from the file."""

ONNX_START = re.compile(rb"\x08[\x01-\x1f][\x12\x1a\x22\x28\x32\x3a\x42]")
"""The first bytes of an ONNX file: an IR version below 32, then any of the fields that exporters write next."""


def program_kind(path: Path) -> str | None:
    """Return the kind of program in a file, by its content: torchscript, export or onnx; None if it is no program."""
    if not path.is_file():
        return None
    if zipfile.is_zipfile(path):
        return _archive_kind(path)
    with path.open("rb") as file:
        return "onnx" if ONNX_START.match(file.read(3)) else None


def load_program(path: Path, kind: str, *, trusted: bool = False) -> Program:
    """Load a program onto the CPU.

    Args:
        path: the file.
        kind: what ``program_kind`` returned for it.
        trusted: whether code in the file may run, which loading TorchScript and torch.export does.

    Raises:
        LoadError: the program needs permission, is damaged, or does not take exactly one image.
    """
    name, title = shown(path.name), TITLES[kind]
    if kind not in SAFE:
        if not trusted:
            raise LoadError(
                "model.needs_permission",
                f"{name} is a program ({title}), and loading it runs its code; {PERMISSION_ADVICE}",
            )
        log.warning("%s is a program (%s), and loading it runs its code; trust_code allows it", name, title)
    try:
        program = LOADERS[kind](path)
    except LoadError:
        raise
    except Exception as error:  # the file may hold anything, and each parser raises errors of its own
        raise LoadError(
            "program.damaged",
            f"{name} is a program ({title}) that is damaged or was written by another version: {cause(error, 200)}",
        ) from error
    return replace(program, network=FixedBatch(program.network, program.batch)) if program.batch else program


def _archive_kind(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(map(member_name, archive.namelist()))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return None
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return "torchscript"
    return "export" if names & {"archive_format", "serialized_exported_program.json"} else None
