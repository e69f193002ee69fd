"""The tracking store, opened for writing. Its schema is never upgraded, and existing runs are never changed."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dailies.core.errors import StoreError, StoreUnreachable
from dailies.store import local
from dailies.store.tracking import TrackingStore, error_code, uri_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from dailies.planning.config import Settings


T = TypeVar("T")

NO_REGISTRY = frozenset({"ENDPOINT_NOT_FOUND", "FEATURE_DISABLED", "NOT_IMPLEMENTED"})
"""Error codes of servers without a model registry."""

FOLDER_STORE_DIGITS = 18
"""Digits of an experiment id in a folder store."""


class WritableStore(TrackingStore):
    """A tracking store that may be written to. Errors are those of TrackingStore."""

    def refuse_unwritable(self) -> None:
        """Raise StoreError if the store is local and cannot be written to. A server is not contacted."""
        if not self._remote:
            _ = self._writable_uri

    def refuse_without_registry(self) -> None:
        """Raise StoreError if the store has no model registry."""
        if self._folder and not self.has_registry:
            raise StoreError(
                "registry.unsupported",
                f"{self.name} has no model registry; to start one, create the folder {self._folder / local.REGISTRY}",
            )
        try:
            self.ask(lambda client: client.search_registered_models(max_results=1))
        except StoreError as error:  # StoreUnreachable, too: FEATURE_DISABLED comes with status 500
            if error_code(error) not in NO_REGISTRY:
                raise
            raise StoreError(
                "registry.unsupported",
                f"{self.name} has no model registry; start the server with a database as its store (sqlite, mysql, "
                "postgresql), or set mlflow_uri to one that has a registry",
            ) from error

    @property
    def is_local(self) -> bool:
        """Whether the store is a file or a folder on this machine."""
        return not self._remote

    def accepts_model_metrics(self, experiment_id: str) -> bool:
        """Return whether a metric of a run in this experiment may name a logged model of another experiment.

        A folder store of MLflow 3.1 to 3.17 looks for the model in the run's own experiment, and corrupts a model of
        another one. A server does not reveal its kind of store, but folder stores use random ids of 18 digits, and
        databases count from 1.
        """
        return self._folder is None and len(experiment_id) < FOLDER_STORE_DIGITS

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

    def ask(self, request: Callable[["MlflowClient"], T], *, what: str = "this") -> T:
        """Return the result of a request to MLflow. Raises StoreError, which names ``what`` was requested."""
        if self._remote:
            return super().ask(request, what=what)
        # the registry of a local store looks up logged models in the default store
        with local.as_default(self._client.tracking_uri):
            return super().ask(request, what=what)

    def _ask(
        self,
        request: Callable[[], T],
        *,
        what: str = "this",
        place: str | None = None,
        pauses: Sequence[float] = (),
    ) -> T:
        # never retried: a write whose response was cut short may have succeeded
        return super()._ask(request, what=what, place=place, pauses=())


def open_writable_store(settings: "Settings", private: Path) -> WritableStore:
    """Open the store of the settings (or of MLFLOW_TRACKING_URI) for writing.

    ``private`` is the folder for the upgraded copy of an old sqlite file. Raises StoreError, as TrackingStore does.
    """
    return WritableStore(
        uri_of(settings),
        private=private,
        artifact_remap=settings.artifact_remap,
        allowed_schemes=settings.allowed_artifact_schemes,
    )


def refuse_unwritable(settings: "Settings", private: Path) -> None:
    """Raise StoreError if the store is local and cannot be written to. An unreachable server is not an error yet."""
    with suppress(StoreUnreachable):
        open_writable_store(settings, private).refuse_unwritable()
