"""Stage 8, contact_sheet: models x chosen frames in one picture. renders/, frames of all -> compare/contact_sheet.png."""


rule contact_sheet:
    input:
        index=ancient(LAYOUT.index),  # the parameter names says whether it matters
        records=records_of_all_models,  # not metadata.json, which changes with every metric
        sequence=LAYOUT.sequence,
        reference=pairing_record,
    output:
        sheet=report(
            LAYOUT.contact_sheet,
            caption="../report/contact_sheet.rst",
            category="2. Frames",
            labels={"what": "all models side by side"},
        ),
    log:
        LAYOUT.log("contact_sheet"),
    conda:
        "../envs/dailies.yaml"
    threads: 4
    resources:
        mem_mb=lambda wc, input, attempt: attempt * estimates.page_memory(input.sequence),
        runtime=estimates.START,
    params:
        names=names_of_models,
        chosen=config["contact_frames"],
        reference=lambda wildcards: reference_fingerprint(),
        code=code_of("contact_sheet"),
    script:
        "../scripts/contact_sheet.py"
