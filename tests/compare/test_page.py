"""The comparison page: its data, its copies and its thumbnails."""

import os
import re
import shutil

import numpy as np
import pytest
from dailies.compare import page, page_pictures
from dailies.compare.files_beside_page import javascript
from dailies.compare.layers import gather, read_picture
from dailies.compare.page import run_link
from dailies.core import files
from dailies.core.typed import from_json
from dailies.frames import image, png, scan, sequence, thumbnail_sheet
from dailies.publish.promotion import MODEL_NAME
from dailies.state import shown_together
from dailies.state.layout import Layout
from dailies.state.records import FrameMetric, Metadata
from helpers.frame_files import written
from helpers.images import flat, read_frame, write_frame, write_video
from helpers.shows import HOSTILE, RENDER, RUN, Show, add_means, received, small_show
from PIL import Image, ImageCms


@pytest.fixture
def show(tmp_path):
    """Return three frames and two models."""
    return small_show(tmp_path, "dark", "light")


def picture(data, key):
    return next(each for each in data["pictures"] if each["id"] == key)


def test_the_page_loads_only_files_that_exist(show):
    show.build()

    html = show.page.read_text()
    named = [part.split('"')[0] for part in html.replace('href="page/', 'src="page/').split('src="page/')[1:]]

    assert {"data.js", "app.js", "style.css"} <= set(named)
    assert all((show.page.parent / "page" / name).is_file() for name in named)
    assert "http" not in html.replace('http-equiv="Content-Security-Policy"', "")


def test_the_data_describe_frames_and_models(show):
    data = show.build(fps=25)

    assert data["title"] == "exp"
    assert data["sequence"] == "shot"
    assert data["fps"] == 25
    digests = [files.sha256_of(path)[:16] for path in sorted(show.input.iterdir())]
    assert data["frames"] == [[f"frame_{number:03d}.png", 7, 5, digests[number]] for number in range(3)]
    dark = data["models"][0]
    assert (dark["id"], dark["folder"], dark["name"], dark["status"]) == ("model_1", "../model_1", "dark", "success")
    assert dark["params"] == {"lr": "1e-3"}
    assert dark["metrics"] == {"val/psnr": 31.5}
    assert dark["facts"]["architecture"] == "unet"
    assert dark["facts"]["device"] == "cpu"
    assert dark["notes"] == []


def test_the_data_contain_the_notes_on_a_model(show):
    path = show.models[1] / "metadata.json"
    files.write_json(path, files.read_json(path) | {"network": {"notes": ["value_range [-1, 1] was assumed"]}})

    assert [model["notes"] for model in show.build()["models"]] == [[], ["value_range [-1, 1] was assumed"]]


def test_models_are_in_the_order_of_the_summary(show):
    metadata = [folder / "metadata.json" for folder in reversed(show.models)]

    assert [model["name"] for model in show.build(metadata=metadata)["models"]] == ["dark", "light"]


def test_two_models_of_one_run_keep_their_order(show):
    for name in ("first", "second"):
        show.add_model(name, lambda number: flat(number, 0, 0), run={"run_id": f"{1:032x}"})
    metadata = [folder / "metadata.json" for folder in reversed(show.models)]

    assert [model["name"] for model in show.build(metadata=metadata)["models"]] == ["dark", "light", "first", "second"]


def test_a_failed_model_is_listed_with_its_reason_and_shows_no_frames(show):
    show.add_model("broken", error="best.pth is damaged")

    data = show.build()

    assert data["models"][2]["status"] == "load_failed"
    assert data["models"][2]["error"] == "best.pth is damaged"
    assert [each["id"] for each in data["pictures"]] == ["@source", "model_1", "model_2"]


def test_a_page_of_failed_models_only_is_built(tmp_path):
    show = Show(tmp_path)
    write_frame(show.input / "a.png", 1)
    show.add_model("broken", error="best.pth is damaged")

    assert [each["id"] for each in show.build()["pictures"]] == ["@source"]


def test_the_page_shows_rendered_frames_themselves_and_a_lossless_copy_of_the_source(show):
    data = show.build()

    assert picture(data, "model_1")["copied"] is False
    assert picture(data, "@source") == {
        "id": "@source",
        "copied": True,
        "thumbnails": False,
        "alpha": False,
        "bit_depth": 8,
        "missing": [],
    }
    for path in show.input.iterdir():
        np.testing.assert_array_equal(show.copy(f"@source/{path.name}"), read_frame(path))


def test_the_copy_of_a_frame_that_browsers_show_exactly_is_the_file_itself(show):
    show.build()

    for path in show.input.iterdir():
        assert (show.layout.page_copies("@source") / path.name).read_bytes() == path.read_bytes()


def test_a_copy_has_the_values_that_networks_take_and_no_colour_profile(show):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    transparent = np.random.default_rng(1).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Image.fromarray(transparent).save(show.input / "frame_000.png", icc_profile=profile)

    show.build()

    np.testing.assert_array_equal(show.copy("@source/frame_000.png"), transparent[..., :3])
    with Image.open(show.page.parent / "page" / "copies" / "@source" / "frame_000.png") as image:
        assert "icc_profile" not in image.info


def test_the_source_and_the_reference_show_the_exr_layer_that_is_rendered(show):
    for path in show.input.iterdir():
        path.unlink()
    for folder, level in ((show.input, 0.5), (show.reference, 0.25)):
        folder.mkdir(exist_ok=True)
        values = np.float32([level] * 3 + [1] * 3) * np.ones((5, 7, 6), np.float32)
        names = [f"{layer}.{c}" for layer in ("beauty", "matte") for c in "RGB"]
        (folder / "a.exr").write_bytes(written(values, ".exr", depth="half", channels=names))

    show.build(reference={"a.exr": show.reference / "a.exr"})
    assert [int(show.copy(f"{key}/a.png")[0, 0, 0]) for key in ("@source", "@reference")] == [128, 64]
    show.build(reference={"a.exr": show.reference / "a.exr"}, layer="matte")
    assert [int(show.copy(f"{key}/a.png")[0, 0, 0]) for key in ("@source", "@reference")] == [255, 255]
    (show.reference / "a.exr").write_bytes(written(np.full((5, 7, 3), 0.75, np.float32), ".exr", depth="half"))
    show.build(reference={"a.exr": show.reference / "a.exr"}, layer="matte")
    assert int(show.copy("@reference/a.png")[0, 0, 0]) == 191
    shot, paired = sequence.load(show.state / "sequence.json"), {"a.exr": show.reference / "a.exr"}
    source, reference = gather(shot, [], input_dir=show.input, reference=paired)
    assert [int(np.asarray(read_picture(layer, "a.exr"))[0, 0, 0]) for layer in (source, reference)] == [255, 191]


def test_small_frames_have_no_thumbnails(show):
    show.build()

    assert show.made("thumbnails") == {}


def thumbnail(show: Show, picture: str, number: int, *, of: int) -> np.ndarray:
    """Return the thumbnail of a frame, by its number, from its sheet of ``of`` thumbnails."""
    found = read_frame(show.page.parent / "page" / "thumbnails" / picture / f"{number // thumbnail_sheet.FRAMES}.jpg")
    return np.split(found, of)[number % thumbnail_sheet.FRAMES]


def add_large(show: Show, count: int) -> None:
    """Add frames that are large enough for thumbnails, and a model of them; the red of each is 20 times its number."""
    for number in range(count):
        show.add_frame(f"{number:02d}.png", flat(20 * number, 0, 0, size=(960, 540)))
    show.add_model("dark", lambda number: flat(20 * number, 20, 30, size=(960, 540)))


def test_large_frames_have_thumbnails_on_sheets_of_eight(tmp_path):
    show = Show(tmp_path)
    add_large(show, 10)

    data = show.build()

    assert list(show.made("thumbnails")) == ["@source/0.jpg", "@source/1.jpg", "model_1/0.jpg", "model_1/1.jpg"]
    assert (data["thumbnail"], data["sheet"]) == (256, 8)
    for number in range(10):
        small = thumbnail(show, "model_1", number, of=8 if number < 8 else 2)
        assert small.shape == (144, 256, 3)  # a multiple of 16: no block of JPEG holds parts of two
        inner = small[1:-1]
        np.testing.assert_allclose(inner, np.broadcast_to([20 * number, 20, 30], inner.shape), atol=3)


def test_only_the_sheets_of_new_and_changed_frames_are_made(tmp_path):
    show = Show(tmp_path)
    add_large(show, 17)
    show.build()
    before = show.made("thumbnails")
    show.add_frame("09.png", flat(250, 0, 0, size=(960, 540)))
    show.add_frame("17.png", flat(240, 0, 0, size=(960, 540)))

    show.build()
    after = show.made("thumbnails")
    show.build()

    assert [name for name in after if after[name] != before[name]] == [
        "@source/1.jpg",
        "@source/2.jpg",
        "model_1/2.jpg",
    ]
    assert show.made("thumbnails") == after
    assert abs(int(thumbnail(show, "@source", 9, of=8)[50, 50, 0]) - 250) <= 3


def test_a_deleted_sheet_is_made_again_and_an_unused_one_is_deleted(tmp_path):
    show = Show(tmp_path)
    add_large(show, 9)
    show.build()
    sheets = show.made("thumbnails")
    (show.page.parent / "page" / "thumbnails" / "model_1" / "0.jpg").unlink()

    show.build()
    assert list(show.made("thumbnails")) == list(sheets)

    (show.input / "08.png").unlink()
    show.build()
    assert list(show.made("thumbnails")) == ["@source/0.jpg", "model_1/0.jpg"]


def test_a_sheet_that_the_render_made_is_taken_if_it_is_of_the_same_frames(tmp_path):
    show = Show(tmp_path)
    add_large(show, 9)
    white, size = Image.new("RGB", (256, 144), "white"), (256, 144)
    for number, names in enumerate(([f"0{n}.png" for n in range(8)], ["07.png"])):
        digests = [files.sha256_of(show.models[0] / name) for name in names]
        data = thumbnail_sheet.encode([white] * len(names), size, thumbnail_sheet.digest_of(size, digests))
        files.write_bytes(show.layout.rendered_thumbnails("model_1") / f"{number}.jpg", data)

    show.build()

    assert thumbnail(show, "model_1", 3, of=8).min() >= 252
    np.testing.assert_allclose(thumbnail(show, "model_1", 8, of=1)[9, 9], [160, 20, 30], atol=3)
    assert not show.layout.rendered_thumbnails("model_1").exists()


def test_the_place_of_an_unreadable_frame_on_its_sheet_is_black(tmp_path):
    show = Show(tmp_path)
    add_large(show, 3)
    good = (show.models[0] / "01.png").read_bytes()
    (show.models[0] / "01.png").write_bytes(b"not an image")

    assert picture(show.build(), "model_1")["missing"] == [1]
    assert thumbnail(show, "model_1", 1, of=3)[1:-1].max() <= 3
    np.testing.assert_allclose(thumbnail(show, "model_1", 2, of=3)[9, 9], [40, 20, 30], atol=3)

    (show.models[0] / "01.png").write_bytes(good)
    assert picture(show.build(), "model_1")["missing"] == []
    np.testing.assert_allclose(thumbnail(show, "model_1", 1, of=3)[9, 9], [20, 20, 30], atol=3)


def test_an_upscaling_model_has_thumbnails_if_its_frames_are_large(tmp_path):
    show = Show(tmp_path)
    write_frame(show.input / "a.png", 1, size=(400, 300))
    show.add_model("double", lambda _: flat(1, 2, 3, size=(800, 600)), scale=2)

    data = show.build()

    assert list(show.made("thumbnails")) == ["model_1/0.jpg"]
    assert data["models"][0]["scale"] == 2


def test_a_script_of_an_earlier_version_does_not_stay_beside_the_page(show):
    former = show.page.parent / "page" / "strip.js"
    former.parent.mkdir(parents=True, exist_ok=True)
    former.write_text("a script")

    show.build()

    loaded = re.findall(r'src="page/(\w+\.js)"', show.page.read_text())
    assert {path.name for path in former.parent.glob("*.js")} - {"metrics.js"} == {*loaded}


def test_building_again_writes_the_same_bytes_and_no_picture(show):
    show.build()
    everything = {path: path.read_bytes() for path in show.output.rglob("*") if path.is_file()}
    copies = show.made("copies")

    show.build()

    assert show.made("copies") == copies
    assert {path: path.read_bytes() for path in show.output.rglob("*") if path.is_file()} == everything


def test_only_copies_of_new_and_changed_frames_are_made(show):
    show.build()
    before = show.made("copies")
    write_frame(show.input / "frame_001.png", 99)
    write_frame(show.input / "frame_003.png", 3)

    show.build()

    after = show.made("copies")
    assert [name for name in after if after[name] != before.get(name)] == [
        "@source/frame_001.png",
        "@source/frame_003.png",
    ]
    np.testing.assert_array_equal(show.copy("@source/frame_001.png"), read_frame(show.input / "frame_001.png"))


def test_a_frame_that_was_written_again_with_the_same_content_is_not_copied_again(show):
    show.build()
    before = show.made("copies")
    os.utime(show.input / "frame_001.png", (1, 1))

    show.build()

    assert show.made("copies") == before


def test_a_deleted_copy_is_made_again(show):
    show.build()
    lost = show.page.parent / "page" / "copies" / "@source" / "frame_001.png"
    lost.unlink()

    show.build()

    assert lost.is_file()


def test_everything_is_made_again_by_another_version_of_the_code(show, monkeypatch):
    show.build()
    before = show.made("copies")
    monkeypatch.setattr(page_pictures, "VERSION", page_pictures.VERSION + 1)

    show.build()

    assert all(show.made("copies")[name] != time for name, time in before.items())


def test_copies_of_frames_that_left_the_sequence_are_deleted(show):
    show.build()
    (show.input / "frame_002.png").unlink()

    show.build()

    assert list(show.made("copies")) == ["@source/frame_000.png", "@source/frame_001.png"]


def test_a_source_frame_that_no_longer_exists_is_reported_as_missing(show):
    show.build()
    (show.page.parent / "page" / "copies" / "@source" / "frame_001.png").unlink()
    shot = show.state / "sequence.json"
    metadata = [folder / "metadata.json" for folder in show.models]
    (show.input / "frame_001.png").unlink()

    page.build(
        metadata,
        summary=show.output / "batch_summary.json",
        sequence=shot,
        input_dir=show.input,
        layout=show.layout,
        tracking_uri=None,
        fps=24,
    )

    assert picture(show.data(), "@source")["missing"] == [1]


def test_a_rendered_frame_that_does_not_exist_is_reported_as_missing(show):
    (show.models[1] / "frame_002.png").unlink()

    assert picture(show.build(), "model_2")["missing"] == [2]


def test_reference_frames_are_shown_whatever_their_format(show):
    show.reference.mkdir()
    Image.fromarray(flat(9, 9, 9)).save(show.reference / "frame_000.bmp")
    Image.fromarray(flat(8, 8, 8)).save(show.reference / "frame_002.tif")
    (show.reference / "frame_001.png").write_bytes(b"not an image")

    data = show.build(reference=show.paired())

    assert picture(data, "@reference")["missing"] == [1]
    np.testing.assert_array_equal(show.copy("@reference/frame_002.png"), flat(8, 8, 8))


@pytest.mark.parametrize(
    ("name", "pixels", "depth", "value"),
    [
        ("frame_000.png", np.full((5, 7), 0x1234, np.uint16), 16, 0x12),
        ("frame_000.tif", np.full((5, 7), 0xFFFF, np.uint16), 16, 0xFF),
        ("frame_000.tif", np.full((5, 7), 0.5, np.float32), 32, 128),
        ("frame_000.tif", np.full((5, 7), 7.5, np.float32), 32, 255),
    ],
)
def test_deep_reference_frames_are_copied_as_proxies(show, name, pixels, depth, value):
    show.reference.mkdir()
    Image.fromarray(pixels).save(show.reference / name)

    data = show.build(reference=show.paired())

    assert picture(data, "@reference")["bit_depth"] == depth
    np.testing.assert_array_equal(show.copy("@reference/frame_000.png"), flat(value, value, value))


def test_deep_rendered_frames_are_copied_as_proxies(show):
    for number in range(3):
        deep = np.full((5, 7), 256 * number, np.uint16)
        Image.fromarray(deep).save(show.models[0] / f"frame_{number:03d}.png")

    data = show.build()

    assert picture(data, "model_1")["copied"] is True
    assert picture(data, "model_1")["bit_depth"] == 16
    np.testing.assert_array_equal(show.copy("model_1/frame_002.png"), flat(2, 2, 2))


def test_one_deep_frame_makes_the_whole_layer_a_proxy(show):
    for folder in (show.input, show.models[0]):
        Image.fromarray(np.full((5, 7), 0x12FF, np.uint16)).save(folder / "frame_002.png")

    data = show.build()

    assert [picture(data, f"model_{number}")["copied"] for number in (1, 2)] == [True, False]
    assert picture(data, "model_1")["bit_depth"] == 16
    np.testing.assert_array_equal(show.copy("model_1/frame_002.png"), flat(0x13, 0x13, 0x13))


def test_a_float_frame_among_others_is_copied(show):
    half = np.full((5, 7, 3), 0.5, np.float32)
    (show.input / "frame_003.exr").write_bytes(image.encode(half, image.Picture(half)))
    shutil.copy(show.input / "frame_003.exr", show.models[0])

    data = show.build()

    assert picture(data, "model_1")["missing"] == []
    np.testing.assert_array_equal(show.copy("model_1/frame_003.png"), flat(128, 128, 128))


@pytest.mark.parametrize(("output_format", "depth"), [("exr", 16), ("tiff", 8), ("png16", 16)])
def test_rendered_frames_in_formats_that_no_browser_shows_are_copied(show, output_format, depth):
    folder = show.models[0]
    for number, path in enumerate(sorted(folder.glob("*.png"))):
        pixels = flat(number, 128, 255)
        data = image.encode(pixels, image.Picture(pixels), output_format)
        path.unlink()
        (folder / scan.output_name(path.name, output_format=output_format)).write_bytes(data)

    data = show.build(output_format=output_format)

    assert (picture(data, "model_1")["copied"], picture(data, "model_1")["bit_depth"]) == (True, depth)
    np.testing.assert_array_equal(show.copy("model_1/frame_002.png"), flat(2, 128, 255))


def test_rendered_frames_with_a_colour_profile_are_copied_without_it(show):
    for path in show.models[0].glob("*.png"):
        Image.open(path).save(path, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())

    data = show.build()

    assert [picture(data, f"model_{number}")["copied"] for number in (1, 2)] == [True, False]


def test_rendered_frames_with_alpha_are_copied_without_it(show):
    see_through = np.random.default_rng(1).integers(0, 256, (3, 5, 7, 4), dtype=np.uint8)
    for number, pixels in enumerate(see_through):
        Image.fromarray(pixels).save(show.models[0] / f"frame_{number:03d}.png")

    data = show.build()

    assert [picture(data, f"model_{number}")["copied"] for number in (1, 2)] == [True, False]
    np.testing.assert_array_equal(show.copy("model_1/frame_002.png"), see_through[2, ..., :3])


def test_alpha_is_a_picture_of_its_own_beside_copies_whose_colours_do_not_depend_on_it(show):
    rng = np.random.default_rng(1)
    transparent = rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Image.fromarray(transparent).save(show.input / "frame_001.png")
    Image.fromarray(transparent).save(show.output / "model_1" / "frame_001.png")
    for name in ("frame_000.png", "frame_002.png"):  # a model writes the alpha of its input
        Image.fromarray(np.dstack([flat(1, 2, 3), np.full((5, 7), 9, np.uint8)])).save(show.output / "model_1" / name)
    deep = np.dstack([np.zeros((5, 7, 3)), np.linspace(0, 65535, 35).reshape(5, 7)]).astype(np.uint16)
    show.reference.mkdir()
    for number in range(3):
        (show.reference / f"frame_{number:03d}.png").write_bytes(png.encode(deep))

    data = show.build(reference=show.paired())

    assert [picture(data, key)["alpha"] for key in ("@source", "@reference", "model_1", "model_2")] == [
        True,
        True,
        True,
        False,
    ]
    np.testing.assert_array_equal(show.copy("@source/frame_001.png"), transparent[..., :3])
    for layer in ("@source", "model_1"):
        np.testing.assert_array_equal(show.copy(f"../alpha/{layer}/frame_001.png"), transparent[..., 3])
    assert (show.copy("../alpha/@source/frame_000.png") == 255).all()  # without alpha, all is opaque
    np.testing.assert_array_equal(show.copy("../alpha/@reference/frame_000.png"), np.rint(deep[..., 3] / 257))
    assert sorted({path.split("/")[0] for path in show.made("alpha")}) == ["@reference", "@source", "model_1"]


def test_a_page_that_was_built_without_alpha_gets_it_and_keeps_its_other_pictures(show):
    Image.fromarray(np.full((5, 7, 4), 7, np.uint8)).save(show.input / "frame_001.png")
    show.build()
    shutil.rmtree(show.page.parent / "page" / "alpha")
    before = show.made("copies")

    show.build()

    assert list(show.made("alpha")) == [f"@source/frame_{number:03d}.png" for number in range(3)]
    assert list(show.made("copies")) == list(before)


def test_a_model_whose_run_has_no_name_has_that_of_its_folder(show):
    show.add_model("", lambda _: flat(0, 0, 0))

    assert [model["name"] for model in show.build()["models"]] == ["dark", "light", "model_3"]


def test_the_rate_is_the_requested_one_or_else_24(show):
    assert show.build(fps=30)["fps"] == 30
    assert show.build(fps=None)["fps"] == 24


def test_the_source_of_a_video_is_shown_from_its_decoded_frames_at_its_rate(tmp_path):
    show = Show(tmp_path)
    write_video(tmp_path / "clip.mkv", [flat(number, 0, 0, size=(8, 6)) for number in range(3)], rate=30)
    show.input = tmp_path / "clip.mkv"

    data = show.build(fps=None, metadata=[])

    assert (data["fps"], data["sequence"]) == (30, "clip.mkv")
    np.testing.assert_array_equal(show.copy("@source/clip_000002.png"), flat(2, 0, 0, size=(8, 6)))


def test_values_of_metrics_are_in_a_separate_file(show):
    psnr = FrameMetric("PSNR", {"model_1": [30.123456789, None, float("nan")]}, higher_is_better=True, unit="dB")

    data = show.build(metrics=[psnr])

    assert data["metrics"] == [
        {"key": "PSNR", "name": "PSNR", "unit": "dB", "higher_is_better": True, "note": "", "help": "", "ideal": ""}
    ]
    assert show.data("metrics.js") == {"PSNR": {"model_1": [30.1235, None, None]}}


def test_training_frames_are_marked_and_means_are_those_of_the_metadata(show):
    add_means(show.models[0], {"psnr": 30.5})
    everything = [f"frame_{number:03d}.png" for number in range(3)]

    data = show.build(trained={"model_1": {"frame_001.png", "frame_002.png", "another.png"}, "model_2": everything})

    assert [model["trained"] for model in data["models"]] == [[1, 2], [0, 1, 2]]
    assert [model["means"] for model in data["models"]] == [{"psnr": 30.5}, {}]
    assert [model["trained"] for model in show.build()["models"]] == [[], []]


def test_the_page_lists_the_contact_sheet_and_the_video(show):
    show.build()
    assert show.data("extras.js")["files"] == []
    for name in ("side_by_side.mp4", "contact_sheet.png", "notes.txt"):
        show.page.with_name(name).touch()

    show.build()
    assert show.data("extras.js")["files"] == ["contact_sheet.png", "side_by_side.mp4"]


def test_without_a_page_nothing_is_listed(tmp_path):
    page.write_extras(Layout(tmp_path))

    assert not list(tmp_path.iterdir())


def test_a_metric_must_have_as_many_values_for_one_model_as_for_another():
    with pytest.raises(ValueError, match="metric PSNR"):
        FrameMetric("PSNR", {"a": [1.0], "b": [1.0, 2.0]}, higher_is_better=True)


def test_hostile_names_are_text_not_code(show):
    show.add_model(HOSTILE, lambda _: flat(0, 0, 0), run={"params": {"__proto__": HOSTILE, HOSTILE: "1"}})

    data = show.build()

    assert data["models"][2]["name"] == HOSTILE
    assert data["models"][2]["params"] == {"__proto__": HOSTILE, HOSTILE: "1"}
    raw = (show.page.parent / "page" / "data.js").read_bytes()
    assert raw.isascii()
    assert b"<" not in raw
    assert b"\n" not in raw[:-1]


def test_numbers_that_json_lacks_become_null(show):
    show.add_model("nan", lambda _: flat(0, 0, 0), run={"metrics": {"a": float("nan"), "b": 1.8e308}, "epoch": None})

    assert show.build()["models"][2]["metrics"] == {"a": None, "b": None}


def test_a_script_survives_text_that_is_not_unicode():
    assert received(javascript("f({})", "\ud800")) == "\ud800"


@pytest.mark.parametrize(
    ("uri", "link"),
    [
        ("http://studio:5000", "http://studio:5000/#/runs/ab"),
        ("https://me:secret@studio/mlflow/?token=secret#x", "https://studio/mlflow/#/runs/ab"),
        ("http://[::1]:5000/", "http://[::1]:5000/#/runs/ab"),
        ("sqlite:///mlflow.db", None),
        ("mlruns", None),
        ("databricks", None),
        (None, None),
    ],
)
def test_the_link_to_a_run_holds_no_credentials(uri, link):
    assert run_link(uri, "ab") == link


def test_no_credentials_and_no_paths_of_this_machine_are_in_the_page(show):
    show.build(tracking_uri="https://me:secret@studio/mlflow")

    written = b"".join(path.read_bytes() for path in show.page.parent.rglob("*.*s"))

    assert b"secret" not in written
    assert str(show.root).encode() not in written


def test_the_output_folder_can_be_moved(show, tmp_path):
    data = show.build()
    moved = tmp_path / "elsewhere"
    shutil.move(show.output, moved)

    for model in data["models"]:
        assert (moved / "compare" / model["folder"] / "frame_000.png").is_file()


def test_differing_values_of_the_checkpoint_and_files_that_were_passed_over_are_facts():
    tried = [{"path": "best.pth", "reason": "it is empty"}]
    checkpoint = {"epoch": 18, "train_loss": 0.5, "val_loss": None}
    artifact = {"uri": "store", "path": "last.pth", "sha256": "ab", "size": 3}
    render = RENDER | {"status": "success", "error": None}
    about = RUN | {"run_id": "ab12", "run_name": "a", "render": render, "signature": None}
    about |= {"artifact": artifact, "checkpoint": checkpoint}

    def facts(**changes):
        return page.facts(from_json(Metadata, about | changes))

    assert (facts()["epoch"], facts()["checkpoint_epoch"]) == (20, 18)
    assert not {"checkpoint_train_loss", "checkpoint_val_loss", "file", "passed_over"} & facts().keys()
    substituted = facts(artifact=artifact | {"tried": tried}, checkpoint=None)
    assert (substituted["file"], substituted["passed_over"]) == ("last.pth", "best.pth: it is empty")
    assert "checkpoint_epoch" not in substituted


def test_a_video_of_the_finalists_belongs_to_a_page_that_also_shows_models_that_were_knocked_out(show):
    path = show.models[1] / "metadata.json"
    files.write_json(path, files.read_json(path) | {"knocked_out": "rank 2 of 2"})
    shown_together.record(show.layout.shown_in_video, {"model_1": "ab"}, layout=show.layout)
    show.layout.compare.mkdir(exist_ok=True)
    show.layout.side_by_side.write_bytes(b"a video")

    show.build()

    assert show.layout.side_by_side.name in shown_together.beside_page(show.layout)


@pytest.mark.parametrize(
    ("experiments", "name"),
    [
        ({"copyair_experiments"}, "copyair_experiments"),
        ({"Grain / denoise: 2026, $HOME"}, "Grain-denoise-2026-HOME"),
        ({"2026-11"}, "model-2026-11"),
        ({"null"}, "model-null"),
        ({"\u5b9f\u9a13"}, "best-model"),
        ({"one", "other"}, "best-model"),
        (set(), "best-model"),
    ],
)
def test_the_proposed_name_is_one_that_shell_command_line_and_registry_take_as_it_is(experiments, name):
    assert page.proposed_name(experiments) == name
    assert MODEL_NAME.fullmatch(name)
