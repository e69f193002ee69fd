"""Verbs: what a command line of Snakemake asks for beside running jobs, where its Snakefile is not told."""

from collections.abc import Iterable

from dailies.core.text import counted
from dailies.state.layout import Layout

UNLOCK, DELETE_OUTPUT, DELETE_TEMPORARY = "--unlock", "--delete-all-output", "--delete-temp-output"

SHORTEST = {UNLOCK: "--unl", DELETE_OUTPUT: "--delete-a", DELETE_TEMPORARY: "--delete-t"}
"""How far each may be abbreviated."""

DRY_RUN = ("-n", "--dry")
"""How the word begins for a dry run, which may stand beside other letters: -np."""


def is_asked(verb: str, arguments: Iterable[str]) -> bool:
    """Return whether a command line holds a verb, in full or abbreviated."""
    return any(verb.startswith(each) and each.startswith(SHORTEST[verb]) for each in arguments)


def deletes(arguments: Iterable[str]) -> bool:
    """Return whether a command line deletes files, and does not only show which."""
    given = list(arguments)
    is_dry = any(each.startswith(DRY_RUN) for each in given)
    return not is_dry and any(is_asked(verb, given) for verb in (DELETE_OUTPUT, DELETE_TEMPORARY))


def left_by_deletion(layout: Layout) -> str | None:
    """Say which frames ``--delete-all-output`` leaves, which Snakemake knows nothing of; None where there are none."""
    frames = [
        [file for file in layout.frames(model).glob("*") if file != layout.metadata(model)]
        for model in layout.rendered()
    ]
    full = [files for files in frames if files]
    if not full:
        return None
    return (
        f"{DELETE_OUTPUT} leaves {counted(sum(map(len, full)), 'frame')} of {counted(len(full), 'model')} in place, "
        "and what is known of them, so the next invocation renders none of them again; to delete them too, delete the "
        f"folder {layout.output_dir}"
    )
