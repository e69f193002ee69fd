"""Stage 2, discover: ask MLflow which models there are. experiment -> discovery.json, one record per model."""


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
        afresh=afresh("discover"),
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
