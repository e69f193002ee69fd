"""JSON as other programs read it."""

import json
from pathlib import Path
from typing import Any

import pytest


def strict_json(path: Path) -> Any:
    """Read a JSON file; fail on the NaN and Infinity that Python alone would accept."""

    def refuse(constant: str) -> None:
        pytest.fail(f"{path} holds {constant}, which is not JSON")

    return json.loads(path.read_bytes(), parse_constant=refuse)
