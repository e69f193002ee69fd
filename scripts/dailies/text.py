"""Text that others wrote, made fit to show: in an error, a log, a table."""

import re


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
