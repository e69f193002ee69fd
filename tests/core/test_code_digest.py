"""The digest of the code behind a script."""

import os
from pathlib import Path

import pytest
from dailies.core import code_digest


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of a few modules."""
    texts = {
        "compare.py": "from dailies.page import build\n",
        "infer.py": "if True:\n    from dailies import (\n        render,  # first\n        text as words,\n    )\n",
        "other.py": "import dailies\nimport dailies.deep.inner\nfrom elsewhere import page\n",
        "dailies/__init__.py": "",
        "dailies/page.py": "from dailies import text\n\nif TYPE_CHECKING:\n    from dailies import unused\n",
        "dailies/render.py": "def late():\n    from dailies.deep import inner\n",
        "dailies/text.py": "from dailies import page\n",
        "dailies/unused.py": "",
        "dailies/deep/__init__.py": "",
        "dailies/deep/inner.py": "",
        "dailies/compare/web/app.js": "",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code_digest, "PACKAGE", tmp_path / "dailies")
    return tmp_path


def digests(project: Path) -> dict[str, str]:
    code_digest.imported_by.cache_clear()
    return {name: code_digest.digest(project / f"{name}.py") for name in ("compare", "infer", "other")}


@pytest.mark.parametrize(
    ("changed", "scripts"),
    [
        ("compare.py", {"compare"}),
        ("dailies/__init__.py", {"compare", "infer", "other"}),
        ("dailies/page.py", {"compare", "infer"}),
        ("dailies/text.py", {"compare", "infer"}),
        ("dailies/render.py", {"infer"}),
        ("dailies/deep/__init__.py", {"infer", "other"}),
        ("dailies/deep/inner.py", {"infer", "other"}),
        ("dailies/unused.py", set()),
        ("dailies/compare/web/app.js", {"compare"}),
        ("dailies/compare/web/new.css", {"compare"}),
    ],
)
def test_what_a_script_uses_changes_its_digest(project, changed, scripts):
    before = digests(project)
    with (project / changed).open("a") as file:
        file.write("# newer\n")
    after = digests(project)

    assert {name for name in before if after[name] != before[name]} == scripts


def test_times_do_not_count(project):
    before = digests(project)
    for path in project.rglob("*.*"):
        os.utime(path, (0, 0))

    assert digests(project) == before


def test_the_scripts_of_the_project_use_what_they_import():
    scripts = code_digest.PACKAGE.parent
    behind = {path.relative_to(scripts).as_posix() for path in code_digest.files_behind(scripts / "summary.py")}

    assert {"summary.py", "dailies/__init__.py", "dailies/core/files.py", "dailies/state/collect.py"} <= behind
    assert not any(path.startswith(("dailies/render/", "dailies/compare/page")) for path in behind)
    assert len({code_digest.digest(path) for path in scripts.glob("*.py")}) == len(list(scripts.glob("*.py")))
