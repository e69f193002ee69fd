"""Videos: all models in one, when asked for. renders/, frames of all -> compare/side_by_side.mp4."""


rule side_by_side:
    input:
        index=ancient(LAYOUT.index),  # the parameter names says whether it matters
        records=records_of_all_models,
        sequence=LAYOUT.sequence,
        reference=pairing_record,
    output:
        video=LAYOUT.side_by_side,
    log:
        LAYOUT.log("side_by_side"),
    benchmark:
        LAYOUT.benchmark("side_by_side")
    conda:
        "../envs/dailies.yaml"
    threads: 8
    resources:
        mem_mb=video_memory,
        runtime=lambda wc, input, attempt: attempt * estimates.page_minutes(input.sequence, models=len(input.records)),
    params:
        names=names_of_models,
        fps=config["fps"],
        reference=lambda wildcards: reference_fingerprint(),
        code=code_of("side_by_side"),
    script:
        "../scripts/side_by_side.py"


rule videos:
    input:
        metadata_of_all_models,
        LAYOUT.summary,
        comparison_page,
        LAYOUT.side_by_side,
