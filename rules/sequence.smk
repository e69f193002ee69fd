"""Stage 1, sequence: read every frame once; a video is decoded. input_dir -> sequence.json."""

from importlib.util import find_spec


checkpoint sequence:
    output:
        sequence=LAYOUT.sequence,
    log:
        LAYOUT.log("sequence"),
    localrule: find_spec("OpenImageIO") is not None  # a head node without codecs submits it
    conda:
        "../envs/dailies.yaml"
    threads: 4
    resources:
        mem_mb=lambda wc, attempt: attempt * estimates.SEQUENCE_MEMORY,
        runtime=lambda wc, attempt: attempt * estimates.SEQUENCE_MINUTES,
    params:
        fingerprint=lambda wildcards: input_fingerprint(),
        on_bad_frame=config["on_bad_frame"],
        output_format=config["output_format"],
        afresh=afresh("sequence"),
    script:
        "../scripts/sequence.py"
