import re

import pytest
from helpers import REPOSITORY

MODULES = sorted((REPOSITORY / "tests").rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_what_tests_share_is_in_helpers(module):
    assert not re.search(r"^\s*(from|import) (\w+\.)*(test_\w+|conftest)\b", module.read_text(), re.MULTILINE)
