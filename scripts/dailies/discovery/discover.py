"""Discovery: find the models in the snapshot of MLflow, and record each of them."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dailies.core import files
from dailies.core.typed import save_all
from dailies.discovery.model_records import record_models
from dailies.discovery.selection import AMENDABLE, Selection, first_reason, survey
from dailies.discovery.snapshot import SavedSnapshot, Skipped, Snapshot
from dailies.state.layout import Layout

if TYPE_CHECKING:
    from dailies.planning.config import Settings


log = logging.getLogger(__name__)


def discover(settings: "Settings", *, fingerprint: str, layout: Layout) -> None:
    """Find the models in the snapshot with this ``fingerprint`` and record them; write the index last.

    ``models/{model}.json`` holds only what matters for rendering, ``runs/{model}.json`` the rest. A record that would
    not change is not touched. Skipped runs are listed in ``skipped.json``. MLflow is not contacted. Raise
    StoreError if the snapshot is missing.
    """
    saved = SavedSnapshot.load_planned(layout.snapshot, fingerprint)
    surveyed = survey(saved.snapshot, Selection.from_settings(settings))
    skipped = (*surveyed.skipped, *saved.unseen)
    names = record_models(surveyed.found, settings.folder_name, layout)
    save_all(skipped, layout.skipped)
    for run in skipped:
        log.info("skipped: run %s (%s): %s", run.run_id, run.run_name, run.reason)
    _warn_of_unread_models(saved.snapshot)
    index = {
        "fingerprint": fingerprint,
        "selection": saved.selection,
        "models": names,
        "warning": _warning(skipped),
    }
    files.write_json(layout.index, index)
    log.info("%d models found, %d runs skipped", len(names), len(skipped))


def _warn_of_unread_models(snapshot: Snapshot) -> None:
    """Warn of logged models that cannot be listed; their runs are not skipped if they hold other files."""
    for model in (model for models in snapshot.logged.values() for model in models):
        listing = snapshot.listings.get(model.artifact_uri)
        if listing and listing.error:
            log.warning("a logged model of run %s is ignored: %s", model.run_id, listing.error)


def _warning(skipped: Sequence[Skipped]) -> str | None:
    """Return a warning about runs that are skipped although they may hold models and no filter excludes them."""
    lost = [run for run in skipped if run.kind in AMENDABLE]
    if not lost:
        return None
    return f"runs skipped because their artifacts cannot be read: {len(lost)}. For the first, {first_reason(lost)}"
