"""The side-by-side video: every picture is in its place, in its colours, at its rate."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from dailies.compare import captions, side_by_side
from dailies.compare.side_by_side import CAPTION, MAX_SIZE, NoEncoder, arrange
from dailies.frames import video
from helpers import REPOSITORY
from helpers.images import flat
from helpers.raising import refused
from helpers.shows import BARS, HOSTILE, Show, bars
from PIL import Image

SIZE = (250, 141)


def build(show: Show, **changes) -> Path:
    """Build the video of a show and return its file."""
    show.build()
    usual = {
        "sequence": show.state / "sequence.json",
        "input_dir": show.input,
        "output": show.page.with_name("video.mp4"),
        "fps": None,
        "threads": 2,
    }
    side_by_side.build(show.rendered(), **(usual | changes))
    return show.page.with_name("video.mp4")


def decoded(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video as RGB, converted as its tags say."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield video.to_rgb(frame)[:, :, :3]


def cell(frame: np.ndarray, index: int, columns: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    row, column = divmod(index, columns)
    top = row * (size[1] + CAPTION) + CAPTION
    return frame[top : top + size[1], column * size[0] :][:, : size[0]]


def is_flat(found: np.ndarray, colour: tuple[int, ...]) -> bool:
    """Return whether a picture has one colour, ignoring its edges and the losses of H.264."""
    return np.abs(found[8:-8, 8:-8].astype(int) - colour).max() <= 4


def is_drawn(found: np.ndarray, drawing: np.ndarray | Image.Image) -> bool:
    """Return whether a picture shows a drawing, ignoring the losses of H.264."""
    return np.abs(found.astype(int) - np.asarray(drawing)).mean() < 4


@pytest.fixture
def show(tmp_path):
    """Return six frames of an odd height and two models, in colours that change with the frame."""
    show = Show(tmp_path)
    for number in range(6):
        show.add_frame(f"frame_{number:03d}.png", flat(40 * number, 90, 90, size=SIZE))
    show.add_model("dark", lambda number: flat(40 * number, 30, 60, size=SIZE))
    show.add_model("light", lambda number: flat(40 * number, 200, 230, size=SIZE))
    return show


def test_every_frame_shows_source_and_models_in_a_row_under_their_names(show):
    frames = list(decoded(build(show)))

    assert len(frames) == 6
    assert {frame.shape for frame in frames} == {(2 * CAPTION + 141 + 1, 750, 3)}
    for number, frame in enumerate(frames):
        for index, (green, blue) in enumerate([(90, 90), (30, 60), (200, 230)]):
            assert is_flat(cell(frame, index, 3), (40 * number, green, blue)), (number, index)
    for index, name in enumerate(("Source", "dark", "light")):
        strip = frames[0][:CAPTION, 250 * index :][:, :250]
        assert is_drawn(strip, captions.draw(name, 250, CAPTION)), name
    assert is_drawn(frames[4][-CAPTION:], captions.draw("frame_004.png 5 / 6", 750, CAPTION))


def test_the_video_is_h264_with_its_index_first(show):
    path = build(show, fps=25)

    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt, container.streams.video[0].average_rate) == ("h264", "yuv420p", 25)
        assert (codec.width % 2, codec.height % 2) == (0, 0)
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_colours_are_converted_by_and_tagged_with_bt709(show):
    size = (256, 144)
    for number in range(6):
        Image.fromarray(bars(*size)).save(show.input / f"frame_{number:03d}.png")
    show.models.clear()

    path = build(show)

    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        assert [codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range] == [1, 1, 1, 1]
        frame = next(container.decode(video=0))
        planes = [np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width] for p in frame.planes]
    for number, colour in enumerate(BARS / 255):
        luma = planes[0][CAPTION + 70, 32 * number + 16]
        assert abs(int(luma) - (16 + 219 * (colour @ [0.2126, 0.7152, 0.0722]))) <= 1.5, number
    shown = cell(next(decoded(path)), 0, 1, size)[70, 16::32].astype(int)
    assert np.abs(shown - BARS).max() <= 4


def test_more_than_four_pictures_make_a_grid_and_failed_models_are_left_out(show):
    show.add_model("broken", error="best.pth is damaged")
    for number in range(3):
        show.add_model(HOSTILE, lambda frame, number=number: flat(40 * frame, 10, 80 * number, size=SIZE))

    frame = list(decoded(build(show)))[5]

    grid = arrange(6, SIZE)
    assert grid.columns < 6
    colours = [(90, 90), (30, 60), (200, 230), (10, 0), (10, 80), (10, 160)]
    for index, rest in enumerate(colours):
        assert is_flat(cell(frame, index, grid.columns), (200, *rest)), index


def test_missing_frames_are_labelled_and_the_others_stay_in_sync(show):
    (show.models[0] / "frame_002.png").unlink()
    (show.models[1] / "frame_003.png").write_bytes(b"no image")

    frames = list(decoded(build(show)))

    label = captions.draw("missing", SIZE[0], 28, colour=captions.MUTED)
    assert is_drawn(cell(frames[2], 1, 3)[:28], label)
    assert is_drawn(cell(frames[3], 2, 3)[:28], label)
    assert is_flat(cell(frames[2], 2, 3), (80, 200, 230))
    assert is_flat(cell(frames[3], 1, 3), (120, 30, 60))


def test_upscaling_models_decide_the_size_and_other_frames_are_centred(tmp_path):
    show = Show(tmp_path)
    show.add_frame("a.png", flat(200, 90, 40, size=(130, 71)))
    show.add_frame("b.png", flat(90, 200, 40, size=(60, 40)))
    sizes = [(260, 142), (120, 80)]
    show.add_model("double", lambda number: flat(number, 50, 60, size=sizes[number]), scale=2)

    first, second = decoded(build(show))

    assert is_flat(cell(first, 0, 2, (260, 142)), (200, 90, 40))
    assert is_flat(cell(first, 1, 2, (260, 142)), (0, 50, 60))
    assert is_flat(cell(second, 1, 2, (260, 142))[31:111, 70:190], (1, 50, 60))


def test_pictures_of_deep_frames_are_labelled_as_proxies(show):
    for number in range(6):
        deep = np.full((SIZE[1], SIZE[0]), 257 * 40 * number, np.uint16)
        Image.fromarray(deep).save(show.models[0] / f"frame_{number:03d}.png")

    frames = list(decoded(build(show)))

    assert is_flat(cell(frames[3], 1, 3), (120, 120, 120))
    foot = captions.draw("frame_003.png 4 / 6", 750, CAPTION, right="8 of 16 bits")
    assert is_drawn(frames[3][-CAPTION:], foot)


def test_a_video_is_at_most_4k_and_labelled_as_reduced(tmp_path):
    show = Show(tmp_path)
    show.add_frame("a.png", flat(10, 20, 30, size=(2600, 1400)))
    show.add_model("same", lambda _: flat(90, 80, 70, size=(2600, 1400)))

    (frame,) = decoded(build(show))

    height, width, _ = frame.shape
    assert (width, height) == (3840, 1034 + 2 * CAPTION - 1 + 1)
    assert np.abs(frame[500, 2500].astype(int) - [90, 80, 70]).max() <= 3
    assert is_drawn(frame[-CAPTION:], captions.draw("a.png 1 / 1", 3840, CAPTION, right="reduced to 74 %"))


@pytest.mark.parametrize("count", [1, 2, 4, 5, 7, 50, 300])
@pytest.mark.parametrize("frame", [(1920, 1080), (3840, 2160), (7, 5), (1, 1000), (5000, 3)])
def test_every_grid_is_in_bounds_and_no_two_pictures_overlap(count, frame):
    grid = arrange(count, frame)

    places = [grid.position(index) for index in range(count)]
    assert (grid.size[0] % 2, grid.size[1] % 2) == (0, 0)
    assert grid.size[0] <= MAX_SIZE[0]
    assert grid.size[1] <= MAX_SIZE[1]
    assert len(set(places)) == count
    assert max(left for left, _ in places) + grid.cell[0] <= grid.size[0]
    assert max(top for _, top in places) + grid.cell[1] <= grid.size[1] - CAPTION
    assert grid.columns == count or count > 4


@pytest.mark.parametrize(
    ("fps", "rate"), [(24, 24), (23.976, Fraction(2997, 125)), (None, 24), (59.94, Fraction(2997, 50))]
)
def test_the_video_plays_at_the_requested_rate(show, fps, rate):
    with av.open(str(build(show, fps=fps))) as container:
        assert container.streams.video[0].average_rate == rate


def test_the_same_models_give_the_same_bytes_and_no_draft_is_left(show):
    before = build(show).read_bytes()

    assert build(show).read_bytes() == before
    assert sorted(path.name for path in show.page.parent.iterdir()) == ["index.html", "page", "video.mp4"]


def test_a_failed_build_leaves_the_previous_video_in_place(show, monkeypatch):
    before = build(show).read_bytes()
    picture = side_by_side.read_picture
    monkeypatch.setattr(
        side_by_side, "read_picture", lambda layer, name: picture(layer, name) if name < "frame_005" else 1 / 0
    )

    with pytest.raises(ZeroDivisionError):
        build(show)

    assert show.page.with_name("video.mp4").read_bytes() == before
    assert not list(show.page.parent.glob(".*"))


def test_a_build_of_ffmpeg_without_x264_is_refused(show, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})

    with refused(NoEncoder, "output.no_encoder", "PyAV", "libx264"):
        build(show)


def test_only_a_few_pictures_are_prepared_ahead(show, monkeypatch):
    for number in range(6, 40):
        os.link(show.input / "frame_000.png", show.input / f"frame_{number:03d}.png")
        for folder in show.models:
            os.link(folder / "frame_000.png", folder / f"frame_{number:03d}.png")
    made, most = [], []
    picture = side_by_side.read_picture
    monkeypatch.setattr(side_by_side, "read_picture", lambda layer, name: (made.append(name), picture(layer, name))[1])

    def encode(path, pictures, *_):
        for taken, _ in enumerate(pictures, start=1):
            time.sleep(0.02)  # let the threads run ahead
            most.append(len(set(made)) - taken)
        path.touch()

    monkeypatch.setattr(side_by_side, "_encode", encode)
    build(show, threads=2)

    assert len(most) == 40
    assert max(most) <= 3


PEAK = """
import resource, sys
sys.path[:0] = [{scripts!r}]
from pathlib import Path
from dailies.compare import side_by_side
from dailies.compare.layers import RenderedModel
from dailies.state.records import Metadata
root = Path({root!r})
paths = root.glob("out/model_*/metadata.json")
models = [RenderedModel.from_metadata(path.parent, Metadata.load(path)) for path in paths]
side_by_side.build(models, sequence=root / "out/.dailies/sequence.json",
                   input_dir=root / "shot", output=root / "video.mp4", fps=24, threads=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak(root: Path, frames: int) -> int:
    """Return the peak memory, in MB, of a process that builds a video of so many frames."""
    show = Show(root)
    size = (320, 180)
    show.add_frame("a_000.png", flat(90, 90, 90, size=size))
    show.add_model("one", lambda _: flat(30, 60, 90, size=size))
    for folder in (show.input, *show.models):
        for number in range(1, frames):
            os.link(folder / "a_000.png", folder / f"a_{number:03d}.png")
    show.build()
    code = PEAK.format(scripts=str(REPOSITORY / "scripts"), root=str(root))
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)


def test_memory_does_not_grow_with_the_sequence(tmp_path):
    for name in ("short", "long"):
        (tmp_path / name).mkdir()

    short, long = peak(tmp_path / "short", 60), peak(tmp_path / "long", 160)  # the encoder looks 60 frames ahead

    assert long - short < 0.25 * 100 * 640 * 244 * 3 / 2**20  # a quarter of the frames between them
