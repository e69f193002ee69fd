"""Status line: the last line of a terminal, which says what is running while everything else is printed above it."""

import os
import threading
from contextlib import suppress
from typing import TextIO

from dailies.core.text import elided

ERASE = "\r\x1b[2K"
"""Clears the line on which the cursor is, and moves it to its beginning (ECMA-48)."""

COLUMNS = 80
"""The width of a terminal that does not know its own."""


SHORTEST_LABEL = 12
"""Characters that are left of a label, however long the text after it is."""


class StatusLine:
    """A terminal that is written to like any text stream and that keeps one line at its end up to date.

    Several threads may write to it. What other processes print to the same terminal may end up behind the line.
    """

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._lock = threading.Lock()
        self._text = ""
        self._is_line_open = False

    def write(self, text: str) -> int:
        """Write text above the status line, which disappears until it is shown again."""
        with self._lock:
            self._erase()
            if text:
                self._is_line_open = not text.endswith("\n")
            return self._terminal.write(text)

    def flush(self) -> None:
        """Flush the terminal."""
        self._terminal.flush()

    def isatty(self) -> bool:
        """Return True."""
        return self._terminal.isatty()

    def fileno(self) -> int:
        """Return the terminal's file descriptor."""
        return self._terminal.fileno()

    def show(self, label: str, text: str) -> None:
        """Replace the status line by a label and a text, of which the label is shortened if there is no room.

        Two empty texts remove the line. Nothing happens while another line is incomplete.
        """
        width = (width_of(self._terminal) or COLUMNS) - 1
        line = elided(elided(label, max(width - len(text), SHORTEST_LABEL)) + text, width)
        with self._lock:
            if self._is_line_open or line == self._text:
                return
            self._erase()
            self._text = line
            self._terminal.write(line)
            self._terminal.flush()

    def _erase(self) -> None:
        if self._text:
            self._terminal.write(ERASE)
            self._text = ""


def width_of(stream: TextIO) -> int | None:
    """Return how many characters a line of a terminal has; None for a file or pipe. COLUMNS overrides both."""
    if (asked := os.environ.get("COLUMNS", "")).isdecimal() and int(asked):
        return int(asked)
    if not stream.isatty():
        return None
    with suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or COLUMNS
    return COLUMNS
