"""The documentation is true: links, commands, keys, tables and examples are checked against the code."""

import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise, takewhile
from pathlib import Path

import pytest
import torch
import yaml
from dailies.frames.sequence import EXTENSIONS, VIDEOS
from dailies.measure.metrics import METRICS
from dailies.models.checkpoints import CONFIG_KEYS, Checkpoint
from dailies.models.factories import Factories
from dailies.models.file_kinds import MLMODEL, ORDER
from dailies.models.loaders import Loaders
from dailies.models.signature import FIELDS, overrides
from dailies.models.weights import groups
from helpers import REPOSITORY
from helpers.studio import Studio
from jsonschema import Draft202012Validator

PAGES = sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md"))
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/README.md", *PAGES]
GUIDE = "docs/guia_de_uso.md"
KEYS = yaml.safe_load((REPOSITORY / "config" / "config.schema.yaml").read_text())["properties"]

LONGEST = {"README.md": 1500, "docs/benchmarks.md": 2550, "docs/guia_de_uso.md": 1800, "docs/architecture.md": 1780}
"""Words that a page may have."""
LONGEST_PAGE = 1600

ARGUMENTS = (
    *("config", "mlflow-uri", "experiment-name", "input-dir", "output-dir"),
    *("device", "filter-status", "max-runs", "tiled", "tile-size"),
)
"""The arguments of ``batch_inference.py``, which the first users know."""

METADATA = (
    *("run_id", "run_name", "architecture", "epoch", "train_loss", "val_loss"),
    *("status", "start_time", "params", "metrics"),
)
"""The fields of the script's ``metadata.json``."""


def text_of(document: str) -> str:
    return (REPOSITORY / document).read_text()


def section(document: str, heading: str) -> str:
    """Return what a page says below a heading, up to the next heading of that level or above."""
    marks, _, _ = heading.partition(" ")
    _, found, rest = text_of(document).partition(f"\n{heading}\n")
    assert found, f"{document} has no heading {heading}"
    return re.split(rf"^#{{1,{len(marks)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def blocks(document: str, language: str) -> list[str]:
    """Return the code blocks of a language in a document."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(document), re.MULTILINE | re.DOTALL)


def prose(document: str) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(document), flags=re.MULTILINE | re.DOTALL)


def spans(document: str) -> list[str]:
    """Return the code spans of a document."""
    return [found[1] for found in re.findall(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", prose(document), re.DOTALL)]


def first_cells(text: str) -> list[list[str]]:
    """Return the code spans in the first cell of every table row."""
    return [re.findall(r"`([^`]+)`", row) for row in re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE)]


def test_the_picture_of_the_stages_is_snakemakes_rule_graph(rendered: Studio):
    printed = rendered.snakemake("--rulegraph", "mermaid-js", compare=True, reference_dir=str(rendered.frames))
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", printed))
    graph = {(names[left], names[right]) for left, right in re.findall(r"(id\d+) --> (id\d+)", printed)}
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", text_of("docs/architecture.md"), re.MULTILINE))
    assert drawn == {edge for edge in graph if "all" not in edge}


def links(document: str) -> list[tuple[str, str]]:
    """Return the file and the heading of every link that stays in the repository."""
    found = re.findall(r"\]\(([^)#\s]*)#?([^)]*)\)", prose(document))
    return [(file, heading) for file, heading in found if not file.startswith("http")]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str):
    place = REPOSITORY / document
    missing = [
        (file, heading)
        for file, heading in links(document)
        if not leads_somewhere(place.parent / file if file else place, heading)
    ]
    assert not missing


def leads_somewhere(file: Path, heading: str) -> bool:
    """Tell whether a file exists and, if a link names a heading, has that heading, as GitHub writes its address."""
    if not file.exists() or not heading:
        return file.exists()
    titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_the_readme_links_every_page():
    linked = {file for file, _ in links("README.md")}
    assert not {*DOCUMENTS} - {"README.md"} - linked


@pytest.mark.parametrize("document", ["README.md", *PAGES])
def test_a_page_is_short_enough_to_be_read(document: str):
    words = [word for word in text_of(document).split() if re.search(r"\w", word)]
    assert len(words) <= LONGEST.get(document, LONGEST_PAGE)


def commands(document: str) -> list[list[str]]:
    """Return every command that a document shows, in a block or in the text, as a list of words."""
    shown = [line for block in blocks(document, "bash") for line in block.splitlines()]
    shown += [" ".join(span.split()) for span in spans(document)]
    parts = (part for line in shown if re.match(r"(make|snakemake|git|source|python|bash) ?", line) for part in [line])
    return [shlex.split(line, comments=True) for line in parts if line.count("'") % 2 == 0]


SEVERAL = {"--config", "--configfile", "--resources"}
"""Options of Snakemake that take all values up to the next option."""


def unknown(command: list[str], rules: set[str], targets: set[str]) -> Iterator[str]:
    """Yield the words of a command that name nothing: a target, a rule, a key, a profile or a program."""
    program, *words = command
    before_options = list(takewhile(lambda word: not word.startswith("-"), words))
    if program == "make":
        yield from {*before_options} - targets
    if program == "snakemake":
        yield from {word for word in before_options if not _is_open(word)} - rules
        for option, word in pairwise(words):
            if option == "-R" and re.fullmatch(r"\w+", word) and word not in rules:
                yield word
            if option in SEVERAL:  # Snakemake would read the target as a value, too
                place = words.index(option) + 1
                yield from rules.intersection(takewhile(lambda each: not each.startswith("-"), words[place:]))
            if option == "--workflow-profile" and not (REPOSITORY / word / "config.yaml").is_file():
                yield word
        if "--config" in words:
            given = [re.match(r"(\w+)=", word) for word in words[words.index("--config") :]]
            yield from {found[1] for found in given if found} - KEYS.keys()
    if program in {"python", "bash"} and words and "/" in words[0] and not (REPOSITORY / words[0]).is_file():
        yield words[0]


def _is_open(word: str) -> bool:
    """Whether a word stands for whatever the reader puts there."""
    return "…" in word or "<" in word


def known_rules() -> set[str]:
    texts = (path.read_text() for path in (REPOSITORY / "rules").glob("*.smk"))
    return {name for text in texts for name in re.findall(r"^(?:rule|checkpoint) (\w+):", text, re.MULTILINE)}


def known_targets() -> set[str]:
    return {*re.findall(r"^([\w-]+):", text_of("Makefile"), re.MULTILINE)}


@pytest.mark.parametrize("document", sorted({*DOCUMENTS} - {"CHANGELOG.md"}))  # which names what was removed
def test_the_commands_that_a_page_shows_exist(document: str):
    rules, targets = known_rules(), known_targets()
    found = {" ".join(command): [*unknown(command, rules, targets)] for command in commands(document)}
    assert {command: words for command, words in found.items() if words} == {}


def test_the_pages_show_the_commands_that_everyone_needs():
    shown = [" ".join(command) for command in commands("README.md")]
    assert {"make demo", "make test", "make test-all", "snakemake", "snakemake list_models", "snakemake -n"} <= {*shown}
    assert {*shown} & {" ".join(command) for command in commands(GUIDE)} >= {"make demo", "make test", "snakemake -n"}


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("snakemake list_models --config max_runs=5", []),
        ("snakemake lst_models", ["lst_models"]),
        ("snakemake --config max_run=5 device=cpu", ["max_run"]),
        ("snakemake -R inferr", ["inferr"]),
        ("snakemake --workflow-profile profiles/moon -n", ["profiles/moon"]),
        ("snakemake -s Snakefile --configfile my.yaml list_models", ["list_models"]),
        ("make tests", ["tests"]),
        ("python benchmarks/nothing.py 10", ["benchmarks/nothing.py"]),
        ("git pull", []),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, bad: list[str]):
    assert [*unknown(line.split(), known_rules(), known_targets())] == bad


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_files_of_the_repository_that_a_page_names_exist(document: str):
    folders = "benchmarks|config|docs|envs|profiles|tests|scripts"
    words = {word for span in spans(document) for word in span.split()}
    named = {word for word in words if re.fullmatch(rf"(?:{folders})/[\w./-]+", word)}
    own = {"profiles/studio", "config/config.yaml"}  # a site's own profile; here it is, elsewhere it may be missing
    assert not {name for name in named - own if not (REPOSITORY / name.rstrip("/")).exists()}


def test_every_key_is_documented_once():
    counted = Counter(re.findall(r"^(?:#{2,4} `?|\| `)(\w+)`?(?: \||$)", text_of("config/README.md"), re.MULTILINE))
    assert {key: counted[key] for key in KEYS} == dict.fromkeys(KEYS, 1)


def test_the_readme_and_the_guide_name_only_keys_that_exist():
    table = [key for keys in first_cells(section("README.md", "## Configuration")) for key in keys]
    assert len(table) >= 10
    assert not {*table} - KEYS.keys()
    assert not {*re.findall(r"--config (\w+)=", text_of(GUIDE))} - KEYS.keys()


def test_the_guide_maps_every_argument_of_the_script():
    table = section(GUIDE, "## Del script a Dailies")
    mapped = dict(re.findall(r"^\| `--([a-z-]+).*?` \| `--config(?:file)? (\w+)", table, re.MULTILINE))

    assert tuple(mapped) == ARGUMENTS
    assert [mapped[name] for name in ARGUMENTS[1:]] == [name.replace("-", "_") for name in ARGUMENTS[1:]]


def test_the_guide_names_what_the_scripts_users_know():
    said = text_of(GUIDE)
    names = [*METADATA, "batch_summary.json", "metadata.json", "download_failed", "model_state_dict", "predict.py"]
    statuses = [f"filter_status={status}" for status in ("none", "FAILED", "RUNNING")]
    headings = ["No se encontraron runs con modelos", "No se pudo descargar modelo", "No se pudo cargar modelo"]
    wanted = [*names, *statuses, *headings, "CUDA out of memory", "mlflow_uri: none", "value_range", "list_models"]

    assert [each for each in wanted if each not in said] == []


def modes() -> list[str]:
    """Return the names of the page's modes, as its buttons show them."""
    page = (REPOSITORY / "scripts" / "dailies").glob("**/web/index.html")
    views = re.findall(r'data-view="\w+"[^>]*>([\w ]+)<', next(page).read_text())
    return [*views, "Blind"]


@pytest.mark.parametrize(
    ("document", "heading"),
    [("docs/choosing.md", "## The comparison page"), (GUIDE, "## Comparar y elegir")],
)
def test_the_modes_of_the_page_have_their_names(document: str, heading: str):
    rows = re.findall(r"^\| ([A-Z][\w ]*) \|", section(document, heading), re.MULTILINE)
    assert rows == modes()


def test_the_page_on_models_shows_the_order_in_which_files_are_looked_for():
    rows = [(" ".join(endings) or MLMODEL, holds) for endings, holds in ORDER]
    table = "\n".join(f"| `{endings}` | {holds} |" for endings, holds in rows)

    assert table in text_of("docs/models.md")


def test_the_page_on_models_names_every_field_of_a_signature():
    cells = first_cells(section("docs/models.md", "## How a network wants to be fed"))
    assert sorted(field for cell in cells for field in cell) == sorted(FIELDS)


def test_the_page_on_models_names_every_place_of_a_configuration_in_order():
    said = section("docs/models.md", "## Your own networks").partition("**What a factory gets**")[2]
    assert re.findall(r"`(\w+)`", said)[: len(CONFIG_KEYS)] == list(CONFIG_KEYS)


def test_the_page_on_frames_names_every_ending():
    listed = re.findall(r"\.\w+", "".join(re.findall(r"`(\..*?)`", section("docs/frames.md", "## What it reads"))))
    assert sorted(listed) == sorted([*EXTENSIONS, *VIDEOS])


def test_the_page_on_metrics_names_every_metric():
    cells = first_cells(section("docs/metrics.md", "## When frames are measured"))
    assert [cell[0] for cell in cells if cell] == [metric.name for metric in METRICS]


def codes() -> set[str]:
    """Return the code of every error that the package raises."""
    return set(re.findall(r"^([a-z_]+\.[a-z0-9_]+)  ", text_of("tests/messages.txt"), re.MULTILINE))


def families_on_the_page() -> set[str]:
    headings = re.findall(r"^## (.+)$", text_of("docs/troubleshooting.md"), re.MULTILINE)
    return {name for heading in headings for name in re.findall(r"`(\w+)`", heading)}


def test_the_page_on_troubleshooting_has_a_section_for_every_kind_of_error():
    assert not {code.partition(".")[0] for code in codes()} - families_on_the_page()


def test_the_page_on_troubleshooting_names_only_codes_that_exist():
    families = "|".join(families_on_the_page())
    named = {span for span in spans("docs/troubleshooting.md") if re.fullmatch(rf"({families})\.[a-z0-9_]+", span)}
    assert len(named) > 40
    assert not named - codes()


def broken_spans(text: str) -> list[str]:
    """Return the code spans of a Markdown text that stick to a word: a backtick inside them ended them early.

    A span ends at the next run of as many backticks as it began with.
    """
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.finditer(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", prose, re.DOTALL)
    before_and_after = ((span[0], prose[: span.start()][-1:], prose[span.end() :][:1]) for span in spans)
    return [span for span, before, after in before_and_after if re.match(r"\w", before) or re.match(r"[\w`]", after)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_backticks_inside_code_survive_markdown(document: str):
    assert broken_spans(text_of(document)) == []


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
    shown = re.findall(r"(?<!`)``(?!`)(.+?)(?<!`)``(?!`)", text_of(GUIDE))

    assert shown == ['order_by: "metrics.`val/psnr` DESC"', "filter: \"params.`model.architecture` = 'unet'\""]
    assert [yaml.safe_load(span) for span in shown] == [
        {"order_by": "metrics.`val/psnr` DESC"},
        {"filter": "params.`model.architecture` = 'unet'"},
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_settings_that_the_pages_show_are_allowed(document: str):
    rules = {"type": "object", "properties": KEYS, "additionalProperties": False}
    for block in blocks(document, "yaml"):
        Draft202012Validator(rules).validate(yaml.safe_load(block))


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

STATE = {
    "body.weight": torch.linspace(-1, 1, 96).reshape(32, 3, 1, 1),
    "body.bias": torch.linspace(0, 1, 32),
    "out.weight": torch.linspace(1, -1, 96).reshape(3, 32, 1, 1),
    "out.bias": torch.zeros(3),
}
UNSET = {"model_factory": None, "model_loader": None}


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the module that the pages' examples import; what they import is forgotten at the end."""
    (tmp_path / "restorer.py").write_text(RESTORER)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("networks", "redes", "restorer"):
        monkeypatch.setitem(sys.modules, name, sys)  # undone at the end, also if the test's own imports replace it
        del sys.modules[name]
    return tmp_path


def expected(pixels: torch.Tensor, studio: Path) -> torch.Tensor:
    scope: dict = {}
    exec((studio / "restorer.py").read_text(), scope)
    network = scope["Restorer"](32)
    network.load_state_dict(STATE)
    return network(pixels)


@pytest.mark.parametrize(("document", "function"), [("README.md", None), (GUIDE, "redes:construir")])
def test_the_factory_that_a_page_shows_builds_the_network(document: str, function: str | None, studio: Path):
    (code,) = blocks(document, "python")
    settings = yaml.safe_load(next(block for block in blocks(document, "yaml") if "model_factory" in block))
    function = function or settings["model_factory"]
    (studio / f"{function.partition(':')[0]}.py").write_text(code)

    factories = Factories.from_settings({"model_factory": function, "python_path": [studio]})
    built = factories.build(Checkpoint("best.pth", tuple(groups(STATE)), {"width": 32}), "restorer")

    pixels = torch.rand(1, 3, 4, 5)
    assert torch.equal(built.network(pixels), expected(pixels, studio))
    assert len([line for line in code.splitlines() if line.strip()]) == 4


def test_the_readme_states_the_value_range_of_its_network():
    (settings,) = [each for each in map(yaml.safe_load, blocks("README.md", "yaml")) if "signatures" in each]
    fed = overrides(settings["signatures"], architecture="restorer", folder="gan_24ep_loss0.1")
    assert fed == {"value_range": [0, 1]}


def test_the_loader_that_the_page_on_models_shows_loads_the_network(studio: Path):
    (code,) = blocks("docs/models.md", "python")
    (settings,) = map(yaml.safe_load, blocks("docs/models.md", "yaml"))
    (studio / "networks.py").write_text(code)
    torch.save({"generator": STATE, "discriminator": {}}, studio / "best.pth")

    loaders = Loaders.from_settings(settings | {"python_path": [studio]})
    function = loaders.select(architecture="gan", folder="restorer_24ep_loss0.1")
    network, _ = loaders.load(function, studio / "best.pth", {})

    pixels = torch.rand(1, 3, 4, 5)
    assert torch.equal(network(pixels), expected(pixels, studio))
