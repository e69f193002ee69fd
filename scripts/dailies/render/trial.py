"""Trial: whether a downloaded file holds a network, found out in a process without credentials, on the CPU."""

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

PATIENCE = 600
"""Seconds after which a trial is given up."""

PROGRAM = """
import sys
from pathlib import Path
sys.path.append(sys.argv[1])
from dailies.render.trial import main
main(*map(Path, sys.argv[2:]))
"""
"""What the other process runs; as in a render, this package is the last place where modules are looked for."""

LONGEST_REASON = 300
"""Characters of the reason why a file holds no network."""


@dataclass(frozen=True)
class Verdict(Record):
    """What a trial found out."""

    reason: str | None = None
    """Why the file holds no network that can be built and run; None where it does, or where that is not known."""
    unknown: str | None = None
    """Why it could not be tried."""


@dataclass(frozen=True)
class Question(Record):
    """What the other process is asked."""

    path: str
    """The downloaded file or folder."""
    model: str
    record: ModelRecord
    loading: Mapping[str, Any]
    trusted: bool
    params: Mapping[str, str]


def tried(
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
        model: the model's folder name.
        record: its discovery record.
        loading: the settings of loading.
        trusted: whether loading may run code of the file's author.
        params: the run's params.
    """
    if importlib.util.find_spec("torch") is None:
        return Verdict(unknown="torch is not installed here")
    asked = Question(path=str(path), model=model, record=record, loading=loading, trusted=trusted, params=params or {})
    environment = without_credentials(os.environ) | {"CUDA_VISIBLE_DEVICES": ""}  # the device is the renders'
    with tempfile.TemporaryDirectory(prefix="dailies-") as folder:
        question, answer = Path(folder) / "question.json", Path(folder) / "answer.json"
        asked.save(question)
        try:
            process = subprocess.run(
                [sys.executable, "-P", "-c", PROGRAM, str(Path(__file__).parents[2]), str(question), str(answer)],
                check=False,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            return Verdict(unknown=f"it was not loaded within {PATIENCE} s")
        if answer.is_file():
            return Verdict.load(answer)
        last = (process.stderr.strip().splitlines() or [""])[-1]
        return Verdict(
            unknown=clean(f"the process that loads it ended with {process.returncode}: {last}")[:LONGEST_REASON]
        )


def main(question: Path, answer: Path) -> None:
    """Answer the question in a file by another file."""
    try:
        import torch
    except Exception as error:  # a damaged installation
        told = f"torch cannot be imported ({type(error).__name__}: {clean(str(error))})"
        Verdict(unknown=told).save(answer)
        return
    torch.set_num_threads(1)  # beside renders
    _answer(Question.load(question)).save(answer)


def _answer(asked: Question) -> Verdict:
    import torch

    from dailies.models.factories import Factories
    from dailies.models.load import Hints, load_model
    from dailies.models.loaders import Loaders
    from dailies.render.engine import Engine, Settings

    path = Path(asked.path)
    try:
        model = load_model(
            path,
            hints=Hints.gather(
                asked.model,
                asked.loading,
                architecture=asked.record.architecture,
                run_hints=asked.record.hints,
                params=asked.params,
            ),
            factories=Factories.from_settings(asked.loading),
            loaders=Loaders.from_settings(asked.loading),
            trust_code=asked.trusted,
        )
        Engine(model, device=torch.device("cpu"), settings=Settings()).probe()
    except MemoryError:
        return Verdict(unknown="there is not enough memory here to load it")
    except Exception as error:  # an artifact is foreign data, and its network foreign code
        from dailies.render.job import _reason

        return Verdict(reason=clean(_reason(error, "loading", path))[:LONGEST_REASON])
    return Verdict()
