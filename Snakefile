"""Dailies: render every model of an MLflow experiment over every frame of a sequence.

sequence + discover -> download -> infer -> measure -> collect -> summary -> contact_sheet -> compare
"""

from os.path import exists

from snakemake.utils import min_version

min_version("9.27")


if exists("config/config.yaml"):

    configfile: "config/config.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/sequence.smk"
include: "rules/discover.smk"
include: "rules/infer.smk"
include: "rules/measure.smk"
include: "rules/knockout.smk"
include: "rules/collect.smk"
include: "rules/compare.smk"
include: "rules/publish.smk"


wildcard_constraints:
    model=r"[^/@][^/]*",
    shard=r"all|knockout|[1-9][0-9]*",


rule all:
    default_target: True
    input:
        LAYOUT.sequence,
        INPUTS.metadata_of_all_models,
        LAYOUT.summary,
        INPUTS.comparison_page,
        INPUTS.evaluations,
    localrule: True


onsuccess:
    FINAL_REPORT.report()


onerror:
    FINAL_REPORT.report_interruption()
