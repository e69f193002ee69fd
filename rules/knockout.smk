"""The knockout: all models render a few frames first. measures/{model}/knockout.json of all -> knockout.json, the finalists."""


use rule download as download_candidate with:
    output:
        receipt=LAYOUT.candidate_receipt("{model}"),
    log:
        LAYOUT.log("download_candidate_{model}"),
    benchmark:
        LAYOUT.benchmark("download_candidate_{model}")
    params:
        **INPUTS.render_settings,
        shards=INPUTS.candidate_states,
        forced=INPUTS.forced_candidate,


checkpoint knockout:
    input:
        runs=INPUTS.runs_of_all_models,
        measures=INPUTS.measures_of_candidates,
        sequence=LAYOUT.sequence,
    output:
        decision=LAYOUT.knockout,
    log:
        LAYOUT.log("knockout"),
    conda:
        "../envs/dailies.yaml"
    params:
        question=INPUTS.knockout_question,
        basis=INPUTS.knockout_basis,
    script:
        "../scripts/knockout.py"
