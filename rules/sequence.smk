"""Stage 1, sequence: read every frame once; a video is decoded. input_dir -> sequence.json."""


checkpoint sequence:
    output:
        sequence=f"{STATE}/sequence.json",
    log:
        f"{OUT}/logs/sequence.log",
    conda:
        "../envs/dailies.yaml"
    threads: 4
    params:
        fingerprint=lambda wildcards: input_fingerprint(),
        on_bad_frame=config["on_bad_frame"],
        output_format=config["output_format"],
    script:
        "../scripts/sequence.py"
