"""Stage 5, measure: every frame of every model. renders/, frames, reference -> measures/, leaderboard.csv."""


rule metrics:
    input:
        INPUTS.leaderboard,
        # everything else that shows ranks. Not in one function that waits for a checkpoint: Snakemake 9.27 would find
        # the contact sheet too late to complete its inputs once it knows the finalists of a knockout
        INPUTS.metadata_of_all_models,
        LAYOUT.summary,
        INPUTS.comparison_page,
    localrule: True


rule pairing:
    input:
        sequence=LAYOUT.sequence,
    output:
        pairs=LAYOUT.pairing,
    log:
        LAYOUT.log("pairing"),
    localrule: INPUTS.has_codecs  # a head node without codecs submits it
    conda:
        "../envs/dailies.yaml"
    threads: INPUTS.threads(4)
    resources:
        mem_mb=INPUTS.sequence_memory,
        runtime=INPUTS.sequence_minutes,
    params:
        fingerprint=INPUTS.reference_fingerprint,
    script:
        "../scripts/pairing.py"


rule baseline:
    input:
        sequence=LAYOUT.sequence,
        reference=INPUTS.decoded_reference,
    output:
        measures=LAYOUT.measures("@source", "{shard}"),
    log:
        LAYOUT.log("baseline_{shard}"),
    priority: INPUTS.priority_of_results
    conda:
        "../envs/dailies.yaml"
    threads: INPUTS.measure_threads
    resources:
        mem_mb=INPUTS.measure_memory,
        runtime=INPUTS.measure_minutes,
    params:
        measuring=INPUTS.measuring,
        attempt=INPUTS.baseline_attempt,
        afresh=INPUTS.afresh("baseline"),
    script:
        "../scripts/baseline.py"


rule measure:
    input:
        outcomes=INPUTS.outcomes_to_measure,
        sequence=LAYOUT.sequence,
        baseline=LAYOUT.measures("@source", "{shard}"),  # this job also caches the source's motion
        reference=INPUTS.decoded_reference,
    output:
        measures=LAYOUT.measures("{model}", "{shard}"),
    log:
        LAYOUT.log("measure_{model}_{shard}"),
    priority: INPUTS.priority_of_results
    conda:
        "../envs/dailies.yaml"
    threads: INPUTS.measure_threads
    resources:
        mem_mb=INPUTS.measure_memory,
        runtime=INPUTS.measure_minutes,
    params:
        measuring=INPUTS.measuring,
        attempt=INPUTS.measure_attempt,
        afresh=INPUTS.afresh("measure"),
    script:
        "../scripts/measure.py"


rule leaderboard:
    input:
        runs=INPUTS.runs_of_all_models,
        outcomes=INPUTS.outcomes_of_all_models,  # not metadata.json, which gets its rank from here
        measures=INPUTS.measures_of_all,
        sequence=LAYOUT.sequence,
        reference=INPUTS.pairing_record,
        decision=INPUTS.knockout_decision,
        votes=INPUTS.votes_record,
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
        question=INPUTS.ranking_question,
        code=INPUTS.code("leaderboard"),
    script:
        "../scripts/leaderboard.py"
