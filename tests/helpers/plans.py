"""Plans of an invocation, which Snakemake makes in this process; it is forked for none and no job runs."""

import sys

import pytest
import yaml
from snakemake.cli import main
from snakemake.logging import logger

from helpers import REPOSITORY
from helpers.studio import Studio


def planned(studio: Studio, monkeypatch: pytest.MonkeyPatch, *arguments: str, **config) -> str:
    """Let Snakemake plan in a studio, whose ``config`` changes; return what it prints."""
    (studio.root / "config" / "config.yaml").write_text(yaml.safe_dump(studio.config | config))
    command = ["-s", str(REPOSITORY / "Snakefile"), *studio.machine, *studio.verbosity, "-n", *arguments]
    handlers, level = logger.handlers[:], logger.level
    output = studio.root / "planned.txt"
    with monkeypatch.context() as patch, output.open("w") as file:
        patch.chdir(studio.root)
        patch.setattr(sys, "argv", ["snakemake", *command])
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(sys, "stdout", file)
        patch.setattr(sys, "stderr", file)
        try:
            with pytest.raises(SystemExit) as ended:
                main(command)
        finally:
            logger.handlers[:] = handlers
            logger.setLevel(level)
    assert ended.value.code == 0, output.read_text()
    return output.read_text()
