"""Trial: check in a separate process, without credentials and on the CPU, whether a file holds a network."""

import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dailies.core.credentials import without_credentials
from dailies.core.text import clean
from dailies.core.typed import Record
from dailies.state.records import ModelRecord

log = logging.getLogger(__name__)

TIMEOUT = 600
"""Seconds after which a trial is aborted."""

LONGEST_REASON = 300
"""Characters of the reason in a verdict."""

PROGRAM = """
import sys
from pathlib import Path
sys.path.append(sys.argv[1])
from dailies.render.trial import main
main(*map(Path, sys.argv[2:]))
"""
"""What the separate process runs; as in a render, this package comes last on the module path."""


@dataclass(frozen=True)
class Verdict(Record):
    """The result of a trial."""

    reason: str | None = None
    """Why the file holds no network that can be built and run; None if it does, or if the trial was inconclusive."""
    unknown: str | None = None
    """Why the trial was inconclusive; None if it was not."""


@dataclass(frozen=True)
class Candidate(Record):
    """The file to try and what loading it depends on, as the separate process reads it."""

    path: str
    """The downloaded file or folder."""
    model: str
    record: ModelRecord
    loading: Mapping[str, Any]
    trusted: bool
    params: Mapping[str, str]


def try_candidate(
    path: Path,
    *,
    model: str,
    record: ModelRecord,
    loading: Mapping[str, Any],
    trusted: bool,
    params: Mapping[str, str] | None = None,
) -> Verdict:
    """Build the network that a file or an MLflow folder holds, and run a small tensor through it.

    Args:
        path: the downloaded file or folder.
        model: the name of the model's folder.
        record: its discovery record.
        loading: the settings that loading depends on.
        trusted: whether loading may run code that the artifact contains.
        params: the run's params.
    """
    if importlib.util.find_spec("torch") is None:
        return Verdict(unknown="torch is not installed here")
    candidate = Candidate(
        path=str(path), model=model, record=record, loading=loading, trusted=trusted, params=params or {}
    )
    environment = without_credentials(os.environ) | {"CUDA_VISIBLE_DEVICES": ""}  # render jobs need the device
    with tempfile.TemporaryDirectory(prefix="dailies-") as folder:
        question, answer = Path(folder) / "candidate.json", Path(folder) / "verdict.json"
        candidate.save(question)
        try:
            process = subprocess.run(
                [sys.executable, "-P", "-c", PROGRAM, str(Path(__file__).parents[2]), str(question), str(answer)],
                check=False,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            return Verdict(unknown=f"it was not loaded within {TIMEOUT} s")
        if answer.is_file():
            return Verdict.load(answer)
        last = (process.stderr.strip().splitlines() or [""])[-1]
        return Verdict(
            unknown=clean(f"the process that loads it ended with {process.returncode}: {last}")[:LONGEST_REASON]
        )


def main(question: Path, answer: Path) -> None:
    """Read the candidate from one file, try it, and write the verdict to another: the separate process."""
    try:
        import torch
    except Exception as error:  # a damaged installation
        Verdict(unknown=f"torch cannot be imported ({type(error).__name__}: {clean(str(error))})").save(answer)
        return
    torch.set_num_threads(1)  # render jobs run at the same time
    _verdict(Candidate.load(question)).save(answer)


def _verdict(candidate: Candidate) -> Verdict:
    import torch

    from dailies.render import loading
    from dailies.render.engine import Engine, Settings

    path = Path(candidate.path)
    try:
        model = loading.load(
            path,
            model=candidate.model,
            record=candidate.record,
            loading=candidate.loading,
            params=candidate.params,
            trusted=candidate.trusted,
        )
        Engine(model, device=torch.device("cpu"), settings=Settings()).probe()
    except MemoryError:
        return Verdict(unknown="there is not enough memory here to load it")
    except Exception as error:  # an artifact is foreign data, and its network is foreign code
        return Verdict(reason=clean(loading.failure_reason(error, loading.LOADING, path))[:LONGEST_REASON])
    return Verdict()
