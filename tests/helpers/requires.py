"""What a test needs of its machine."""

import os

import pytest


def lacking(what: str, reason: str) -> None:
    """Skip a test that needs ``what``, or fail it if the environment variable DAILIES_REQUIRE names that."""
    if what in os.environ.get("DAILIES_REQUIRE", "").split(","):
        pytest.fail(f"DAILIES_REQUIRE names {what}: {reason}")
    pytest.skip(f"no {what}: {reason}")
