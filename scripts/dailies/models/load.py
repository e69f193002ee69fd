"""Loading: turn a downloaded artifact into a network that is ready to render, with its signature."""

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
from dailies.models.checkpoints import PERMISSION_ADVICE, RUN_PARAMS, Checkpoint, read_checkpoint
from dailies.models.factories import Factories, channels_of
from dailies.models.file_kinds import MLMODEL, WEIGHTS
from dailies.models.loaders import Loaders, input_channels
from dailies.models.programs.load import SAFE, load_program, program_kind
from dailies.models.signature import Signature, overrides, resolve_signature, signature_hints
from dailies.models.training_progress import TrainingProgress
from dailies.models.user_code import make_importable

log = logging.getLogger(__name__)

FLAVORS = {"pytorch": "model_data", "onnx": "data"}
"""The flavours of MLflow that can be loaded, best first, each with the key that holds its file or folder."""

MODEL_PREFIX = "model."
"""Run params with this prefix state the configuration of the network: ``model.base_channels`` = ``64``."""

SMALL_NUMBER = re.compile(r"-?\d+(\.\d+)?e-?\d+")
"""A small number as Python writes it, which YAML reads as text."""


@dataclass(frozen=True)
class Hints:
    """What is known about a model apart from its artifact."""

    folder: str = ""
    """The name of the model's folder."""
    architecture: str | None = None
    """The architecture of the run, else ``default_architecture``; one that the checkpoint states takes precedence."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The configuration of the network in the run's params, used if the checkpoint has none: the params that begin with
    ``model.``, as nested dicts, or all params if none does."""
    config_from: str = RUN_PARAMS
    """The source of ``config``, in words."""
    signature: Mapping[str, Any] = field(default_factory=dict)
    """The signature in the run's ``dailies.…`` params and tags."""
    signatures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The signatures in the configuration, by architecture or folder name."""
    params: Mapping[str, str] = field(default_factory=dict)
    """All params of the run, for a user's function that declares them."""

    @classmethod
    def gather(
        cls,
        folder: str,
        settings: Mapping[str, Any],
        *,
        architecture: str | None,
        run_hints: Mapping[str, str],
        params: Mapping[str, str] | None = None,
    ) -> "Hints":
        """Collect the hints in the run and in the configuration.

        Args:
            folder: the name of the model's folder.
            settings: the settings of loading, by key.
            architecture: the architecture that the run states.
            run_hints: the params and tags of the run that concern rendering.
            params: all params of the run.
        """
        params = params or {}
        section = {key: text for key, text in {**params, **run_hints}.items() if key.startswith(MODEL_PREFIX)}
        return cls(
            folder=folder,
            architecture=architecture or settings["default_architecture"],
            config=unflattened({name.removeprefix(MODEL_PREFIX): text for name, text in section.items()} or params),
            config_from=RUN_PARAMS if section or not params else "the run's params",
            params=params,
            signature=signature_hints(run_hints),
            signatures=settings["signatures"],
        )


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode, with what is known about it."""

    network: nn.Module
    """Maps float32 ``(batch, channels, height, width)`` to the same, scaled; ``signature`` holds the details."""
    architecture: str
    signature: Signature = field(default_factory=Signature)
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    """Epoch and losses in the checkpoint."""
    builder: str = "dailies"
    """What built the network: dailies, spandrel, a user's function (``model_factory`` or ``model_loader``), pickle, or
    the kind of program that the artifact is."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The configuration of the network, or the run's params that a loader received; empty if it came whole."""
    notes: tuple[str, ...] = ()
    """Remarks for the user on how it was loaded."""


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
        hints: what is known apart from the artifact.
        factories: the functions that build networks.
        loaders: the user's functions that load artifacts; if one is named for this model, nothing else is tried.
        trust_code: whether code in the artifact may run.

    Raises:
        LoadError: the artifact holds no network, needs permission, or its weights fit no known network.
    """
    hints, factories, loaders = hints or Hints(), factories or Factories(), loaders or Loaders()
    artifact = path
    if function := loaders.select(architecture=hints.architecture, folder=hints.folder):
        return _from_loader(artifact, function, loaders, hints)
    code: list[Path] = []
    if path.is_dir():
        path, code = _mlflow_file(path)
    if trust_code:
        make_importable(*code, *factories.python_path)
    if kind := program_kind(path):
        return _from_program(path, kind, hints, trust_code)
    try:
        read = read_checkpoint(path, trusted=trust_code)
    except UnknownKind as error:
        raise LoadError(error.code, f"{error}; known architectures: {factories.known()}") from error
    if isinstance(read, nn.Module):
        return _from_pickle(read, hints)
    if read.architecture and (function := loaders.select(architecture=read.architecture, folder=hints.folder)):
        return _from_loader(artifact, function, loaders, replace(hints, architecture=read.architecture))
    return _from_weights(read, hints, factories)


def unflattened(flat: Mapping[str, str]) -> dict[str, Any]:
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
            inner[last] = _param_value(text)
    return result


def _param_value(text: str) -> Any:
    """Parse a param, which MLflow stores as Python's ``str`` of the value."""
    if SMALL_NUMBER.fullmatch(text):
        return float(text)
    try:
        return None if text == "None" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text


def _signature(known: Signature, architecture: str, hints: Hints, read: Checkpoint | None = None) -> Signature:
    configured = overrides(hints.signatures, architecture=architecture, folder=hints.folder)
    return resolve_signature(
        known,
        ("signatures in the configuration", configured),
        ("the run", hints.signature),
        ("the checkpoint", read.signature if read else {}),
    )


def _from_weights(read: Checkpoint, hints: Hints, factories: Factories) -> Model:
    """Build the network for the weights of a checkpoint."""
    if not read.config:
        read = replace(read, config=hints.config, config_from=hints.config_from)
    name = read.architecture or hints.architecture or ""
    try:
        built = factories.build(read, name, params=hints.params)
    except LoadError as error:
        if not read.needs or factories.select(name):
            raise
        raise LoadError(
            "model.needs_permission",
            f"{read.file} needs {listed(read.needs)} to be loaded, which can run code; {PERMISSION_ADVICE}; or set "
            "model_factory to a function that builds the network for its weights",
        ) from error
    for note in built.notes:
        log.info("%s: %s", read.file, note)
    return Model(
        network=built.network,
        architecture=built.architecture,
        signature=_signature(built.signature, built.architecture, hints, read),
        progress=read.progress,
        builder=built.builder,
        config=built.config,
        notes=built.notes,
    )


def _from_loader(path: Path, function: str, loaders: Loaders, hints: Hints) -> Model:
    """Load an artifact with the user's ``model_loader``."""
    network, params = loaders.load(function, path, hints.params)
    kind = network.original_name if isinstance(network, torch.jit.ScriptModule) else type(network).__name__
    name = (hints.architecture or kind).lower()
    known = Signature(channels=input_channels(network))
    return Model(network, name, _signature(known, name, hints), builder=function, config=params)


def _from_program(path: Path, kind: str, hints: Hints, trust_code: bool) -> Model:
    program = load_program(path, kind, trusted=trust_code)
    known = Signature(
        channels=program.channels or Signature.channels,
        multiple=lcm(Signature.multiple, program.sizes.multiple),
        least=program.sizes.least,
        most=program.sizes.most,
        tile=program.sizes.fixed,
    )
    name = (hints.architecture or kind).lower()
    notes = () if kind in SAFE else ("its code was loaded because trust_code allows it",)
    return Model(program.network, name, _signature(known, name, hints), builder=kind, notes=notes)


def _from_pickle(network: nn.Module, hints: Hints) -> Model:
    """Use a network that was pickled whole."""
    name = (hints.architecture or type(network).__name__).lower()
    ready = network.float().eval().requires_grad_(False)
    known = Signature(channels=channels_of(ready))
    return Model(ready, name, _signature(known, name, hints), builder="pickle", notes=("it was unpickled whole",))


def _mlflow_file(folder: Path) -> tuple[Path, list[Path]]:
    """Return the file of an MLflow model, in the layout of 2.x or 3.x, and the folders of its code."""
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
    flavor, entry = found
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    data = folder / str(entry.get(FLAVORS[flavor]) or "data")
    inside = [path for path in files if path.is_relative_to(data)]
    weights = [path for path in inside if path.suffix.lower() in WEIGHTS]
    if not weights:
        present = listed(path.name for path in inside)
        raise LoadError(
            "model.flavour_without_file",
            f"{name}, an MLflow model of flavour {flavor}, contains no model file; its files: {present}",
        )
    return weights[0], [folder / str(entry["code"])] if entry.get("code") else []
