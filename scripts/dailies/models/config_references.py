"""Resolve references between values of an OmegaConf configuration, such as ``${model.width}``."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

REFERENCE = re.compile(r"\$\{(\.*)([^${}:.\s][^${}:\s]*)\}")
"""A reference to a value by its path; leading dots make it relative. ``${env:HOME}``, which calls a function, does not
match."""

DEPTH, MOST = 16, 10_000
"""The longest chain of references, and the number of references that are followed in all."""


def resolve(root: dict[str, Any] | list[Any]) -> None:
    """Replace the references in a plain configuration, in place, by the values that they refer to.

    References that lead nowhere or in a circle, and calls of functions, are left as they are.
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
    """Return a text from the container at ``path`` with its references replaced.

    If the text is a single reference, the value is returned itself, whatever its type.
    """

    def found(match: re.Match[str]) -> Any:
        if next(left, None) is None:
            return match[0]
        keys = re.split(r"\.|\[", match[2].replace("]", ""))
        ups = len(match[1])
        base = path[: len(path) + 1 - ups] if ups else ()
        try:
            value, place = root, tuple[Any, ...]()
            for key in (*base, *keys):
                place, value = (*place, key), value[int(key) if isinstance(value, list) else key]
        except (KeyError, IndexError, ValueError, TypeError):
            return match[0]
        is_text = isinstance(value, str) and depth
        return _resolved(root, value, place[:-1], depth - 1, left) if is_text else value

    if whole := REFERENCE.fullmatch(text):
        return found(whole)
    return REFERENCE.sub(lambda match: str(found(match)), text)
