"""Programs: networks that a file holds as code and not only as weights, opened so that none of it runs unless trusted.

Three kinds, told apart by content: TorchScript, torch.export and ONNX, one module each. Whatever a file could do beside
arithmetic is looked for before anything of it runs.
"""

import logging
import re
import zipfile
from dataclasses import replace
from pathlib import Path

from dailies.errors import LoadError
from dailies.programs import exported, onnx, torchscript
from dailies.programs.archive import short
from dailies.programs.program import Bad, Program, Split, Unsafe, shown

__all__ = ["Program", "is_program", "open_program"]

log = logging.getLogger(__name__)

KINDS = {
    "torchscript": ("a TorchScript", torchscript.opened),
    "export": ("a torch.export", exported.opened),
    "onnx": ("an ONNX", onnx.opened),
}


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
    """Open a network that is stored as a program; nothing in the file can run code unless ``trusted``.

    Args:
        path: a TorchScript, torch.export or ONNX file; which it is does not depend on its name.
        trusted: open files that are refused otherwise, with loaders that may run code of the file's author.

    Raises:
        LoadError: saying what was found and what to do.
    """
    kind = is_program(path)
    name = shown(path.name, 100)
    if kind is None:
        raise LoadError(f"{name} is no program: it is {_described(path)}; expected TorchScript, torch.export or ONNX")
    title, opened = KINDS[kind]
    try:
        program = _trusted(path, kind) if trusted else opened(path)
    except LoadError:
        raise
    except Unsafe as reason:
        raise LoadError(
            f"{name} is {title} program that {reason}; set trust_pickle to true only if you trust whoever wrote it"
        ) from None
    except Bad as reason:
        raise LoadError(f"{name} is {title} program, but {reason}") from None
    except Exception as error:  # the bytes are anyone's, and every parser below has its own way to say so
        raise LoadError(
            f"{name} is {title} program that is damaged or of another version: {_first_line(error)}"
        ) from error
    return replace(program, network=Split(program.network, program.batch)) if program.batch else program


def _trusted(path: Path, kind: str) -> Program:
    """Open a file as if it were not trusted, and with what may run its author's code only where that is refused."""
    _, opened = KINDS[kind]
    try:
        return opened(path)
    except Unsafe as reason:
        log.warning(
            "trust_pickle is set: %s %s, and is loaded; it may run code of its author", shown(path.name, 100), reason
        )
        return replace(opened(path, trusted=True), trusted=True)


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
