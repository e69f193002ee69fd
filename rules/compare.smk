"""Stage 9, compare: the page to choose a model with. metadata.json and frames of all -> compare/index.html."""


rule compare:
    input:
        metadata=metadata_of_all_models,
        summary=f"{OUT}/batch_summary.json",
        sequence=f"{STATE}/sequence.json",
        reference=pairing_record,
        sheet=f"{OUT}/compare/contact_sheet.png",
        metrics=ranking_for_page,
    output:
        page=f"{OUT}/compare/index.html",
    log:
        f"{OUT}/logs/compare.log",
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
