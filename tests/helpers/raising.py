"""Errors in tests: their class, their code and what they name, never a whole sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from dailies.core.errors import DailiesError


@contextmanager
def refused(kind: type[DailiesError], code: str, *names: str) -> Iterator[pytest.ExceptionInfo]:
    """Expect an error of exactly this class and code, whose message holds each of ``names``."""
    with pytest.raises(kind) as caught:
        yield caught
    assert type(caught.value) is kind
    check(caught.value, code, *names)


def check(error: DailiesError, code: str, *names: str) -> None:
    """Check the code of an error, and that its message is one printable line that holds each of ``names``."""
    assert error.code == code, f"{error.code}: {error}"
    assert str(error).isprintable()
    missing = [name for name in names if name not in str(error)]
    assert not missing, f"{missing} not in: {error}"
