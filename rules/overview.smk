"""Stage 10, overview: a table and plots for snakemake --report. metadata.json of all -> compare/overview.html, frames.svg."""


rule overview:
    input:
        metadata=metadata_of_all_models,
        measures=ranking_for_page,
        sequence=f"{STATE}/sequence.json",
    output:
        table=report(
            f"{OUT}/compare/overview.html",
            caption="../report/overview.rst",
            category="1. Models",
            labels={"what": "all models in a table"},
        ),
        plots=report(
            f"{OUT}/compare/frames.svg",
            caption="../report/frames.rst",
            category="2. Over the frames",
            labels={"what": "plots over the frames"},
        ),
    log:
        f"{OUT}/logs/overview.log",
    localrule: True
    conda:
        "../envs/dailies.yaml"
    params:
        code=code_of("overview"),
    script:
        "../scripts/overview.py"
