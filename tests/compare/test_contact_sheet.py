"""The contact sheet: every model and chosen frame is in its place, under its name."""

import os

import numpy as np
import pytest
from dailies.compare import captions, contact_sheet
from dailies.compare.contact_sheet import CAPTION, GAP, UnknownFrame, frame_numbers
from dailies.frames import sequence
from helpers.images import flat, read_frame, write_frame
from helpers.raising import refused
from helpers.shows import HOSTILE, Show
from PIL import Image

SIZE = (48, 27)
CELL = (480, 270)


def build(show: Show, **changes) -> np.ndarray:
    """Build the contact sheet of a show and return its pixels."""
    show.build()
    usual = {
        "sequence": show.state / "sequence.json",
        "input_dir": show.input,
        "output": show.page.with_name("contact_sheet.png"),
        "threads": 2,
    }
    contact_sheet.build(show.rendered(), **(usual | changes))
    return read_frame(show.page.with_name("contact_sheet.png"))


def cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    left, top = GAP + column * (CELL[0] + GAP), 2 * CAPTION + row * (CAPTION + CELL[1] + GAP)
    return sheet[top : top + CELL[1], left : left + CELL[0]]


def caption(sheet: np.ndarray, row: int) -> np.ndarray:
    """Return the caption of a row."""
    top = CAPTION + row * (CAPTION + CELL[1] + GAP)
    return sheet[top : top + CAPTION, GAP:]


def says(found: np.ndarray, text: str) -> bool:
    """Return whether a caption of the sheet starts with a text."""
    wanted = np.asarray(captions.draw(text, found.shape[1], CAPTION))
    width = int(captions.font(round(CAPTION * 0.55)).getlength(text)) + 12
    return np.array_equal(found[:, :width], wanted[:, :width])


@pytest.fixture
def show(tmp_path):
    """Return five frames and two models; each frame of each model has a different colour."""
    show = Show(tmp_path)
    for number in range(5):
        show.add_frame(f"frame_{number:03d}.png", flat(number, 10, 20, size=SIZE))
    show.add_model("dark", lambda number: flat(number, 100, 0, size=SIZE))
    show.add_model("light", lambda number: flat(number, 200, 0, size=SIZE))
    return show


def test_each_row_shows_a_layer_in_the_first_the_middle_and_the_last_frame(show):
    show.reference.mkdir()
    for number in range(5):
        Image.fromarray(flat(number, 0, 77, size=SIZE)).save(show.reference / f"frame_{number:03d}.png")

    sheet = build(show, reference=show.paired())

    colours = [(10, 20), (0, 77), (100, 0), (200, 0)]
    for row, rest in enumerate(colours):
        for column, number in enumerate((0, 2, 4)):
            assert (cell(sheet, row, column) == (number, *rest)).all(), (row, column)
    for row, name in enumerate(("Source", "Reference", "dark", "light")):
        assert says(caption(sheet, row), name), name
    assert not says(caption(sheet, 2), "light")
    heads = [sheet[:CAPTION, GAP + column * (CELL[0] + GAP) :][:, : CELL[0]] for column in range(3)]
    assert len({head.tobytes() for head in heads}) == 3


def test_frames_are_chosen_by_name(show):
    sheet = build(show, chosen=["frame_003.png", "frame_001"])

    assert sheet.shape[1] == 2 * (CELL[0] + GAP) + 2 * GAP
    assert [cell(sheet, 0, column)[0, 0, 0] for column in range(2)] == [3, 1]


def test_frames_that_are_not_rendered_are_left_out_and_reported(show):
    frame = sequence.Frame("a_2.png", "a_2.png", 1, 1, "RGB", 8, 1, "")
    few = sequence.Sequence((frame,), listing=("a_1.png", "a_2.png"))

    assert frame_numbers(few, ["a_1", "a_2"]) == [0]
    assert frame_numbers(few, ["a_1.png"]) == [0]
    with refused(UnknownFrame, "sequence.unknown_frame", "a_3"):
        frame_numbers(few, ["a_1", "a_3"])


def test_a_name_that_is_not_in_the_sequence_is_refused(show):
    frames = ("frame_9.png", "5 frames", "frame_000.png", "frame_004.png")
    with refused(UnknownFrame, "sequence.unknown_frame", "contact_frames", *frames):
        build(show, chosen=["frame_001.png", "frame_9.png"])


@pytest.mark.parametrize(("count", "numbers"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (201, [0, 100, 200])])
def test_by_default_first_middle_and_last_are_chosen_once_each(count, numbers):
    frame = sequence.Frame("a", "a.png", 1, 1, "RGB", 8, 1, "")

    assert frame_numbers(sequence.Sequence((frame,) * count), None) == numbers


def test_failed_models_are_left_out_and_missing_frames_are_labelled(show):
    show.add_model("broken", error="best.pth is damaged")
    (show.models[0] / "frame_002.png").unlink()
    (show.models[1] / "frame_004.png").write_bytes(b"no image")

    sheet = build(show)

    assert sheet.shape[0] == GAP + CAPTION + 3 * (CAPTION + CELL[1] + GAP)
    label = np.asarray(captions.draw("missing", CELL[0], CAPTION, colour=captions.MUTED))
    for row, column in ((1, 1), (2, 2)):
        np.testing.assert_array_equal(cell(sheet, row, column)[:CAPTION], label)
        assert (cell(sheet, row, column)[CAPTION:] == captions.BACKGROUND).all()


def test_models_of_another_size_fill_the_same_cell(show):
    show.add_model("double", lambda number: flat(number, 50, 60, size=(96, 54)), scale=2)
    show.add_model("large", lambda number: flat(number, 70, 80, size=(1920, 1080)), scale=40)

    sheet = build(show)

    assert (cell(sheet, 3, 2) == (4, 50, 60)).all()
    assert (cell(sheet, 4, 2) == (4, 70, 80)).all()
    for row, name, ending in ((3, "double", ""), (4, "large", "reduced to 25 %")):
        wanted = np.asarray(captions.draw(name, 3 * (CELL[0] + GAP) - GAP, CAPTION, right=ending))
        np.testing.assert_array_equal(caption(sheet, row)[:, : wanted.shape[1]], wanted)


def test_small_frames_are_enlarged_to_squares(tmp_path):
    show = Show(tmp_path)
    write_frame(show.input / "a.png", 1, size=(16, 9))
    show.add_model("same", lambda number: read_frame(show.input / "a.png"))

    sheet = build(show)

    frame = read_frame(show.input / "a.png")
    np.testing.assert_array_equal(cell(sheet, 1, 0), frame.repeat(30, 0).repeat(30, 1))


def test_pictures_of_deep_frames_are_labelled_as_proxies(show):
    for number in range(5):
        deep = np.full((SIZE[1], SIZE[0]), 256 * number, np.uint16)
        Image.fromarray(deep).save(show.models[0] / f"frame_{number:03d}.png")

    sheet = build(show)

    wanted = np.asarray(captions.draw("dark", 3 * (CELL[0] + GAP) - GAP, CAPTION, right="8 of 16 bits"))
    np.testing.assert_array_equal(caption(sheet, 1)[:, : wanted.shape[1]], wanted)
    assert (cell(sheet, 1, 2) == 4).all()


def test_hostile_names_do_not_move_any_picture(show):
    for name in (HOSTILE, "x" * 5000, "\u202e\n\n\x1b[2Jname", "模型" * 40):
        show.add_model(name, lambda number: flat(number, 150, 0, size=SIZE))

    sheet = build(show)

    for row in range(3, 7):
        assert (cell(sheet, row, 1) == (2, 150, 0)).all()


def test_many_models_make_a_sheet_within_bounds(show, monkeypatch):
    monkeypatch.setattr(contact_sheet, "MAX_PIXELS", 2_000_000)
    monkeypatch.setattr(contact_sheet, "MAX_HEIGHT", 1600)
    for number in range(2, 32):
        folder = show.add_model(f"model {number}", error="later")
        metadata = (folder / "metadata.json").read_text()
        (folder / "metadata.json").write_text(
            metadata.replace('"load_failed"', '"success"').replace('"error": "later"', '"error": null')
        )
        for frame in range(5):
            os.link(show.models[0] / f"frame_{frame:03d}.png", folder / f"frame_{frame:03d}.png")

    sheet = build(show)

    height, width, _ = sheet.shape
    assert height <= contact_sheet.MAX_HEIGHT + GAP
    assert height * width < 1.2 * contact_sheet.MAX_PIXELS
    for green, models in ((100, 31), (200, 1)):
        assert ((sheet[:, :, 1] == green) & (sheet[:, :, 2] == 0)).sum() == models * 3 * 144 * 81


def test_the_same_models_give_the_same_bytes(show):
    build(show)
    before = show.page.with_name("contact_sheet.png").read_bytes()

    build(show, threads=1)

    assert show.page.with_name("contact_sheet.png").read_bytes() == before
