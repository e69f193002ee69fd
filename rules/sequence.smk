"""Stage 1, sequence: read every frame once, and decode a video. input_dir -> sequence.json."""


checkpoint sequence:
    output:
        sequence=LAYOUT.sequence,
    log:
        LAYOUT.log("sequence"),
    localrule: INPUTS.has_codecs  # a head node without codecs submits it
    conda:
        "../envs/dailies.yaml"
    threads: INPUTS.threads(4)
    resources:
        mem_mb=INPUTS.sequence_memory,
        runtime=INPUTS.sequence_minutes,
    params:
        fingerprint=INPUTS.input_fingerprint,
        on_bad_frame=config["on_bad_frame"],
        output_format=config["output_format"],
        afresh=INPUTS.afresh("sequence"),
    script:
        "../scripts/sequence.py"
