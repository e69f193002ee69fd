"""The snapshot of all messages, and the codes of errors."""

import pickle
import runpy
from pathlib import Path

import pytest
from dailies.core.errors import LoadError

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "messages.py"), run_name="messages")


class BadParts(LoadError):
    """An error with its own constructor."""

    def __init__(self, parts):
        super().__init__("model.bad", f"{len(parts)} parts are bad")
        self.parts = parts


@pytest.fixture
def messages():
    """Return a function that reads the messages in the text of a module."""

    def read(tmp_path, text):
        (tmp_path / "errors.py").write_text("class DailiesError(Exception): ...\nclass LoadError(DailiesError): ...\n")
        (tmp_path / "module.py").write_text(text)
        return TOOL["Source"](tmp_path).messages()

    return read


def test_the_snapshot_matches_the_source():
    now = TOOL["snapshot"](TOOL["Source"](TOOL["PACKAGE"]).messages())

    assert TOOL["SNAPSHOT"].read_text(encoding="utf-8") == now, "run python docs/messages.py"


def test_every_error_has_a_code_of_one_class():
    found = TOOL["faults"](TOOL["Source"](TOOL["PACKAGE"]).messages())

    assert list(found) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('raise LoadError(f"{file} is damaged")', "module.py:1: LoadError has no code"),
        ('raise LoadError("Model.Bad", f"{file} is damaged")', "module.py:1: Model.Bad is malformed"),
        ('raise LoadError("weather.bad", f"{file} is damaged")', "module.py:1: weather.bad is malformed"),
        ('raise LoadError("model.bad", "")', "module.py:1: model.bad has no message"),
        (
            'raise LoadError("model.bad", "x")\nraise DailiesError("model.bad", "x")',
            "module.py:1: model.bad is of LoadError here and of DailiesError elsewhere",
        ),
    ],
)
def test_what_is_wrong_with_a_code_is_named(messages, tmp_path, text, fault):
    (found,) = TOOL["faults"](messages(tmp_path, text))

    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ('LoadError("model.bad", f"{clean(file)[:9]} is {error.args}")', "{file} is {error.args}"),
        ('ADVICE = f"correct {KEY}"\nKEY = "it"\nLoadError("model.bad", f"no; {ADVICE}")', "no; correct it"),
        (
            'LoadError("model.bad", f"{counted(len(lost), \'frame\')} of {len(all)}")',
            "{number of lost} frames of {number of all}",
        ),
        ('def f():\n    why = f"of {x}"\n    raise LoadError("model.bad", f"no{why}")', "noof {x}"),
        ('LoadError(error.code, f"{error} at {x + 1}")', "{error} at {x + 1}"),
    ],
)
def test_a_message_is_shown_as_it_reads(messages, tmp_path, text, template):
    (message,) = messages(tmp_path, text)

    assert message.templates == (template,)


@pytest.mark.parametrize("error", [LoadError("model.bad", "2 parts are bad"), BadParts(["a", "b"])])
def test_an_error_survives_pickling_and_its_text_is_its_message(error):
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert (copy.code, copy.message, str(copy), copy.args) == ("model.bad", *["2 parts are bad"] * 2, error.args)
