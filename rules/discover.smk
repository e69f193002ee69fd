"""Stage 2, discover: find the models in what MLflow answered. snapshot.json -> discovery.json, one record per model."""


checkpoint discover:
    output:
        index=LAYOUT.index,
    log:
        LAYOUT.log("discover"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        fingerprint=lambda wildcards: store_fingerprint(),
    script:
        "../scripts/discover.py"


rule list_models:
    input:
        index=discovery_index,
    log:
        LAYOUT.log("list_models"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    script:
        "../scripts/list_models.py"
