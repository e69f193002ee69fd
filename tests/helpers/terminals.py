"""Pseudo terminals."""

import fcntl
import os
import struct
import termios
from contextlib import suppress


class Terminal:
    """A terminal and what is printed to it."""

    def __init__(self, columns: int) -> None:
        self._reading, writing = os.openpty()
        fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = os.fdopen(writing, "w")

    def printed(self) -> str:
        """Close the terminal and return all that was printed."""
        self.stream.close()
        output = b""
        with suppress(OSError):  # the end: the other side is closed
            while part := os.read(self._reading, 100_000):
                output += part
        os.close(self._reading)
        return output.decode().replace("\r\n", "\n")
