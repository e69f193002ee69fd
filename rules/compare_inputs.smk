"""Input functions and parameters of contact_sheet.smk, compare.smk and videos.smk."""


def comparison_page(wildcards):
    return [LAYOUT.page] if settings.compare else []


def names_of_models(wildcards):
    """What the runs of the selected models are called, by the model, in MLflow's order."""
    return {model: RunRecord.load(LAYOUT.run(model)).run_name for model in discovered_models()}


def records_of_all_models(wildcards):
    """The records of all shards of all models: they are written when frames are, and not when a metric changes."""
    checkpoints.sequence.get()
    return [LAYOUT.outcome(model, shard) for model in discovered_models() for shard in shards_of_sequence()]


def video_memory(wildcards, input, threads, attempt):
    """Megabytes for the encoder and the pictures that its threads make ahead; more on every retry."""
    return attempt * estimates.video_memory(input.sequence, models=len(input.records), threads=threads)
