import pytest
from dailies.core.text import cause, clean, columns, counted, few, in_bytes, redacted
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://me:secret@host:5000/x", "http://***@host:5000/x"),
        ("see https://token@host, and ftp://u:p@other/y", "see https://***@host, and ftp://***@other/y"),
        ("http://me:p@ss@host/a@b", "http://***@host/a@b"),
        ("postgresql://host/db?user=u&password=p&x=1", "postgresql://host/db?user=u&password=***&x=1"),
        (
            "https://s3/f?X-Amz-Signature=abc&X-Amz-Credential=def'",
            "https://s3/f?X-Amz-Signature=***&X-Amz-Credential=***'",
        ),
        ("s3://bucket/models@v2/x", "s3://bucket/models@v2/x"),
        ("write to me@studio.org", "write to me@studio.org"),
    ],
)
def test_secrets_in_urls_are_masked(text, masked):
    assert redacted(text) == masked


WORD = st.text("abcXYZ019:%.-", min_size=1, max_size=20)


@given(user=WORD, password=WORD, before=st.text(max_size=20), after=st.text(max_size=20))
def test_no_password_survives(user, password, before, after):
    text = redacted(f"{before} https://{user}:SECRET{password}@host.org/{after}")

    assert "SECRET" not in text
    assert "https://***@host.org/" in text


def test_clean_text_is_one_printable_line():
    assert clean("\x1b[1;31mred\x1b[0m\r\n  two\u202e \x00 three\t") == "red two three"


@given(st.text())
def test_clean_text_stays_clean(text):
    once = clean(text)

    assert once.isprintable()
    assert clean(once) == once


@pytest.mark.parametrize(
    ("texts", "listed"),
    [("", "none"), ("abcde", "a, b, c, d, e"), ("abcdefg", "a, b, c, d, e and 2 more")],
)
def test_the_first_few_are_listed_and_the_rest_is_counted(texts, listed):
    assert few(texts) == listed
    assert few(iter("abc"), 2, separator="; ") == "a; b; and 1 more"


@pytest.mark.parametrize(("number", "text"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames")])
def test_one_thing_is_no_plural(number, text):
    assert counted(number, "frame") == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0.0 kB"), (999, "1.0 kB"), (123_456, "123.5 kB"), (1e6, "1.0 MB"), (2.34e9, "2.3 GB"), (5e12, "5000.0 GB")],
)
def test_bytes_are_written_for_people(size, text):
    assert in_bytes(size) == text


SCRIPT = """The following operation failed in the TorchScript interpreter.
Traceback of TorchScript, serialized code (most recent call last):
  File "code/nets.py", line 7, in forward
    return torch.add(x, y)
           ~~~~~~~~~ <--- HERE
RuntimeError: The size of tensor a (96) must match the size of tensor b (64)
"""


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("too\nmany"), "ValueError: too"),
        (ValueError(), "ValueError"),
        (KeyError("a"), "KeyError: 'a'"),
        (RuntimeError(SCRIPT), "RuntimeError: The size of tensor a (96) must match the size of tensor b (64)"),
        (
            RuntimeError(SCRIPT + "at dimension 2\n"),
            "RuntimeError: The size of tensor a (96) must match the size of te",
        ),
        (
            RuntimeError('Error(s) in loading state_dict for Net:\n\tMissing key(s) in state_dict: "a".'),
            'RuntimeError: Error(s) in loading state_dict for Net: Missing key(s) in state_dict: "a".',
        ),
        (
            RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid\n index: 2 Got: 96 Expected: 64\n"),
            "RuntimeError: [ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid index: 2 Got: 96 Expected: 64",
        ),
        (RuntimeError("\x1b[31mred\x07"), "RuntimeError: red"),
        (RuntimeError("x" * 999), "RuntimeError: " + "x" * 300),
    ],
)
def test_the_cause_is_the_line_with_the_reason(error, text):
    assert cause(error).startswith(text)
    assert len(cause(error)) <= 330


def test_columns_are_as_wide_as_their_longest_value():
    rows = [("model", "size"), ("a", "1.5 MB"), ("longer", "-")]

    assert columns(rows).splitlines() == ["model   size", "--------------", "a       1.5 MB", "longer  -"]


def test_a_heading_alone_is_a_table():
    assert columns([("model", "size")]) == "model  size\n-----------"


def test_a_long_value_loses_its_middle():
    (_, _, line) = columns([("x",), ("a" * 100 + "b" * 100,)]).splitlines()

    assert line == "a" * 30 + "…" + "b" * 29


def test_numbers_are_aligned_at_the_right():
    rows = [("model", "fps"), ("a", "9.50"), ("b", "10.25")]

    assert columns(rows, numbers=[1]).splitlines()[2:] == ["a       9.50", "b      10.25"]
