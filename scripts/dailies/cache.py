"""The model cache: downloaded models by their sha256, for several output folders and users.

``objects/`` holds files, each named by the sha256 of its bytes; ``index/`` says which of them make up which model.
"""

import hashlib
import logging
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from dailies import files
from dailies.entities import StoredFile

log = logging.getLogger(__name__)

LOGGED_MODEL = re.compile(r"/models/m-[0-9a-f]{32}/artifacts/?$")
"""Where MLflow keeps a logged model, which is written once; the artifacts of a run may be written over in place."""

BLOCK = 2**20


class ModelCache:
    """A folder of models. Whatever is wrong with it is a warning: the model is fetched from its store then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key(self, store: str, uri: str, wanted: Iterable[StoredFile]) -> str | None:
        """Name a model that is the same for ever; None for one of which that is not known.

        Its id is MLflow's, random and never given twice. The sizes that its store lists now are part of the name.
        """
        sizes = [[file.path, file.size] for file in wanted]
        if not LOGGED_MODEL.search(uri) or any(size is None for _, size in sizes):
            return None
        return files.digest([store, uri, sorted(sizes)])

    def fetch(self, key: str, wanted: Iterable[StoredFile], folder: Path) -> bool:
        """Copy a model's files below ``folder``, each under its own path, and tell whether all are there, whole.

        Their bytes are compared with their sha256 as they are copied; an entry that is damaged is taken out.
        """
        try:
            known = dict(files.read_json(self._index(key)))
            return all(self._copied(known[file.path], folder / file.path) for file in wanted)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._warn("a model was not served", error)
        except (ValueError, TypeError, KeyError) as error:
            self._warn(f"the entry {self._index(key)} cannot be read", error)
            self._remove(self._index(key))
        return False

    def keep(self, key: str, wanted: Iterable[StoredFile], folder: Path) -> None:
        """Take in a model whose verified files are below ``folder``; several jobs and users may do so at once."""
        try:
            known = {file.path: self._stored(folder / file.path) for file in wanted}
            self._put(self._index(key), files.dump_json(known))
        except OSError as error:
            self._warn("a model was not kept", error)

    def _copied(self, sha256: str, target: Path) -> bool:
        source = self._object(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as read, target.open("wb") as write:
            found = _copy(read, write)
        if found == sha256:
            return True
        log.warning("model cache: %s is damaged and is fetched again", source)
        self._remove(source)
        return False

    def _stored(self, path: Path) -> str:
        sha256 = files.sha256_of(path)
        if not self._object(sha256).is_file():
            self._put(self._object(sha256), path)
        return sha256

    def _put(self, place: Path, content: Path | bytes) -> None:
        """Put a file in its place in one step, with the rights that the cache's own folder gives."""
        self._folder.mkdir(parents=True, exist_ok=True)
        mode = self._folder.stat().st_mode
        for folder in (place.parent.parent, place.parent):
            if folder != self._folder and not folder.is_dir():
                folder.mkdir(exist_ok=True)
                with suppress(PermissionError):  # another user has just made it
                    folder.chmod(mode & 0o7777)
        temporary = place.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("wb") as write:
                if isinstance(content, bytes):
                    write.write(content)
                else:
                    with content.open("rb") as read:
                        _copy(read, write)
            temporary.chmod(mode & 0o666)
            temporary.replace(place)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._warn(f"{path} cannot be deleted", error)

    def _warn(self, what: str, error: Exception) -> None:
        why: Any = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}"
        log.warning("model cache %s: %s: %s; the model itself is not concerned", self._folder, what, why)

    def _object(self, sha256: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError(sha256)
        return self._folder / "objects" / sha256[:2] / sha256

    def _index(self, key: str) -> Path:
        return self._folder / "index" / key[:2] / f"{key}.json"


def _copy(source: BinaryIO, target: BinaryIO) -> str:
    """Copy a file and give the sha256 of what was copied."""
    digest = hashlib.sha256()
    while block := source.read(BLOCK):
        digest.update(block)
        target.write(block)
    return digest.hexdigest()
