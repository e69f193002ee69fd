"""Contact sheet, video and bundle in the workflow: made when asked for, and again only when pictures change."""

import shutil

import av
import numpy as np
from dailies.compare import captions
from dailies.compare.contact_sheet import CAPTION, GAP
from dailies.compare.side_by_side import arrange
from dailies.frames import video
from helpers.images import read_frame
from helpers.studio import LEVELS, jobs
from helpers.weights import grey, grey_checkpoint

FRAME = (40, 36)


def middles(pixels: np.ndarray, count: int) -> list[int]:
    """The greys in the middle of each picture of a video, the source left out."""
    plan = arrange(count, FRAME)
    places = [plan.position(index) for index in range(1, count)]
    return [int(pixels[top + plan.cell[1] // 2, left + plan.cell[0] // 2, 0]) for left, top in places]


def test_contact_sheet_video_and_bundle_follow_the_frames_not_the_metrics(compared, tmp_path_factory):
    compare = compared.output / "compare"
    path = compare / "side_by_side.mp4"
    sheet = read_frame(compare / "contact_sheet.png")
    row = round(480 * FRAME[1] / FRAME[0]) + CAPTION + GAP
    assert sheet.shape == (GAP + CAPTION + 4 * row, 3 * (480 + GAP) + 2 * GAP, 3)
    shown = [sheet[2 * CAPTION + number * row + 200, GAP + 240].tolist() for number in (1, 2, 3)]
    assert shown == [[grey(level)] * 3 for level in LEVELS.values()]
    assert not path.exists()

    compared.client.log_metric(compared.runs["dark"], "val/loss", 0.5)  # what changes beside it must not hide it
    output = compared.snakemake("videos", "bundle")
    assert jobs(output, "side_by_side") == jobs(output, "compare") == [""]
    assert f"dailies: {compared.layout.bundle} will take " in output
    assert "16 pictures of 3 models and of the source" in output
    with av.open(str(path)) as container:
        frames = [video.to_rgb(frame) for frame in container.decode(video=0)]
    assert len(frames) == 4
    wanted = [grey(level) for level in LEVELS.values()]
    assert np.abs(np.subtract(middles(frames[3], 4), wanted)).max() <= 2
    extras = (compare / "page" / "extras.js").read_text()
    assert "contact_sheet.png" in extras
    assert "side_by_side.mp4" in extras

    compared.client.log_metric(compared.runs["dark"], "val/loss", 0.0625)
    output = compared.snakemake("videos")
    assert jobs(output, "compare") == [""]
    assert not jobs(output, "contact_sheet")
    assert not jobs(output, "side_by_side")

    compared.log_checkpoint(compared.runs["dark"], grey_checkpoint(-0.9))
    compared.add_run("broken", b"not a checkpoint")
    output = compared.snakemake("videos", "bundle", contact_frames="frame_000003.png", expect=1)
    assert jobs(output, "contact_sheet") == jobs(output, "side_by_side") == jobs(output, "bundle") == [""]
    sheet = read_frame(compare / "contact_sheet.png")
    assert sheet.shape[1] == 480 + 3 * GAP
    assert sheet[2 * CAPTION + row + 200, GAP + 240].tolist() == [grey(-0.9)] * 3
    head = np.asarray(captions.draw("frame_000003.png", 480, CAPTION, colour=captions.MUTED))
    np.testing.assert_array_equal(sheet[:CAPTION, GAP : GAP + 480], head)
    with av.open(str(path)) as container:
        pixels = video.to_rgb(next(container.decode(video=0)))
    assert pixels.shape[1::-1] == arrange(4, FRAME).size  # without the broken model
    assert abs(middles(pixels, 4)[0] - grey(-0.9)) <= 2
    shutil.unpack_archive(compared.layout.bundle, elsewhere := tmp_path_factory.mktemp("elsewhere"))
    (frame,) = elsewhere.glob("dailies/dark*/frame_000002.png")
    assert read_frame(frame)[0, 0].tolist() == [grey(-0.9)] * 3
