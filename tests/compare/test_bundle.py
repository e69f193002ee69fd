"""The bundle: a zip with the page and exactly what it shows."""

import shutil
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from dailies.compare import bundle
from dailies.core.errors import BundleError, DiskError
from helpers.images import flat, write_frame
from helpers.raising import refused
from helpers.shows import HOSTILE, Show, received, small_show

Usage = namedtuple("Usage", "free")


@pytest.fixture
def show(tmp_path):
    """Return the page of three frames and two models, with a contact sheet."""
    show = small_show(tmp_path, "dark", HOSTILE)
    show.layout.compare.mkdir()
    show.layout.contact_sheet.write_bytes(b"a sheet")
    show.build()
    return show


def unpacked(show: Show, place: Path) -> Path:
    """Unpack the bundle of a show elsewhere; return the folder that it holds."""
    with zipfile.ZipFile(show.layout.bundle) as archive:
        archive.extractall(place)
    (folder,) = place.iterdir()
    return folder


def shown(page: Path) -> set[Path]:
    """Return every file to which the data of a page refer."""
    data, folder = received((page.parent / "page" / "data.js").read_bytes()), page.parent
    folders = {model["id"]: model["folder"] for model in data["models"]}
    found = {folder / name for name in received((folder / "page" / "extras.js").read_bytes())["files"]}
    for layer in data["pictures"]:
        place = folder / "page" / "copies" / layer["id"] if layer["copied"] else folder / folders[layer["id"]]
        names = [name for number, (name, *_) in enumerate(data["frames"]) if number not in layer["missing"]]
        found |= {place / (f"{Path(name).stem}.png" if layer["copied"] else name) for name in names}
        if layer["thumbnails"]:
            sheets = range(-(-len(data["frames"]) // data["sheet"]))
            found |= {folder / "page" / "thumbnails" / layer["id"] / f"{number}.jpg" for number in sheets}
    return found


def test_everything_that_the_page_shows_is_in_the_bundle(show, tmp_path):
    bundle.build(show.layout)
    folder = unpacked(show, tmp_path / "elsewhere")

    page = folder / "compare" / "index.html"
    assert len(shown(page)) == 10
    assert [path for path in shown(page) if not path.is_file()] == []
    for name in ("model_1/frame_001.png", "compare/page/app.js", "batch_summary.json"):
        assert (folder / name).read_bytes() == (show.output / name).read_bytes()
    assert "compare/index.html" in (folder / "index.html").read_text()


def test_instead_of_frames_that_no_browser_shows_their_copies_are_in_the_bundle_with_the_thumbnails(tmp_path):
    show = Show(tmp_path)
    write_frame(show.input / "a.png", 0, (408, 16))
    show.add_model("transparent", lambda number: np.full((16, 408, 4), 100, np.uint8))
    show.build()

    bundle.build(show.layout)
    unzipped = unpacked(show, tmp_path / "elsewhere")

    page = unzipped / "compare" / "index.html"
    assert [path for path in shown(page) if not path.is_file()] == []
    names = {path.relative_to(unzipped).as_posix() for path in shown(page)}
    assert names >= {"compare/page/copies/model_1/a.png", "compare/page/thumbnails/model_1/0.jpg"}
    assert not (unzipped / "model_1").exists()


def test_what_the_page_does_not_show_is_left_out(show, tmp_path):
    failed = show.add_model("broken", error="best.pth is damaged")
    left = show.output / "deselected"
    for folder in (failed, left, show.models[0]):
        folder.mkdir(exist_ok=True)
        (folder / "stray.png").write_bytes(b"not shown")
    show.build()

    bundle.build(show.layout)
    unzipped = unpacked(show, tmp_path / "elsewhere")

    assert {path.name for path in unzipped.iterdir()} == {
        "batch_summary.json",
        "compare",
        "index.html",
        "model_1",
        "model_2",
    }
    assert not list(unzipped.rglob("stray.png"))


def test_a_link_to_a_file_that_was_deleted_is_left_out(show, tmp_path):
    show.layout.contact_sheet.unlink()

    bundle.build(show.layout)

    folder = unpacked(show, tmp_path / "elsewhere") / "compare"
    assert "contact_sheet.png" not in (folder / "page" / "extras.js").read_text()


def test_the_same_page_gives_the_same_bytes_and_pictures_are_not_compressed_again(show):
    bundle.build(show.layout)
    first = show.layout.bundle.read_bytes()
    for path in show.output.rglob("*.png"):
        path.touch()
    bundle.build(show.layout)

    assert show.layout.bundle.read_bytes() == first
    with zipfile.ZipFile(show.layout.bundle) as archive:
        assert {each.compress_type for each in archive.infolist()} == {zipfile.ZIP_STORED}


def test_the_size_is_reported_before_anything_is_written_and_is_no_smaller_than_the_file(show):
    told = []

    def report(line: str) -> None:
        told.append(line)
        assert not show.layout.bundle.exists()

    bundle.build(show.layout, report=report)

    size = bundle.contents(show.layout).size
    assert "9 pictures of 2 models and of the source" in told[0]
    assert 0.9 * size < show.layout.bundle.stat().st_size <= size


def test_a_disk_without_room_is_refused_and_nothing_is_left(show, monkeypatch):
    monkeypatch.setattr(bundle.shutil, "disk_usage", lambda place: Usage(1000))

    with refused(DiskError, "disk.no_room_for_bundle", "dailies.zip", "1.0 kB"):
        bundle.build(show.layout)
    assert not list(show.layout.compare.glob("*.zip*"))


def test_an_interrupted_bundle_leaves_the_former_one_and_the_next_removes_its_draft(show, monkeypatch):
    bundle.build(show.layout)
    before = show.layout.bundle.read_bytes()
    draft = show.layout.compare / ".dailies.zip.0123abcd.tmp"
    draft.write_bytes(b"of an invocation that was killed")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle.shutil, "copyfileobj", fail)
    with pytest.raises(OSError, match="No space left"):
        bundle.build(show.layout)

    assert show.layout.bundle.read_bytes() == before
    assert [path.name for path in show.layout.compare.iterdir() if path.suffix == ".tmp"] == []


def test_a_picture_that_was_deleted_since_is_named(show):
    shutil.rmtree(show.models[1])

    with refused(BundleError, "output.shown_file_missing", "3 files", "model_2/frame_000.png"):
        bundle.build(show.layout)


def test_a_name_that_could_leave_the_folder_on_another_system_is_refused(tmp_path):
    show = Show(tmp_path)
    write_frame(show.input / "a\\..\\evil.png", 0)
    show.add_model("dark", lambda number: flat(number, 0, 0))
    show.build()

    with refused(BundleError, "output.unportable_name", "evil.png"):
        bundle.build(show.layout)


def test_names_that_windows_cannot_unpack_are_reported(tmp_path):
    show = Show(tmp_path)
    write_frame(show.input / "a:b.png", 0)
    show.add_model("dark", lambda number: flat(number, 0, 0))
    show.build()
    told = []

    bundle.build(show.layout, report=told.append)

    assert "a:b.png" in told[1]
    assert (unpacked(show, tmp_path / "elsewhere") / "model_1" / "a:b.png").is_file()


def test_files_beyond_4_gb_have_a_zip64_entry(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle.zipfile, "ZIP64_LIMIT", 100)
    path = tmp_path / "large.png"
    path.write_bytes(b"x" * 200)

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        bundle._add(archive, "dailies/large.png", path)

    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.read("dailies/large.png") == path.read_bytes()
