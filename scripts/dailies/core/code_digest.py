"""The digest of the code behind a script. If an update of the project changes it, the script runs again."""

import hashlib
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]

IMPORTS = re.compile(
    rf"^[ \t]*(?:from ({PACKAGE.name}(?:\.\w+)*) import (\([^)]*\)|[^\n#]+)|import ({PACKAGE.name}(?:\.\w+)+))",
    re.MULTILINE,
)
"""The statements that import modules of this package, including those inside functions."""

TYPES = re.compile(r"^if TYPE_CHECKING:\n(?:(?:[ \t].*)?\n)*", re.MULTILINE)
"""The imports for type checkers, on which no result depends."""

COPIED = {"compare": "compare/web"}
"""The folders whose files a script copies into its result, by the script's name."""


def digest(script: Path) -> str:
    """Return the digest of the files behind a script.

    It depends on their names and contents, not on where the project lies or when they were written.
    """
    total = hashlib.sha256()
    for path in sorted(files_behind(script)):
        total.update(f"{path.relative_to(PACKAGE.parent)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def files_behind(script: Path) -> set[Path]:
    """Return a script, all modules of this package that it imports, and the files that it copies into its result."""
    found = {script}
    todo = [script]
    while todo:
        new = imported_by(todo.pop()) - found
        found |= new
        todo += new
    copied = (PACKAGE / COPIED[script.stem]).rglob("*") if script.stem in COPIED else ()
    return found | {path for path in copied if path.is_file()}


@lru_cache(maxsize=256)
def imported_by(path: Path) -> frozenset[Path]:
    """Return the files of the modules that a file imports, and of the packages that hold them."""
    text = TYPES.sub("", path.read_text(encoding="utf-8"))
    modules = {module for match in IMPORTS.finditer(text) for module in _named(match)}
    parts = (module.split(".")[1:] for module in modules)
    return frozenset(file for names in parts for end in range(len(names) + 1) for file in _files(PACKAGE, *names[:end]))


def _named(match: re.Match[str]) -> Iterator[str]:
    """Yield every name in an import statement that may be a module, including the names imported from a package."""
    origin, imported, whole = match.groups()
    yield whole or origin
    for name in re.findall(r"(\w+)(?: +as +\w+)?", imported or ""):
        yield f"{origin}.{name}"


@cache
def _files(package: Path, *names: str) -> tuple[Path, ...]:
    place = package.joinpath(*names)
    return tuple(file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())
