"""Text that others wrote, made fit to show: in an error, a log, a table."""

import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dailies.core import files

TYPED = re.compile(r"[\w.]*(Error|Exception): ")
"""How a line begins that tells the reason at the end of a traceback."""

FEW = 5
"""How many of several things an error or a note spells out before it counts the rest."""


def redacted(text: str) -> str:
    """Mask user names, passwords and tokens in every URL of a text."""
    text = re.sub(r"(?<=://)[^/\s]+@", "***@", text)
    return re.sub(r"(?i)([?&][^=&\s]*(?:passw|pwd|token|secret|credential|sig)[^=&\s]*=)[^&\s'\")]+", r"\1***", text)


def clean(text: str) -> str:
    """Make a text from the store safe to show: one line, no control characters or escape codes."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def cause(error: BaseException, most: int = 300) -> str:
    """Return, on one line, the type of an exception and the line of its text that tells the reason.

    That is the first one. Of a traceback, which TorchScript puts into the text, it is the last one; a first line that
    announces others, as that of ``load_state_dict`` or onnxruntime, is shown with them.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if any(line.startswith("Traceback ") for line in lines):
        lines = ([line for line in lines if TYPED.match(line)] or lines)[-1:]
    elif lines and not (lines[0].endswith(":") or lines[0].startswith("[ONNXRuntimeError]")):
        lines = lines[:1]
    text = clean(" ".join(lines)).removeprefix("builtins.")[:most]
    return text if TYPED.match(text) else f"{type(error).__name__}: {text}".removesuffix(": ")


def plain(text: str) -> str:
    """Write what does not print as backslash escapes, and keep lines and tabs."""
    return re.sub(r"[^ -~\n\t]", _escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else match[0].encode("unicode_escape").decode()


def few(texts: Iterable[str], most: int = FEW, separator: str = ", ") -> str:
    """List the first of several texts and count the rest; "none" where there is none."""
    listed = list(texts)
    rest = f"{separator.rstrip(', ')} and {len(listed) - most} more" if len(listed) > most else ""
    return (separator.join(listed[:most]) or "none") + rest


def counted(number: int, noun: str) -> str:
    """Write a number of things: "1 frame", "2 frames"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def in_bytes(size: float) -> str:
    """Write a number of bytes for people: in kB, MB or GB, each a thousand of the one before."""
    scale, unit = next(((scale, unit) for scale, unit in ((1e9, "GB"), (1e6, "MB")) if size >= scale), (1e3, "kB"))
    return f"{size / scale:.1f} {unit}"


LONGEST_REASON = 300
"""Characters of an exception's text that an error shows."""

PACKAGES = {"cv2": "opencv-python-headless", "PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml"}
"""What is installed under another name than it is imported by."""


def reason(error: BaseException) -> str:
    """Return the cause of an exception in a user's code, and what to do about it: the package to install, for one."""
    text = cause(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = clean(error.name).split(".")[0]
        text += f"; pip install {PACKAGES.get(package, package)}, or name the folder of its code in python_path"
    elif isinstance(error, SystemExit):
        text += "; the code calls sys.exit, as scripts do that parse arguments"
    elif not str(error).strip() and error.__traceback__:
        text += f": {_place(error)}"
    return text[:LONGEST_REASON]


def _place(error: BaseException) -> str:
    """Return where an exception was raised, for one that carries no text, such as that of ``assert``."""
    last = inspect.getinnerframes(error.__traceback__, context=0)[-1]
    return f"in {last.function}, line {last.lineno} of {Path(last.filename).name}"


LAST_EPOCH = 10**9
"""No run is longer: a larger number is something else."""


def word(value: Any) -> str | None:
    """Read a name from the store: one clean line, at most 100 characters; None for "", "none" and "null"."""
    text = clean(str(value))[:100]
    return None if text.lower() in {"", "none", "null", "nan"} else text


def number(value: Any) -> float | None:
    """Read a finite number, whatever type the store keeps it as."""
    try:
        return files.strict(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def whole(value: Any) -> int | None:
    """Read a whole number at least 0, also from ``2e3`` or ``2500.0``."""
    result = number(value)
    return int(result) if result is not None and 0 <= result <= LAST_EPOCH and result == int(result) else None


LONGEST = 100
"""Characters of a file name or key that an error shows."""


def listed(names: Iterable[str]) -> str:
    """List the first few names of the store, safe to show, and count the rest."""
    return few(map(shown, names))


def shown(text: str) -> str:
    """Make a text of the store safe to show: one line, no control characters, not long."""
    return clean(text)[:LONGEST]


WIDEST = 60
"""Characters of a column; longer values lose their middle."""


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows of text in columns, the first row a heading with a rule below it."""
    short = [[_shortened(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in short) for i in range(len(short[0]))]
    lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in short]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _shortened(value: str) -> str:
    half = (WIDEST - 1) // 2
    return value if len(value) <= WIDEST else f"{value[:half]}…{value[-half:]}"
