"""Publish on request: write_back sends the measurements to MLflow; promote registers the chosen model.

votes counts those of blind tests: votes.json -> .dailies/votes.json, leaderboard.csv.
"""


rule write_back:
    input:
        metadata=INPUTS.metadata_of_all_models,
    output:
        record=LAYOUT.evaluations,
    log:
        LAYOUT.log("write_back"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    script:
        "../scripts/write_back.py"


rule votes:
    input:
        INPUTS.counted_votes,
        INPUTS.metadata_of_all_models,
        LAYOUT.summary,
        INPUTS.comparison_page,
    localrule: True


rule import_votes:
    input:
        file=INPUTS.votes_file,
        sequence=ancient(LAYOUT.sequence),
    output:
        votes=update(INPUTS.imported_votes),  # the record keeps the votes of earlier files
    log:
        LAYOUT.log("import_votes"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        digest=INPUTS.votes_digest,
    script:
        "../scripts/import_votes.py"


rule promote:
    log:
        LAYOUT.log("promote"),
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        model=INPUTS.chosen_model,
    script:
        "../scripts/promote.py"
