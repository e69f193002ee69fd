"""Stage 7, summary: all models in one file. discovery.json, every metadata.json -> batch_summary.json."""


rule summary:
    input:
        index=LAYOUT.index,
        metadata=metadata_of_all_models,
    output:
        summary=LAYOUT.summary,
    log:
        LAYOUT.log("summary"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        order=metrics.order(config),
        code=code_of("summary"),
    script:
        "../scripts/summary.py"
