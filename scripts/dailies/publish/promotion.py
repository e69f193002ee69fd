"""Promotion: register a chosen model as a version, with an alias and tags that state its frames and metrics."""

import getpass
import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies.core.errors import DailiesError, PromotionError, StoreError, StoreUnreachable
from dailies.core.text import clean, counted, few
from dailies.frames.sequence import load as load_sequence
from dailies.publish import evaluation
from dailies.state import votes, weights_folder
from dailies.state.layout import Layout, Weights, model_of
from dailies.state.records import (
    BEST,
    SUCCESS,
    TIE,
    Leaderboard,
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
from dailies.store.writer import WritableStore, open_writable_store

if TYPE_CHECKING:
    from dailies.planning.config import Settings


log = logging.getLogger(__name__)

COMMAND = "snakemake promote --config model=<folder> registered_model=<name> alias=<alias>"

MOST_LISTED = 20
"""How many folders an error lists."""

ALIAS = re.compile(r"(?!(?:latest|v\d+)$)[\w.-]+", re.ASCII | re.IGNORECASE)
"""Aliases that MLflow accepts; it reserves ``latest`` and ``v`` with a number."""

MODEL_NAME = re.compile(r"(?!\.{1,2}$)[^/:\x00-\x1f]+")
"""Names of registered models that MLflow accepts."""

LONGEST_NAME = 250
"""Characters of a registered model's name, and of an alias."""

TAG_PREFIX = "dailies."
"""Prefix of the tags of a version."""

REPLACED_TAG_PREFIXES = (
    f"{TAG_PREFIX}metrics.",
    f"{TAG_PREFIX}votes.",
    f"{TAG_PREFIX}rank",
    f"{TAG_PREFIX}verdict",
)
"""Prefixes of tags that are deleted once they no longer hold."""


@dataclass(frozen=True)
class Promotion:
    """A request to promote a model, validated."""

    model: str
    """The name of its output folder."""
    registered_model: str
    alias: str
    run_id: str
    experiment_id: str
    artifact: Artifact
    """As discovery found it, with the location that the store names."""
    sha256: str
    """Digest of the artifact that was rendered."""
    tags: Mapping[str, str]
    """What the version states about the rendered model: frames, metrics and digests."""
    caution: str | None
    """Why another model may be the better choice, as a sentence; None for the best, and without a ranking."""
    uncounted: str | None
    """Which imported votes on the model do not count, as a sentence; None if all do."""


def requested(settings: "Settings", layout: Layout) -> Promotion:
    """Return the promotion that ``model``, ``registered_model`` and ``alias`` request, without contacting MLflow.

    Raises PromotionError if one of them is missing, if MLflow would not accept the name or alias, or if ``model`` does
    not identify (by its folder's name or a unique beginning of it) one model whose frames are all in place.
    """
    there = sorted(model_of(path) for path in layout.all_metadata() if is_metadata(path))
    folder, name, alias = settings.model, settings.registered_model, settings.alias
    if folder is None or name is None or alias is None:
        missing = [key for key in ("model", "registered_model", "alias") if getattr(settings, key) is None]
        raise PromotionError(
            "publish.incomplete_request",
            f"promote needs {' and '.join(missing)}: {COMMAND}; rendered models: {few(there, MOST_LISTED)}",
        )
    _refuse_bad_names(name, alias)
    model = _chosen(folder, there, layout.output_dir)
    metadata = Metadata.load(layout.metadata(model))
    if metadata.render.status != SUCCESS:
        why = f"{metadata.render.status}: {clean(metadata.render.error or '')}"
        raise PromotionError("publish.not_rendered", f"{model} cannot be promoted because it was not rendered: {why}")
    if metadata.knocked_out:
        raise PromotionError(
            "publish.knocked_out",
            f"{model} was knocked out, so only {counted(metadata.render.frames, 'frame')} decided on it "
            f"({metadata.knocked_out}); raise finalists, run snakemake, review the frames, and promote it then",
        )
    record = ModelRecord.load_if_there(layout.record(model))
    if record is None or not layout.sequence.is_file():
        raise PromotionError(
            "publish.unknown_origin",
            f"the records of {model} in {layout.state} are missing; run snakemake, then promote it",
        )
    tally = _votes(there, layout)
    return Promotion(
        model=model,
        registered_model=name,
        alias=alias,
        run_id=record.run_id,
        experiment_id=record.experiment_id,
        artifact=rendered_artifact(record, RunRecord.load_if_there(layout.run(model)), metadata.artifact),
        sha256=metadata.artifact.sha256 or "",
        tags=evaluation.model_tags(model, metadata)
        | _rank_tags(metadata)
        | _frame_tags(model, metadata, layout)
        | votes.tags(tally.counts.get(model)),
        caution=_caution(model, metadata, layout),
        uncounted=tally.note(model),
    )


def _refuse_bad_names(registered_model: str, alias: str) -> None:
    if not MODEL_NAME.fullmatch(registered_model) or len(registered_model) > LONGEST_NAME:
        raise PromotionError(
            "publish.bad_registered_model",
            f"registered_model is {clean(registered_model)[:80]!r}; allowed is a name without '/' and ':', "
            f"of at most {LONGEST_NAME} characters",
        )
    if not ALIAS.fullmatch(alias) or len(alias) > LONGEST_NAME:
        raise PromotionError(
            "publish.bad_alias",
            f"alias is {clean(alias)[:80]!r}; allowed are letters, digits, '_', '.' and '-', as in champion, "
            "but not latest or v1, which MLflow reserves",
        )


def _chosen(asked: str, there: list[str], output_dir: Path) -> str:
    """Return the folder that a user named by its name, by a path, or by the beginning of its name."""
    name = Path(asked).name
    matches = [folder for folder in there if folder == name] or [folder for folder in there if folder.startswith(name)]
    if len(matches) == 1 and name:
        return matches[0]
    if matches and name:
        raise PromotionError(
            "publish.ambiguous_model",
            f"model is {clean(asked)[:200]}, which {len(matches)} folders begin with: {few(matches, MOST_LISTED)}; "
            "write more of the name",
        )
    raise PromotionError(
        "publish.unknown_model",
        f"model is {clean(asked)[:200]}, but {output_dir} contains no rendered model of that name; "
        f"rendered models: {few(there, MOST_LISTED)}",
    )


def _rank_tags(metadata: Metadata) -> dict[str, str]:
    """Return the tags of a model's place among the others; none without a ranking."""
    if metadata.rank is None or metadata.verdict is None:
        return {}
    return {f"{TAG_PREFIX}rank": str(metadata.rank), f"{TAG_PREFIX}verdict": metadata.verdict}


def _caution(model: str, metadata: Metadata, layout: Layout) -> str | None:
    """Return why another model may be the better choice: this one ties for the first place, or is not the first."""
    if metadata.rank is None or metadata.verdict == BEST or not layout.verdict.is_file():
        return None
    board = Leaderboard.load(layout.verdict)
    if board.ranking is None:
        return None
    metric = next((each.label for each in board.metrics if each.name == board.ranking.metric), board.ranking.metric)
    others = [each.model for each in board.ranking.models if each.verdict == TIE and each.model != model]
    if metadata.verdict == TIE:
        return f"Note that it ties for the first place by {metric} with {few(others)}."
    first = board.ranking.models[0].model
    return f"Note that it ranks {metadata.rank} of {len(board.ranking.models)} by {metric}; the first is {first}."


def _frame_tags(model: str, metadata: Metadata, layout: Layout) -> dict[str, str]:
    """Return the tags of a model's frames. Raises PromotionError if frames or sequence have changed."""
    tags = evaluation.frame_tags(model, metadata, layout)
    if tags is None:
        raise PromotionError(
            "publish.frames_changed",
            f"frames of {model} or of the sequence are missing or were changed after the render; run snakemake, review "
            "the frames, and promote the model then",
        )
    return tags


def _votes(there: list[str], layout: Layout) -> votes.Tally:
    """Return the imported votes; ``there`` are the folders of all rendered models."""
    artifacts = {each: Metadata.load(layout.metadata(each)).artifact.sha256 for each in there}
    return votes.CastVotes.imported(layout).count(load_sequence(layout.sequence), artifacts)


def promote(settings: "Settings", *, model: str, layout: Layout) -> str:
    """Register a model's artifact as a version, set the alias, tag the version; return a sentence that says so.

    An existing version of the same artifact is reused, so running it again is a no-op. If the alias pointed to another
    version it is moved, and a tag records the previous one. Raises PromotionError or StoreError.
    """
    promotion = requested(settings.model_copy(update={"model": model}), layout)
    store = open_writable_store(settings, layout.upgraded)
    store.refuse_unwritable()
    store.refuse_without_registry()
    _refuse_changed(store, promotion, layout)
    previous = _version_with_alias(store, promotion)
    existing = _existing_version(store, promotion)
    version = _register(store, promotion) if existing is None else existing
    is_new = existing is None
    number = str(version.version)
    is_moved = previous != number
    tags = dict(promotion.tags)
    if is_new or is_moved:
        # only if the registry changes anyway, so that repeating a promotion writes nothing
        now = datetime.now(UTC).isoformat(timespec="seconds")
        tags |= {f"{TAG_PREFIX}promoted_by": _user(), f"{TAG_PREFIX}promoted_at": now}
    if is_moved and previous is not None:
        tags[f"{TAG_PREFIX}alias_moved_from.{promotion.alias}"] = previous
    is_retagged = _tag(store, version, tags)
    if is_moved:
        name, alias = promotion.registered_model, promotion.alias
        store.ask(lambda client: client.set_registered_model_alias(name, alias, number))
    text = _sentence(promotion, number, is_new=is_new, previous=previous, is_retagged=is_retagged)
    text = " ".join(filter(None, [text, promotion.caution, promotion.uncounted]))
    log.info("%s", text)
    return text


def _sentence(promotion: Promotion, number: str, *, is_new: bool, previous: str | None, is_retagged: bool) -> str:
    what = f"{promotion.model} is {'now ' if is_new else ''}version {number} of {promotion.registered_model}"
    if previous == number:
        change = "its tags were updated" if is_retagged else "nothing was changed"
        return f"{what}, @{promotion.alias} already; {change}."
    was = f", which was version {previous} before" if previous is not None else ""
    return f"{what}, and @{promotion.alias}{was}."


def _refuse_changed(store: WritableStore, promotion: Promotion, layout: Layout) -> None:
    """Download the artifact again, and raise PromotionError unless it is the one that was rendered."""
    with tempfile.TemporaryDirectory(dir=layout.state, prefix="promoting-") as folder:
        try:
            sha256 = weights_folder.fill(store, promotion.artifact, Weights(Path(folder))).sha256
        except StoreUnreachable:
            raise
        except (DailiesError, OSError) as error:
            raise PromotionError(
                "publish.artifact_unavailable", f"{promotion.model} cannot be promoted: {clean(str(error))}"
            ) from error
    if sha256 != promotion.sha256:
        raise PromotionError(
            "publish.artifact_changed",
            f"the artifact of {promotion.model} in the store differs from the one that was rendered "
            f"(sha256 {sha256[:12]}… instead of {promotion.sha256[:12]}…): run snakemake, review its frames, "
            "and promote it then",
        )


def _version_with_alias(store: WritableStore, promotion: Promotion) -> str | None:
    """Return the number of the version that has the alias; None if there is none."""
    name, alias = promotion.registered_model, promotion.alias
    try:
        return str(store.ask(lambda client: client.get_model_version_by_alias(name, alias)).version)
    except StoreUnreachable:
        raise
    except StoreError as error:
        if error_code(error) not in MISSING:
            raise
        return None


def _existing_version(store: WritableStore, promotion: Promotion) -> Any | None:
    """Return MLflow's newest version of the same artifact; None if there is none."""
    place = promotion.artifact.uri, promotion.artifact.path
    versions = sorted(registry.versions_of(store, promotion.registered_model), key=lambda each: -int(each.version))
    for found in versions:
        sha256 = found.tags.get(f"{TAG_PREFIX}artifact_sha256", promotion.sha256)
        if sha256 == promotion.sha256 and _place(store, found) == place:
            return found
    return None


def _place(store: WritableStore, found: Any) -> tuple[str, str] | None:
    try:
        version = registry.resolve(store, registry.read_version(found, None))
    except StoreUnreachable:
        raise
    except StoreError:  # a version without files is not this artifact
        return None
    return version.uri, version.path


def _register(store: WritableStore, promotion: Promotion) -> Any:
    model_id, source = _source(store, promotion)
    name = promotion.registered_model
    try:
        store.ask(lambda client: client.get_registered_model(name))
    except StoreUnreachable:
        raise
    except StoreError as error:
        if error_code(error) not in MISSING:
            raise
        store.ask(lambda client: client.create_registered_model(name))
        log.info("%s is a new registered model", name)
    return store.ask(
        lambda client: client.create_model_version(
            name, source, run_id=promotion.run_id, tags=dict(promotion.tags), model_id=model_id
        )
    )


def _source(store: WritableStore, promotion: Promotion) -> tuple[str | None, str]:
    """Return the artifact's logged model id, if it has one, and its source in MLflow's notation."""
    artifact = promotion.artifact
    if model_id := evaluation.logged_model_id(store, promotion.experiment_id, promotion.run_id, artifact.uri):
        return model_id, f"models:/{model_id}"
    run = store.run(promotion.run_id)
    if run is None or run.deleted:
        raise PromotionError(
            "publish.run_deleted",
            f"run {promotion.run_id} of {promotion.model} was deleted from {store.name}; restore it, or choose "
            "another model",
        )
    path = f"/{artifact.path}" if artifact.path else ""
    return None, f"runs:/{run.run_id}{path}" if artifact.uri == run.artifact_uri else f"{artifact.uri}{path}"


def _tag(store: WritableStore, version: Any, tags: Mapping[str, str]) -> bool:
    """Set tags that differ, delete those of metrics and votes that no longer hold; return whether any tag changed."""
    name, number = version.name, str(version.version)
    changed = {key: value for key, value in tags.items() if version.tags.get(key) != value}
    obsolete = [key for key in version.tags if key.startswith(REPLACED_TAG_PREFIXES) and key not in tags]
    for key, value in changed.items():
        store.ask(methodcaller("set_model_version_tag", name, number, key, value))
    for key in obsolete:
        store.ask(methodcaller("delete_model_version_tag", name, number, key))
    return bool(changed or obsolete)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # containers may run under a user id without a name
        return "unknown"
