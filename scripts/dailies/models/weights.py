"""Weights: find the tensors in a checkpoint that belong to a network.

Trainers save weights under any key and at any depth, and wrappers insert pieces into their names. No list of names
decides: every set of tensors is matched with the network, whose own ``load_state_dict`` has the final say.
"""

import re
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dailies.core.errors import LoadError
from dailies.core.text import clean, few
from dailies.models import file_roles
from dailies.models.inert import Inert, module_tensors, tensor_of

DEPTH, MOST_GROUPS = 8, 2000
"""The depth of nested dicts that is searched, and the number of sets of tensors that are considered."""

MOST_TRIES = 12
"""The number of sets of weights, the closest first, that are loaded into a network on trial."""

ANCHORS = 5
"""The number of names of a network that are looked up to find the prefixes in a file."""

WRAPPERS = frozenset({"_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module"})
"""The pieces of names that torch.compile, DataParallel, activation checkpointing, FSDP and DeepSpeed insert."""

AVERAGED = re.compile(r"(?<![a-z])(ema|avg|averaged?|shadow|swa)(?![a-z])")
"""Words in keys of averaged weights."""

AVERAGED_FROM = re.compile(r"(?<![a-z])(online|collected|raw|live)(?![a-z])")
"""Words in keys of the weights from which an average is computed, which may be saved beside it."""

USUAL_KEYS = ("model_state_dict", "state_dict", "model", "params", "network", "net", "generator", "weights")
"""The keys under which trainers usually save weights. If several sets fit, the first of these is used."""

TRANSIENT = ("attn_mask", "relative_coords_table", "relative_position_index", "inv_freq", "position_ids")
"""Floating-point buffers that some versions of a network save and others compute."""


CONTAINERS = (Mapping, list, tuple, Inert, nn.Module)
"""The types that may hold tensors."""


@dataclass(frozen=True)
class Group:
    """A set of tensors that a file holds in one container."""

    path: str
    """The keys that lead to the container, joined by dots; empty for the whole file."""
    tensors: Mapping[str, Tensor]
    others: Mapping[str, Any] = field(default_factory=dict)
    """The entries of the container that are not tensors."""
    versions: Mapping[str, Any] | None = None
    """The version of each module, as ``state_dict`` writes them."""
    ordered: bool = False
    """Whether the tensors have no names and follow the order of the network's parameters."""
    joined: bool = False
    """Whether the tensors come from several dicts, each under the name of a part of the network."""


def is_averaged(path: str) -> bool:
    """Return whether the keys that lead to weights mark them as averaged (EMA, SWA)."""
    keys = reversed(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", path).lower().split("."))
    decisive = next((key for key in keys if AVERAGED.search(key) or AVERAGED_FROM.search(key)), "")
    return bool(AVERAGED.search(decisive))


def _is_discriminator(path: str) -> bool:
    """Return whether the keys that lead to weights name a discriminator, which may have the generator's shapes."""
    return any(map(file_roles.is_discriminator_key, path.split(".")))


def groups(content: Any) -> list[Group]:
    """Return every set of tensors in the content of a file, the outermost first.

    A set is a dict of tensors, a module that was pickled whole, or a list of tensors. Dicts of dicts come last, with
    dots in the names: ``{"encoder": {...}, "decoder": {...}}``.
    """
    found: list[Group] = []
    joined: list[Group] = []
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    while waiting and len(found) < MOST_GROUPS:
        path, value, depth = waiting.pop(0)
        if isinstance(value, nn.Module):
            value = value.state_dict()
        if isinstance(value, Inert) and value.is_module:
            found.append(Group(path, dict(module_tensors(value))))
            continue
        inner = _inner(value)
        found += _direct(path, value, inner)
        if sum(isinstance(each, Mapping) for each in inner.values()) > 1:
            joined.append(Group(path, dict(_flat(inner, DEPTH)), joined=True))
        if depth < DEPTH:
            containers = [(key, each) for key, each in inner.items() if isinstance(each, CONTAINERS)]
            waiting += [(f"{path}.{key}".lstrip("."), each, depth + 1) for key, each in containers]
    return [group for group in found + joined if group.tensors]


def _direct(path: str, value: Any, inner: Mapping[Any, Any]) -> Iterator[Group]:
    """Yield the tensors that a container holds directly."""
    tensors = {str(key): each for key, each in inner.items() if isinstance(each, Tensor)}
    arrays = {
        str(k): held for k, each in inner.items() if str(k) not in tensors and (held := tensor_of(each)) is not None
    }
    if any(each.dim() > 1 for each in arrays.values()):  # a history of losses has one dimension
        tensors |= arrays
    if tensors and isinstance(value, list | tuple | Inert) and inner.keys() == set(range(len(inner))):
        yield Group(path, tensors, ordered=True)
    elif tensors and all(isinstance(key, str) for key in inner):
        others = {key: each for key, each in inner.items() if key not in tensors}
        yield Group(path, tensors, others, getattr(value, "_metadata", None))


def _inner(value: Any) -> Mapping[Any, Any]:
    """Return the entries of a container, by key or index; {} for other values and for long lists."""
    if isinstance(value, Inert):
        value = {**value.attributes, **value.items} or value.elements
    if isinstance(value, Mapping):
        return value
    return dict(enumerate(value)) if isinstance(value, list | tuple) and len(value) <= MOST_GROUPS else {}


def _flat(value: Mapping[Any, Any], depth: int, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, each in value.items():
        if isinstance(each, Tensor):
            yield f"{prefix}{key}", each
        elif isinstance(each, Mapping) and depth:
            yield from _flat(each, depth - 1, f"{prefix}{key}.")


@dataclass(frozen=True)
class Match:
    """The tensors of a group under the names of a network."""

    group: Group
    prefix: str
    """The prefix that was removed from the names."""
    names: Mapping[str, str]
    """The name of each tensor in the group, by its new name."""
    common: int = 0
    """How many of the network's names and shapes they match."""

    @property
    def where(self) -> str:
        """The keys that lead to the weights, for errors and notes."""
        return f"{self.group.path}.{self.prefix}".strip(".")

    @property
    def is_averaged(self) -> bool:
        """Whether the keys mark the weights as averaged."""
        return is_averaged(self.where)

    @property
    def state(self) -> "OrderedDict[str, Tensor]":
        """The state dict, with the versions of the modules that the file states."""
        state = OrderedDict((name, self.group.tensors[key]) for name, key in self.names.items())
        if self.group.versions is not None:
            renamed = {unwrapped(key): value for key, value in self.group.versions.items()}
            prefix = unwrapped(self.prefix.rstrip("."))
            inside = {
                key.removeprefix(prefix).lstrip("."): value
                for key, value in renamed.items()
                if not prefix or key == prefix or key.startswith(f"{prefix}.")
            }
            state._metadata = inside  # type: ignore[attr-defined]
        return state


def unwrapped(name: str) -> str:
    """Return a name without the pieces that wrappers insert."""
    return _without(WRAPPERS, name)


def _without(pieces: Collection[str], name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in pieces)


def matches(group: Group, network: nn.Module, expected: Mapping[str, Tensor]) -> list[Match]:
    """Return the ways to map a group's names to those of a network, closest first."""
    if group.ordered:
        parameters = dict(network.named_parameters())
        trained = [name for name, values in parameters.items() if values.requires_grad]
        sizes = {len(parameters): list(parameters), len(trained): trained}
        names = sizes.get(len(group.tensors), [])
        found = [Match(group, "", dict(zip(names, group.tensors, strict=False)))] if names else []
    else:
        first = {name.split(".")[0] for name in expected}
        own = {name: name for name in group.tensors if not group.joined or name.split(".")[0] in first}
        variants = [own, *_without_wrappers(own, expected)]
        found = [Match(group, "", names) for names in variants]
        found += [match for names in variants for match in _without_prefixes(group, names, expected)]
        found += [match for each in found for match in _without_foreign(each, expected)]
        found += _with_dots(group, network)
    return sorted((_counted(match, expected) for match in found), key=lambda match: -match.common)


def _counted(match: Match, expected: Mapping[str, Tensor]) -> Match:
    tensors = match.group.tensors
    common = sum(
        name in match.names and (is_lazy(like) or tensors[match.names[name]].shape == like.shape)
        for name, like in expected.items()
    )
    return Match(match.group, match.prefix, match.names, common)


def _without_wrappers(names: Mapping[str, str], expected: Mapping[str, Tensor]) -> list[dict[str, str]]:
    """Return the names without the pieces of known wrappers, except those in the network's own names."""
    used = {part for name in expected for part in name.split(".")} & WRAPPERS
    shorter = {_without(WRAPPERS - used, name): key for name, key in names.items()}
    return [shorter] if len(shorter) == len(names) and shorter != names else []


def _without_prefixes(group: Group, names: Mapping[str, str], expected: Mapping[str, Tensor]) -> Iterator[Match]:
    """Yield the tensors under each prefix before the network's names; those without the prefix are left out."""
    anchors = sorted(expected, key=len, reverse=True)[:: max(1, len(expected) // ANCHORS)][: ANCHORS + 1]
    prefixes = Counter(name.removesuffix(anchor) for anchor in anchors for name in names if name.endswith(f".{anchor}"))
    # the network may be wrapped although the weights in the file are not
    added = Counter(anchor.removesuffix(name) for anchor in anchors for name in names if anchor.endswith(f".{name}"))
    for prefix, _ in prefixes.most_common(MOST_TRIES):
        yield Match(group, prefix, {n.removeprefix(prefix): key for n, key in names.items() if n.startswith(prefix)})
    for prefix, _ in added.most_common(2):
        yield Match(group, "", {f"{prefix}{name}": key for name, key in names.items()})


def _without_foreign(match: Match, expected: Mapping[str, Tensor]) -> list[Match]:
    """Remove the pieces of names that the network's names lack; return nothing if there are none."""
    pieces = {part for name in expected for part in name.split(".")}
    foreign = {part for name in match.names for part in name.split(".") if part not in pieces and not part.isdecimal()}
    shorter = {_without(foreign, name): key for name, key in match.names.items()}
    if not foreign or len(shorter) < len(match.names):
        return []
    return [Match(match.group, match.prefix, shorter)]


def _with_dots(group: Group, network: nn.Module) -> Iterator[Match]:
    """Yield averaged weights that were saved as buffers, whose names cannot have dots."""
    flat = {name.replace(".", ""): name for name, _ in network.named_parameters()}
    anchor = max(flat, key=len, default="")
    for prefix in {name.removesuffix(anchor) for name in group.tensors if anchor and name.endswith(anchor)}:
        if is_averaged(f"{group.path}.{prefix}"):
            inside = {name.removeprefix(prefix): name for name in group.tensors if name.startswith(prefix)}
            yield Match(group, prefix, {flat[name]: key for name, key in inside.items() if name in flat})


def under_prefixes(found: Sequence[Group], anchor: str) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors under each prefix that precedes the name ``anchor``, without prefix and pieces of wrappers."""
    for group in found:
        names = {unwrapped(name): values for name, values in group.tensors.items()}
        for prefix in {name.removesuffix(anchor) for name in names if f".{name}".endswith(f".{anchor}")}:
            yield {name.removeprefix(prefix): values for name, values in names.items() if name.startswith(prefix)}


def by_preference(found: Sequence[Group]) -> list[Group]:
    """Return the groups with names, in the order in which they are tried to recognise a network."""
    named = [group for group in found if not group.ordered]
    return sorted(named, key=lambda group: (group.joined, preference(group.path), -len(group.tensors)))


@dataclass(frozen=True)
class Filled:
    """The result of filling a network with weights."""

    match: Match
    """The weights that were used."""
    notes: tuple[str, ...]
    """Remarks for the user."""


def fill(network: nn.Module, found: Sequence[Group], file: str) -> Filled:
    """Fill a network with the weights that fit it, as float32; averaged weights are preferred.

    Args:
        network: the network, which is changed.
        found: the groups of a file.
        file: the name of the file, for errors.

    Raises:
        LoadError: no weights fit. The error counts and names what is missing, unexpected, of another shape, or without
            values in the closest group.
    """
    expected, tied = network.state_dict(), _tied(network)
    least = len(list(network.parameters())) / 2  # an optimizer keeps a few tensors for each weight
    large = [group for group in found if len(group.tensors) >= least] or found
    ranked = sorted(
        (match for group in large for match in matches(group, network, expected)), key=lambda match: -match.common
    )
    if not ranked:
        raise LoadError("model.no_weights", f"{file} holds no weights")
    fitting: list[Match] = []
    refused: list[tuple[str, str]] = []
    tried = _candidates(ranked, expected)
    for match in tried:
        try:
            notes = _load(network, match, expected, tied, file, _plain(fitting))
            fitting.append(match)
        except LoadError as error:
            refused.append((error.code, str(error)))
    if not fitting:
        code, message = refused[0]
        raise LoadError(code, message)
    (used,) = _best(fitting)
    if tried[-1] is not used:  # another match has been loaded since
        notes = _load(network, used, expected, tied, file, _plain(fitting))
    also = sorted({match.where or "the file itself" for match in fitting if not match.is_averaged} - {used.where})
    if used.is_averaged:
        notes = (f"averaged weights ({clean(used.where)}) are used", *notes)
    elif also and used.where:
        notes = (f"the weights under {clean(used.where)} are used; {few(map(clean, also))} would also fit", *notes)
    return Filled(used, notes)


def _best(fitting: Sequence[Match]) -> list[Match]:
    """Return the match to use, in a list, or an empty list if none fits."""
    return sorted(fitting, key=lambda match: preference(match.where))[:1]


def _plain(fitting: Sequence[Match]) -> list[Match]:
    """Return the plain weights that complete averaged ones, in a list, or an empty list if none fits."""
    return _best([match for match in fitting if not match.is_averaged] or fitting)


def _candidates(ranked: Sequence[Match], expected: Mapping[str, Tensor]) -> list[Match]:
    """Return the matches that are worth loading: the closest, each set of tensors once.

    Plain weights come before averaged ones, which they complete.
    """
    best = ranked[0].common
    seen, chosen = set(), []
    for match in ranked:
        tensors = frozenset((name, id(match.group.tensors[key])) for name, key in match.names.items())
        if tensors not in seen and (match.common == best or match.is_averaged or match.common >= 0.9 * len(expected)):
            seen.add(tensors)
            chosen.append(match)
    return sorted(chosen[:MOST_TRIES], key=lambda match: (match.is_averaged, _is_discriminator(match.where)))


def preference(where: str) -> tuple[bool, bool, int, int]:
    """Return the sort key of a path to weights: discriminators last; before them averaged weights, usual keys and the
    outermost first."""
    keys = where.split(".")
    usual = min((USUAL_KEYS.index(key) for key in keys if key in USUAL_KEYS), default=len(USUAL_KEYS))
    return _is_discriminator(where), not is_averaged(where), usual, len(keys)


def _load(
    network: nn.Module,
    match: Match,
    expected: Mapping[str, Tensor],
    tied: Mapping[str, Sequence[str]],
    file: str,
    others: Sequence[Match],
) -> tuple[str, ...]:
    """Load weights into a network and return remarks on them. Raise LoadError if they do not fit.

    Whatever is not averaged, such as the statistics of batch norm, is loaded from ``others``, the plain weights.
    """
    state, notes = match.state, []
    trained = {name for name, values in network.named_parameters() if values.requires_grad}
    if others and match.is_averaged and trained <= state.keys():
        averaged, state = state, others[0].state
        state.update(averaged)
    for name in expected.keys() - state.keys():
        state.update((name, state[other]) for other in tied.get(name, ()) if other in state)
    extra = [name for name in state if name not in expected]
    dropped = [name for name in extra if _is_computed(network, name, state[name])]
    kept = [name for name, like in expected.items() if name not in state and _is_kept(network, name, like)]
    kept = [name for name in kept if not name.endswith("num_batches_tracked")]
    for name in dropped:
        del state[name]
    state.update((name, expected[name]) for name in kept)
    counters = [name for name in expected if name.endswith("num_batches_tracked") and name not in state]
    state.update((name, torch.tensor(0)) for name in counters)  # only training uses them
    _check_values(state, file)
    for name, values in state.items():
        state[name] = _typed(values, expected.get(name))
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except Exception as error:  # the network's hooks may be foreign code
        raise LoadError("model.weights_misfit", _misfit(match, state, expected, file, error)) from error
    if dropped:
        notes.append(f"buffers in the file that the network computes itself are ignored: {few(map(clean, dropped))}")
    if kept:
        notes.append(f"buffers that the file lacks keep the network's values: {few(kept)}")
    return tuple(notes)


def _tied(network: nn.Module) -> dict[str, list[str]]:
    """Return, by name, all names of tensors that a network has under several; a file may hold them under one."""
    by_id: dict[int, list[str]] = {}
    for name, values in (
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ):
        by_id.setdefault(id(values), []).append(name)
    return {name: names for names in by_id.values() if len(names) > 1 for name in names}


def _typed(values: Tensor, like: Tensor | None) -> Tensor:
    """Return weights as float32, and other tensors with the network's data type."""
    if like is not None and not like.is_floating_point():
        return values.to(like.dtype)
    return values.to(torch.float32) if like is not None or values.is_floating_point() else values


def _is_computed(network: nn.Module, name: str, values: Tensor) -> bool:
    """Return whether an unexpected tensor can only be a buffer, which the network computes itself or lacks."""
    module, _, last = name.rpartition(".")
    if module not in {path for path, _ in network.named_modules()}:
        return False
    return not values.is_floating_point() or last in TRANSIENT or name in dict(network.named_buffers())


def _is_kept(network: nn.Module, name: str, like: Tensor) -> bool:
    """Return whether a tensor that the file lacks may keep the network's values: indexes and counters, not weights."""
    buffers = dict(network.named_buffers())
    return (
        name in buffers
        and not like.is_meta
        and (not like.is_floating_point() or not like.numel() or name.rsplit(".", maxsplit=1)[-1] in TRANSIENT)
    )


def _check_values(state: Mapping[str, Tensor], file: str) -> None:
    if empty := [name for name, values in state.items() if values.is_meta]:
        raise LoadError(
            "model.empty_weights", f"the weights in {file} do not fit the network: {_listed({'without values': empty})}"
        )


def _misfit(
    match: Match, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: str, error: Exception
) -> str:
    """Return the message of an error: what does not fit, or the network's own reason if all names and shapes do."""
    others = match.group.others
    misfits = {
        "missing": [key for key in expected if key not in state and key not in others],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": [
            *(
                f"{key} {_shape(state[key])} instead of {_shape(like)}"
                for key, like in expected.items()
                if key in state and not is_lazy(like) and state[key].shape != like.shape
            ),
            *(f"{k} {type(others[k]).__name__} instead of {_shape(expected[k])}" for k in expected if k in others),
        ],
    }
    reason = _listed(misfits) or clean(str(error).strip().splitlines()[-1] if str(error).strip() else repr(error))[:300]
    return f"the weights in {file} do not fit the network: {reason}"


def _listed(misfits: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(
        f"{len(names)} {kind} ({few(clean(name)[:100] for name in names)})" for kind, names in misfits.items() if names
    )


def _shape(values: Tensor) -> str:
    return "×".join(map(str, values.shape)) or "scalar"
