"""Artifact locations: which ones may be read, and where their files are on this machine."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dailies.core.text import clean, elided, redacted

WEB = re.compile(
    r"(https?|mlflow-artifacts):(?://([^/?#\\@\s]*)(?:/[^\x00-\x1f\\]*)?|(?!//)[^\x00-\x1f\\]*)", re.IGNORECASE
)
"""An address that MLflow sends credentials to. One that clients parse differently (``@``, backslash) does not match."""

AZURE = re.compile(
    r"abfss://[^/@\\]+@[\w-]+\.dfs\.(core\.(windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)|fabric\.microsoft\.com)"
    r"(:443)?(/.*)?",
    re.IGNORECASE,
)
"""Azure's own data lakes: MLflow sends its Azure token to whatever host the location names."""

LOCAL = frozenset({"", "file"})
"""Schemes of paths on this machine's disks."""

FIXED = LOCAL | {"http", "https", "mlflow-artifacts", "runs", "models"}
"""Schemes that ``allowed_artifact_schemes`` cannot contain: local paths, web servers, references to a run or model."""

LONGEST, LONGEST_HOST = 150, 50
"""Characters that a message shows of a location, and of its host where it is repeated in an example."""


@dataclass(frozen=True)
class Locations:
    """The artifact locations that may be read for one store.

    These are its own server (or local paths, if the store is local), the allowed schemes, and all remapped locations.
    """

    server: str | None
    """The address of an http(s) tracking server; None for a store on disk."""
    schemes: Collection[str]
    """The setting ``allowed_artifact_schemes``."""
    remap: Mapping[str, str]
    """The setting ``artifact_remap``: the user trusts what it maps, so remapped locations are never refused."""

    def place(self, location: str) -> str:
        """Return the location with ``artifact_remap`` applied; the longest matching prefix wins."""
        return self._remapped(location) or location

    def folder(self, location: str) -> Path | None:
        """Return the local folder of a location, remapped; None if the location is not local or must not be read."""
        if self.refusal(location):
            return None
        place = path_of(self.place(location))
        return Path(place) if place and _scheme(place) == "" else None

    def refusal(self, location: str) -> str | None:
        """Return why this location must not be read, and what the user can do about it; None if it may be read.

        The text begins with the location.
        """
        if self.server and ".." in unquote(location).replace("\\", "/").split("/"):
            return f"{_shown(location)}, which leaves its folder with '..'; correct it in the store"
        allowed = not location or self._remapped(location) is not None or self._is_allowed(location)
        return None if allowed else self._reason(location)

    def _is_allowed(self, location: str) -> bool:
        scheme = _scheme(location)
        if match := WEB.fullmatch(location):
            return self._is_own_server(match[1].lower(), match[2])
        if scheme in LOCAL:
            return self.server is None
        if scheme not in self.schemes or scheme in FIXED:
            return False
        return scheme != "abfss" or AZURE.fullmatch(location) is not None

    def _reason(self, location: str) -> str:
        scheme, shown = _scheme(location), _shown(location)
        if scheme in LOCAL:
            return (
                f"{shown}, a path on this machine, which a server is not trusted to name; "
                "if your files are there, set artifact_remap, for example {/mnt/mlruns: /mnt/mlruns}"
            )
        if WEB.fullmatch(location) or (scheme == "abfss" and scheme in self.schemes):
            host = elided("/".join(shown.split("/")[:3]), LONGEST_HOST)
            return (
                f"{shown}, another host than the store's own, which would receive your credentials; "
                f"if you trust it, set artifact_remap, for example {{{host}: {host}}}"
            )
        if scheme is None or scheme in FIXED:
            return f"{shown}, which is not an address of files; correct it in the store"
        return (
            f"{shown}, and {clean(scheme)} is not one of allowed_artifact_schemes "
            f"({', '.join(self.schemes) or 'none'}); add it there if you trust whoever writes to the store"
        )

    def _is_own_server(self, scheme: str, host: str | None) -> bool:
        if scheme == "mlflow-artifacts" and not host:
            return True
        if not (self.server and host):
            return False
        own = urlsplit(self.server)
        return _origin(own.scheme if scheme == "mlflow-artifacts" else scheme, host) == _origin(own.scheme, own.netloc)

    def _remapped(self, location: str) -> str | None:
        path = path_of(location)
        for old, new in sorted(self.remap.items(), key=lambda item: -len(item[0])):
            prefix = path_of(old).rstrip("/")
            if path == prefix or path.startswith(prefix + "/"):
                return new.rstrip("/") + path[len(prefix) :]
        return None


def path_of(location: str) -> str:
    """Return the path of a ``file:`` URI; return any other location unchanged."""
    return unquote(urlsplit(location).path) if _scheme(location) == "file" else location


def _scheme(location: str) -> str | None:
    try:
        return urlsplit(location).scheme
    except ValueError:
        return None


def _origin(scheme: str, host: str) -> tuple[str, str]:
    default = {"http": ":80", "https": ":443"}[scheme]
    return scheme, host.rpartition("@")[2].lower().removesuffix(default)


def _shown(location: str) -> str:
    return redacted(clean(location))[:LONGEST]
