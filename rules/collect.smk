"""Stage 6, collect: close a model. renders/{model}/, measures/{model}/, runs/{model}.json -> metadata.json."""


rule collect:
    input:
        run=f"{STATE}/runs/{{model}}.json",
        outcomes=records_of_all_shards,
        measures=measures_of_model,
        sequence=f"{STATE}/sequence.json",
        reference=pairing_of_measures,
    output:
        metadata=f"{OUT}/{{model}}/metadata.json",
    log:
        f"{OUT}/logs/collect_{{model}}.log",
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        training_frames_from=config["training_frames_from"],
        code=code_of("collect"),
    script:
        "../scripts/collect.py"
