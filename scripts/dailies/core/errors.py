"""Errors whose text is for the user: what is wrong, which one, what to do."""


class DailiesError(Exception):
    """Base of every error that a user can act on.

    Raise it with a code and a message: ``StoreUnreachable("store.unreachable", f"{uri} does not answer; ...")``. The
    code names the cause and never changes, so tests and programs may rely on it. The message is one or two complete
    sentences: what happened, to which thing, and what to do. ``str(error)`` is the message alone.
    """

    def __init__(self, code: str, message: str | None = None) -> None:
        super().__init__(code, message)
        self.code, self.message = ("", code) if message is None else (code, message)

    def __str__(self) -> str:
        return self.message


class ConfigError(DailiesError):
    """A configuration key or value that is not allowed."""


class SequenceError(DailiesError):
    """The input frames cannot be used."""


class StoreError(DailiesError):
    """MLflow answers, but not with what was asked for."""


class StoreUnreachable(StoreError):
    """The tracking server does not answer; what is already known may still be used."""


class AccessRefused(StoreError):
    """A server refuses the user's login or keys; nothing is gone on with, for only the user can mend it."""


class TransferBroken(StoreError):
    """An answer came and was cut short; the next try may bring it whole."""


class LocationRefused(StoreError):
    """Artifacts are at a place that the store may not name."""


class DownloadError(DailiesError):
    """A model's artifact cannot be fetched whole."""


class ArtifactDamaged(DownloadError):
    """The store holds a model's artifact, and it is damaged there."""


class ArtifactGone(DownloadError):
    """The store no longer holds a model's artifact."""


class LoadError(DailiesError):
    """An artifact cannot be turned into a network."""


class UnknownKind(LoadError):
    """A file is of no kind that is known to hold a network."""


class RenderError(DailiesError):
    """A network ran and its answer cannot be used."""


class PromotionError(DailiesError):
    """A model cannot be promoted as it was asked for."""


class DiskError(DailiesError):
    """What is to be rendered does not fit on the disk."""


class FolderInUse(DailiesError):
    """Another invocation works in the output folder."""
