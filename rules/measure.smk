"""Stage 5, measure: every frame of every model. renders/, frames, reference -> measures/, leaderboard.csv."""

from importlib.util import find_spec


rule metrics:
    input:
        leaderboard_wanted,
    localrule: True


rule pairing:
    input:
        sequence=LAYOUT.sequence,
    output:
        pairs=LAYOUT.pairing,
    log:
        LAYOUT.log("pairing"),
    localrule: find_spec("OpenImageIO") is not None  # a head node without codecs submits it
    conda:
        "../envs/dailies.yaml"
    threads: 4
    resources:
        mem_mb=lambda wc, attempt: attempt * estimates.SEQUENCE_MEMORY,
        runtime=lambda wc, attempt: attempt * estimates.SEQUENCE_MINUTES,
    params:
        fingerprint=lambda wildcards: reference_fingerprint(),
    script:
        "../scripts/pairing.py"


rule baseline:
    input:
        sequence=LAYOUT.sequence,
        reference=decoded_reference,
    output:
        measures=LAYOUT.measures("@source", "{shard}"),
    log:
        LAYOUT.log("baseline_{shard}"),
    conda:
        "../envs/dailies.yaml"
    threads: 2
    resources:
        mem_mb=measure_memory,
        runtime=measure_minutes,
    params:
        measuring=measuring,
        attempt=due_attempt("@source"),
        afresh=afresh("baseline"),
    script:
        "../scripts/baseline.py"


rule measure:
    input:
        outcomes=records_to_measure,
        sequence=LAYOUT.sequence,
        baseline=LAYOUT.measures("@source", "{shard}"),  # which leaves the source's motion behind
        reference=decoded_reference,
    output:
        measures=LAYOUT.measures("{model}", "{shard}"),
    log:
        LAYOUT.log("measure_{model}_{shard}"),
    conda:
        "../envs/dailies.yaml"
    threads: 2
    resources:
        mem_mb=measure_memory,
        runtime=measure_minutes,
    params:
        measuring=measuring,
        attempt=due_attempt("{model}"),
        afresh=afresh("measure"),
    script:
        "../scripts/measure.py"


rule leaderboard:
    input:
        metadata=metadata_of_all_models,
        measures=measures_of_all,
        sequence=LAYOUT.sequence,
        reference=pairing_record,
    output:
        frames=LAYOUT.frame_table,
        models=report(
            LAYOUT.leaderboard,
            caption="../report/leaderboard.rst",
            category="1. Models",
            labels={"what": "leaderboard"},
        ),
        told=LAYOUT.verdict,
    log:
        LAYOUT.log("leaderboard"),
    conda:
        "../envs/dailies.yaml"
    params:
        question=[METRICS, metrics.ranking_metric(settings), config["training_frames_from"]],
        code=code_of("leaderboard"),
    script:
        "../scripts/leaderboard.py"
