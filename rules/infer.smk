"""Stage 4, infer: one model over every frame. weights, frames -> frames, renders/{model}.json."""


rule infer:
    input:
        record=f"{STATE}/models/{{model}}.json",
        weights=f"{STATE}/weights/{{model}}",
        sequence=f"{STATE}/sequence.json",
    output:
        outcome=f"{STATE}/renders/{{model}}.json",
    log:
        f"{OUT}/logs/infer_{{model}}.log",
    benchmark:
        f"{STATE}/benchmarks/infer_{{model}}.tsv"
    conda:
        "../envs/dailies.yaml"
    threads: 8
    resources:
        gpu=0 if config["device"] == "cpu" else 1,
        mem_mb=infer_memory,
        runtime=infer_minutes,
    params:
        settings=pixel_settings(config),
        loading=loading_settings(config),
        attempt=next_attempt,
    script:
        "../scripts/infer.py"
