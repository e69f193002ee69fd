"""Configuration and input functions; MLflow is asked once per invocation, and only when jobs are planned."""

import sys
from functools import cache
from pathlib import Path

from snakemake.logging import logger

HERE = Path(str(workflow.current_basedir)).parent
sys.path.append(str(HERE / "scripts"))

from dailies import discovery, disk, estimates, files, manifest, metadata, sequence
from dailies.config import as_written, loading_settings, pixel_settings, validated
from dailies.devices import refuse_missing
from dailies.errors import DailiesError

REASONS = []
"""Why the workflow itself ends this invocation."""


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


SCHEMA = HERE / "config" / "config.schema.yaml"
config.update(told(validated, as_written(config, workflow.config_settings.config_args or (), SCHEMA), SCHEMA))

if "downloads" not in workflow.global_resources:  # else --resources gpu=1 would let all models be downloaded at once
    workflow.register_resource("downloads", 4)

OUT = config["output_dir"]
STATE = f"{OUT}/.dailies"
SETTINGS = {"settings": pixel_settings(config), "loading": loading_settings(config)}


def is_asked_here(checkpoint):
    """Whether this process plans, or runs that checkpoint: on a node Snakemake evaluates it for every other job too."""
    allowed = workflow.dag_settings.allowed_rules
    return not allowed or any(rule.endswith(checkpoint) for rule in allowed)


@cache
def input_fingerprint():
    """A digest of the input folder's listing, or of the state of a video's file."""
    if not is_asked_here("sequence"):
        return None
    if workflow.local_exec and workflow.is_main_process and not workflow.dryrun:
        told(refuse_missing, config["device"])
    return told(sequence.fingerprint, Path(config["input_dir"]), Path(STATE), config["layer"])


@cache
def store_fingerprint():
    """A digest of what MLflow says of the selected runs; the last known one while MLflow does not answer."""
    if not is_asked_here("discover"):
        return None
    input_fingerprint()
    standing = told(discovery.standing, config, Path(STATE))
    if standing.warning:
        logger.warning(f"dailies: {standing.warning}")
    told(discovery.refuse_nothing, config, Path(STATE))
    return standing.fingerprint


def discovery_index(wildcards):
    """The list of the selected models, once MLflow was asked; ends the invocation when there is none."""
    index = checkpoints.discover.get().output.index
    if reason := files.read_json(Path(index))["reason"]:
        end_with(reason)
    return index


def discovered_models():
    """The names of the selected models, in MLflow's order."""
    return files.read_json(Path(discovery_index(None)))["models"]


def metadata_of_all_models(wildcards):
    return [f"{OUT}/{model}/metadata.json" for model in discovered_models()]


def shards_of_sequence():
    """The frames of each shard by its name; none while the sequence was not read yet."""
    listing = Path(f"{STATE}/sequence.json")
    return sequence.shards(listing, config["shard_frames"]) if listing.is_file() else {}


@cache
def check_room(listing):
    """End the invocation when the disk has no room for the frames that are missing."""
    if config["check_disk"] and workflow.is_main_process:
        models = files.read_json(Path(f"{STATE}/discovery.json"))["models"]
        shot, flows = sequence.load(listing), "flicker" in METRICS and is_measured()
        told(disk.refuse_shortage, Path(OUT), Path(STATE), models, shot, config, flows=flows)


def records_of_all_shards(wildcards):
    """The records of a model's shards; how many there are is known once the sequence was read."""
    listing = Path(checkpoints.sequence.get().output.sequence)
    check_reference(listing)
    check_backbone()
    check_room(listing)
    return [f"{STATE}/renders/{wildcards.model}/{shard}.json" for shard in shards_of_sequence()]


@cache
def standing(model, shards):
    """Of each shard of a model: the digest of its frames, and the attempt that is due; it grows after a failure."""
    past, places = Path(f"{STATE}/attempts/{model}"), (Path(f"{STATE}/sequence.json"), Path(f"{OUT}/{model}"))
    split = {"shard_frames": config["shard_frames"]}
    return {
        name: {
            "frames": digest,  # a function of input would not count as a parameter
            "attempt": manifest.next_attempt(past / f"{name}.json", *places, shard=name, **split),
        }
        for name, digest in shards
    }


def standing_of_shards(wildcards):
    return standing(wildcards.model, tuple((name, shard.digest) for name, shard in shards_of_sequence().items()))


def receipt_of_weights(wildcards):
    receipt = f"{STATE}/weights/{wildcards.model}/download.json"
    due = manifest.is_due(Path(STATE), *wildcards, **standing_of_shards(wildcards)[wildcards.shard], **SETTINGS)
    return receipt if due else ancient(receipt)  # else a download for one shard would start the model's others
