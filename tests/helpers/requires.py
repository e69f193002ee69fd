"""What a test needs of its machine."""

import os

import pytest


def required(what: str) -> bool:
    """Tell whether the environment variable DAILIES_REQUIRE names ``what``."""
    return what in os.environ.get("DAILIES_REQUIRE", "").split(",")


def lacking(what: str, reason: str) -> None:
    """Skip a test for want of ``what``; fail where the environment variable DAILIES_REQUIRE names it."""
    if required(what):
        pytest.fail(f"DAILIES_REQUIRE names {what}: {reason}")
    pytest.skip(f"no {what}: {reason}")
