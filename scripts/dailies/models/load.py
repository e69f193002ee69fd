"""Models: from a downloaded artifact to a network that is ready to render, and how it wants to be fed."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import lcm
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from dailies.core.errors import LoadError, UnknownKind
from dailies.core.text import listed, shown
from dailies.models.checkpoints import (
    RUN_PARAMS,
    TRUST,
    Checkpoint,
    read_checkpoint,
)
from dailies.models.factories import Factories, channels_of
from dailies.models.kinds import MLMODEL, WEIGHTS
from dailies.models.loaders import Loaders, input_channels
from dailies.models.programs import SAFE, is_program, open_program
from dailies.models.progress import Progress
from dailies.models.signature import (
    Signature,
    overrides,
    signature,
    told_by,
)
from dailies.models.user_code import make_importable

log = logging.getLogger(__name__)

FLAVORS = {"pytorch": "model_data", "onnx": "data"}
"""The flavours of MLflow that can be loaded, best first, and the key under which each names its file or folder."""


@dataclass(frozen=True)
class Hints:
    """What is known of a model beside its artifact."""

    folder: str = ""
    """The model's folder name."""
    architecture: str | None = None
    """What the run says, else the configuration's ``default_architecture``; the checkpoint's own word comes first."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What the run's params say to build the network from, used where the checkpoint says nothing: those that begin
    with ``model.``, as nested dicts; all of them where none does."""
    config_from: str = RUN_PARAMS
    run: Mapping[str, Any] = field(default_factory=dict)
    """What the run's ``dailies.…`` params and tags say of the signature."""
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the configuration says of signatures, by architecture or folder name."""
    params: Mapping[str, str] = field(default_factory=dict)
    """All params of the run, for a user's function that declares them."""

    @classmethod
    def gather(
        cls,
        folder: str,
        settings: Mapping[str, Any],
        *,
        architecture: str | None,
        said: Mapping[str, str],
        params: Mapping[str, str] | None = None,
    ) -> "Hints":
        """Take the configuration's settings of loading, what the run says for rendering, and all of its params."""
        params = params or {}
        section = {key: text for key, text in {**params, **said}.items() if key.startswith(MODEL)}
        return cls(
            folder=folder,
            architecture=architecture or settings["default_architecture"],
            config=nested({name.removeprefix(MODEL): text for name, text in section.items()} or params),
            config_from=RUN_PARAMS if section or not params else "the run's params",
            params=params,
            run=told_by(said),
            overrides=settings["signatures"],
        )


SMALL = re.compile(r"-?\d+(\.\d+)?e-?\d+")
"""A number as Python writes small ones, which YAML takes for text."""

MODEL = "model."
"""Run params that begin with it say what the network is built from: ``model.base_channels`` = ``64``."""


def nested(flat: Mapping[str, str]) -> dict[str, Any]:
    """Undo the flattening of a configuration to params: ``a.b`` = ``"1"`` becomes ``{"a": {"b": 1}}``."""
    result: dict[str, Any] = {}
    for name, text in sorted(flat.items()):
        *parents, last = name.split(".")
        inner = result
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                break
        else:
            inner[last] = _value(text)
    return result


def _value(text: str) -> Any:
    """Read a param, which MLflow keeps as Python's ``str`` of it."""
    if SMALL.fullmatch(text):
        return float(text)
    try:
        return None if text == "None" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode, with what is known of it."""

    network: nn.Module
    """Takes float32 ``(batch, channels, height, width)`` as ``signature`` says, and gives the same, scaled."""
    architecture: str
    signature: Signature = field(default_factory=Signature)
    facts: Progress = field(default_factory=Progress)
    """Epoch and losses, as far as the checkpoint tells them."""
    builder: str = "dailies"
    """Who built the network: dailies, spandrel, a user's function (``model_factory`` or ``model_loader``), or the kind
    of program that the artifact is."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What the network was built from, or the run's params that a loader was given; empty where it came whole."""
    notes: tuple[str, ...] = ()
    """What a user may want to know of how it was loaded."""


def load_model(
    path: Path,
    *,
    hints: Hints | None = None,
    factories: Factories | None = None,
    loaders: Loaders | None = None,
    trust_code: bool = False,
) -> Model:
    """Build the network that a downloaded artifact holds, on the CPU, with float32 weights.

    Args:
        path: a file of weights, a program (TorchScript, torch.export, ONNX), or the folder of an MLflow model.
        hints: what is known beside the artifact.
        factories: who builds which network.
        loaders: the user's functions that load artifacts themselves; where one is named, nothing else is tried.
        trust_code: load files whose loading can run code of their author.

    Raises:
        LoadError: saying what was found and what was expected.
    """
    hints, factories, loaders = hints or Hints(), factories or Factories(), loaders or Loaders()
    artifact = path
    if function := loaders.named(architecture=hints.architecture, folder=hints.folder):
        return _loaded(artifact, function, loaders, hints)
    code: list[Path] = []
    if path.is_dir():
        path, code = _flavored(path)
    if trust_code:
        make_importable(*code, *factories.python_path)
    if is_program(path):
        return _program(path, hints, trust_code)
    try:
        read = read_checkpoint(path, trusted=trust_code)
    except UnknownKind as error:
        raise LoadError(error.code, f"{error}; known architectures: {factories.known()}") from error
    if isinstance(read, nn.Module):
        return _whole(read, hints)
    if read.architecture and (function := loaders.named(architecture=read.architecture, folder=hints.folder)):
        return _loaded(artifact, function, loaders, replace(hints, architecture=read.architecture))
    if not read.config:
        read = replace(read, config=hints.config, config_from=hints.config_from)
    name = read.architecture or hints.architecture or ""
    try:
        built = factories.build(read, name, params=hints.params)
    except LoadError as error:
        if not read.needs or factories.is_for(name):
            raise
        raise LoadError(
            "model.needs_permission",
            f"{read.file} needs {listed(read.needs)} to be loaded, which can run code; {TRUST}; or set model_factory "
            "to a function that builds the network for its weights",
        ) from error
    for note in built.notes:
        log.info("%s: %s", read.file, note)
    return Model(
        network=built.network,
        architecture=built.architecture,
        signature=_signature(built.signature, built.architecture, hints, read),
        facts=read.facts,
        builder=built.builder,
        config=built.config,
        notes=built.notes,
    )


def _signature(known: Signature, architecture: str, hints: Hints, read: Checkpoint | None = None) -> Signature:
    return signature(
        known,
        ("signatures in the configuration", overrides(hints.overrides, architecture=architecture, folder=hints.folder)),
        ("the run", hints.run),
        ("the checkpoint", read.said if read else {}),
    )


def _loaded(path: Path, function: str, loaders: Loaders, hints: Hints) -> Model:
    """Take the network that the user's ``model_loader`` makes of an artifact."""
    network, params = loaders.load(function, path, hints.params)
    kind = network.original_name if isinstance(network, torch.jit.ScriptModule) else type(network).__name__
    name = (hints.architecture or kind).lower()
    known = Signature(channels=input_channels(network))
    return Model(network, name, _signature(known, name, hints), builder=function, config=params)


def _program(path: Path, hints: Hints, trust_code: bool) -> Model:
    program = open_program(path, trusted=trust_code)
    known = Signature(
        channels=program.channels or Signature.channels,
        multiple=lcm(Signature.multiple, program.multiple),
        least=program.least,
        most=program.most,
        tile=program.size,
    )
    name = (hints.architecture or program.kind).lower()
    notes = () if program.kind in SAFE else ("loaded as trust_code allows it: it can run code",)
    return Model(program.network, name, _signature(known, name, hints), builder=program.kind, notes=notes)


def _whole(network: nn.Module, hints: Hints) -> Model:
    """Take a network that was pickled as it is."""
    name = (hints.architecture or type(network).__name__).lower()
    ready = network.float().eval().requires_grad_(False)
    known = Signature(channels=channels_of(ready))
    return Model(ready, name, _signature(known, name, hints), builder="pickle", notes=("loaded by unpickling it",))


def _flavored(folder: Path) -> tuple[Path, list[Path]]:
    """Find the file that an ``MLmodel`` describes, in MLflow's layout of 2.x and of 3.x, and its folders of code."""
    name = shown(folder.name)
    try:
        flavors = yaml.safe_load((folder / MLMODEL).read_bytes())["flavors"]
        found = next(((each, flavors[each]) for each in FLAVORS if isinstance(flavors.get(each), Mapping)), None)
    except (OSError, yaml.YAMLError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise LoadError(
            "model.bad_mlmodel", f"{name} is not an MLflow model: its {MLMODEL} file cannot be read"
        ) from error
    if found is None:
        known = " and ".join(FLAVORS)
        raise LoadError(
            "model.unknown_flavour",
            f"{name} is an MLflow model of flavour {listed(map(str, flavors))}; {known} can be loaded",
        )
    flavor, about = found
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    data = folder / str(about.get(FLAVORS[flavor]) or "data")
    inside = [path for path in files if path.is_relative_to(data)]
    weights = [path for path in inside if path.suffix.lower() in WEIGHTS]
    if not weights:
        there = listed(path.name for path in inside)
        raise LoadError(
            "model.flavour_without_file",
            f"{name}, an MLflow model of flavour {flavor}, holds no file of a model; its files: {there}",
        )
    return weights[0], [folder / str(about["code"])] if about.get("code") else []
