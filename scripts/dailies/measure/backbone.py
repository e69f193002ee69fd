"""The backbone of LPIPS: where the file of AlexNet's weights is, and whether it holds them. It is never downloaded."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from dailies.core import files
from dailies.core.errors import ConfigError

NAME = "alexnet-owt-7be5be79.pth"

PUBLISHED = "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"
"""The sha256 of the file as torchvision's authors publish it, which LPIPS is defined with."""

ADVICE = f"download https://download.pytorch.org/models/{NAME} and name the file in lpips_backbone"


def place(named: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Say where the file is: as the user named it, else where torch.hub keeps what torchvision downloads."""
    cache = environ.get("XDG_CACHE_HOME", "~/.cache")
    torch_home = Path(environ.get("TORCH_HOME", f"{cache}/torch")).expanduser()
    return named or torch_home / "hub" / "checkpoints" / NAME


def linear() -> Path:
    """Say where the package lpips keeps the weights of its linear layers; the package is not imported.

    Raises ConfigError where they are not there.
    """
    package = find_spec("lpips")
    path = Path(package.origin).parent / "weights" / "v0.1" / "alex.pth" if package and package.origin else None
    if path is None or not path.is_file():
        raise ConfigError(
            "measure.lpips_incomplete",
            "the package lpips lacks weights/v0.1/alex.pth; pip install --force-reinstall --no-deps lpips",
        )
    return path


def stamp(path: Path) -> list[int]:
    """Give what changes when the file, or the package, is written again; nothing is read."""
    stats = [each.stat() for each in (path, linear())]
    return [number for stat in stats for number in (stat.st_size, stat.st_mtime_ns)]


def digests(path: Path) -> list[str]:
    """Give the sha256 of the file and of the linear layers' weights: with the frames, all that LPIPS depends on."""
    return [files.sha256_of(path), files.sha256_of(linear())]
