"""Stages 2 and 3, discover and download. snapshot.json -> discovery.json, a record per model; record -> weights/{model}."""


checkpoint discover:
    output:
        index=LAYOUT.index,
    log:
        LAYOUT.log("discover"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        fingerprint=INPUTS.store_fingerprint,
    script:
        "../scripts/discover.py"


rule list_models:
    input:
        index=INPUTS.discovery_index,
    log:
        LAYOUT.log("list_models"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    script:
        "../scripts/list_models.py"


rule download:
    input:
        index=ancient(LAYOUT.index),
        record=LAYOUT.record("{model}"),
        sequence=ancient(LAYOUT.sequence),  # checked first: if the frames cannot be used, nothing is downloaded
    output:
        receipt=LAYOUT.receipt("{model}"),
    log:
        LAYOUT.log("download_{model}"),
    benchmark:
        LAYOUT.benchmark("download_{model}")
    priority: 1
    conda:
        "../envs/dailies.yaml"
    threads: INPUTS.download_threads
    resources:
        downloads=1,
        mem_mb=INPUTS.download_memory,
        runtime=INPUTS.download_minutes,
    params:  # a change of one makes a render due
        **INPUTS.render_settings,
        shards=INPUTS.shard_states,
        forced=INPUTS.forced_download,  # as a function of output it is no reason to run
    script:
        "../scripts/download.py"
