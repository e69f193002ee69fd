"""The bundle: the comparison page and everything that it shows, in one zip that opens on any computer, offline."""

import json
import logging
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dailies.compare.files_beside_page import write_extras
from dailies.compare.layers import REFERENCE
from dailies.core import files
from dailies.core.errors import BundleError, DiskError
from dailies.core.text import counted, in_bytes, listed
from dailies.state import shown_together
from dailies.state.layout import Layout

log = logging.getLogger(__name__)

TOP = "dailies"
"""The folder that the zip unpacks to. Paths inside it are those of the output folder, so that links stay valid."""

ENTRY = 250
"""Bytes that a zip needs for a file besides its content and twice its name: both headers, with zip64."""

BLOCK = 2**20
"""Bytes that are copied at once."""

WINDOWS = re.compile(r'[<>:"|?*]|[. ]$')
"""Characters that Windows does not allow in a file's name."""

DATE = (1980, 1, 1, 0, 0, 0)
"""The time of every file in a zip, so that the same page gives the same bytes."""

START = b"""<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta http-equiv="refresh" content="0; url=compare/index.html" />
    <title>Dailies</title>
  </head>
  <body>
    <p><a href="compare/index.html">Open the comparison page</a></p>
  </body>
</html>
"""
"""The page at the top of the bundle, which leads to the comparison page."""


@dataclass(frozen=True)
class Bundle:
    """The content of a bundle."""

    files: Mapping[str, Path | bytes]
    """The file, or its bytes, by its path inside the folder ``TOP``."""
    pictures: int
    """How many of the files are full pictures: frames, and copies of frames that no browser shows."""
    models: int
    """How many models have pictures."""
    has_reference: bool

    @property
    def size(self) -> int:
        """The approximate bytes of the zip; it is never larger."""
        sizes = (len(each) if isinstance(each, bytes) else each.stat().st_size for each in self.files.values())
        return sum(sizes) + sum(ENTRY + 2 * len(f"{TOP}/{path}".encode()) for path in self.files)


def build(layout: Layout, *, report: Callable[[str], None] = log.info) -> None:
    """Write the page of ``layout`` and everything that it shows into ``layout.bundle``.

    Only the summary and files that the page shows or links to are included. Pictures are stored, because they are
    compressed already. The same content gives the same bytes. Before anything is written, ``report`` is called with a
    sentence that states the size.

    Raises:
        BundleError: if a picture that the page shows is missing, or its name would not survive unpacking.
        DiskError: if the disk has no room for the file.
    """
    output = layout.bundle
    write_extras(layout)  # a video may have been deleted since
    bundle = contents(layout)
    files.delete_drafts(output.parent, [output.name])
    size, free = bundle.size, shutil.disk_usage(output.parent).free
    beside = "of the source and the reference" if bundle.has_reference else "of the source"
    what = f"{counted(bundle.pictures, 'picture')} of {counted(bundle.models, 'model')} and {beside}"
    if size > free:
        raise DiskError(
            "disk.no_room_for_bundle",
            f"{output} would take {in_bytes(size)} ({what}), but its disk has {in_bytes(free)} free; make room, or "
            "select fewer models or frames",
        )
    report(f"{output} will take {in_bytes(size)}: {what}")
    if odd := sorted({part for path in bundle.files for part in path.split("/") if WINDOWS.search(part)}):
        report(f"Windows cannot unpack {counted(len(odd), 'name')}, which other systems can: {listed(odd)}")
    with files.replacing(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(bundle.files):
            _add(archive, f"{TOP}/{path}", bundle.files[path])
    log.info("%s has %s", output, in_bytes(output.stat().st_size))


def contents(layout: Layout) -> Bundle:
    """Return the content of the bundle of a page that was built, according to the page's own data.

    Raise BundleError if a file that the page shows is missing.
    """
    data = _value_of(layout.page_folder / "data.js")
    pictures = _pictures(data)
    code = [path for path in layout.page_folder.iterdir() if path.is_file()]
    beside = [layout.compare / name for name in shown_together.beside_page(layout)]
    found: dict[str, Path | bytes] = {path: layout.output_dir / path for path in (*pictures, *_thumbnails(data))}
    found |= {
        path.relative_to(layout.output_dir).as_posix(): path for path in (layout.page, layout.summary, *code, *beside)
    }
    missing = [name for name, path in found.items() if isinstance(path, Path) and not path.is_file()]
    if missing:
        raise BundleError(
            "output.shown_file_missing",
            f"the page shows {counted(len(missing), 'file')} deleted since it was built: {listed(missing)}; run "
            "snakemake bundle again, which makes them first",
        )
    if bad := [name for name in found if "\\" in name or not name.isprintable()]:
        raise BundleError(
            "output.unportable_name",
            f"a zip cannot hold {listed(bad)} so that every system unpacks it safely, because of a backslash or a "
            "control character; rename these frames",
        )
    found["index.html"] = START
    layers = [each["id"] for each in data["pictures"]]
    models = [layer for layer in layers if not layer.startswith("@")]
    return Bundle(found, pictures=len(pictures), models=len(models), has_reference=REFERENCE in layers)


def _pictures(data: Mapping[str, Any]) -> list[str]:
    """Return the path of every full picture that the page shows, below the output folder."""
    folders = {model["id"]: _below_output(model["folder"]) for model in data["models"]}
    found = []
    for layer in data["pictures"]:
        missing = {*layer["missing"]}
        names = [name for number, (name, *_) in enumerate(data["frames"]) if number not in missing]
        if layer["copied"]:
            found += [f"compare/page/copies/{layer['id']}/{PurePosixPath(name).stem}.png" for name in names]
        else:
            found += [f"{folders[layer['id']]}/{name}" for name in names]
    return found


def _thumbnails(data: Mapping[str, Any]) -> list[str]:
    """Return the path of every sheet of thumbnails, below the output folder."""
    sheets = range(-(-len(data["frames"]) // data["sheet"]))
    layers = [layer["id"] for layer in data["pictures"] if layer["thumbnails"]]
    return [f"compare/page/thumbnails/{layer}/{number}.jpg" for layer in layers for number in sheets]


def _below_output(folder: str) -> str:
    """Return the path below the output folder of a folder that the page names, which is relative to ``compare``."""
    return folder.removeprefix("../")


def _value_of(script: Path) -> Any:
    """Return the value in a script that ``files_beside_page.javascript`` wrote."""
    literal = re.search(r"JSON\.parse\((\".*\")\)", script.read_text("ascii"))
    assert literal, f"{script} is not a script of the page"
    return json.loads(json.loads(literal[1]))


def _add(archive: zipfile.ZipFile, name: str, content: Path | bytes) -> None:
    about = zipfile.ZipInfo(name, DATE)
    about.create_system, about.external_attr = 3, 0o644 << 16
    if isinstance(content, bytes):
        archive.writestr(about, content)
        return
    about.file_size = content.stat().st_size  # decides on zip64
    with content.open("rb") as source, archive.open(about, "w") as target:
        shutil.copyfileobj(source, target, BLOCK)
