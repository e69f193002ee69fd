"""Another process that works in an output folder."""

import os
import subprocess
import sys
from pathlib import Path

from helpers import REPOSITORY

TAKE = """import sys, time
from pathlib import Path
from dailies import lock
lock.take(Path(sys.argv[1]))
print(1, flush=True)
"""


def holder(state: Path, ending: str = "time.sleep(60)") -> subprocess.Popen:
    """Start another process that takes the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE + ending, str(state)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "scripts")},
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"1\n"
    return process
