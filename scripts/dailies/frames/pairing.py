"""Pairing of the frames of a sequence with the files of a reference, by name alone."""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import TypeVar

from dailies.frames.sequence import EXTENSIONS, normal_form, numbers

FIELDS = {"stem": "f_0001", "number": 1}
"""Fields of a template, each with an example value that its format specification must accept."""

SEPARATORS = "_-. "

SCALE = re.compile(r"x\d+[^\W\d_]?", re.IGNORECASE)
"""A scale as in names of datasets, such as ``x4`` and ``x4m``; no separator has to precede it, as in ``babyx4``."""

MAX_TOKEN = 40
"""Longest token, in characters, that is removed from the names of a folder for comparison."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Pairs:
    """Result of a pairing."""

    files: Mapping[str, str]
    """Name of a frame -> name of its file, in the order of the frames."""
    methods: Mapping[str, int]
    """Description of a method, such as ``by number`` -> number of pairs that it found."""
    ambiguous: Mapping[str, tuple[str, ...]]
    """Name of a frame without a pair -> the files that match it equally well."""


def pair(
    frames: Iterable[str],
    files: Iterable[str],
    *,
    template: str | None = None,
    offset: int = 0,
    by_name: bool = True,
) -> Pairs:
    """Pair the frames of a sequence with the files of a reference; each file belongs to at most one frame.

    If there is a ``template``, only the name that it produces is looked for. Otherwise these methods apply in turn:

    - Names are compared without their suffixes.
    - Names are compared without one token that all names of a folder share and those of the other folder lack, such as
      the ``x2`` of ``0801x2``.
    - Frame numbers are compared. If several files have the same number, names are compared without leading zeros.

    Without ``by_name``, only numbers are compared. Frame n belongs to file n + ``offset``.
    """
    ours, theirs = _Folder(list(frames)), _Folder(list(files))
    stems = ours.stems if offset == 0 else ours.shifted(offset)
    if template is not None:
        found, ambiguous = _by_template(template, stems, ours, theirs, offset)
        return Pairs(found, {"by reference_name": len(found)} if found else {}, ambiguous)
    found, ambiguous, methods = {}, {}, {}
    if by_name:
        found, ambiguous = _match(stems, theirs.stems)
        methods["by name"] = len(found)
        taken = {*found.values(), *(file for candidates in ambiguous.values() for file in candidates)}
        left = [name for name in stems if name not in found and name not in ambiguous]
        method, more = _by_token(stems, theirs.stems, left, [name for name in theirs.names if name not in taken])
        methods[method] = len(more)
        found |= more
    ours_numbered = {name: number + offset for name, number in ours.numbers.items()}
    more, doubtful = _match(ours_numbered, theirs.numbers)
    taken = {*found.values(), *(file for candidates in ambiguous.values() for file in candidates)}
    more = {name: file for name, file in more.items() if name not in found | ambiguous and file not in taken}
    left = [name for name in doubtful if name not in found | ambiguous]
    free = [name for name in theirs.names if name not in taken]
    padded, _ = _match(_unpadded(stems, left if by_name else []), _unpadded(theirs.stems, free))
    methods["by name without leading zeros"] = len(padded)
    taken |= {*padded.values()}
    for name in (name for name in left if name not in padded):
        if candidates := tuple(file for file in doubtful[name] if file not in taken):
            ambiguous[name] = candidates
    methods["by number"] = len(more)
    found |= more | padded
    in_order = {name: found[name] for name in ours.names if name in found}
    return Pairs(in_order, {method: count for method, count in methods.items() if count}, ambiguous)


def frame_numbers(names: Iterable[str]) -> Mapping[str, int]:
    """Return the frame number of each name of a folder that has one: the last number that varies between names."""
    return _Folder(list(names)).numbers


def template_problem(template: str) -> str | None:
    """Return the problem with a template, as a predicate whose subject is the template; None if it is valid."""
    try:
        fields = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        return f"cannot be read: {error}"
    for _, name, spec, conversion in fields:
        if name not in FIELDS:
            return f"uses the unknown field '{{{name}}}'; allowed: {{stem}} and {{number}}"
        try:
            format(Formatter().convert_field(FIELDS[name], conversion), spec or "")
        except ValueError:
            return (
                f"cannot format {name} as '{conversion or ''}{spec}'; "
                f"allowed: a format for values such as {FIELDS[name]!r}"
            )
    if not fields:
        return "uses neither {stem} nor {number}, so all frames would have the same reference"
    if template.startswith("/") or ".." in template.split("/"):
        return "points outside reference_dir; allowed: a name, or a name in a sub-folder of it"
    return None


def expected_names(template: str, frames: Iterable[str], offset: int = 0) -> list[str]:
    """Return the names that a template produces for frames; frames without a required number are skipped."""
    ours = _Folder(list(frames))
    stems = ours.stems if offset == 0 else ours.shifted(offset)
    named = {name: _filled(template, stem, ours.numbers.get(name), offset) for name, stem in stems.items()}
    return [text if _suffix(text) else f"{text}.*" for text in named.values() if text is not None]


class _Folder:
    """The names of a folder's files, split into the parts that are compared."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.stems = {name: normal_form(name.removesuffix(_suffix(name))) for name in names}

    @cached_property
    def _heads(self) -> Mapping[str, str]:
        """Name -> its stem up to and including the frame number, which is the last number that varies."""
        heads = dict(self.stems)
        while len(heads) > 1:
            found = _numbers(heads)
            shorter = {name: re.sub(r"\d+\D*$", "", head) for name, head in heads.items()}
            if len({*found.values()}) > 1 or None in {*found.values(), *_numbers(shorter).values()}:
                break
            heads = shorter
        return {name: re.sub(r"\D*$", "", head) for name, head in heads.items()}

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """Name -> its frame number, for names that have one."""
        return {name: number for name, number in _numbers(self._heads).items() if number is not None}

    def shifted(self, offset: int) -> Mapping[str, str]:
        """Return, for each name with a number, the stem of the frame ``offset`` frames later."""
        found = {}
        for name, number in self.numbers.items():
            head, later = self._heads[name], number + offset
            before = re.sub(r"-?\d+$" if number < 0 else r"\d+$", "", head)
            digits = len(head) - len(head.rstrip("0123456789"))
            written = f"{'-' if later < 0 else ''}{abs(later):0{digits}d}"
            found[name] = before + written + self.stems[name][len(head) :]
        return found


def _numbers(stems: Mapping[str, str]) -> dict[str, int | None]:
    """Return name -> last number in its stem."""
    found = numbers(f"{stem}.x" for stem in stems.values())
    return {name: found[f"{stem}.x"] for name, stem in stems.items()}


def _suffix(name: str) -> str:
    """Return the suffix of a frame's file as written; empty if it is not one of ``EXTENSIONS``."""
    return next((name[-len(each) :] for each in EXTENSIONS if name.lower().endswith(each)), "")


def _match(wanted: Mapping[str, Key], offered: Mapping[str, Key]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Pair frames and files whose keys are equal and unique; also return the candidates of ambiguous frames."""
    ours, theirs = _by_key(wanted), _by_key(offered)
    found: dict[str, str] = {}
    ambiguous: dict[str, tuple[str, ...]] = {}
    for key, names in ours.items():
        candidates = theirs.get(key, [])
        if len(names) == len(candidates) == 1:
            found[names[0]] = candidates[0]
        elif candidates:
            ambiguous |= dict.fromkeys(names, tuple(candidates))
    return found, ambiguous


def _by_key(keys: Mapping[str, Key]) -> dict[Key, list[str]]:
    """Return key -> names."""
    found: dict[Key, list[str]] = {}
    for name, key in keys.items():
        found.setdefault(key, []).append(name)
    return found


def _by_template(
    template: str, stems: Mapping[str, str], ours: _Folder, theirs: _Folder, offset: int
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    named = {name: _filled(template, stem, ours.numbers.get(name), offset) for name, stem in stems.items()}
    wanted = {name: normal_form(text) for name, text in named.items() if text is not None}
    if any(_suffix(text) for text in wanted.values()):
        wanted = {name: text.removesuffix(_suffix(text)) + _suffix(text).lower() for name, text in wanted.items()}
        return _match(wanted, {name: stem + _suffix(name).lower() for name, stem in theirs.stems.items()})
    return _match(wanted, theirs.stems)


def _filled(template: str, stem: str, number: int | None, offset: int) -> str | None:
    if number is None and any(name == "number" for _, name, _, _ in Formatter().parse(template)):
        return None
    return template.format(stem=stem, number=(number or 0) + offset)


def _unpadded(stems: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the stems of names with leading zeros removed from numbers."""
    return {name: re.sub(r"(?<!\d)0+(?=\d)", "", stems[name]) for name in names}


def _by_token(
    wanted: Mapping[str, str], offered: Mapping[str, str], left: Sequence[str], free: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """Pair the frames ``left`` and the files ``free`` by their names without one token on each side.

    A token occurs in all names of its folder. The tokens that yield the most pairs win, and of those the shortest. If
    they yield different pairs, or pairs for less than half of the names, nothing is paired. Returns a description of
    the method and the pairs.
    """
    best: list[tuple[int, str, dict[str, str]]] = []
    least = -(-min(len(left), len(free)) // 2) or 1
    theirs = [(token, _unique(rest, free)) for token, rest in _without_token(offered)]
    for ours_token, rest in _without_token(wanted):
        ours = _unique(rest, left)
        for token, others in theirs:
            common = [key for key in ours if key in others]
            if len(common) >= least:
                least = len(common)
                method = _method(ours_token, token)
                best.append((len(ours_token) + len(token), method, {ours[key]: others[key] for key in common}))
    best = [option for option in best if len(option[2]) == least]
    if not best or any(option[2] != best[0][2] for option in best):
        return "", {}
    _, method, found = min(best, key=lambda option: option[0])
    return method, found


def _method(ours: str, theirs: str) -> str:
    parts = [f"{token!r} of {whose}" for token, whose in ((ours, "the sequence"), (theirs, "the reference")) if token]
    return f"by name without {' and '.join(parts)}"


def _unique(rest: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return remainder -> name for those of ``names`` whose remainder is unique in the folder."""
    by_key, wanted = _by_key(rest), set(names)
    return {key: found[0] for key, found in by_key.items() if len(found) == 1 and found[0] in wanted}


def _without_token(stems: Mapping[str, str]) -> list[tuple[str, Mapping[str, str]]]:
    """Return each token that all stems share, with the remainder of each stem.

    A token is at the start, at the end or between separators, and holds a letter, because numbers distinguish frames.
    The first entry is the empty token. A single stem shares all of its tokens, so its remainder must hold a number.
    """
    texts = list(stems.values())
    found: dict[tuple[str, ...], str] = {tuple(texts): ""}
    for token, rest in (*_tails(texts), *_heads(texts), *_words(texts)):
        is_enough = all(rest) and (len(texts) > 1 or re.search(r"\d", rest[0]))
        if is_enough and any(char.isalpha() for char in token):
            found.setdefault(tuple(rest), token)
    return [(token, dict(zip(stems, rest, strict=True))) for rest, token in found.items()]


def _tails(texts: Sequence[str]) -> Iterable[tuple[str, list[str]]]:
    """Yield each token that all texts end with, and the texts without it."""
    shared = _shared([text[::-1] for text in texts])[::-1]
    for length in range(1, min(len(shared), MAX_TOKEN) + 1):
        token = shared[-length:]
        if SCALE.fullmatch(token) or all(_begins_token(text, len(text) - length) for text in texts):
            yield token, [text[:-length].rstrip(SEPARATORS) for text in texts]


def _heads(texts: Sequence[str]) -> Iterable[tuple[str, list[str]]]:
    """Yield each token that all texts start with, and the texts without it."""
    shared = _shared(texts)
    for length in range(1, min(len(shared), MAX_TOKEN) + 1):
        if all(_begins_token(text, length) for text in texts):
            # keep a dash, which may be the sign of a number
            yield shared[:length], [text[length:].lstrip(SEPARATORS.replace("-", "")) for text in texts]


def _words(texts: Sequence[str]) -> Iterable[tuple[str, list[str]]]:
    """Yield each word between separators that occurs once in every text, and the texts without it."""
    split = [re.split(rf"([{re.escape(SEPARATORS)}]+)", text) for text in texts]
    shared = set.intersection(*({*parts[2:-2:2]} for parts in split)) if split else set()
    for word in sorted(shared):
        if all(parts.count(word) == 1 for parts in split):
            places = [parts.index(word) for parts in split]
            yield (
                word,
                ["".join(parts[: place - 1] + parts[place + 1 :]) for parts, place in zip(split, places, strict=True)],
            )


def _shared(texts: Sequence[str]) -> str:
    """Return the common prefix of all texts."""
    first, last = min(texts, default=""), max(texts, default="")
    differing = (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(differing, len(first))]


def _begins_token(text: str, place: int) -> bool:
    """Return whether the kind of character (digit, letter, other) changes at a position of a text."""
    return 0 < place < len(text) and _kind(text[place - 1]) != _kind(text[place])


def _kind(char: str) -> int:
    return 0 if char.isdigit() else 1 if char.isalpha() else 2
