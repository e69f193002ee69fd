"""Sources: the code behind a script, by whose digest results are made again after an update of the project."""

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]

IMPORTS = re.compile(
    rf"^[ \t]*(?:from ({PACKAGE.name}(?:\.\w+)*) import (\([^)]*\)|[^\n#]+)|import ({PACKAGE.name}(?:\.\w+)+))",
    re.MULTILINE,
)
"""The statements that import modules of this package, also those inside a function."""

TYPES = re.compile(r"^if TYPE_CHECKING:\n(?:(?:[ \t].*)?\n)*", re.MULTILINE)
"""The imports that only a type checker needs; no result depends on them."""

BESIDE = {"compare": "compare/web"}
"""The folders whose files are part of a script's result, by its name."""


def digest(script: Path) -> str:
    """Return the digest of a script, of all modules of this package that it imports, and of the files that it copies.

    Only contents and names count, not where the project lies or when its files were written.
    """
    found = {script}
    todo = [script]
    while todo:
        new = set(_imported(todo.pop())) - found
        found |= new
        todo += new
    beside = (PACKAGE / BESIDE[script.stem]).rglob("*") if script.stem in BESIDE else ()
    total = hashlib.sha256()
    for path in sorted([*found, *(path for path in beside if path.is_file())]):
        total.update(f"{path.relative_to(PACKAGE.parent)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


@lru_cache(maxsize=256)
def _imported(path: Path) -> frozenset[Path]:
    """Return the files of the modules that a file imports, and those of the packages that they are in."""
    text = TYPES.sub("", path.read_text(encoding="utf-8"))
    modules = {module for match in IMPORTS.finditer(text) for module in _named(match)}
    parts = (module.split(".")[1:] for module in modules)
    return frozenset(file for names in parts for end in range(len(names) + 1) for file in _files(names[:end]))


def _named(match: re.Match[str]) -> Iterator[str]:
    """Yield what an import may name as a module: what is imported from a package may be a module or something in it."""
    origin, imported, whole = match.groups()
    yield whole or origin
    for name in re.findall(r"(\w+)(?: +as +\w+)?", imported or ""):
        yield f"{origin}.{name}"


def _files(names: list[str]) -> Iterator[Path]:
    place = PACKAGE.joinpath(*names)
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            yield file
