"""The job of a shard: the frames it measures, and the record it writes."""

import numpy as np
import pytest
from dailies.frames.image import read_frame
from dailies.measure.per_frame import comparable
from dailies.state.due_shards import attempt_after
from dailies.state.manifest import Manifest
from helpers.frame_files import saved, written
from helpers.pictures import picture
from helpers.shots import NAMES, blur, read, write
from PIL import Image


def test_a_frame_that_was_changed_after_its_render_is_measured_as_it_is_now(shot):
    folder = shot.add("model", blur)
    path = shot.root / "state/frames/model/all.jsonl"
    path.parent.mkdir(parents=True)
    manifest = Manifest(path, folder=folder, keys=dict.fromkeys(NAMES, "key"))
    for name in NAMES:
        manifest.add(name, (folder / name).read_bytes(), seconds=1, device="cpu", tiled=False)
    shot.measure("model", metrics=("psnr",))
    write(folder / NAMES[0], read(shot.root / "clean" / NAMES[0]))

    found = shot.measure("model", metrics=("psnr",))["frames"]

    assert [name for name in NAMES if found[name]["psnr"] == 100] == [NAMES[0]]


def test_a_failure_is_recorded_and_retried(shot):
    folder = shot.add("model", blur)
    (folder / NAMES[3]).unlink()
    state = shot.job.layout.measuring_attempt("model", "all")

    found = shot.measure("model")
    assert (found["status"], "frames" in found) == ("error", False)
    assert all(name in found["error"] for name in ("model", "1 frame", "f_3.png"))
    assert attempt_after(state) == 2

    shot.add("model", blur)
    assert shot.measure("model", attempt=2)["status"] == "success"
    assert attempt_after(state) == 2


def test_a_damaged_frame_is_recorded_with_its_name(shot):
    folder = shot.add("model", blur)
    (folder / NAMES[3]).write_bytes(b"junk")

    found = shot.measure("model")

    assert found["status"] == "error"
    assert "f_3.png" in found["error"]


def test_integers_and_floats_are_measured_on_the_same_scale(shot):
    from dailies.frames import image

    shot.add("model", blur)
    eight = shot.measure("model", metrics=("psnr", "ssim"))["frames"]
    for name in NAMES:
        path = shot.root / "clean" / name
        picture = image.decode(path.read_bytes(), name)
        path.unlink()
        path.with_suffix(".exr").write_bytes(
            image.encode(image.convert_depth(picture.pixels, "float32"), picture, "exr")
        )
    floats = shot.measure("model", metrics=("psnr", "ssim"))["frames"]

    for name in NAMES:
        assert floats[name]["psnr"] == pytest.approx(eight[name]["psnr"], abs=0.01)
        assert floats[name]["ssim"] == pytest.approx(eight[name]["ssim"], abs=1e-3)


@pytest.mark.parametrize("output_format", ["exr", "png16", "tiff"])
def test_premultiplied_colours_are_compared_with_premultiplied_ones(tmp_path, output_format):
    from dailies.frames import image

    alpha = np.linspace(0, 1, 7 * 5, dtype=np.float32).reshape(5, 7, 1)
    source = tmp_path / "a.exr"
    source.write_bytes(written(np.dstack([picture((5, 7)) * alpha, alpha]), ".exr", depth="half"))
    read = image.decode(source.read_bytes(), source.name)
    rendered = tmp_path / "b"
    rendered.write_bytes(image.encode(read.pixels, read, output_format))

    one, other = comparable(*(read_frame(path, transfer="clip") for path in (rendered, source)))

    np.testing.assert_array_equal(other, read.pixels)
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_colours_without_alpha_are_compared_as_they_are(tmp_path):
    for name, channels in (("rgb.exr", 3), ("rgba.exr", 4)):
        (tmp_path / name).write_bytes(written(np.full((5, 7, channels), 0.5, np.float32), ".exr", depth="half"))
    (tmp_path / "rgba.png").write_bytes(saved(Image.new("RGBA", (7, 5), (51, 51, 51, 51)), "PNG"))
    rgb, rgba, png = (read_frame(tmp_path / name, transfer="clip") for name in ("rgb.exr", "rgba.exr", "rgba.png"))

    for pair, expected in (
        ((rgb, png), (0.5, 0.2)),
        ((png, rgb), (0.2, 0.5)),
        ((rgb, rgba), (0.5, 0.5)),
        ((png, rgba), (0.04, 0.5)),
    ):
        assert [float(each.max()) for each in comparable(*pair)] == pytest.approx(expected)
