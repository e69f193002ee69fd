"""Text that others wrote, made fit to show: in an error, a log, a table."""

import inspect
import re
from collections.abc import Iterable
from pathlib import Path

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

TRACEBACKS = ("Traceback", "The following operation failed")
"""How the text of an exception begins that brings the traceback of something else along."""

PACKAGES = {"cv2": "opencv-python-headless", "PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml"}
"""What is installed under another name than it is imported by."""


def reason(error: BaseException) -> str:
    """Return the type and the informative part of an exception's text, on one line and safe to show.

    TorchScript and others put a traceback before the message, which then is the last line. A missing package comes
    with the way to get it.
    """
    lines = [line for line in map(clean, str(error).splitlines()) if line]
    text = lines[-1] if any(line.startswith(TRACEBACKS) for line in lines) else " ".join(lines)
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = clean(error.name).split(".")[0]
        text += f"; pip install {PACKAGES.get(package, package)}, or name the folder of its code in python_path"
    elif isinstance(error, SystemExit):
        text += "; the code calls sys.exit, as scripts do that parse arguments"
    elif not text and error.__traceback__:
        text = _place(error)
    name = type(error).__name__
    return (text if text.startswith(f"{name}:") else f"{name}: {text}")[:LONGEST_REASON]


def _place(error: BaseException) -> str:
    """Return where an exception was raised, for one that carries no text, such as that of ``assert``."""
    last = inspect.getinnerframes(error.__traceback__, context=0)[-1]
    return f"in {last.function}, line {last.lineno} of {Path(last.filename).name}"
