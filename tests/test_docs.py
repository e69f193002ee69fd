"""What the documents say is so: the picture of the stages, and the files that they point to."""

import re
from pathlib import Path

import pytest
from conftest import REPOSITORY, Studio
from dailies.catalog import MLMODEL, ORDER
from dailies.signatures import FIELDS

DOCUMENTS = (
    "README.md",
    "docs/architecture.md",
    "docs/guia_de_uso.md",
    "docs/servers.md",
    "docs/cluster.md",
    "config/README.md",
)


def test_the_picture_of_the_stages_is_snakemakes_rule_graph(rendered: Studio):
    printed = rendered.snakemake("--rulegraph", "mermaid-js", compare=True, reference_dir=str(rendered.frames))
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", printed))
    graph = {(names[left], names[right]) for left, right in re.findall(r"(id\d+) --> (id\d+)", printed)}
    picture = (REPOSITORY / "docs" / "architecture.md").read_text()
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", picture, re.MULTILINE))
    assert drawn == {edge for edge in graph if "all" not in edge}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str):
    place = REPOSITORY / document
    links = re.findall(r"\]\(([^)#]*)#?([^)]*)\)", place.read_text())
    missing = [
        (file, heading)
        for file, heading in links
        if not file.startswith("http") and not leads_somewhere(place.parent / file if file else place, heading)
    ]
    assert not missing


def leads_somewhere(file: Path, heading: str) -> bool:
    """Tell whether a file is there and, where a link names one, has that heading, as GitHub writes its address."""
    if not file.exists() or not heading:
        return file.exists()
    titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_the_readme_shows_the_order_in_which_models_are_looked_for():
    rows = [(" ".join(endings) or MLMODEL, holds) for endings, holds in ORDER]
    table = "\n".join(f"| `{endings}` | {holds} |" for endings, holds in rows)

    assert table in (REPOSITORY / "README.md").read_text()


def test_the_readme_names_every_field_of_a_signature():
    readme = (REPOSITORY / "README.md").read_text()
    section = readme.split("### How a network wants to be fed")[1].split("###")[0]

    assert set(re.findall(r"`(\w+)`", section)) >= FIELDS.keys()
