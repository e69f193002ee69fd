"""Input functions and parameters of measure.smk."""

from dailies.measure import backbone
from dailies.measure import leaderboard
from dailies.measure import metrics
from dailies.frames import reference

METRICS = metrics.measured(settings)
AUTOMATIC = metrics.automatic(settings)


REFERENCE = reference.ReferenceSettings.from_settings(settings)


@cache
def reference_fingerprint():
    """A digest of the reference's listing and of how it is paired; ends the invocation where it cannot be used."""
    return told(reference.fingerprint, REFERENCE, LAYOUT.reference_scan) if REFERENCE else None


@cache
def check_reference(listing):
    """End the invocation when no frame of the reference belongs to the sequence."""
    if reference_fingerprint():
        told(reference.check, REFERENCE, sequence.load(listing))


def pairing_record(wildcards):
    """Which file of the reference belongs to which frame, where there is a reference."""
    return [LAYOUT.pairing] if REFERENCE else []


def decoded_reference(wildcards):
    """What says that a video was decoded; of a folder, names and a parameter tell all that measuring needs."""
    return pairing_record(wildcards) if REFERENCE and REFERENCE.is_video else []


def pairing_of_measures(wildcards):
    """How the reference was paired, where an ordinary invocation measures: that is part of a model's metadata."""
    return pairing_record(wildcards) if AUTOMATIC else []


@cache
def check_backbone():
    """End the invocation when the file of LPIPS's weights does not hold them; warn when it is not the published one."""
    if metrics.LPIPS in METRICS and workflow.is_main_process:
        from dailies.measure.lpips import checked  # which imports torch

        if warning := told(checked, backbone.place(settings.lpips_backbone)):
            logger.warning(f"dailies: {warning}")


def is_measured():
    """Whether this invocation measures: an ordinary one of this configuration does, or it is asked to."""
    return AUTOMATIC or any(target.endswith("metrics") for target in workflow.dag_settings.targets)


def measuring(wildcards):
    """What decides which values there are, beside the frames themselves."""
    from dailies.measure.cache import MEASURING

    weights = [backbone.stamp(backbone.place(settings.lpips_backbone))] if metrics.LPIPS in METRICS else []
    return [MEASURING, METRICS, settings.transfer, reference_fingerprint(), *weights]


def due_attempt(model):
    """The number of the attempt that is due at measuring a shard; it grows only after a failure."""
    return lambda wildcards: attempts.attempt_after(LAYOUT.measuring(model.format(**wildcards), wildcards.shard))


def leaderboard_wanted(wildcards):
    """What the target metrics makes; ends the invocation where the configuration asks for nothing."""
    if not METRICS:
        end_with("metrics is none, so there is nothing to measure; set metrics to auto or a list")
    return LAYOUT.leaderboard


def shards_now():
    """The names of the shards, once the sequence was read."""
    return list(sequence.shards(Path(checkpoints.sequence.get().output.sequence), settings.shard_frames))


def records_to_measure(wildcards):
    """The records of a model's shard and of the one before it, whose last frame its motion begins at."""
    names = shards_now()
    place = names.index(wildcards.shard)
    return [LAYOUT.outcome(wildcards.model, shard) for shard in names[max(0, place - 1) : place + 1]]


def measures_of(model):
    return [LAYOUT.measures(model, shard) for shard in shards_now()]


def measures_of_model(wildcards):
    """A model's measures, where an ordinary invocation measures: they are part of its metadata."""
    return measures_of(wildcards.model) if AUTOMATIC else []


def measures_of_all(wildcards):
    return [path for model in [*discovered_models(), "@source"] for path in measures_of(model)]


def ranking_for_page(wildcards):
    return [LAYOUT.verdict] if AUTOMATIC else []


def measure_memory(wildcards, input, attempt):
    """Megabytes for measuring a shard; more on every retry."""
    return estimates.measure_memory(shards_of_sequence()[wildcards.shard], METRICS) * attempt


def measure_minutes(wildcards, input, attempt):
    """Minutes for measuring a shard; more on every retry."""
    return estimates.measure_minutes(shards_of_sequence()[wildcards.shard], METRICS) * attempt
