"""Errors that a user can act on."""

from typing import Any


class DailiesError(Exception):
    """Base of every error that a user can act on.

    Raise it with a code and a message: ``StoreUnreachable("store.unreachable", f"{uri} does not answer; ...")``. The
    code names the cause and never changes, so tests and programs may rely on it. The message is one or two complete
    sentences: what happened, to which thing, and what to do. ``str(error)`` is the message alone.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """Recreate a pickled error, even if the constructor of its class takes other arguments."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[DailiesError], arguments: tuple[str, ...], state: dict[str, Any]) -> DailiesError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


class ConfigError(DailiesError):
    """A configuration key or value is not allowed."""


class SequenceError(DailiesError):
    """The input frames cannot be used."""


class StoreError(DailiesError):
    """MLflow does not have the requested item, or rejects the request."""


class StoreUnreachable(StoreError):
    """The tracking server does not answer. What is already known of it may still be used."""


class AccessRefused(StoreError):
    """A server rejected the user's credentials. Not retried: only the user can fix this."""


class TransferBroken(StoreError):
    """The connection was lost in the middle of a response. A retry may succeed."""


class LocationRefused(StoreError):
    """A run's artifacts are at a location that this store may not name."""


class DownloadError(DailiesError):
    """A model's artifact cannot be downloaded completely."""


class ArtifactDamaged(DownloadError):
    """The store holds a model's artifact, but the copy in the store is damaged."""


class ArtifactGone(DownloadError):
    """The store no longer holds a model's artifact."""


class LoadError(DailiesError):
    """An artifact cannot be turned into a network."""


class UnknownKind(LoadError):
    """A file is of an unknown kind, or of one that never holds a network."""


class RenderError(DailiesError):
    """A network ran, but its output cannot be used."""


class PromotionError(DailiesError):
    """A model cannot be promoted as requested."""


class VotesError(DailiesError):
    """Votes of a blind test cannot be counted."""


class DiskError(DailiesError):
    """What is to be written does not fit on the disk."""


class BundleError(DailiesError):
    """The comparison page cannot be put into one file."""


class FolderInUse(DailiesError):
    """Another invocation uses the output folder."""
