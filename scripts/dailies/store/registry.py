"""The model registry: find the run and the files of a version of a registered model."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dailies.core.errors import StoreError, StoreUnreachable
from dailies.core.text import clean, few
from dailies.store.entities import LONGEST_NAME, Run
from dailies.store.locations import path_of
from dailies.store.tracking import NAMED, TrackingStore, error_code

ASKED = re.compile(r"(?:models:/)?([^/:]+)(?:@([^/:@]+)|/([0-9]+))")
"""How a user names a version: ``name@alias`` or ``name/3``, with or without MLflow's ``models:/``."""

LOGGED_MODEL = re.compile(r"models:/(m-[^/@]+)")

IN_RUN = re.compile(r"runs:/+([^/]+)/*(.*)")

FOLLOWED = 5
"""How many steps are followed from a copied version to its original."""

EVERY = "name != 'mlflow.prompt.is_prompt'"
"""A search expression that every registered model matches.

To exclude prompts, MLflow 3.17 adds a condition on this tag unless the expression names it already. Servers of MLflow
2.14 and 2.9 would then exclude every model without the tag.
"""

MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
"""Error codes for a model, version, alias or run that does not exist."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    version: str
    alias: str | None
    """The alias by which the user named it; None for a number."""
    source: str
    """Its files: an artifact location, ``runs:/…`` or ``models:/…``."""
    run_id: str
    status: str
    updated: int
    """Milliseconds since 1970."""

    def __str__(self) -> str:
        """Return what errors call it."""
        return f"version {self.version} of registered model {clean(self.name)[:LONGEST_NAME]}"


@dataclass(frozen=True)
class Registered:
    """A version with its run and its files."""

    version: Version
    run: Run
    uri: str
    """The artifact location that holds its files."""
    path: str
    """A file or folder below ``uri``; "" for the location itself."""
    updated: int | None
    """Last change in milliseconds since 1970 if the version has its own location; None if its files are the run's."""


def registered(store: TrackingStore, asked: Sequence[str]) -> list[Registered]:
    """Return the versions that a user named, in this order. Raises StoreError, which lists those that exist."""
    return [resolve(store, _version(store, text)) for text in asked]


def _version(store: TrackingStore, asked: str) -> Version:
    match = ASKED.fullmatch(asked)
    if match is None:
        raise ValueError(f"{asked!r} is not name@alias or name/number")
    name, alias, number = match.groups()
    if not store.has_registry:
        raise _no_model(store, name)
    try:
        if alias:
            return read_version(store.ask(lambda client: client.get_model_version_by_alias(name, alias)), alias)
        return read_version(store.ask(lambda client: client.get_model_version(name, str(int(number)))), None)
    except StoreUnreachable:
        raise
    except StoreError as error:
        if error_code(error) not in MISSING:
            raise
        what = f"alias {clean(alias)}" if alias else f"version {int(number)}"
        raise _no_version(store, name, what) from error


def read_version(found: Any, alias: str | None) -> Version:
    """Return MLflow's model version as a Version; ``alias`` is the one by which the user named it."""
    return Version(
        name=found.name,
        version=str(found.version),
        alias=alias,
        source=found.source or "",
        run_id=found.run_id or "",
        status=str(found.status),
        updated=found.last_updated_timestamp or 0,
    )


def resolve(store: TrackingStore, version: Version) -> Registered:
    """Return a version with its run and files. Raises StoreError if it is not ready, or its run or model is missing."""
    if version.status != "READY":
        raise StoreError(
            "registry.version_not_ready",
            f"{version} is {clean(version.status)}, not READY; {_existing(store, version.name)}",
        )
    source, run_id, updated = version.source, version.run_id, version.updated
    for _ in range(FOLLOWED):
        if match := LOGGED_MODEL.fullmatch(source):
            model = _logged_model(store, version, match[1])
            source, run_id, updated = (
                model.artifact_location,
                run_id or model.source_run_id,
                model.last_updated_timestamp,
            )
        elif source.startswith("models:/") and ASKED.fullmatch(source):
            original = _version(store, source)
            source, run_id, updated = original.source, run_id or original.run_id, original.updated
    if match := IN_RUN.fullmatch(source):
        holder = _run(store, version, match[1])
        run = holder if run_id in {"", holder.run_id} else _run(store, version, run_id)
        return Registered(version, run, holder.artifact_uri, match[2].strip("/"), None)
    run = _run(store, version, run_id)
    root, place = path_of(run.artifact_uri).rstrip("/"), path_of(source).rstrip("/")
    if root and (place == root or place.startswith(f"{root}/")):
        return Registered(version, run, run.artifact_uri, place[len(root) + 1 :], None)
    return Registered(version, run, source, "", updated)


def _logged_model(store: TrackingStore, version: Version, model_id: str) -> Any:
    try:
        return store.ask(lambda client: client.get_logged_model(model_id))
    except StoreError as error:
        if error_code(error) not in MISSING:
            raise
        raise StoreError(
            "registry.logged_model_missing",
            f"{version} was created from the logged model {clean(model_id)}, which does not exist in {store.name}; "
            f"name another version; {_existing(store, version.name)}",
        ) from error


def _run(store: TrackingStore, version: Version, run_id: str) -> Run:
    run = store.run(run_id) if run_id else None
    if run is not None and not run.deleted:
        return run
    if run is not None:
        what = f"of run {run.run_id}, which was deleted; restore that run or name another version"
    elif run_id:
        what = f"of run {clean(run_id)[:64]}, which does not exist in {store.name}; name another version"
    else:
        what = "of no run, so its origin is unknown; register it from a run or a logged model"
    raise StoreError("registry.version_unusable", f"{version} is {what}; {_existing(store, version.name)}")


def _no_model(store: TrackingStore, name: str) -> StoreError:
    pages = store.pages(lambda client, token: client.search_registered_models(EVERY, max_results=100, page_token=token))
    names = [model.name for model in pages] if store.has_registry else []
    return StoreError(
        "registry.no_model",
        f"registered model {clean(name)} does not exist in {store.name}; registered models there: {_listed(names)}",
    )


def _no_version(store: TrackingStore, name: str, what: str) -> StoreError:
    try:
        existing = _existing(store, name)
    except StoreError as error:
        if error_code(error) not in MISSING:
            raise
        return _no_model(store, name)
    return StoreError("registry.no_version", f"registered model {clean(name)} has no {what}; {existing}")


def _existing(store: TrackingStore, name: str) -> str:
    """Return a clause that lists the versions and aliases of a registered model."""
    aliases: Mapping[str, Any] = store.ask(lambda client: client.get_registered_model(name)).aliases
    versions = sorted((int(version.version), str(version.status)) for version in versions_of(store, name))
    numbers = [f"{number}" if status == "READY" else f"{number} ({status})" for number, status in versions]
    named = [f"{alias} (version {number})" for alias, number in sorted(aliases.items())]
    return f"its versions: {_listed(numbers)}; its aliases: {_listed(named)}"


def versions_of(store: TrackingStore, name: str) -> Iterator[Any]:
    """Yield MLflow's versions of a registered model."""
    quote = '"' if "'" in name else "'"
    return store.pages(
        lambda client, token: client.search_model_versions(f"name={quote}{name}{quote}", page_token=token)
    )


def _listed(texts: Iterable[str]) -> str:
    return few((clean(text)[:LONGEST_NAME] for text in texts), NAMED)
