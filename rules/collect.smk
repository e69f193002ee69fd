"""Stage 5, collect: close a model. renders/{model}.json, runs/{model}.json -> metadata.json."""


rule collect:
    input:
        run=f"{STATE}/runs/{{model}}.json",
        outcome=f"{STATE}/renders/{{model}}.json",
    output:
        metadata=f"{OUT}/{{model}}/metadata.json",
    log:
        f"{OUT}/logs/collect_{{model}}.log",
    conda:
        "../envs/dailies.yaml"
    script:
        "../scripts/collect.py"
