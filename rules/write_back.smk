"""Stage 11, write_back: what was measured goes to MLflow, if asked for. metadata.json of all -> evaluation runs."""


rule write_back:
    input:
        metadata=metadata_of_all_models,
    output:
        record=LAYOUT.evaluations,
    log:
        LAYOUT.log("write_back"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    script:
        "../scripts/write_back.py"
