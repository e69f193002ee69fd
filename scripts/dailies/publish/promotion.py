"""Promotion: a chosen model becomes a version of a registered model, with an alias and what it was judged on."""

import getpass
import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies.core.errors import (
    DailiesError,
    PromotionError,
    StoreError,
    StoreUnreachable,
)
from dailies.core.text import clean, few
from dailies.publish import evaluation
from dailies.state.fetch import receive
from dailies.state.layout import Layout, Weights, model_of
from dailies.state.records import (
    SUCCESS,
    Metadata,
    ModelRecord,
    RunRecord,
    is_metadata,
    rendered_artifact,
)
from dailies.store import registry
from dailies.store.entities import Artifact
from dailies.store.registry import MISSING
from dailies.store.tracking import error_code
from dailies.store.writer import Ledger, open_ledger

if TYPE_CHECKING:
    from dailies.planning.config import Settings


log = logging.getLogger(__name__)

HOW = "snakemake promote --config model=<folder> registered_model=<name> alias=<alias>"

NAMED = 20
"""How many folders an error lists."""

ALIAS = re.compile(r"(?!(?:latest|v\d+)$)[\w.-]+", re.ASCII | re.IGNORECASE)
"""What MLflow accepts for an alias: ``latest``, and ``v`` before a number, it keeps to itself."""

MODEL_NAME = re.compile(r"(?!\.{1,2}$)[^/:\x00-\x1f]+")

LONGEST_NAME = 250
"""Characters of a registered model's name and of an alias."""

OURS = "dailies."
"""How the tags begin that say what a version was judged on."""

METRICS = f"{OURS}metrics."


@dataclass(frozen=True)
class Decision:
    """Which model is to be promoted to what, and what it was judged on."""

    model: str
    """Its folder's name."""
    registered_model: str
    alias: str
    run_id: str
    experiment_id: str
    artifact: Artifact
    """As discovery found it: where the store says that it is."""
    sha256: str
    """Digest of the artifact that was rendered."""
    tags: Mapping[str, str]


def decided(settings: "Settings", layout: Layout) -> Decision:
    """Read a decision from the keys ``model``, ``registered_model`` and ``alias``; nothing is asked of MLflow.

    Raises PromotionError when one is missing or none that MLflow accepts, and when ``model`` is not the folder, or
    the beginning of just one, of a model whose frames are all in place as they were rendered.
    """
    there = sorted(model_of(path) for path in layout.all_metadata() if is_metadata(path))
    missing = [key for key in ("model", "registered_model", "alias") if getattr(settings, key) is None]
    if missing:
        raise PromotionError(
            "publish.incomplete_request",
            f"promote needs {' and '.join(missing)}: {HOW}; the models here: {few(there, NAMED)}",
        )
    _refuse_names(settings.registered_model, settings.alias)
    model = _chosen(settings.model, there, layout.output_dir)
    about = Metadata.load(layout.metadata(model))
    if about.render.status != SUCCESS:
        why = f"{about.render.status}: {clean(about.render.error or '')}"
        raise PromotionError("publish.not_rendered", f"{model} cannot be promoted because it was not rendered: {why}")
    record = ModelRecord.load_if_there(layout.record(model))
    if record is None or not layout.sequence.is_file():
        raise PromotionError(
            "publish.unknown_origin",
            f"the record of where {model} comes from is missing; run snakemake, then promote it",
        )
    return Decision(
        model=model,
        registered_model=settings.registered_model,
        alias=settings.alias,
        run_id=record.run_id,
        experiment_id=record.experiment_id,
        artifact=rendered_artifact(record, RunRecord.load_if_there(layout.run(model)), about.artifact),
        sha256=about.artifact.sha256,
        tags=evaluation.grounds(model, about) | _frames_tags(model, about, layout),
    )


def _refuse_names(registered_model: str, alias: str) -> None:
    if not MODEL_NAME.fullmatch(registered_model) or len(registered_model) > LONGEST_NAME:
        raise PromotionError(
            "publish.bad_registered_model",
            f"registered_model is {clean(registered_model)[:80]!r}; allowed: a name without '/' and ':', "
            f"of at most {LONGEST_NAME} characters",
        )
    if not ALIAS.fullmatch(alias) or len(alias) > LONGEST_NAME:
        raise PromotionError(
            "publish.bad_alias",
            f"alias is {clean(alias)[:80]!r}; allowed: letters, digits, '_', '.' and '-', such as champion, "
            "but not latest or v1, which MLflow reserves",
        )


def _chosen(asked: str, there: list[str], output_dir: Path) -> str:
    """Give the folder that a user named: whole, by a path, or by its beginning."""
    name = Path(asked).name
    fitting = [folder for folder in there if folder == name] or [folder for folder in there if folder.startswith(name)]
    if len(fitting) == 1 and name:
        return fitting[0]
    if fitting and name:
        raise PromotionError(
            "publish.ambiguous_model",
            f"model is {clean(asked)}, and {len(fitting)} folders begin so: {few(fitting, NAMED)}; "
            "give more of its name",
        )
    raise PromotionError(
        "publish.unknown_model",
        f"model is {clean(asked)[:200]}, which is no rendered model in {output_dir}; "
        f"the models there: {few(there, NAMED)}",
    )


def _frames_tags(model: str, about: Metadata, layout: Layout) -> dict[str, str]:
    """Give the tags of the frames that a model was judged on. Raises PromotionError when they are not those."""
    tags = evaluation.frames_judged(model, about, layout)
    if tags is None:
        raise PromotionError(
            "publish.frames_changed",
            f"the frames of {model} are not all there as they were rendered over this sequence: "
            "run snakemake, look at them again, and promote it then",
        )
    return tags


def promote(settings: "Settings", *, model: str, layout: Layout) -> str:
    """Register a model's artifact, set the alias, tag the version; say in a sentence what was done.

    A version of the same source and digest is used again. Raises PromotionError or StoreError when nothing was done.
    """
    decision = decided(settings.model_copy(update={"model": model}), layout)
    ledger = open_ledger(settings, layout.upgraded)
    ledger.refuse_unwritable()
    ledger.refuse_without_registry()
    _refuse_changed(ledger, decision, layout)
    before = _alias_now(ledger, decision)
    version = _standing(ledger, decision)
    made = version is None
    if made:
        version = _register(ledger, decision)
    number = str(version.version)
    moved = before != number
    tags = dict(decision.tags)
    if made or moved:
        # only when the registry changes anyway: promoting the same again writes nothing
        tags |= {f"{OURS}promoted_by": _user(), f"{OURS}promoted_at": datetime.now(UTC).isoformat(timespec="seconds")}
    if moved and before is not None:
        tags[f"{OURS}alias_moved_from.{decision.alias}"] = before
    changed = _tag(ledger, version, tags)
    if moved:
        name, alias = decision.registered_model, decision.alias
        ledger.ask(lambda client: client.set_registered_model_alias(name, alias, number))
    text = _told(decision, number, made=made, before=before, changed=changed)
    log.info("%s", text)
    return text


def _told(decision: Decision, number: str, *, made: bool, before: str | None, changed: bool) -> str:
    what = f"{decision.model} is {'now ' if made else ''}version {number} of {decision.registered_model}"
    if before == number:
        same = "what it was judged on is written anew" if changed else "nothing was changed"
        return f"{what}, @{decision.alias} already; {same}."
    was = f", which was version {before} before" if before is not None else ""
    return f"{what}, and @{decision.alias}{was}."


def _refuse_changed(ledger: Ledger, decision: Decision, layout: Layout) -> None:
    """Fetch the artifact as the store holds it now, and raise PromotionError unless it is the one rendered."""
    with tempfile.TemporaryDirectory(dir=layout.state, prefix="promoting-") as folder:
        try:
            now = receive(ledger, decision.artifact, Weights(Path(folder))).sha256
        except StoreUnreachable:
            raise
        except (DailiesError, OSError) as error:
            raise PromotionError(
                "publish.artifact_unavailable", f"{decision.model} cannot be promoted: {clean(str(error))}"
            ) from error
    if now != decision.sha256:
        raise PromotionError(
            "publish.artifact_changed",
            f"the artifact of {decision.model} in the store is another than the one that was rendered "
            f"(sha256 {now[:12]}… instead of {decision.sha256[:12]}…): run snakemake, look at its frames again, "
            "and promote it then",
        )


def _alias_now(ledger: Ledger, decision: Decision) -> str | None:
    """Give the number of the version that has the alias; None when no version has it."""
    name, alias = decision.registered_model, decision.alias
    try:
        return str(ledger.ask(lambda client: client.get_model_version_by_alias(name, alias)).version)
    except StoreUnreachable:
        raise
    except StoreError as error:
        if error_code(error) not in MISSING:
            raise
        return None


def _standing(ledger: Ledger, decision: Decision) -> Any | None:
    """Give the newest version that stands for the very artifact; None when there is none."""
    place = decision.artifact.uri, decision.artifact.path
    versions = sorted(registry.versions_of(ledger, decision.registered_model), key=lambda each: -int(each.version))
    for found in versions:
        judged = found.tags.get(f"{OURS}artifact_sha256", decision.sha256)
        if judged == decision.sha256 and _place(ledger, found) == place:
            return found
    return None


def _place(ledger: Ledger, found: Any) -> tuple[str, str] | None:
    try:
        version = registry.resolved(ledger, registry.read(found, None))
    except StoreUnreachable:
        raise
    except StoreError:  # a version whose files are gone is not this one
        return None
    return version.uri, version.path


def _register(ledger: Ledger, decision: Decision) -> Any:
    model_id, source = _source(ledger, decision)
    name = decision.registered_model
    try:
        ledger.ask(lambda client: client.get_registered_model(name))
    except StoreUnreachable:
        raise
    except StoreError as error:
        if error_code(error) not in MISSING:
            raise
        ledger.ask(lambda client: client.create_registered_model(name))
        log.info("%s is a new registered model", name)
    return ledger.ask(
        lambda client: client.create_model_version(
            name, source, run_id=decision.run_id, tags=dict(decision.tags), model_id=model_id
        )
    )


def _source(ledger: Ledger, decision: Decision) -> tuple[str | None, str]:
    """Give the logged model that the artifact is, if it is one, and the artifact in MLflow's notation."""
    artifact = decision.artifact
    if model_id := evaluation.logged_model(ledger, decision.experiment_id, decision.run_id, artifact.uri):
        return model_id, f"models:/{model_id}"
    run = ledger.run(decision.run_id)
    if run is None or run.deleted:
        raise PromotionError(
            "publish.run_deleted",
            f"run {decision.run_id} of {decision.model} was deleted from {ledger.name}; restore it, or choose another",
        )
    path = f"/{artifact.path}" if artifact.path else ""
    return None, f"runs:/{run.run_id}{path}" if artifact.uri == run.artifact_uri else f"{artifact.uri}{path}"


def _tag(ledger: Ledger, version: Any, tags: Mapping[str, str]) -> bool:
    """Set those tags that differ, take away metrics that are not among them; tell whether there were any."""
    name, number = version.name, str(version.version)
    differ = {key: value for key, value in tags.items() if version.tags.get(key) != value}
    gone = [key for key in version.tags if key.startswith(METRICS) and key not in tags]
    for key, value in differ.items():
        ledger.ask(lambda client, key=key, value=value: client.set_model_version_tag(name, number, key, value))
    for key in gone:
        ledger.ask(lambda client, key=key: client.delete_model_version_tag(name, number, key))
    return bool(differ or gone)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"
