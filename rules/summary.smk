"""Stage 7, summary: all models in one file. discovery.json, every metadata.json -> batch_summary.json."""


rule summary:
    input:
        index=f"{STATE}/discovery.json",
        metadata=metadata_of_all_models,
    output:
        summary=f"{OUT}/batch_summary.json",
    log:
        f"{OUT}/logs/summary.log",
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        order=metrics.order(settings),
        code=code_of("summary"),
    script:
        "../scripts/summary.py"
