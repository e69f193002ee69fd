"""Stage 7, contact_sheet: models x chosen frames in one picture. renders/, frames of all -> compare/contact_sheet.png."""


rule contact_sheet:
    input:
        records=records_of_all_models,  # what changes with the frames; metadata.json changes with every metric
        metadata=ancient(metadata_of_all_models),
        summary=ancient(f"{OUT}/batch_summary.json"),
        sequence=f"{STATE}/sequence.json",
    output:
        sheet=f"{OUT}/compare/contact_sheet.png",
    log:
        f"{OUT}/logs/contact_sheet.log",
    conda:
        "../envs/dailies.yaml"
    threads: 4
    params:
        chosen=config["contact_frames"],
    script:
        "../scripts/contact_sheet.py"
