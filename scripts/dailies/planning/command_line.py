"""What a command line of Snakemake requests besides running jobs. Snakemake does not pass this on to a Snakefile."""

from collections.abc import Iterable

from dailies.core.text import counted
from dailies.state.layout import Layout

UNLOCK, DELETE_OUTPUT, DELETE_TEMPORARY = "--unlock", "--delete-all-output", "--delete-temp-output"

REPORT = ("--report", "--reporter")

SHORTEST = {UNLOCK: "--unl", DELETE_OUTPUT: "--delete-a", DELETE_TEMPORARY: "--delete-t"}
"""The shortest unambiguous abbreviation of each option."""

DRY_RUN = ("-n", "--dry")
"""How the option for a dry run begins; it may be combined with others, as in ``-np``."""


def has_option(option: str, arguments: Iterable[str]) -> bool:
    """Return whether a command line contains an option, in full or abbreviated."""
    return any(option.startswith(each) and each.startswith(SHORTEST[option]) for each in arguments)


def is_dry(arguments: Iterable[str]) -> bool:
    """Return whether a command line asks for a dry run."""
    return any(each.startswith(DRY_RUN) for each in arguments)


def deletes(arguments: Iterable[str]) -> bool:
    """Return whether a command line deletes files, rather than listing what it would delete."""
    given = list(arguments)
    return not is_dry(given) and any(has_option(option, given) for option in (DELETE_OUTPUT, DELETE_TEMPORARY))


def reports(arguments: Iterable[str]) -> bool:
    """Return whether a command line asks for Snakemake's report."""
    return any(each.split("=")[0] in REPORT for each in arguments)


def left_by_deletion(layout: Layout) -> str | None:
    """Return a sentence on the frames that ``--delete-all-output`` does not delete; None if there are none."""
    frames = [
        [file for file in layout.frames(model).glob("*") if file != layout.metadata(model)]
        for model in layout.rendered()
    ]
    full = [files for files in frames if files]
    if not full:
        return None
    return (
        f"{DELETE_OUTPUT} leaves {counted(sum(map(len, full)), 'frame')} of {counted(len(full), 'model')} in place, "
        "and their records, so the next invocation does not render them again; to delete them too, delete the folder "
        f"{layout.output_dir}"
    )
