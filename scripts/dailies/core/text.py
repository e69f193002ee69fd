"""Text from outside, made safe to print in errors, logs and tables; and values read from such text."""

import inspect
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from dailies.core import files

FEW = 5
"""How many of several items a message lists before it counts the rest."""

LONGEST, LONGEST_WORD, LONGEST_REASON = 100, 100, 300
"""Characters of a file name or key, of a name that a run gives, and of an exception's text, that a message shows."""

LAST_EPOCH = 10**9
"""The largest plausible epoch. No run trains longer."""

WIDEST = 60
"""Characters of a table's column. The middle of a longer value is left out."""

ERROR_LINE = re.compile(r"[\w.]*(Error|Exception): ")
"""How the line of a traceback that holds the reason begins."""

PACKAGES = {"cv2": "opencv-python-headless", "PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml"}
"""Modules that are installed under another name."""


def redacted(text: str) -> str:
    """Return a text with user names, passwords and tokens masked in each of its URLs."""
    text = re.sub(r"(?<=://)[^/\s]+@", "***@", text)
    return re.sub(r"(?i)([?&][^=&\s]*(?:passw|pwd|token|secret|credential|sig)[^=&\s]*=)[^&\s'\")]+", r"\1***", text)


def clean(text: str) -> str:
    """Return a text as one line, without control characters and escape sequences."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def shown(text: str) -> str:
    """Return a file name or key as one clean line of bounded length."""
    return clean(text)[:LONGEST]


def plain(text: str) -> str:
    """Return a text in which lines and tabs stay, and other characters that do not print are backslash escapes."""
    return re.sub(r"[^ -~\n\t]", _escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else match[0].encode("unicode_escape").decode()


def few(texts: Iterable[str], most: int = FEW, separator: str = ", ") -> str:
    """Return the first ``most`` texts as a list and count the rest; return "none" if there are none."""
    items = list(texts)
    rest = f"{separator.rstrip(', ')} and {len(items) - most} more" if len(items) > most else ""
    return (separator.join(items[:most]) or "none") + rest


def listed(names: Iterable[str]) -> str:
    """Return the first few file names or keys as a list that is safe to print, and count the rest."""
    return few(map(shown, names))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 frame", "2 frames"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def in_bytes(size: float) -> str:
    """Return a number of bytes in kB, MB or GB, each a thousand of the one before."""
    scale, unit = next(((scale, unit) for scale, unit in ((1e9, "GB"), (1e6, "MB")) if size >= scale), (1e3, "kB"))
    return f"{size / scale:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a duration as people say it: "45 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def columns(rows: Sequence[Sequence[str]], *, numbers: Collection[int] = ()) -> str:
    """Return rows of text as aligned columns, the first row as a heading with a rule below it.

    The columns ``numbers`` are aligned at the right.
    """
    short = [[elided(value, WIDEST) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in short) for i in range(len(short[0]))]
    lines = [
        "  ".join(
            value.rjust(width) if i in numbers else value.ljust(width)
            for i, (value, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in short
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def elided(text: str, most: int) -> str:
    """Return a text of at most ``most`` characters; a longer one loses its middle."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - half]}…{text[len(text) - half :]}"


def cause(error: BaseException, most: int = LONGEST_REASON) -> str:
    """Return the type of an exception and the line of its text that holds the reason, as one line.

    That is the first line of the text, or the last one if the text is a traceback, as TorchScript's is. If the first
    line announces a list, as that of ``load_state_dict`` or onnxruntime does, all lines are joined. The text is cut
    after ``most`` characters.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if any(line.startswith("Traceback ") for line in lines):
        lines = ([line for line in lines if ERROR_LINE.match(line)] or lines)[-1:]
    elif lines and not (lines[0].endswith(":") or lines[0].startswith("[ONNXRuntimeError]")):
        lines = lines[:1]
    text = clean(" ".join(lines)).removeprefix("builtins.")[:most]
    return text if ERROR_LINE.match(text) else f"{type(error).__name__}: {text}".removesuffix(": ")


def reason(error: BaseException) -> str:
    """Return the cause of an exception in a user's code and, if it is known, what to do about it."""
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
    """Return where an exception was raised, for exceptions without a text, such as that of ``assert``."""
    assert error.__traceback__
    last = inspect.getinnerframes(error.__traceback__, context=0)[-1]
    return f"in {last.function}, line {last.lineno} of {Path(last.filename).name}"


def word(value: Any) -> str | None:
    """Return a value of a run as a name: one clean line of bounded length; None for "", "none", "null" and "nan"."""
    text = clean(str(value))[:LONGEST_WORD]
    return None if text.lower() in {"", "none", "null", "nan"} else text


def number(value: Any) -> float | None:
    """Return a value of a run as a finite number, whatever type it is stored as; None if it is not a number."""
    try:
        return files.strict(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def whole(value: Any) -> int | None:
    """Return a value of a run, which may be written ``2e3`` or ``2500.0``, as a whole number of at least 0, or None."""
    result = number(value)
    return int(result) if result is not None and 0 <= result <= LAST_EPOCH and result == int(result) else None
