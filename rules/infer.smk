"""Stage 4, infer: one model over one shard of the frames. weights, frames -> frames, renders/{model}/{shard}.json."""


rule infer:
    input:
        record=LAYOUT.record("{model}"),
        receipt=INPUTS.receipt_of_weights,
        sequence=ancient(LAYOUT.sequence),  # the parameter frames shows whether this shard has changed
    output:
        outcome=LAYOUT.outcome("{model}", "{shard}"),
    log:
        LAYOUT.log("infer_{model}_{shard}"),
    conda:
        "../envs/dailies.yaml"
    threads: INPUTS.threads(8)
    resources:
        gpu=0 if config["device"] == "cpu" else 1,
        mem_mb=INPUTS.render_memory,
        runtime=INPUTS.render_minutes,
    params:
        **INPUTS.render_settings,
        frames=INPUTS.shard_digest,
        attempt=INPUTS.render_attempt,
        forced=INPUTS.forced_render,  # takes output, so Snakemake does not run the job again when it changes
    script:
        "../scripts/infer.py"
