"""Stage 4, infer: one model over one shard of the frames. weights, frames -> frames, renders/{model}/{shard}.json."""


rule infer:
    input:
        record=LAYOUT.record("{model}"),
        receipt=receipt_of_weights,
        sequence=ancient(LAYOUT.sequence),  # the parameter frames says whether this shard has changed
    output:
        outcome=LAYOUT.outcome("{model}", "{shard}"),
    log:
        LAYOUT.log("infer_{model}_{shard}"),
    benchmark:
        LAYOUT.benchmark("infer_{model}_{shard}")
    conda:
        "../envs/dailies.yaml"
    threads: 8
    resources:
        gpu=0 if config["device"] == "cpu" else 1,
        mem_mb=lambda wc, input, attempt: attempt
        * estimates.render_memory(input.record, shards_of_sequence()[wc.shard], config),
        runtime=lambda wc, input, attempt: attempt
        * estimates.render_minutes(input.record, shards_of_sequence()[wc.shard]),
    params:
        **SETTINGS,
        frames=lambda wildcards: standing_of_shards(wildcards)[wildcards.shard]["frames"],
        attempt=lambda wildcards: standing_of_shards(wildcards)[wildcards.shard]["attempt"],
        forced=lambda wildcards, output: forced_render(*wildcards),  # as a function of output it is no reason to run
    script:
        "../scripts/infer.py"
