"""Stage 3, download: one model's artifact, verified; gone when its renders are done. record -> weights/{model}."""


rule download:
    input:
        index=ancient(LAYOUT.index),
        record=LAYOUT.record("{model}"),
        sequence=ancient(LAYOUT.sequence),  # nothing is downloaded for frames that cannot be used
    output:
        receipt=LAYOUT.receipt("{model}"),
    log:
        LAYOUT.log("download_{model}"),
    benchmark:
        LAYOUT.benchmark("download_{model}")
    priority: 1
    conda:
        "../envs/dailies.yaml"
    threads: lambda wildcards: 0 if workflow.local_exec else 1  # it waits for the network, beside a render that has all the cores
    resources:
        downloads=1,
        mem_mb=lambda wc, input, attempt: attempt * estimates.download_memory(input.record, LAYOUT.run(wc.model)),
        runtime=lambda wc, input, attempt: attempt * estimates.download_minutes(input.record, LAYOUT.run(wc.model)),
    params:  # what makes a render due
        **SETTINGS,
        shards=standing_of_shards,
    script:
        "../scripts/download.py"
