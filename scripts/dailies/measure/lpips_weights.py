"""The files of LPIPS's weights: where they are, and their digests. Nothing here downloads them or imports torch."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from dailies.core import files
from dailies.core.errors import ConfigError

NAME = "alexnet-owt-7be5be79.pth"

PUBLISHED = "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"
"""The sha256 of the file that torchvision publishes. LPIPS is defined with these weights."""

ADVICE = f"download https://download.pytorch.org/models/{NAME} and set lpips_backbone to its path"


def path_of(setting: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the file of AlexNet's weights: the one in the settings, else the one in the cache of torch.hub."""
    cache = environ.get("XDG_CACHE_HOME", "~/.cache")
    torch_home = Path(environ.get("TORCH_HOME", f"{cache}/torch")).expanduser()
    return setting or torch_home / "hub" / "checkpoints" / NAME


def linear_weights() -> Path:
    """Return the file of the linear layers' weights in the package lpips, without importing the package.

    Raises ConfigError if the file does not exist.
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
    """Return size and modification time of both files, which change when either is written again."""
    stats = [each.stat() for each in (path, linear_weights())]
    return [number for stat in stats for number in (stat.st_size, stat.st_mtime_ns)]


def digests(path: Path) -> list[str]:
    """Return the sha256 of both files. LPIPS depends on them and on the frames, and on nothing else."""
    return [files.sha256_of(path), files.sha256_of(linear_weights())]
