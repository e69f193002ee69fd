"""Promote: register the chosen model, when asked for. {model}/metadata.json -> a version with an alias."""


rule promote:
    log:
        LAYOUT.log("promote"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        model=chosen_model,
    script:
        "../scripts/promote.py"
