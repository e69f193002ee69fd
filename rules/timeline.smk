"""Timeline: tracks for desktop players, when asked for. metadata.json of all -> compare/shot.otio."""


rule timeline:
    input:
        metadata=metadata_of_all_models,
        sequence=f"{STATE}/sequence.json",
        reference=pairing_record,
    output:
        timeline=f"{OUT}/compare/shot.otio",
    log:
        f"{OUT}/logs/timeline.log",
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        fps=config["fps"],
        reference=lambda wildcards: reference_fingerprint(),
        code=code_of("timeline"),
    script:
        "../scripts/timeline.py"
