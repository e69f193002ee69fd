"""Interpolation: values of an OmegaConf configuration that refer to others of its values, ``${model.width}``."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

REFERENCE = re.compile(r"\$\{(\.*)([^${}:.\s][^${}:\s]*)\}")
"""A reference to a value by its path, with a dot in front for each container up; ``${env:HOME}`` calls a function."""

DEPTH, MOST = 16, 10_000
"""How many references may lead from one to the next, and how many are followed in all."""


def resolve(root: dict[str, Any] | list[Any]) -> None:
    """Replace references within a plain configuration, in place, by the values that they refer to.

    Those that lead nowhere, or in a circle, and calls of functions stay as they are.
    """
    _resolve(root, root, (), set(), iter(range(MOST)))


def _resolve(root: Any, node: Any, path: tuple[Any, ...], seen: set[int], left: Iterator[int]) -> None:
    if id(node) in seen:
        return
    seen.add(id(node))
    for key, value in list(_items(node)):
        if isinstance(value, str):
            node[key] = _resolved(root, value, path, DEPTH, left)
        else:
            _resolve(root, value, (*path, key), seen, left)


def _items(node: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(node, dict):
        return node.items()
    return enumerate(node) if isinstance(node, list) else ()


def _resolved(root: Any, text: str, path: tuple[Any, ...], depth: int, left: Iterator[int]) -> Any:
    """Return what a text in the container at a path means: the value itself where it is one reference."""

    def found(match: re.Match[str]) -> Any:
        if next(left, None) is None:
            return match[0]
        keys = re.split(r"\.|\[", match[2].replace("]", ""))
        ups = len(match[1])
        base = path[: len(path) + 1 - ups] if ups else ()
        try:
            value, place = root, ()
            for key in (*base, *keys):
                place, value = (*place, key), value[int(key) if isinstance(value, list) else key]
        except (KeyError, IndexError, ValueError, TypeError):
            return match[0]
        is_text = isinstance(value, str) and depth
        return _resolved(root, value, place[:-1], depth - 1, left) if is_text else value

    if whole := REFERENCE.fullmatch(text):
        return found(whole)
    return REFERENCE.sub(lambda match: str(found(match)), text)
