"""Stage 3, download: one model's artifact, verified; gone when its renders are done. record -> weights/{model}."""


rule download:
    input:
        index=ancient(f"{STATE}/discovery.json"),
        record=f"{STATE}/models/{{model}}.json",
        sequence=ancient(f"{STATE}/sequence.json"),  # nothing is downloaded for frames that cannot be used
    output:
        receipt=f"{STATE}/weights/{{model}}/download.json",
    log:
        f"{OUT}/logs/download_{{model}}.log",
    benchmark:
        f"{STATE}/benchmarks/download_{{model}}.tsv"
    priority: 1
    conda:
        "../envs/dailies.yaml"
    threads: lambda wildcards: 0 if workflow.local_exec else 1  # it waits for the network, beside a render that has all the cores
    resources:
        downloads=1,
        mem_mb=lambda wc, input, attempt: attempt * estimates.download_memory(input.record),
        runtime=lambda wc, input, attempt: attempt * estimates.download_minutes(input.record),
    params:  # what makes a render due
        **SETTINGS,
        shards=standing_of_shards,
    script:
        "../scripts/download.py"
