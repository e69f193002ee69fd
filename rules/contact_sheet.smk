"""Stage 7, contact_sheet: models x chosen frames in one picture. renders/, frames of all -> compare/contact_sheet.png."""


rule contact_sheet:
    input:
        index=ancient(f"{STATE}/discovery.json"),  # the parameter names says whether it matters
        records=records_of_all_models,  # not metadata.json, which changes with every metric
        sequence=f"{STATE}/sequence.json",
    output:
        sheet=f"{OUT}/compare/contact_sheet.png",
    log:
        f"{OUT}/logs/contact_sheet.log",
    conda:
        "../envs/dailies.yaml"
    threads: 4
    params:
        names=names_of_models,
        chosen=config["contact_frames"],
    script:
        "../scripts/contact_sheet.py"
