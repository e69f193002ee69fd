"""What the documents say is so: the picture of the stages, and the files that they point to."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from dailies.catalog import MLMODEL, ORDER
from dailies.checkpoints import Checkpoint
from dailies.factories import Factories
from dailies.loaders import Loaders
from dailies.signatures import FIELDS, overrides
from dailies.weights import groups
from helpers import REPOSITORY
from helpers.studio import Studio
from jsonschema import Draft202012Validator

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


def blocks(document: str, language: str) -> list[str]:
    """Return the code blocks of a language in a document."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (REPOSITORY / document).read_text(), re.MULTILINE | re.DOTALL)


def broken_spans(text: str) -> list[str]:
    """Return the code spans of a Markdown text that stick to a word: a backtick inside them ended them early.

    A span ends at the next run of as many backticks as it began with.
    """
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.finditer(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", prose, re.DOTALL)
    before_and_after = ((span[0], prose[: span.start()][-1:], prose[span.end() :][:1]) for span in spans)
    return [span for span, before, after in before_and_after if re.match(r"\w", before) or re.match(r"[\w`]", after)]


@pytest.mark.parametrize("document", [*DOCUMENTS, "docs/benchmarks.md", "CHANGELOG.md"])
def test_backticks_inside_code_survive_markdown(document: str):
    assert broken_spans((REPOSITORY / document).read_text()) == []


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("``metrics.`val/psnr` DESC``, and `a` (`b`): `c`;", []),
        ("`metrics.`val/psnr` DESC`", ["`metrics.`", "` DESC`"]),
        ("`params.`a` = 'b'`", ["`params.`", "` = 'b'`"]),
        ("``tags.`x` ``", []),
        ("``a`b``c`", ["``a`b``"]),
        ("```bash\nx=`date`y\n```", []),
    ],
)
def test_a_code_span_that_ends_early_is_found(text: str, broken: list[str]):
    assert broken_spans(text) == broken


def test_the_filters_of_the_spanish_guide_are_whole():
    guide = (REPOSITORY / "docs" / "guia_de_uso.md").read_text()
    spans = re.findall(r"(?<!`)``(?!`)(.+?)(?<!`)``(?!`)", guide)

    assert spans == ['order_by: "metrics.`val/psnr` DESC"', "filter: \"params.`model.architecture` = 'unet'\""]
    assert [yaml.safe_load(span) for span in spans] == [
        {"order_by": "metrics.`val/psnr` DESC"},
        {"filter": "params.`model.architecture` = 'unet'"},
    ]


@pytest.mark.parametrize("document", ["README.md", "docs/guia_de_uso.md"])
def test_the_settings_that_the_documents_show_are_allowed(document: str):
    rules = yaml.safe_load((REPOSITORY / "config" / "config.schema.yaml").read_text())
    shown = [yaml.safe_load(block) for block in blocks(document, "yaml")]

    for settings in shown:
        Draft202012Validator(rules).validate(settings)
    assert {"model_factory", "python_path", "signatures"} in [set(settings) for settings in shown]
    assert any("model_loader" in settings for settings in shown)


RESTORER = """
import torch

class Restorer(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = torch.nn.Conv2d(3, width, 1)
        self.out = torch.nn.Conv2d(width, 3, 1)

    def forward(self, x):
        return self.out(self.body(x))
"""


def test_the_functions_in_the_readme_load_what_it_says(tmp_path, monkeypatch):
    (code,) = blocks("README.md", "python")
    (tmp_path / "networks.py").write_text(code)
    (tmp_path / "restorer.py").write_text(RESTORER)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("networks", "restorer"):
        monkeypatch.setitem(sys.modules, name, sys)  # undone at the end, also where the test's own imports replace it
        del sys.modules[name]
    settings = yaml.safe_load(blocks("README.md", "yaml")[0]) | {"python_path": [tmp_path]}
    factories, loaders = Factories.from_settings(settings), Loaders.from_settings(settings)

    state = {"body.weight": torch.rand(32, 3, 1, 1), "body.bias": torch.rand(32)}
    state |= {"out.weight": torch.rand(3, 32, 1, 1), "out.bias": torch.rand(3)}
    torch.save({"generator": state, "discriminator": {}}, tmp_path / "best.pth")
    function = loaders.named(architecture="gan", folder="restorer_24ep_loss0.1")
    loaded, _ = loaders.load(function, tmp_path / "best.pth", {})
    built = factories.build(Checkpoint("best.pth", tuple(groups(state)), {"width": 32}), "gan")

    pixels = torch.rand(1, 3, 4, 5)
    assert torch.equal(loaded(pixels), built.network(pixels))
    fed = overrides(settings["signatures"], architecture="gan", folder="restorer_24ep_loss0.1")
    assert fed == {"value_range": [0, 1]}
