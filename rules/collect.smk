"""Stage 6, collect: close a model. renders/{model}/, measures/{model}/, runs/{model}.json -> metadata.json."""


rule collect:
    input:
        run=LAYOUT.run("{model}"),
        outcomes=records_of_all_shards,
        measures=measures_of_model,
        sequence=LAYOUT.sequence,
        reference=pairing_of_measures,
    output:
        metadata=LAYOUT.metadata("{model}"),
    log:
        LAYOUT.log("collect_{model}"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        training_frames_from=config["training_frames_from"],
        code=code_of("collect"),
    script:
        "../scripts/collect.py"
