"""Programs: networks that a file holds as code and not only as weights.

There are three kinds, one module each: TorchScript, torch.export and ONNX. The content of a file decides which it is.
Loading TorchScript and torch.export runs code of the file, so they need permission, as pickles do. ONNX needs none:
onnxruntime has nothing to run but its own operators.
"""

import logging
import re
import zipfile
from dataclasses import replace
from pathlib import Path

from dailies.core.errors import LoadError
from dailies.models.checkpoints import TRUST
from dailies.models.programs import exported, onnx, torchscript
from dailies.models.programs.program import (
    Program,
    Split,
    short,
    shown,
)

__all__ = ["SAFE", "Program", "is_program", "open_program"]

log = logging.getLogger(__name__)

KINDS = {
    "torchscript": ("TorchScript", torchscript.opened),
    "export": ("torch.export", exported.opened),
    "onnx": ("ONNX", onnx.opened),
}
"""What each kind is called, and what opens it."""

SAFE = frozenset({"onnx"})
"""The kinds that run no code of the file when they are loaded."""


def is_program(path: Path) -> str | None:
    """Tell by its content which kind of program a file is: torchscript, export, onnx, or None for none of them."""
    if not path.is_file():
        return None
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = set(map(short, archive.namelist()))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
            return None
        if "constants.pkl" in names and any(name.startswith("code/") for name in names):
            return "torchscript"
        if "archive_format" in names or "serialized_exported_program.json" in names:
            return "export"
        return None
    with path.open("rb") as file:
        head = file.read(3)
    # a version below 32, then any of the fields that writers put next
    return "onnx" if re.match(rb"\x08[\x01-\x1f][\x12\x1a\x22\x28\x32\x3a\x42]", head) else None


def open_program(path: Path, *, trusted: bool = False) -> Program:
    """Open a network that is stored as a program.

    Args:
        path: a TorchScript, torch.export or ONNX file; which it is does not depend on its name.
        trusted: open TorchScript and torch.export too, whose loading runs code of the file.

    Raises:
        LoadError: saying what was found and what to do.
    """
    kind = is_program(path)
    name = shown(path.name, 100)
    if kind is None:
        raise LoadError(
            "program.unknown_kind",
            f"{name} is no program: it is {_described(path)}; expected TorchScript, torch.export or ONNX",
        )
    title, opened = KINDS[kind]
    if kind not in SAFE:
        if not trusted:
            raise LoadError(
                "model.needs_permission",
                f"{name} is a program ({title}), and loading it runs its code; {TRUST}",
            )
        log.warning("%s is a program (%s), and loading it runs its code; trust_code allows it", name, title)
    try:
        program = opened(path)
    except LoadError:
        raise
    except Exception as error:  # the bytes are anyone's, and every parser below has its own way to say so
        raise LoadError(
            "program.damaged",
            f"{name} is a program ({title}) that is damaged or of another version: {_first_line(error)}",
        ) from error
    return replace(program, network=Split(program.network, program.batch)) if program.batch else program


def _described(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "an empty file"
    if head.startswith(b"PK"):
        return "a zip archive without a program" if zipfile.is_zipfile(path) else "a zip archive that is cut off"
    if head.lstrip()[:1] == b"<":
        return "a web page or XML"
    if head.startswith(b"\x80"):
        return "a pickle"
    return f"a file that begins with the bytes {head[:8].hex(' ')}"


def _first_line(error: BaseException) -> str:
    text = shown(str(error).strip().partition("\n")[0], 200)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
