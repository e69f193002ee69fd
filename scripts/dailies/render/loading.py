"""Load a model according to its discovery record and the settings; describe why loading or rendering failed."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dailies.core import files
from dailies.core.errors import DailiesError
from dailies.core.text import cause
from dailies.models.factories import Factories
from dailies.models.load import Hints, Model, load_model
from dailies.models.loaders import Loaders
from dailies.render.network import SIZE_ERROR
from dailies.state.records import ModelRecord

log = logging.getLogger(__name__)

LOADING, RENDERING = "loading", "rendering"

SIZE_HINT = "if frames have a size that the network does not take, set multiple, most or tile in signatures"


def load(
    path: Path,
    *,
    model: str,
    record: ModelRecord,
    loading: Mapping[str, Any],
    params: Mapping[str, str],
    trusted: bool,
) -> Model:
    """Build the network that a downloaded artifact holds.

    Args:
        path: the downloaded file or folder.
        model: the name of the model's folder.
        record: its discovery record.
        loading: the settings that loading depends on.
        params: the run's params.
        trusted: whether loading may run code that the artifact contains.

    Raises:
        Exception: the artifact is foreign data, and factories are foreign code.
    """
    hints = Hints.gather(model, loading, architecture=record.architecture, run_hints=record.hints, params=params)
    return load_model(
        path,
        hints=hints,
        factories=Factories.from_settings(loading),
        loaders=Loaders.from_settings(loading),
        trust_code=trusted,
    )


def failure_reason(error: Exception, action: str, place: Path) -> str:
    """Return in one sentence why ``LOADING`` or ``RENDERING`` failed; log the traceback of an unexpected error.

    ``place`` is the file or folder to name if an OSError does not name one.
    """
    if isinstance(error, DailiesError):
        return str(error)
    if isinstance(error, OSError):
        return files.reason(error, place)
    log.error("%s failed", action, exc_info=error)
    reason = f"{action} failed with {cause(error)}"
    return f"{reason}; {SIZE_HINT}" if action == RENDERING and SIZE_ERROR.search(reason) else reason
