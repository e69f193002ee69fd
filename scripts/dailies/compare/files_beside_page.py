"""Write the page's list of tables, pictures and videos beside it, which jobs other than the page's own may change."""

import json
from typing import Any

from dailies.core import files
from dailies.state import shown_together
from dailies.state.layout import Layout


def write_extras(layout: Layout) -> None:
    """Write which tables, pictures and videos the page links to, and which have changed since the page was made.

    A no-op if there is no page.
    """
    written = None
    # another job may add a file meanwhile
    while layout.page_folder.is_dir() and (extras := _extras(layout)) != written:
        files.write_bytes(layout.page_extras, extras)
        written = extras


def _extras(layout: Layout) -> bytes:
    found = {"files": shown_together.beside_page(layout), "newer": shown_together.newer_than_page(layout)}
    return javascript("const BESIDE = {}", found)


def javascript(statement: str, value: Any) -> bytes:
    """Return a script of ``statement``, with ``value`` in the place of its ``{}``.

    The value is an ASCII string literal that the browser parses as JSON. So nothing in it is ever code or markup,
    whatever the name of a run is, and a key such as ``__proto__`` has no meaning.
    """
    text = json.dumps(files.strict(value), separators=(",", ":"), allow_nan=False)
    literal = json.dumps(text).replace("<", "\\u003c")
    return (statement.format(f"JSON.parse({literal})") + ";\n").encode("ascii")
