"""Votes of blind tests as a part of the workflow."""

import csv
import json
from pathlib import Path

from dailies.core import files
from helpers.json_files import strict_json
from helpers.publishing import promoted, version
from helpers.shows import received
from helpers.studio import Studio, check_one_sentence, jobs


def exported(studio: Studio, name: str, ids: list[int], winner: str) -> Path:
    """Write votes on dark against light, as the page exports them."""
    sides, digest = {}, files.sha256_of(studio.frames / "frame_000001.png")[:16]
    for side, model in (("a", "dark"), ("b", "light")):
        run_id = studio.runs[model]
        artifact = studio.metadata(run_id)["artifact"]["sha256"][:16]
        sides[side] = {"model": studio.folder(run_id).name, "run_id": run_id, "artifact": artifact}
    cast = [
        {
            "id": f"{number:032x}",
            **sides,
            "winner": winner,
            "frame": "frame_000001.png",
            "frame_digest": digest,
            "time": "t",
        }
        for number in ids
    ]
    path = studio.root / name
    path.write_text(json.dumps({"format": "dailies votes 2", "page": "p", "votes": cast}))
    return path


def counts(studio: Studio) -> dict[str, tuple[str, str]]:
    """Return the votes that each model won and lost, by the leaderboard."""
    with studio.layout.leaderboard.open(newline="") as file:
        return {line["model"]: (line["votes_won"], line["votes_lost"]) for line in csv.DictReader(file)}


def test_snakemake_votes_counts_each_vote_once_in_the_leaderboard_and_for_promote(rendered: Studio):
    dark, light = (rendered.folder(rendered.runs[name]).name for name in ("dark", "light"))
    first, second = exported(rendered, "one.json", [1, 2], "a"), exported(rendered, "two.json", [2, 3], "a")
    votes = ("votes", "--config", "metrics=[detail]")

    rendered.snakemake(*votes, f"file={first}")
    assert (counts(rendered)[dark], counts(rendered)[light]) == (("2", "0"), ("0", "2"))

    output = rendered.snakemake(*votes, f"file={second}")
    assert jobs(output, "measure") == []
    assert (counts(rendered)[dark], counts(rendered)[light]) == (("3", "0"), ("0", "3"))

    promoted(rendered)
    assert version(rendered).tags["dailies.votes.won"] == "3"

    mixed, foreign = exported(rendered, "three.json", [4, 5], "a"), exported(rendered, "four.json", [6], "a")
    content = json.loads(mixed.read_text())
    content["votes"][1]["frame"] = "frame_000009.png"
    mixed.write_text(json.dumps(content))
    output = rendered.snakemake(*votes, "compare=true", f"file={mixed}")
    assert counts(rendered)[dark] == ("4", "0")
    assert "1 of 2 imported votes does not count: 1 on frames" in output  # of the file
    note = "1 of 5 imported votes does not count"
    assert note in output
    assert note in strict_json(rendered.layout.verdict)["uncounted"]
    page = received((rendered.layout.page_folder / "data.js").read_bytes())
    assert note in str(next(model["notes"] for model in page["models"] if model["id"] == dark))

    foreign.write_text(foreign.read_text().replace(dark, "another"))
    refused = rendered.snakemake(*votes, f"file={foreign}", expect=1)
    assert "another" in refused
    assert len(strict_json(rendered.layout.votes)["votes"]) == 5
    check_one_sentence(
        rendered.snakemake("votes", expect=1),
        "votes needs the file that the page exported: snakemake votes --config file=votes.json",
    )
