"""Another process that works in an output folder."""

import os
import subprocess
import sys

from dailies.state.layout import Layout

from helpers import REPOSITORY

TAKE = """import sys, time
from pathlib import Path
from dailies.state import layout, lock
lock.take(layout.Layout(Path(sys.argv[1])))
print(1, flush=True)
"""


def holder(layout: Layout, ending: str = "time.sleep(60)") -> subprocess.Popen:
    """Start another process that takes the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE + ending, str(layout.output_dir)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "scripts")},
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"1\n"
    return process
