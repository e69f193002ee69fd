"""Pairing: which file of the reference belongs to which frame of the sequence, decided by their names alone."""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter

from dailies.frames.sequence import EXTENSIONS, normal_form, numbers

FIELDS = {"stem": "f_0001", "number": 1}
"""What a template may name, each with a value that its format must suit."""

SEPARATORS = "_-. "

SCALE = re.compile(r"x\d+[^\W\d_]?", re.IGNORECASE)
"""The scale in names of datasets, such as ``x4`` and ``x4m``, which needs no separator: ``babyx4`` beside ``baby``."""

LONGEST_TOKEN = 40
"""Characters of the longest token that all names of a folder may share and another folder lack."""


@dataclass(frozen=True)
class Pairs:
    """Which file belongs to which frame, and how that was found."""

    files: Mapping[str, str]
    """File by frame, each by name, in the order of the frames."""
    ways: Mapping[str, int]
    """How many pairs were made in which way, in words."""
    several: Mapping[str, tuple[str, ...]]
    """The files that a frame could belong to equally well; such a frame has no pair."""


def pair(
    frames: Iterable[str],
    files: Iterable[str],
    *,
    template: str | None = None,
    offset: int = 0,
    by_name: bool = True,
) -> Pairs:
    """Pair the frames of a sequence with the files of a reference, no file with two frames.

    With a ``template`` it alone decides. Without one, names are compared whatever they end in; then without one token
    that all names of a folder share and the other folder's lack, such as the ``x2`` of ``0801x2``; then by number, and
    where several files have that number by all numbers of the name, however they are padded.
    Without ``by_name`` only numbers count. A frame numbered n belongs to the file numbered n + ``offset``.
    """
    ours, theirs = _Folder(list(frames)), _Folder(list(files))
    stems = ours.stems if offset == 0 else ours.shifted(offset)
    if template is not None:
        found, several = _by_template(template, stems, ours, theirs, offset)
        return Pairs(found, {"by reference_name": len(found)} if found else {}, several)
    found, several, ways = {}, {}, {}
    if by_name:
        found, several = _match(stems, theirs.stems)
        ways["by name"] = len(found)
        taken = {*found.values(), *(file for candidates in several.values() for file in candidates)}
        left = [name for name in stems if name not in found and name not in several]
        way, more = _by_token(stems, theirs.stems, left, [name for name in theirs.names if name not in taken])
        ways[way] = len(more)
        found |= more
    ours_numbered = {name: number + offset for name, number in ours.numbers.items()}
    more, doubtful = _match(ours_numbered, theirs.numbers)
    taken = {*found.values(), *(file for candidates in several.values() for file in candidates)}
    more = {name: file for name, file in more.items() if name not in found | several and file not in taken}
    left = [name for name in doubtful if name not in found | several]
    free = [name for name in theirs.names if name not in taken]
    padded, _ = _match(_unpadded(stems, left if by_name else []), _unpadded(theirs.stems, free))
    ways["by name without leading zeros"] = len(padded)
    taken |= {*padded.values()}
    for name in (name for name in left if name not in padded):
        if candidates := tuple(file for file in doubtful[name] if file not in taken):
            several[name] = candidates
    ways["by number"] = len(more)
    found |= more | padded
    in_order = {name: found[name] for name in ours.names if name in found}
    return Pairs(in_order, {way: count for way, count in ways.items() if count}, several)


def numbered(names: Iterable[str]) -> Mapping[str, int]:
    """Return the frame number of each name of a folder that has one: the last number that is not the same in all."""
    return _Folder(list(names)).numbers


def template_problem(template: str) -> str | None:
    """Return what is wrong with a template, in words that go on from its name; None if it can be used."""
    try:
        fields = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        return f"cannot be read: {error}"
    for _, name, spec, conversion in fields:
        if name not in FIELDS:
            return f"names '{{{name}}}'; allowed: {{stem}} and {{number}}"
        try:
            format(Formatter().convert_field(FIELDS[name], conversion), spec)
        except ValueError:
            return (
                f"cannot write {name} in the format '{conversion or ''}{spec}'; "
                f"allowed: a format that suits a value such as {FIELDS[name]!r}"
            )
    if not fields:
        return "names neither {stem} nor {number}, so all frames would have one reference"
    if template.startswith("/") or ".." in template.split("/"):
        return "leaves reference_dir; allowed: a name, or a name in a sub-folder of it"
    return None


def expected(template: str, frames: Iterable[str], offset: int = 0) -> list[str]:
    """Return the names that a template makes of frames; of one without a number, none if the template needs it."""
    ours = _Folder(list(frames))
    stems = ours.stems if offset == 0 else ours.shifted(offset)
    named = {name: _filled(template, stem, ours.numbers.get(name), offset) for name, stem in stems.items()}
    return [text if _ending(text) else f"{text}.*" for text in named.values() if text is not None]


class _Folder:
    """The names of a folder's files, and what is compared of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.stems = {name: normal_form(name.removesuffix(_ending(name))) for name in names}

    @cached_property
    def _heads(self) -> Mapping[str, str]:
        """The stem of each name as far as its frame number, which is the last number that is not the same in all."""
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
        """The frame number of each name that has one."""
        return {name: number for name, number in _numbers(self._heads).items() if number is not None}

    def shifted(self, offset: int) -> Mapping[str, str]:
        """Return the stem that the frame ``offset`` frames later would have, of each name that has a number."""
        found = {}
        for name, number in self.numbers.items():
            head, later = self._heads[name], number + offset
            before = re.sub(r"-?\d+$" if number < 0 else r"\d+$", "", head)
            digits = re.search(r"\d+$", head)[0]
            written = f"{'-' if later < 0 else ''}{abs(later):0{len(digits)}d}"
            found[name] = before + written + self.stems[name][len(head) :]
        return found


def _numbers(stems: Mapping[str, str]) -> dict[str, int | None]:
    found = numbers(f"{stem}.x" for stem in stems.values())
    return {name: found[f"{stem}.x"] for name, stem in stems.items()}


def _ending(name: str) -> str:
    return next((name[-len(each) :] for each in EXTENSIONS if name.lower().endswith(each)), "")


def _match(
    wanted: Mapping[str, Hashable], offered: Mapping[str, Hashable]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Pair frames and files that have the same key and share it with no other; name the candidates of the rest."""
    ours, theirs = _by_key(wanted), _by_key(offered)
    found, several = {}, {}
    for key, names in ours.items():
        candidates = theirs.get(key, [])
        if len(names) == len(candidates) == 1:
            found[names[0]] = candidates[0]
        elif candidates:
            several |= dict.fromkeys(names, tuple(candidates))
    return found, several


def _by_key(keys: Mapping[str, Hashable]) -> dict[Hashable, list[str]]:
    found: dict[Hashable, list[str]] = {}
    for name, key in keys.items():
        found.setdefault(key, []).append(name)
    return found


def _by_template(
    template: str, stems: Mapping[str, str], ours: _Folder, theirs: _Folder, offset: int
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    named = {name: _filled(template, stem, ours.numbers.get(name), offset) for name, stem in stems.items()}
    wanted = {name: normal_form(text) for name, text in named.items() if text is not None}
    if any(_ending(text) for text in wanted.values()):
        wanted = {name: text.removesuffix(_ending(text)) + _ending(text).lower() for name, text in wanted.items()}
        return _match(wanted, {name: stem + _ending(name).lower() for name, stem in theirs.stems.items()})
    return _match(wanted, theirs.stems)


def _filled(template: str, stem: str, number: int | None, offset: int) -> str | None:
    if number is None and any(name == "number" for _, name, _, _ in Formatter().parse(template)):
        return None
    return template.format(stem=stem, number=(number or 0) + offset)


def _unpadded(stems: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the stems of names without the zeros that only pad a number."""
    return {name: re.sub(r"(?<!\d)0+(?=\d)", "", stems[name]) for name in names}


def _by_token(
    wanted: Mapping[str, str], offered: Mapping[str, str], left: Sequence[str], free: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """Pair the frames ``left`` and the files ``free`` by what is left of their names without one token on each side.

    A token is in all names of its folder. Of several tokens that pair as many, the shortest counts; if they pair
    differently, none does, and neither does a token that pairs less than half. Returns the way in words, and the pairs.
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
                way = _way(ours_token, token)
                best.append((len(ours_token) + len(token), way, {ours[key]: others[key] for key in common}))
    best = [option for option in best if len(option[2]) == least]
    if not best or any(option[2] != best[0][2] for option in best):
        return "", {}
    _, way, found = min(best, key=lambda option: option[0])
    return way, found


def _way(ours: str, theirs: str) -> str:
    parts = [f"{token!r} of {whose}" for token, whose in ((ours, "the sequence"), (theirs, "the reference")) if token]
    return f"by name without {' and '.join(parts)}"


def _unique(rest: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the names by what is left of each, if no other file of the folder has the same left."""
    by_key, asked = _by_key(rest), set(names)
    return {key: several[0] for key, several in by_key.items() if len(several) == 1 and several[0] in asked}


def _without_token(stems: Mapping[str, str]) -> list[tuple[str, Mapping[str, str]]]:
    """Return each token that all stems share, at their end, their start or between separators, and what is left.

    The first is no token at all. A token holds a letter: numbers tell frames apart. Of a single stem everything would
    be shared, so what is left of it must hold a number.
    """
    texts = list(stems.values())
    found: dict[tuple[str, ...], str] = {tuple(texts): ""}
    for token, rest in (*_tails(texts), *_heads(texts), *_words(texts)):
        is_enough = all(rest) and (len(texts) > 1 or re.search(r"\d", rest[0]))
        if is_enough and any(char.isalpha() for char in token):
            found.setdefault(tuple(rest), token)
    return [(token, dict(zip(stems, rest, strict=True))) for rest, token in found.items()]


def _tails(texts: Sequence[str]) -> Iterable[tuple[str, list[str]]]:
    shared = _shared([text[::-1] for text in texts])[::-1]
    for length in range(1, min(len(shared), LONGEST_TOKEN) + 1):
        token = shared[-length:]
        if SCALE.fullmatch(token) or all(_begins_token(text, len(text) - length) for text in texts):
            yield token, [text[:-length].rstrip(SEPARATORS) for text in texts]


def _heads(texts: Sequence[str]) -> Iterable[tuple[str, list[str]]]:
    shared = _shared(texts)
    for length in range(1, min(len(shared), LONGEST_TOKEN) + 1):
        if all(_begins_token(text, length) for text in texts):
            # a dash may be the sign of a number
            yield shared[:length], [text[length:].lstrip(SEPARATORS.replace("-", "")) for text in texts]


def _words(texts: Sequence[str]) -> Iterable[tuple[str, list[str]]]:
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
    """Return what all texts begin with."""
    first, last = min(texts, default=""), max(texts, default="")
    differing = (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(differing, len(first))]


def _begins_token(text: str, place: int) -> bool:
    """Tell whether a token of a text ends and another begins at a place."""
    return 0 < place < len(text) and _kind(text[place - 1]) != _kind(text[place])


def _kind(char: str) -> int:
    return 0 if char.isdigit() else 1 if char.isalpha() else 2
