"""Labels: short names by which people tell models apart, in lists, captions, menus, tables and pictures."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from dailies.core.files import digest
from dailies.core.text import clean, elided

LONGEST_NAME = 32
"""Characters of a name. The middle of a longer one is left out."""

SHORTEST_NAME = 8
"""Characters that a name keeps, however long the params are."""

LONGEST_VALUE = 12
"""Characters of a param's value."""

SHORT_NAME = 20
"""Characters of a name that needs no shortening. In a sentence, params replace longer ones if they say the same."""

MOST_PARAMS = 3
"""Params that a label lists at most."""

SHORTEST_BEGINNING = 4
"""Characters of a common beginning or end that are worth dropping."""

SEPARATORS = "_-/. :"

SEPARATOR = re.compile(r"[_/ :]|(?<!\d)\.|\.(?!\d)|(?<!\de)-(?!e\d)")
"""A separator, but not a character of a number such as 0.001 or 1e-3, read in either direction."""

TELLING = {
    "lr": ("lr", "learning_rate", "base_lr", "max_lr"),
    "wd": ("wd", "weight_decay"),
    "loss": ("loss", "loss_fn", "loss_function", "criterion"),
    "arch": ("arch", "architecture", "model", "model_name"),
    "opt": ("opt", "optim", "optimizer"),
    "batch": ("batch", "bs", "batch_size", "train_batch_size"),
    "epochs": ("epochs", "max_epochs", "num_epochs"),
}
"""Short names of well-known params, the most informative first, and the spellings that trainers use."""

WEAK = re.compile(
    r"(?i)(^|[._/-])(seed|random_state|id|uuid|hash|sha|commit|path|dir|folder|file|uri|url|root|host(name)?|user|port|"
    r"time(stamp)?|date|started?|created|version|name|notes?|description|num_workers|workers|device|gpus?|rank)$"
)
"""Keys of params that identify a run without saying how its training differed."""

MEANINGLESS = re.compile(r"[/\\]|^[{\[(]|^[0-9a-f]{16,}$|^\d{4}-\d\d-\d\d|^\d{10,}$|.{25}", re.IGNORECASE)
"""Values that mean nothing to a reader: paths, structures, digests, times and prose."""


class Described(Protocol):
    """What is known of a model's run."""

    @property
    def run_id(self) -> str: ...
    @property
    def run_name(self) -> str: ...
    @property
    def params(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, kw_only=True)
class Label:
    """What distinguishes a model from the others that are shown with it."""

    name: str
    """The part of its name that differs, at most ``LONGEST_NAME`` characters and perhaps the start of an id."""
    params: str = ""
    """The params that differ, such as ``lr 1e-3 · wd 0``; empty if none do."""

    def __str__(self) -> str:
        """Return the label on one line."""
        return f"{self.name} ({self.params})" if self.params else self.name

    def within(self, most: int) -> str:
        """Return the label in at most ``most`` characters; first the name loses its middle, then the params do."""
        params = f" ({self.params})" if self.params else ""
        return elided(elided(self.name, max(most - len(params), SHORTEST_NAME)) + params, most)


def labels(models: Mapping[str, Described]) -> dict[str, Label]:
    """Return a label for each model, by the name of its folder; all labels differ.

    The beginning that all names share is dropped. If that leaves long names, the end that they share is dropped, too,
    and the middle of a name that is still too long. Up to ``MOST_PARAMS`` params follow in which the models differ: as
    few as tell them apart, the most telling first. If another model has the same name and params, the start of the
    run's id follows the name, or else a digest of the folder's name.
    """
    names = _short_names([clean(about.run_name) or folder for folder, about in models.items()])
    params = _differing_params([about.params for about in models.values()], names)
    uses = Counter(zip(names, params, strict=True))
    marks = _marks(models)
    return {
        folder: Label(name=name if uses[name, text] == 1 else f"{name} {marks[folder]}", params=text)
        for folder, name, text in zip(models, names, params, strict=True)
    }


def shortest(found: Mapping[str, Label]) -> dict[str, str]:
    """Return the shortest text that tells each model from the others, for sentences: its name, its params, or both."""
    names, params = ([getattr(label, part) for label in found.values()] for part in ("name", "params"))
    has_unique_names, has_unique_params = (len(set(texts)) == len(found) for texts in (names, params))
    if has_unique_names and max(map(len, names), default=0) <= SHORT_NAME:
        return dict(zip(found, names, strict=True))
    if has_unique_params and all(params):
        return dict(zip(found, params, strict=True))
    return {folder: label.name if has_unique_names else str(label) for folder, label in found.items()}


def _marks(models: Mapping[str, Described]) -> dict[str, str]:
    """Return a mark for each model that name and params do not distinguish: the start of the run's id, or a digest."""
    uses = Counter(about.run_id[:8] for about in models.values())
    return {
        folder: about.run_id[:8] if uses[about.run_id[:8]] == 1 else digest(folder)[:8]
        for folder, about in models.items()
    }


# Names


def _short_names(names: Sequence[str]) -> list[str]:
    """Return names without the parts that all share, none empty; names that differ stay different."""
    different = list(dict.fromkeys(names))
    start = _common_beginning(different)
    rest = [name[start:] for name in different]
    is_long = max(map(len, rest), default=0) > SHORT_NAME
    end = _common_beginning([name[::-1] for name in rest]) if is_long else 0
    cut = [f"{name[: len(name) - end].rstrip(SEPARATORS)}…" if end else name for name in rest]
    short = [elided(name, LONGEST_NAME) for name in cut]
    uses = Counter(short)
    for place, name in enumerate(short):
        if uses[name] > 1:  # the part in which these differ is in the middle
            short[place] = _window(cut[place], [each for each in cut if elided(each, LONGEST_NAME) == name])
    by_name = dict(zip(different, short, strict=True))
    return [by_name[name] for name in names]


def _common_beginning(names: Sequence[str]) -> int:
    """Return how many characters all names begin with, in whole words; 0 if they are too few, or all of a name."""
    if len(names) < 2:
        return 0
    shared = _shared(names)
    lengths = [found.end() for found in SEPARATOR.finditer(names[0]) if found.end() <= shared]
    whole = [length for length in lengths if all(name[length:].strip(SEPARATORS) for name in names)]
    length = max(whole, default=0)
    return length if length >= SHORTEST_BEGINNING else 0


def _shared(names: Sequence[str]) -> int:
    """Return how many characters all names begin with."""
    return sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)))


def _window(name: str, alike: Sequence[str]) -> str:
    """Return a long name from just before the first character in which it differs from any of those like it."""
    start = min(_shared([name, other]) for other in alike if other != name)
    return f"{name[:6]}…{name[max(6, start - 4) : start + LONGEST_NAME - 12]}"


# Params


def _differing_params(all_params: Sequence[Mapping[str, str]], names: Sequence[str]) -> list[str]:
    """Return, for each model, the params that tell the models apart, as text.

    Params that say little of a training, such as seeds, are used only if the models have the same ``names`` without.
    """
    values = _columns(all_params)
    by_worth = sorted(values, key=lambda key: _worth(key, values[key]))
    chosen: list[str] = []
    for candidates in ([key for key in by_worth if not WEAK.search(key)], by_worth):
        while len(chosen) < MOST_PARAMS and (key := _most_telling(candidates, chosen, values)):
            chosen.append(key)
        if _groups([names, *(values[key] for key in chosen)]) == len(all_params):
            break
    chosen.sort(key=by_worth.index)
    titles = _titles(chosen)
    texts = {key: _texts(values[key]) for key in chosen}
    return [
        " · ".join(f"{titles[key]} {texts[key][place]}" for key in chosen if values[key][place])
        for place in range(len(all_params))
    ]


def _columns(all_params: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Return the values of each param in which the models differ, "" for a model without it; no paths and digests."""
    keys = dict.fromkeys(key for params in all_params for key in params)
    columns = {key: [clean(str(params.get(key, ""))) for params in all_params] for key in keys}
    return {
        key: column
        for key, column in columns.items()
        if _groups([column]) > 1 and not any(MEANINGLESS.search(value) for value in column)
    }


def _worth(key: str, column: Sequence[str]) -> tuple[bool, int, int, str]:
    """Return the sort key of a param: known params come first, then those with the shortest text."""
    known = list(TELLING)
    short = _known(key)
    place = known.index(short) if short else len(known)
    return bool(WEAK.search(key)), place, len(_last(key)) + max(map(len, _texts(column))), key


def _most_telling(candidates: Sequence[str], chosen: Sequence[str], values: Mapping[str, list[str]]) -> str | None:
    """Return the param that adds most to what ``chosen`` tell apart, the first among equals; None if none adds."""
    columns = [values[key] for key in chosen]
    now = _groups(columns)
    gains = {key: _groups([*columns, values[key]]) - now for key in candidates if key not in chosen}
    best = max(gains.values(), default=0)
    return next((key for key, gain in gains.items() if gain == best), None) if best else None


def _groups(columns: Sequence[Sequence[str]]) -> int:
    """Return how many groups of models these values tell apart."""
    return len({tuple(map(_value, row)) for row in zip(*columns, strict=True)}) or 1


def _titles(keys: Iterable[str]) -> dict[str, str]:
    """Return the short name of each param, or its last part; the whole key if two params would share that."""
    short = {key: _known(key) or _last(key) for key in keys}
    uses = Counter(short.values())
    return {key: title if uses[title] == 1 else key for key, title in short.items()}


def _known(key: str) -> str | None:
    last = _last(key).lower()
    return next((short for short, spellings in TELLING.items() if last in spellings), None)


def _last(key: str) -> str:
    return re.split(r"[./]", key.rstrip("./"))[-1] or key


def _texts(column: Sequence[str]) -> list[str]:
    """Return the values of a param as short text; values that differ stay different."""
    short = [elided(_number(value) or value, LONGEST_VALUE) for value in column]
    is_clear = len(set(short)) >= _groups([column])
    return short if is_clear else [elided(value, 2 * LONGEST_VALUE) for value in column]


def _value(text: str) -> float | str:
    """Return a value for comparisons: trainers write the same number as 0.001 and 1e-3."""
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text


def _number(text: str) -> str | None:
    """Return a number as people write it, such as 1e-3, 0.05 and 64; None for other text."""
    value = _value(text)
    if isinstance(value, str):
        return None
    if value == 0 or 0.01 <= abs(value) < 100_000:
        return f"{value:.5g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
