"""Publish on request: write_back sends the measurements to MLflow; promote registers the chosen model."""


rule write_back:
    input:
        metadata=INPUTS.metadata_of_all_models,
    output:
        record=LAYOUT.evaluations,
    log:
        LAYOUT.log("write_back"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    script:
        "../scripts/write_back.py"


rule promote:
    log:
        LAYOUT.log("promote"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        model=INPUTS.chosen_model,
    script:
        "../scripts/promote.py"
