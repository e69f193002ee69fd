"""The ledger: the tracking store, opened to add to it. What is there already is never changed or upgraded."""

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dailies.core.errors import StoreError, StoreUnreachable
from dailies.store import local
from dailies.store.tracking import TrackingStore, error_code, uri_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from dailies.planning.config import Settings


T = TypeVar("T")

NO_REGISTRY = frozenset({"ENDPOINT_NOT_FOUND", "FEATURE_DISABLED", "NOT_IMPLEMENTED"})
"""What a server answers that keeps no registered models."""


FOLDER_DIGITS = 18
"""Digits of the id that a folder store gives an experiment."""


class Ledger(TrackingStore):
    """A tracking store that may be written to. Every error is a StoreError in words, as in a TrackingStore."""

    def refuse_unwritable(self) -> None:
        """Raise StoreError when the store is on disk and cannot be written to; nothing is asked of a server."""
        if not self._remote:
            _ = self._writable_uri

    def refuse_without_registry(self) -> None:
        """Raise StoreError when the store keeps no registered models."""
        if not self.has_registry:
            raise StoreError(
                "registry.unsupported",
                f"{self.name} keeps no registered models; to let it begin with them, "
                f"make the folder {self._folder / local.REGISTRY}",
            )
        try:
            self.ask(lambda client: client.search_registered_models(max_results=1))
        except StoreUnreachable:
            raise
        except StoreError as error:
            if error_code(error) not in NO_REGISTRY:
                raise
            raise StoreError(
                "registry.unsupported",
                f"{self.name} keeps no registered models; start the server with a database as its store (sqlite, "
                "mysql, postgresql), or set mlflow_uri to one that has them",
            ) from error

    @property
    def is_local(self) -> bool:
        """Whether the store is a file or a folder on this machine."""
        return not self._remote

    def tells_metrics_of_models(self, experiment_id: str) -> bool:
        """Tell whether the metric of a run in this experiment may name the logged model of another that it is of.

        A folder store of MLflow 3.1 to 3.17 looks for the model in the run's own experiment, and damages it elsewhere.
        A server does not say what it stores in: folder stores draw ids of 18 digits, databases count from 1.
        """
        return self._folder is None and len(experiment_id) < FOLDER_DIGITS

    @cached_property
    def _writable_uri(self) -> str:
        if self._file:
            return local.writable_sqlite(self._file)
        return local.writable_folder(self._folder) if self._folder else self._uri

    @cached_property
    def _client(self) -> "MlflowClient":
        uri = self._writable_uri
        from mlflow import MlflowClient

        return self._ask(lambda: MlflowClient(tracking_uri=uri, registry_uri=uri))

    def ask(self, question: Callable[["MlflowClient"], T], **about: Any) -> T:
        """Put a question or an order to MLflow. Raises StoreError for whatever MLflow raises."""
        if self._remote:
            return super().ask(question, **about)
        # the registry of a store on disk looks up logged models in the default store
        with local.as_default(self._client.tracking_uri):
            return super().ask(question, **about)

    def _ask(self, question: Callable[[], T], **about: Any) -> T:
        # an order whose answer was cut short may have been carried out: given again, it would be so twice
        return super()._ask(question, **(about | {"pauses": ()}))


def open_ledger(settings: "Settings", private: Path) -> Ledger:
    """Open the store that the settings name, to add to it.

    ``private`` is the folder for the upgraded copy of an old one. Raises StoreError when it cannot be written without
    changing more.
    """
    return Ledger(
        uri_of(settings),
        private=private,
        artifact_remap=settings.artifact_remap,
        allowed_schemes=settings.allowed_artifact_schemes,
    )


def refuse_unwritable(settings: "Settings", private: Path) -> None:
    """Raise StoreError when nothing can be written to a store on disk; a server is asked when there is something."""
    with suppress(StoreUnreachable):
        open_ledger(settings, private).refuse_unwritable()
