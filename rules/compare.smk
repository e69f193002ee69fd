"""Stage 9, compare: the page to choose a model with. metadata.json and frames of all -> compare/index.html."""


rule compare:
    input:
        metadata=metadata_of_all_models,
        summary=LAYOUT.summary,
        sequence=LAYOUT.sequence,
        reference=pairing_record,
        sheet=LAYOUT.contact_sheet,
        metrics=ranking_for_page,
    output:
        page=LAYOUT.page,
    log:
        LAYOUT.log("compare"),
    conda:
        "../envs/dailies.yaml"
    threads: 4
    resources:
        mem_mb=lambda wc, input, attempt: attempt * estimates.page_memory(input.sequence),
        runtime=lambda wc, input, attempt: attempt * estimates.page_minutes(input.sequence, models=len(input.metadata)),
    params:
        fps=config["fps"],
        training_frames_from=config["training_frames_from"],
        reference=lambda wildcards: reference_fingerprint(),
        code=code_of("compare"),
    script:
        "../scripts/compare.py"
