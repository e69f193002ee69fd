"""Layout: the names of files that several stages share."""

import shutil
from pathlib import Path

RECEIPT, DRAFT, WHOLE = "download.json", "draft", "artifact"
"""What lies in a model's folder of weights: how its download went, files that are on their way, files that arrived."""

FIRST = "first"
"""Where the files of the first candidate wait while others are tried."""


def discard(folder: Path) -> None:
    """Delete a model's files, which are rendered; the receipt stays, for other shards of the model depend on it."""
    for name in (DRAFT, WHOLE, FIRST):
        shutil.rmtree(folder / name, ignore_errors=True)
