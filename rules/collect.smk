"""Stage 5, collect: close a model. renders/{model}/, runs/{model}.json -> metadata.json."""


rule collect:
    input:
        run=f"{STATE}/runs/{{model}}.json",
        outcomes=records_of_all_shards,
        sequence=f"{STATE}/sequence.json",
    output:
        metadata=f"{OUT}/{{model}}/metadata.json",
    log:
        f"{OUT}/logs/collect_{{model}}.log",
    conda:
        "../envs/dailies.yaml"
    script:
        "../scripts/collect.py"
