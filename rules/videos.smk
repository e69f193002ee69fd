"""Stage 9, videos: all models in one video, if asked for. renders/, frames of all -> compare/side_by_side.mp4."""


rule side_by_side:
    input:
        records=records_of_all_models,
        metadata=ancient(metadata_of_all_models),
        summary=ancient(f"{OUT}/batch_summary.json"),
        sequence=f"{STATE}/sequence.json",
        page=ancient(comparison_page),
    output:
        video=SIDE_BY_SIDE,
    log:
        f"{OUT}/logs/side_by_side.log",
    benchmark:
        f"{STATE}/benchmarks/side_by_side.tsv"
    conda:
        "../envs/dailies.yaml"
    threads: 8
    params:
        fps=config["fps"],
    script:
        "../scripts/side_by_side.py"


rule videos:
    input:
        video=SIDE_BY_SIDE,
