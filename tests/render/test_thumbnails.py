"""Sheets of thumbnails that a render makes on the way."""

import io

import numpy as np
import pytest
from dailies.frames import thumbnail_sheet
from dailies.frames.sequence import Frame, Sequence
from dailies.render.thumbnails import Thumbnails
from PIL import Image

SIZE = (270, 480)


def sequence(count):
    frames = (
        Frame(f"{n:02d}.png", f"{n:02d}.png", SIZE[1], SIZE[0], mode="RGB", bit_depth=8, size=0, sha256=str(n))
        for n in range(count)
    )
    return Sequence((*frames,))


def pixels(number, shape=(*SIZE, 3), dtype=np.uint8):
    return np.random.default_rng(number).integers(0, 256, shape).astype(dtype)


def test_a_sheet_is_written_once_all_of_its_frames_are_and_is_what_the_page_would_make(tmp_path):
    shot = sequence(10)
    thumbnails = Thumbnails(shot, tmp_path)
    order = [9, 3, 1, 0, 2, 7, 6, 5, 4]

    for number in order[:-1]:
        thumbnails.add(shot.frames[number], pixels(number), f"digest {number}")
    assert list(tmp_path.iterdir()) == []
    thumbnails.add(shot.frames[order[-1]], pixels(order[-1]), f"digest {order[-1]}")

    (made,) = tmp_path.iterdir()
    size = thumbnail_sheet.size_of(shot.frames[:8])
    digest = thumbnail_sheet.digest_of(size, [f"digest {number}" for number in range(8)])
    assert made.name == "0.jpg"
    assert made.read_bytes() == thumbnail_sheet.encode(
        [thumbnail_sheet.thumbnail(pixels(n), size) for n in range(8)], size, digest
    )
    assert thumbnail_sheet.digest_in(made) == digest


@pytest.mark.parametrize(
    "odd",
    [pixels(3, dtype=np.uint16), pixels(3, dtype=np.float32), pixels(3, (*SIZE, 4)), pixels(3, (5, 400, 3))],
    ids=["16 bits", "float", "alpha", "small"],
)
def test_frames_that_are_not_simple_are_left_to_the_page(tmp_path, odd):
    shot = sequence(4)
    thumbnails = Thumbnails(shot, tmp_path)

    for number, frame in enumerate(shot.frames):
        thumbnails.add(frame, odd if number == 3 else pixels(number), "digest")

    assert list(tmp_path.iterdir()) == []


def test_no_digest_is_found_in_other_files(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "old.jpg", "JPEG")

    assert [thumbnail_sheet.digest_in(tmp_path / name) for name in ("none.jpg", "text.jpg", "old.jpg")] == [None] * 3


def test_a_missing_thumbnail_is_black():
    data = thumbnail_sheet.encode([None, Image.new("RGB", (32, 16), "white")], (32, 16), "")

    found = np.asarray(Image.open(io.BytesIO(data)))
    assert found[:15].max() <= 3
    assert found[17:].min() >= 252
