"""Stage 11, write_back: what was measured goes to MLflow, if asked for. metadata.json of all -> evaluation runs."""


rule write_back:
    input:
        metadata=metadata_of_all_models,
    output:
        record=f"{STATE}/evaluations.json",
    log:
        f"{OUT}/logs/write_back.log",
    localrule: True
    conda:
        "../envs/dailies.yaml"
    script:
        "../scripts/write_back.py"
