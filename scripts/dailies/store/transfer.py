"""Transfer a file of an artifact from the store, with retries, and check that it is complete and undamaged."""

import logging
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from dailies.core.errors import AccessRefused, ArtifactDamaged, DailiesError, DownloadError
from dailies.core.files import unpacked_limit
from dailies.core.text import clean
from dailies.store.entities import StoredFile
from dailies.store.tracking import TrackingStore

log = logging.getLogger(__name__)

PAUSES = (1, 4, 15)
"""Seconds before the second, third and fourth attempt at a file."""

LONGEST_PATH = 1000
"""Characters of an artifact's path."""

ARCHIVES = (".zip", ".npz", ".whl", ".jar", ".egg", ".xlsx", ".docx", ".pptx")
"""Endings of zip files that hold no network."""


def transfer(store: TrackingStore, uri: str, file: StoredFile, folder: Path, *, is_model: bool) -> None:
    """Copy one file of an artifact location to its own path below ``folder``, and verify it.

    Raise StoreError, DownloadError or OSError if it cannot be transferred, and ArtifactDamaged if it is damaged in the
    store. ``is_model`` says whether the file is meant to hold a network.
    """
    verify(_transferred(store, uri, file, folder), clean(file.path), is_model=is_model)


def refuse_names(stored: Iterable[StoredFile]) -> None:
    """Raise DownloadError if a file's path leads outside its folder, is too long or holds control characters."""
    for file in stored:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or "\0" in file.path:
            raise DownloadError(
                "artifact.outside_run",
                f"the store names an artifact outside the run's folder: {clean(file.path)[:100]}",
            )
        if not file.path.isprintable() or len(file.path) > LONGEST_PATH:
            raise DownloadError(
                "artifact.bad_name",
                f"the name of an artifact is too long or holds control characters: {clean(file.path)[:100]}; "
                "log it under another name",
            )


def _transferred(store: TrackingStore, uri: str, file: StoredFile, folder: Path) -> Path:
    """Copy a file, with retries if the network fails or the size differs from that of the listing."""
    for pause in (*PAUSES, None):
        try:
            path = store.fetch(uri, file.path, folder)
            size = path.stat().st_size
            if file.size not in {None, size}:
                raise DownloadError(
                    "artifact.wrong_size", f"{clean(file.path)} arrived with {size} bytes instead of {file.size}"
                )
            break
        except DailiesError as error:
            if pause is None or isinstance(error, AccessRefused):
                raise
            log.warning("%s; retrying in %d s", error, pause)
            time.sleep(pause)
    return path


def verify(path: Path, name: str, *, is_model: bool = True) -> None:
    """Raise ArtifactDamaged if a file is empty, or a zip with a wrong checksum, which torch.load does not notice.

    Whether a file is a zip is decided by its content. Archives of other kinds beside a model are not checked.
    """
    if not is_model and path.name.lower().endswith(ARCHIVES):
        return
    with path.open("rb") as handle:
        start = handle.read(4)
    if not start and is_model:
        raise ArtifactDamaged("artifact.empty", f"{name} is empty in the store")
    is_zip = start == b"PK\x03\x04" or (is_model and zipfile.is_zipfile(path))
    if is_zip and (damage := _zip_damage(path)):
        raise ArtifactDamaged("artifact.damaged", f"{name} is damaged in the store: {damage}")


def _zip_damage(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            declared, size = sum(member.file_size for member in archive.infolist()), path.stat().st_size
            if declared > unpacked_limit(size):
                return f"it declares to hold {declared:,} bytes in {size:,}, which no model does; it is not unpacked"
            broken = archive.testzip()
    except zipfile.BadZipFile as error:
        return f"it is cut short or overwritten ({clean(str(error))})"
    except Exception as error:  # flipped bytes in its tables raise zlib.error, EOFError, …
        return f"its archive cannot be read ({type(error).__name__}: {clean(str(error))[:100]})"
    return broken and f"the checksum of {clean(broken)} is wrong"
