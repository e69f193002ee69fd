"""Stages 8 and 9, contact sheet and page; videos and a bundle on request. renders/, metadata.json of all -> compare/."""


rule contact_sheet:
    input:
        index=ancient(LAYOUT.index),  # the parameter labels shows whether the models have changed
        outcomes=INPUTS.outcomes_of_all_models,  # not metadata.json, which changes with every metric
        sequence=LAYOUT.sequence,
        reference=INPUTS.pairing_record,
        ranking=INPUTS.ranking_record,
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
        mem_mb=INPUTS.page_memory,
        runtime=INPUTS.start_minutes,
    params:
        labels=INPUTS.labels_of_models,
        chosen=config["contact_frames"],
        reference=INPUTS.reference_fingerprint,
        code=INPUTS.code("contact_sheet"),
    script:
        "../scripts/contact_sheet.py"


rule compare:
    input:
        metadata=INPUTS.metadata_of_all_models,
        summary=LAYOUT.summary,
        sequence=LAYOUT.sequence,
        reference=INPUTS.pairing_record,
        sheet=LAYOUT.contact_sheet,
        ranking=INPUTS.ranking_record,
    output:
        page=LAYOUT.page,
    log:
        LAYOUT.log("compare"),
    conda:
        "../envs/dailies.yaml"
    threads: 4
    resources:
        mem_mb=INPUTS.page_memory,
        runtime=INPUTS.page_minutes,
    params:
        fps=config["fps"],
        training_frames_from=config["training_frames_from"],
        advice=INPUTS.verdict_advice,
        reference=INPUTS.reference_fingerprint,
        code=INPUTS.code("compare"),
    script:
        "../scripts/compare.py"


rule side_by_side:
    input:
        index=ancient(LAYOUT.index),  # the parameter labels shows whether the models have changed
        outcomes=INPUTS.outcomes_of_finalists,
        sequence=LAYOUT.sequence,
        reference=INPUTS.pairing_record,
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
        mem_mb=INPUTS.video_memory,
        runtime=INPUTS.video_minutes,
    params:
        labels=INPUTS.labels_of_finalists,
        fps=config["fps"],
        reference=INPUTS.reference_fingerprint,
        code=INPUTS.code("side_by_side"),
    script:
        "../scripts/side_by_side.py"


rule videos:
    input:
        INPUTS.metadata_of_all_models,
        LAYOUT.summary,
        INPUTS.comparison_page,
        LAYOUT.side_by_side,
    localrule: True


rule bundle:
    input:
        page=LAYOUT.page,
        metadata=INPUTS.metadata_of_all_models,  # the page itself is always the same text
        summary=LAYOUT.summary,
        sheet=LAYOUT.contact_sheet,
        ranking=INPUTS.ranking_record,
    output:
        bundle=LAYOUT.bundle,
    log:
        LAYOUT.log("bundle"),
    localrule: True  # so that its size appears on the user's terminal
    conda:
        "../envs/dailies.yaml"
    params:
        page=[config["fps"], config["training_frames_from"], INPUTS.verdict_advice, INPUTS.code("compare")],
        reference=INPUTS.reference_fingerprint,
        video=INPUTS.video_on_page,
        code=INPUTS.code("bundle"),
    script:
        "../scripts/bundle.py"
