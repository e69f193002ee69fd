"""Stages 6 and 7, collect and summary: gather the results. renders/, measures/, runs/, metrics.json -> metadata.json, batch_summary.json."""


rule collect:
    input:
        run=LAYOUT.run("{model}"),
        outcomes=INPUTS.outcomes_of_model,
        measures=INPUTS.measures_of_model,
        sequence=LAYOUT.sequence,
        reference=INPUTS.pairing_record_if_measured,
        decision=INPUTS.knockout_decision,
    output:
        metadata=LAYOUT.metadata("{model}"),
    log:
        LAYOUT.log("collect_{model}"),
    priority: INPUTS.priority_of_results
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        training_frames_from=config["training_frames_from"],
        reference=INPUTS.reference_fingerprint_if_measured,
        code=INPUTS.code("collect"),
    script:
        "../scripts/collect.py"


rule summary:
    input:
        index=LAYOUT.index,
        metadata=INPUTS.metadata_of_all_models,  # the job adds their ranks
        ranking=INPUTS.ranking_record,
    output:
        summary=LAYOUT.summary,
    log:
        LAYOUT.log("summary"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        order=INPUTS.summary_order,
        code=INPUTS.code("summary"),
    script:
        "../scripts/summary.py"
