"""The contact sheet and the video in the workflow: made when asked for, and again only when pictures change."""

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


def test_the_contact_sheet_is_part_of_what_is_made_and_follows_the_frames_not_the_metrics(compared):
    compare = compared.output / "compare"
    before = read_frame(compare / "contact_sheet.png")
    row = round(480 * FRAME[1] / FRAME[0]) + CAPTION + GAP
    assert before.shape == (GAP + CAPTION + 4 * row, 3 * (480 + GAP) + 2 * GAP, 3)
    shown = [before[2 * CAPTION + number * row + 200, GAP + 240].tolist() for number in (1, 2, 3)]
    assert shown == [[grey(level)] * 3 for level in LEVELS.values()]
    assert "contact_sheet.png" in (compare / "page" / "extras.js").read_text()

    compared.client.log_metric(compared.runs["dark"], "val/loss", 0.0625)
    output = compared.snakemake()
    assert jobs(output, "compare") == [""]
    assert not jobs(output, "contact_sheet")

    compared.log_checkpoint(compared.runs["dark"], grey_checkpoint(-0.9))
    output = compared.snakemake(contact_frames="frame_000003.png")
    assert jobs(output, "contact_sheet") == [""]
    sheet = read_frame(compare / "contact_sheet.png")
    assert sheet.shape[1] == 480 + 3 * GAP
    assert sheet[2 * CAPTION + row + 200, GAP + 240].tolist() == [grey(-0.9)] * 3
    head = np.asarray(captions.draw("frame_000003.png", 480, CAPTION, colour=captions.MUTED))
    np.testing.assert_array_equal(sheet[:CAPTION, GAP : GAP + 480], head)


def test_contact_frames_that_do_not_exist_are_refused_in_words(compared):
    output = compared.snakemake(contact_frames=["frame_9.png"], expect=1)

    assert (
        "contact_frames names frame_9.png, but the sequence has 4 frames, frame_000000.png to frame_000003.png; "
        "correct contact_frames, or leave it out"
    ) in output


def test_videos_are_made_when_asked_for_and_again_when_a_model_changes(compared):
    path = compared.output / "compare" / "side_by_side.mp4"
    assert not path.exists()
    compared.client.log_metric(compared.runs["dark"], "val/loss", 0.5)  # what changes beside it must not hide it

    assert jobs(compared.snakemake("videos"), "side_by_side") == [""]
    with av.open(str(path)) as container:
        frames = [video.to_rgb(frame) for frame in container.decode(video=0)]
    assert len(frames) == 4
    wanted = [grey(level) for level in LEVELS.values()]
    assert np.abs(np.subtract(middles(frames[3], 4), wanted)).max() <= 2
    assert "side_by_side.mp4" in (path.parent / "page" / "extras.js").read_text()
    assert "Nothing to be done" in compared.snakemake("videos", "-n")

    compared.client.log_metric(compared.runs["dark"], "val/loss", 0.0625)
    assert not jobs(compared.snakemake("videos"), "side_by_side")
    compared.log_checkpoint(compared.runs["dark"], grey_checkpoint(-0.9))
    assert jobs(compared.snakemake("videos"), "side_by_side") == [""]
    with av.open(str(path)) as container:
        pixels = video.to_rgb(next(container.decode(video=0)))
    assert abs(middles(pixels, 4)[0] - grey(-0.9)) <= 2


def test_a_video_leaves_out_what_failed_and_needs_no_page(compared):
    compared.add_run("broken", b"not a checkpoint")
    compared.snakemake("videos", compare=False, expect=1)

    with av.open(str(compared.output / "compare" / "side_by_side.mp4")) as container:
        pixels = [video.to_rgb(frame) for frame in container.decode(video=0)]
    for frame in pixels:
        assert np.abs(np.subtract(middles(frame, 4), [grey(level) for level in LEVELS.values()])).max() <= 2
        assert frame.shape[1::-1] == arrange(4, FRAME).size


def test_a_bundle_is_made_when_asked_for_from_the_page_as_it_would_be_now(compared, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = compared.layout.bundle

    output = compared.snakemake("bundle")
    assert f"dailies: {path} will take " in output
    assert "16 pictures of 3 models and of the source" in output
    assert "Nothing to be done" in compared.snakemake("bundle", "-n")

    compared.log_checkpoint(compared.runs["dark"], grey_checkpoint(-0.9))
    assert jobs(compared.snakemake("bundle"), "bundle") == [""]
    shutil.unpack_archive(path, elsewhere)
    (frame,) = elsewhere.glob("dailies/dark*/frame_000002.png")
    assert read_frame(frame)[0, 0].tolist() == [grey(-0.9)] * 3
