"""Stage 4, infer: one model over one shard of the frames. weights, frames -> frames, renders/{model}/{shard}.json."""


rule infer:
    input:
        record=f"{STATE}/models/{{model}}.json",
        receipt=receipt_of_weights,
        sequence=ancient(f"{STATE}/sequence.json"),  # the parameter frames says whether this shard has changed
    output:
        outcome=f"{STATE}/renders/{{model}}/{{shard}}.json",
    log:
        f"{OUT}/logs/infer_{{model}}_{{shard}}.log",
    benchmark:
        f"{STATE}/benchmarks/infer_{{model}}_{{shard}}.tsv"
    conda:
        "../envs/dailies.yaml"
    threads: 8
    resources:
        gpu=0 if settings.device == "cpu" else 1,
        mem_mb=lambda wc, input, attempt: attempt
        * estimates.render_memory(input.record, shards_of_sequence()[wc.shard], settings),
        runtime=lambda wc, input, attempt: attempt
        * estimates.render_minutes(input.record, shards_of_sequence()[wc.shard]),
    params:
        **SETTINGS,
        frames=lambda wildcards: standing_of_shards(wildcards)[wildcards.shard]["frames"],
        attempt=lambda wildcards: standing_of_shards(wildcards)[wildcards.shard]["attempt"],
        forced=lambda wildcards, output: forced_render(*wildcards),  # as a function of output it is no reason to run
    script:
        "../scripts/infer.py"
