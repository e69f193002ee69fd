"""The map of the package, ``scripts/dailies/README.md``, is complete, in import order, and names only what exists."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import REPOSITORY

PACKAGE = REPOSITORY / "scripts" / "dailies"
MAP = (PACKAGE / "README.md").read_text()

PLACES = [
    (match[1], re.findall(r"`([\w.]+)`", match[2]))
    for match in re.finditer(r"\]\(([\w/.]+)\)((?: ?,? ?`[\w.]+`)*)", MAP)
]
"""The files that the map links to, each with the names that follow the link."""


def layers() -> list[set[str]]:
    """Return the packages that may import each other one way, the lowest first, as import-linter checks them."""
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (ordered,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return [{name.strip().removeprefix("dailies.") for name in layer.split("|")} for layer in reversed(ordered)]


def defined(path: Path) -> Iterator[str]:
    """Yield the functions, classes, methods and constants of a module."""
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.FunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name, body=body):
                yield name
                yield from (f"{name}.{each.name}" for each in body if isinstance(each, ast.FunctionDef))
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def test_every_package_has_a_line_in_import_order():
    listed = re.findall(r"^\| `(\w+)` \|", MAP, re.MULTILINE)
    assert set(listed) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    rank = {package: number for number, layer in enumerate(layers()) for package in layer}
    assert listed == sorted(listed, key=rank.__getitem__)


def test_the_order_that_the_map_draws_is_the_one_that_is_checked():
    (drawn,) = re.findall(r"^    (core < .+)$", MAP, re.MULTILINE)
    assert [set(layer.split(", ")) for layer in drawn.split(" < ")] == [*layers(), {"rules", "scripts"}]


@pytest.mark.parametrize(("file", "names"), [place for place in PLACES if place[0].endswith(".py")])
def test_the_functions_that_the_map_names_are_in_the_files_beside_them(file: str, names: list[str]):
    assert not {*names} - {*defined(PACKAGE / file)}


def test_every_question_has_an_answer():
    rows = re.findall(r"^\| .+ \| (.+) \|$", MAP.partition("| To find out")[2], re.MULTILINE)
    assert len(rows) >= 15
    assert all(re.match(r"\[[\w/.]+\]\(", row) for row in rows)
    assert all(title == file for title, file in re.findall(r"\[(\w+/[\w/.]+)\]\(([\w/.]+)\)", MAP))
    assert all((PACKAGE / file).exists() for file, _ in PLACES)


@pytest.mark.parametrize("package", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_the_entry_points_that_a_package_names_exist(package: str):
    text = ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text())) or ""
    named = re.findall(r"``(\w+)\.(\w+)``", text)
    assert not [f"{module}.{name}" for module, name in named if name not in defined(PACKAGE / package / f"{module}.py")]
