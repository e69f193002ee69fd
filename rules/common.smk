"""Configuration and input functions; MLflow is asked once per invocation, and only when jobs are planned."""

import atexit
import sys
from functools import cache
from pathlib import Path

from snakemake.logging import logger
from snakemake.settings.enums import Quietness, RerunTrigger

HERE = Path(str(workflow.current_basedir)).parent
SCRIPTS = str(HERE / "scripts")
sys.path.insert(0, SCRIPTS)  # an installed package may be called dailies, too

import dailies

if Path(dailies.__file__).parents[1] != Path(SCRIPTS):
    raise SystemExit(f"dailies: another package of this name was imported before, {dailies.__file__}; import it later")

from dailies.discovery import discover as discovery
from dailies.planning import estimates as disk
from dailies.planning import estimates
from dailies.state import forcing
from dailies.state import lock
from dailies.core import logs
from dailies.state import attempts
from dailies.state import collect as metadata
from dailies.discovery import inventory as records
from dailies.frames import scan, sequence
from dailies.core import sources
from dailies.planning import verbs
from dailies.planning.config import loading_settings
from dailies.planning.config import pixel_settings
from dailies.render.devices import refuse_missing
from dailies.core.errors import DailiesError
from dailies.state.layout import Layout
from dailies.state.records import DiscoveryIndex
from dailies.state.records import RunRecord
from dailies.planning.validation import as_written
from dailies.planning.validation import validated

sys.path.remove(SCRIPTS)  # what lies beside it must not hide the modules of a workflow that uses this one
sys.path.append(SCRIPTS)

REASONS = []
"""Why the workflow itself ends this invocation."""


def is_silent():
    """Whether Snakemake prints nothing at all, not even errors."""
    return Quietness.ALL in (workflow.output_settings.quiet or ()) and not workflow.dryrun


if is_silent():  # an exit code alone says too little
    logger.addHandler(logs.Errors())


def end_with(reason):
    """End the invocation with one sentence for the user and exit code 1."""
    REASONS.append(reason)
    logger.error(f"dailies: {reason}")
    raise SystemExit(1)


def told(function, *args, **kwargs):
    """Call a function whose errors are for the user: their text alone ends the invocation, with exit code 1."""
    try:
        return function(*args, **kwargs)
    except DailiesError as error:
        end_with(str(error))


UNCONFIGURED = not (workflow.overwrite_configfiles or Path("config/config.yaml").exists())
GIVEN = sorted(config)

settings = told(validated, as_written(config, workflow.config_settings.config_args or ()))

output_dir = str(settings.output_dir)
if (moved := workflow.modifier.path_modifier.replace_prefix(output_dir)) != output_dir:
    # the prefix of a module, which is not put before an absolute path
    settings = settings.model_copy(update={"output_dir": Path(moved).absolute()})

config.update(settings.as_config())  # for profiles and jobs

if "downloads" not in workflow.global_resources:  # else --resources gpu=1 would let all models be downloaded at once
    workflow.register_resource("downloads", 4)

LAYOUT = Layout(settings.output_dir)
SETTINGS = {"settings": pixel_settings(settings), "loading": loading_settings(settings)}


def code_of(script):
    """A digest of the code behind a script: as a parameter it makes the results again after an update of the project."""
    return sources.digest(HERE / "scripts" / f"{script}.py")


@cache
def check_configured():
    """End the invocation where nothing is configured, as in a folder that is not the project's."""
    if not (UNCONFIGURED and workflow.is_main_process and not workflow.modifier.skip_configfile):
        return
    missing = f"there is no config/config.yaml in {Path.cwd()}"
    if not GIVEN:
        end_with(f"{missing}; name your configuration with --configfile, or give its keys with --config")
    logger.warning(
        f"dailies: {missing}, so only --config counts ({', '.join(GIVEN)}) and all other keys have their defaults; "
        "--configfile names a file"
    )


def is_executed():
    """Whether this process is the user's own, and runs jobs: it is no dry run, summary or graph."""
    return workflow.is_main_process and workflow.executor_plugin is not None and not workflow.dryrun


@cache
def take_output():
    """End the invocation when another one works in the output folder."""
    if is_executed():
        told(lock.take, LAYOUT)
        if RerunTrigger.PARAMS not in workflow.dag_settings.rerun_triggers:
            logger.warning(
                "dailies: --rerun-triggers is without params, by which it is noticed what failed, what has changed and "
                "what is forced: some of it may not be rendered"
            )


def tell_what_stays():
    """Say at the end which frames Snakemake did not delete."""
    if left := verbs.left_by_deletion(LAYOUT):
        print(f"dailies: {left}", file=sys.stderr)


if workflow.is_main_process:
    if verbs.is_asked(verbs.UNLOCK, sys.argv) and (running := lock.clear(LAYOUT)):
        logger.warning(f"dailies: {running}")
    if verbs.deletes(sys.argv):
        told(lock.take, LAYOUT)  # Snakemake's own lock does not keep it from deleting, and is of one folder only
    if verbs.is_asked(verbs.DELETE_OUTPUT, sys.argv):
        atexit.register(tell_what_stays)


@cache
def forced():
    """What this invocation is told to run again; a job on a node reads it, as its command line does not say."""
    if not workflow.is_main_process:
        return forcing.announced(LAYOUT.forced)
    if workflow.touch:
        return forcing.Forced()
    take_output()
    asked = workflow.dag_settings
    names = {*asked.forcerun, *(asked.targets if asked.forcetargets else ())}
    told_to = forcing.requested(everything=asked.forceall, names=names, rules=[rule.name for rule in workflow.rules])
    if is_executed():
        forcing.announce(told_to, LAYOUT.forced)
    return told_to


def is_forced(names, *outputs):
    """Whether one of the rules of these names, or one of these files, is to be run or made again."""
    used = [getattr(rules, name).rule.name for name in names if rules.has(name)]  # a module may leave some out
    return forced().covers(used, map(Path, outputs))


def forced_render(model, shard):
    """The invocation that a shard of a model is to be rendered again by, its frames in place included, or None."""
    outputs = (LAYOUT.outcome(model, shard), LAYOUT.receipt(model))
    return forced().token if is_forced(["infer", "download"], *outputs) else None


def afresh(rule):
    """Whether a job of this rule is to forget what it knows; no parameter that counts, as it is a function of input."""
    return lambda wildcards, output: is_forced([rule], *output)


def needs_frames():
    """Whether this invocation does more than to list models."""
    listing = {rules.list_models.rule.name} if rules.has("list_models") else {None}
    return {*workflow.dag_settings.targets} != listing


def is_asked_here(checkpoint):
    """Whether this process plans, or runs that checkpoint: on a node Snakemake evaluates it for every other job too."""
    allowed = workflow.dag_settings.allowed_rules
    return not allowed or any(rule.endswith(checkpoint) for rule in allowed)


@cache
def input_fingerprint():
    """A digest of the input folder's listing, or of the state of a video's file."""
    if not is_asked_here("sequence"):
        return None
    check_configured()
    if workflow.local_exec and workflow.is_main_process and not workflow.dryrun:
        told(refuse_missing, settings.device)
    fingerprint = told(scan.fingerprint, settings.input_dir, LAYOUT.scan, settings.layer)
    take_output()
    return fingerprint


@cache
def store_fingerprint():
    """A digest of what MLflow says of the selected runs; the last known one while MLflow does not answer."""
    if not is_asked_here("discover"):
        return None
    check_configured()
    if needs_frames():
        input_fingerprint()
    take_output()
    planned = told(
        discovery.plan,
        settings,
        LAYOUT,
        dry_run=not is_executed(),
        afresh=is_forced(["discover"], LAYOUT.index),
    )
    if planned.warning:
        logger.warning(f"dailies: {planned.warning}")
    return planned.fingerprint


def discovery_index(wildcards):
    """The list of the selected models, once MLflow was asked."""
    return checkpoints.discover.get().output.index


def discovered_models():
    """The names of the selected models, in MLflow's order."""
    return DiscoveryIndex.load(Path(discovery_index(None))).models


def metadata_of_all_models(wildcards):
    return [LAYOUT.metadata(model) for model in discovered_models()]


def shards_of_sequence():
    """The frames of each shard by its name; none while the sequence was not read yet."""
    listing = LAYOUT.sequence
    return sequence.shards(listing, settings.shard_frames) if listing.is_file() else {}


@cache
def check_room(listing):
    """End the invocation when the disk has no room for the frames that are missing."""
    if settings.check_disk and workflow.is_main_process:
        models = DiscoveryIndex.load(LAYOUT.index).models
        shot, flows = sequence.load(listing), "flicker" in METRICS and is_measured()
        told(disk.refuse_shortage, LAYOUT, models, shot, settings, flows=flows)


def records_of_all_shards(wildcards):
    """The records of a model's shards; how many there are is known once the sequence was read."""
    listing = Path(checkpoints.sequence.get().output.sequence)
    check_reference(listing)
    check_backbone()
    check_room(listing)
    return [LAYOUT.outcome(wildcards.model, shard) for shard in shards_of_sequence()]


@cache
def standing(model, shards):
    """Of each shard of a model: the digest of its frames, and the attempt that is due; it grows after a failure."""
    places = (LAYOUT.sequence, LAYOUT.frames(model))
    split = {"shard_frames": settings.shard_frames}
    return {
        name: {
            "frames": digest,  # a function of input would not count as a parameter
            "attempt": attempts.next_attempt(
                LAYOUT.attempt(model, name), *places, shard=name, **split, forced=forced_render(model, name)
            ),
        }
        for name, digest in shards
    }


def standing_of_shards(wildcards):
    return standing(wildcards.model, tuple((name, shard.digest) for name, shard in shards_of_sequence().items()))


def receipt_of_weights(wildcards):
    receipt = LAYOUT.receipt(wildcards.model)
    due = attempts.is_due(LAYOUT, *wildcards, **standing_of_shards(wildcards)[wildcards.shard], **SETTINGS)
    return receipt if due else ancient(receipt)  # else a download for one shard would start the model's others
