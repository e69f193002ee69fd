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
from dailies.compare.side_by_side import (
    CAPTION,
    LARGEST,
    NoEncoder,
    layout,
)
from dailies.frames import video
from helpers import REPOSITORY
from helpers.images import flat
from helpers.raising import refused
from helpers.shows import BARS, HOSTILE, Show, bars
from PIL import Image

SIZE = (250, 141)


def build(show: Show, **changes) -> Path:
    """Build the reel of a show and give its file."""
    show.build()
    usual = {
        "sequence": show.state / "sequence.json",
        "input_dir": show.input,
        "output": show.page.with_name("reel.mp4"),
        "fps": None,
        "threads": 2,
    }
    side_by_side.build(show.rendered(), **(usual | changes))
    return show.page.with_name("reel.mp4")


def decoded(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video as RGB, by what it is tagged with."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield video.to_rgb(frame)[:, :, :3]


def cell(frame: np.ndarray, index: int, columns: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    row, column = divmod(index, columns)
    top = row * (size[1] + CAPTION) + CAPTION
    return frame[top : top + size[1], column * size[0] :][:, : size[0]]


def is_flat(found: np.ndarray, colour: tuple[int, ...]) -> bool:
    """Tell whether a picture is of one colour, but for its edges and for what H.264 loses."""
    return np.abs(found[8:-8, 8:-8].astype(int) - colour).max() <= 4


def is_drawn(found: np.ndarray, drawing: np.ndarray | Image.Image) -> bool:
    """Tell whether a picture shows a drawing, but for what H.264 loses."""
    return np.abs(found.astype(int) - np.asarray(drawing)).mean() < 4


@pytest.fixture
def show(tmp_path):
    """Six frames of an odd height and two models, of colours that change with the frame."""
    show = Show(tmp_path)
    for number in range(6):
        show.add_frame(f"frame_{number:03d}.png", flat(40 * number, 90, 90, size=SIZE))
    show.add_model("dark", lambda number: flat(40 * number, 30, 60, size=SIZE))
    show.add_model("light", lambda number: flat(40 * number, 200, 230, size=SIZE))
    return show


def test_every_frame_shows_source_and_models_in_one_row_under_their_names(show):
    frames = list(decoded(build(show)))

    assert len(frames) == 6
    assert {frame.shape for frame in frames} == {(2 * CAPTION + 141 + 1, 750, 3)}
    for number, frame in enumerate(frames):
        for index, (green, blue) in enumerate([(90, 90), (30, 60), (200, 230)]):
            assert is_flat(cell(frame, index, 3), (40 * number, green, blue)), (number, index)
    for index, name in enumerate(("Source", "1 dark", "2 light")):
        strip = frames[0][:CAPTION, 250 * index :][:, :250]
        assert is_drawn(strip, captions.strip(name, 250, CAPTION)), name
    assert is_drawn(frames[4][-CAPTION:], captions.strip("frame_004.png 5 / 6", 750, CAPTION))


def test_it_is_h264_that_every_browser_plays_with_its_index_first(show):
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

    plan = layout(6, SIZE)
    assert plan.columns < 6
    colours = [(90, 90), (30, 60), (200, 230), (10, 0), (10, 80), (10, 160)]
    for index, rest in enumerate(colours):
        assert is_flat(cell(frame, index, plan.columns), (200, *rest)), index


def test_a_frame_that_is_missing_is_said_to_be_and_the_others_stay_in_step(show):
    (show.models[0] / "frame_002.png").unlink()
    (show.models[1] / "frame_003.png").write_bytes(b"no image")

    frames = list(decoded(build(show)))

    said = captions.strip("missing", SIZE[0], 28, ink=captions.QUIET)
    assert is_drawn(cell(frames[2], 1, 3)[:28], said)
    assert is_drawn(cell(frames[3], 2, 3)[:28], said)
    assert is_flat(cell(frames[2], 2, 3), (80, 200, 230))
    assert is_flat(cell(frames[3], 1, 3), (120, 30, 60))


def test_models_that_enlarge_set_the_size_and_frames_of_other_sizes_stand_in_the_middle(tmp_path):
    show = Show(tmp_path)
    show.add_frame("a.png", flat(200, 90, 40, size=(130, 71)))
    show.add_frame("b.png", flat(90, 200, 40, size=(60, 40)))
    sizes = [(260, 142), (120, 80)]
    show.add_model("double", lambda number: flat(number, 50, 60, size=sizes[number]), scale=2)

    first, second = decoded(build(show))

    assert is_flat(cell(first, 0, 2, (260, 142)), (200, 90, 40))
    assert is_flat(cell(first, 1, 2, (260, 142)), (0, 50, 60))
    assert is_flat(cell(second, 1, 2, (260, 142))[31:111, 70:190], (1, 50, 60))


def test_deep_frames_are_shown_as_proxies_and_said_to_be(show):
    for number in range(6):
        deep = np.full((SIZE[1], SIZE[0]), 257 * 40 * number, np.uint16)
        Image.fromarray(deep).save(show.models[0] / f"frame_{number:03d}.png")

    frames = list(decoded(build(show)))

    assert is_flat(cell(frames[3], 1, 3), (120, 120, 120))
    foot = captions.strip("frame_003.png 4 / 6", 750, CAPTION, ending="8 of 16 bits")
    assert is_drawn(frames[3][-CAPTION:], foot)


def test_a_video_is_no_larger_than_4k_and_says_that_it_is_reduced(tmp_path):
    show = Show(tmp_path)
    show.add_frame("a.png", flat(10, 20, 30, size=(2600, 1400)))
    show.add_model("same", lambda _: flat(90, 80, 70, size=(2600, 1400)))

    (frame,) = decoded(build(show))

    height, width, _ = frame.shape
    assert (width, height) == (3840, 1034 + 2 * CAPTION - 1 + 1)
    assert np.abs(frame[500, 2500].astype(int) - [90, 80, 70]).max() <= 3
    assert is_drawn(frame[-CAPTION:], captions.strip("a.png 1 / 1", 3840, CAPTION, ending="reduced to 74 %"))


@pytest.mark.parametrize("count", [1, 2, 4, 5, 7, 50, 300])
@pytest.mark.parametrize("frame", [(1920, 1080), (3840, 2160), (7, 5), (1, 1000), (5000, 3)])
def test_every_layout_fits_and_no_two_pictures_overlap(count, frame):
    plan = layout(count, frame)

    places = [plan.place(index) for index in range(count)]
    assert (plan.size[0] % 2, plan.size[1] % 2) == (0, 0)
    assert plan.size[0] <= LARGEST[0]
    assert plan.size[1] <= LARGEST[1]
    assert len(set(places)) == count
    assert max(left for left, _ in places) + plan.cell[0] <= plan.size[0]
    assert max(top for _, top in places) + plan.cell[1] <= plan.size[1] - CAPTION
    assert plan.columns == count or count > 4


@pytest.mark.parametrize(
    ("fps", "rate"), [(24, 24), (23.976, Fraction(2997, 125)), (None, 24), (59.94, Fraction(2997, 50))]
)
def test_it_plays_at_the_rate_asked_for(show, fps, rate):
    with av.open(str(build(show, fps=fps))) as container:
        assert container.streams.video[0].average_rate == rate


def test_the_same_models_give_the_same_bytes_and_no_draft_is_left(show):
    before = build(show).read_bytes()

    assert build(show).read_bytes() == before
    assert sorted(path.name for path in show.page.parent.iterdir()) == ["index.html", "page", "reel.mp4"]


def test_a_reel_that_fails_leaves_the_last_one_in_place(show, monkeypatch):
    before = build(show).read_bytes()
    picture = side_by_side.picture
    monkeypatch.setattr(
        side_by_side, "picture", lambda shelf, name: picture(shelf, name) if name < "frame_005" else 1 / 0
    )

    with pytest.raises(ZeroDivisionError):
        build(show)

    assert show.page.with_name("reel.mp4").read_bytes() == before
    assert not list(show.page.parent.glob(".*"))


def test_an_ffmpeg_without_x264_is_said_to_be_what_is_wrong(show, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})

    with refused(NoEncoder, "output.no_encoder", "PyAV", "libx264"):
        build(show)


def test_no_more_than_a_few_pictures_are_made_ahead(show, monkeypatch):
    for number in range(6, 40):
        os.link(show.input / "frame_000.png", show.input / f"frame_{number:03d}.png")
        for folder in show.models:
            os.link(folder / "frame_000.png", folder / f"frame_{number:03d}.png")
    made, most = [], []
    picture = side_by_side.picture
    monkeypatch.setattr(side_by_side, "picture", lambda shelf, name: (made.append(name), picture(shelf, name))[1])

    def encode(path, pictures, *_):
        for taken, _ in enumerate(pictures, start=1):
            time.sleep(0.02)  # the threads have time to run ahead
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
from dailies import reel
from dailies.shelves import RenderedModel
from dailies.state_records import Metadata
root = Path({root!r})
paths = root.glob("out/model_*/metadata.json")
models = [RenderedModel.described(path.parent, Metadata.load(path)) for path in paths]
reel.build(models, sequence=root / "out/.dailies/sequence.json",
           input_dir=root / "shot", output=root / "reel.mp4", fps=24, threads=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak(root: Path, frames: int) -> int:
    """The most memory, in MB, that a process needs for a reel of so many frames."""
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

    short, long = peak(tmp_path / "short", 60), peak(tmp_path / "long", 260)  # an encoder looks 60 frames ahead

    assert long - short < 0.25 * 200 * 640 * 244 * 3 / 2**20  # a quarter of the frames between them
