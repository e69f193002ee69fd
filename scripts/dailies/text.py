"""Text that others wrote, made fit to show: in an error, a log, a table."""

import re
from collections.abc import Iterable

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


def reason(error: BaseException) -> str:
    """Return the informative line of an exception, safe to show: what kind it is and what it says.

    That is the last line of what TorchScript and torch's compiler raise, which begin with the code that failed, and
    the first line of everything else. A package that is missing is named with the way to get it.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    is_traceback = any(line.startswith(("Traceback", "The following operation failed")) for line in lines)
    text = clean(f"{type(error).__name__}: {lines[-1] if is_traceback else lines[0]}"[:400])
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.split(".")[0]
        text += f"; pip install {PACKAGES.get(package, package)}, or name the folder of its code in python_path"
    return text


PACKAGES = {"cv2": "opencv-python-headless", "PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml"}
"""What is installed under another name than it is imported by."""
