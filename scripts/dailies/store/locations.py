"""Artifact locations: which places a store may name for its files, and where those are seen from here."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dailies.core.text import clean, redacted

WEB = re.compile(
    r"(https?|mlflow-artifacts):(?://([^/?#\\@\s]*)(?:/[^\x00-\x1f\\]*)?|(?!//)[^\x00-\x1f\\]*)", re.IGNORECASE
)
"""An address that MLflow sends credentials to; what clients read differently (``@``, a backslash) is not in it."""

AZURE = re.compile(
    r"abfss://[^/@\\]+@[\w-]+\.dfs\.(core\.(windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)|fabric\.microsoft\.com)"
    r"(:443)?(/.*)?",
    re.IGNORECASE,
)
"""Data lakes that are Azure's own: MLflow takes its Azure token to whichever host the location names."""

LOCAL = frozenset({"", "file"})
"""Schemes of places on this machine's own disks."""

FIXED = LOCAL | {"http", "https", "mlflow-artifacts", "runs", "models"}
"""Schemes that no setting allows everywhere: own disks, web servers, and what stands for another location."""

LONGEST = 200
"""Characters of a location in a sentence."""


@dataclass(frozen=True)
class Locations:
    """What a store may name: its own server, or disks when it is on disk, the schemes allowed, and what is remapped."""

    server: str | None
    """The address of an http(s) tracking server; None for a store on disk."""
    schemes: Collection[str]
    """The setting ``allowed_artifact_schemes``."""
    remap: Mapping[str, str]
    """The setting ``artifact_remap``: what it maps is the user's word, and is not refused."""

    def place(self, location: str) -> str:
        """Give the place where the files of a location are now, as ``artifact_remap`` says."""
        return self._remapped(location) or location

    def folder(self, location: str) -> Path | None:
        """Give the folder of a location on this machine's disks; None for any other place, or one that is refused."""
        if self.refusal(location):
            return None
        place = path_of(self.place(location))
        return Path(place) if place and _scheme(place) == "" else None

    def refusal(self, location: str) -> str | None:
        """Say where files would be that are not asked for, why not, and what the user can do; None when they may be."""
        if self.server and ".." in unquote(location).replace("\\", "/").split("/"):
            return f"{_shown(location)}, which climbs out of its folder with '..'; it has to be corrected in the store"
        allowed = not location or self._remapped(location) is not None or self._is_allowed(location)
        return None if allowed else self._why_not(location)

    def _is_allowed(self, location: str) -> bool:
        scheme = _scheme(location)
        if match := WEB.fullmatch(location):
            return self._is_own(match[1].lower(), match[2])
        if scheme in LOCAL:
            return self.server is None
        known = scheme in self.schemes and scheme not in FIXED
        return known and (scheme != "abfss" or AZURE.fullmatch(location) is not None)

    def _why_not(self, location: str) -> str:
        scheme, shown = _scheme(location), _shown(location)
        if scheme in LOCAL:
            return (
                f"{shown}, a place on this machine's own disks, which is not read on a server's word; "
                "if your files are there, set artifact_remap, for example {/mnt/mlruns: /mnt/mlruns}"
            )
        if WEB.fullmatch(location) or (scheme == "abfss" and scheme in self.schemes):
            host = "/".join(shown.split("/")[:3])
            return (
                f"{shown}, another host than the store's own, to which your credentials would be sent; "
                f"if you trust it, set artifact_remap, for example {{{host}: {host}}}"
            )
        if scheme is None or scheme in FIXED:
            return f"{shown}, which is no address of files; it has to be corrected in the store"
        return (
            f"{shown}, and {clean(scheme)} is not one of allowed_artifact_schemes "
            f"({', '.join(self.schemes) or 'none'}); add it there if you trust whoever writes to the store"
        )

    def _is_own(self, scheme: str, host: str | None) -> bool:
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
    """Give the path of a ``file:`` URI; any other location stays as it is."""
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
