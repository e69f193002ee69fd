"""Stage 5, measure: every frame of every model. renders/, frames, reference -> measures/, leaderboard.csv."""

from importlib.util import find_spec


rule metrics:
    input:
        leaderboard_wanted,
    localrule: True


rule pairing:
    input:
        sequence=f"{STATE}/sequence.json",
    output:
        pairs=f"{STATE}/{reference.RECORD}",
    log:
        f"{OUT}/logs/pairing.log",
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
        sequence=f"{STATE}/sequence.json",
        reference=decoded_reference,
    output:
        measures=f"{STATE}/measures/@source/{{shard}}.json",
    log:
        f"{OUT}/logs/baseline_{{shard}}.log",
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
        sequence=f"{STATE}/sequence.json",
        baseline=f"{STATE}/measures/@source/{{shard}}.json",  # which leaves the source's motion behind
        reference=decoded_reference,
    output:
        measures=f"{STATE}/measures/{{model}}/{{shard}}.json",
    log:
        f"{OUT}/logs/measure_{{model}}_{{shard}}.log",
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
        sequence=f"{STATE}/sequence.json",
        reference=pairing_record,
    output:
        frames=f"{OUT}/compare/metrics.csv",
        models=report(
            f"{OUT}/compare/leaderboard.csv",
            caption="../report/leaderboard.rst",
            category="1. Models",
            labels={"what": "leaderboard"},
        ),
        told=f"{STATE}/metrics.json",
    log:
        f"{OUT}/logs/leaderboard.log",
    conda:
        "../envs/dailies.yaml"
    params:
        question=[METRICS, metrics.ranked_by(settings), config["training_frames_from"]],
        code=code_of("leaderboard"),
    script:
        "../scripts/leaderboard.py"
