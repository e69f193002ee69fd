"""Stage 3, download: one model's artifact, verified; gone when its renders are done. record -> weights/{model}."""


rule download:
    input:
        index=ancient(f"{STATE}/discovery.json"),
        record=f"{STATE}/models/{{model}}.json",
        sequence=ancient(f"{STATE}/sequence.json"),  # nothing is downloaded for frames that cannot be used
    output:
        weights=temp(directory(f"{STATE}/weights/{{model}}")),
    log:
        f"{OUT}/logs/download_{{model}}.log",
    benchmark:
        f"{STATE}/benchmarks/download_{{model}}.tsv"
    conda:
        "../envs/dailies.yaml"
    script:
        "../scripts/download.py"
