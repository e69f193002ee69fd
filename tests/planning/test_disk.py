from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from dailies.core.errors import DiskError
from dailies.frames.scan import output_name
from dailies.frames.sequence import Frame, Sequence
from dailies.measure.source_frame import SourceFrame
from dailies.models.signature import Signature
from dailies.planning import estimates
from dailies.planning.config import Settings
from dailies.planning.estimates import refuse_shortage
from dailies.state.layout import Layout
from dailies.state.records import LoadedModel, ModelRecord, Outcome
from dailies.store.entities import Artifact, StoredFile
from helpers.raising import check

Usage = namedtuple("Usage", "free")


def shot(count=10, **changes):
    """A sequence of frames of 1000 x 1000 pixels."""
    about = {"mode": "RGB", "bit_depth": 8} | changes
    names = (f"{number}.png" for number in range(count))
    return Sequence(tuple(Frame(name, name, 1000, 1000, size=100, sha256=name, **about) for name in names))


@pytest.fixture
def free(monkeypatch):
    """Pretend that so many MB are free."""
    return lambda size: monkeypatch.setattr(estimates.shutil, "disk_usage", lambda place: Usage(size * 1_000_000))


@pytest.fixture
def refused(tmp_path):
    """Return the message of the refusal, or None."""

    def refusal(models, sequence, output_format="auto", motion=False, **about):
        layout = Layout(tmp_path / "out")
        settings = Settings(**{"output_format": output_format, "models_on_disk": 16, "compare": False} | about)
        for model in models:
            size = {"a": 1_000_000, "b": 3_000_000}.get(model)
            artifact = Artifact("store", "best.pth", (StoredFile("best.pth", size),))
            ModelRecord(run_id="ab12", artifact=artifact).save(layout.record(model))
        try:
            refuse_shortage(layout, models, sequence, settings, motion=motion)
        except DiskError as error:
            check(error, "disk.not_enough_space", "output_dir", "check_disk")
            return str(error)
        return None

    return refusal


def test_a_shortage_is_refused_with_numbers(free, refused, tmp_path):
    free(45)

    text = refused(["a", "b"], shot())

    assert text.startswith("20 frames of 2 models")
    needed = ("46.0 MB", "(frames 42.0 MB, weights 4.0 MB)", f"output_dir {tmp_path}/out", "45.0 MB")
    assert [each for each in needed if each not in text] == []
    assert refused(["a"], shot()) is None


def test_the_largest_weights_that_lie_there_at_once_need_room(free, refused):
    free(44.9)

    for models in (["a", "b", "of unknown size"], ["of unknown size", "b", "a"]):
        assert "(frames 63.0 MB, weights 503.0 MB)" in refused(models, shot(), models_on_disk=2)
    assert "(frames 21.0 MB, weights 500.0 MB)" in refused(["of unknown size"], shot())


def test_weights_that_were_downloaded_before_need_no_room(free, refused, tmp_path):
    free(44.9)
    Layout(tmp_path / "out").weights("b").whole.mkdir(parents=True)

    assert refused(["a", "b"], shot()) is None
    free(0)
    assert "20 frames of 2 models, " in refused(["a", "b"], shot())
    assert "(frames 42.0 MB, weights 1.0 MB)" in refused(["a", "b"], shot())


@pytest.mark.parametrize(
    ("output_format", "mode", "page"),
    [("auto", "RGB", 21.2), ("exr", "RGB", 42.2), ("png16", "RGB", 42.2), ("auto", "RGBA", 56.2)],
    ids=[
        "the source's copies and thumbnails",
        "copies of frames that no browser shows, too",
        "and of what it shows in part",
        "and of those with alpha",
    ],
)
def test_copies_and_thumbnails_of_the_page_need_room(free, refused, output_format, mode, page):
    free(0)
    output = {"exr": "exr"}.get(output_format, "png")
    frames = tuple(Frame(**vars(frame) | {"output": f"{frame.name[:-4]}.{output}"}) for frame in shot(mode=mode).frames)

    assert f"weights 1.0 MB, page {page} MB)" in refused(["a"], Sequence(frames), output_format, compare=True)


def test_copies_that_the_page_has_already_need_nothing(free, refused, tmp_path):
    free(0)
    folder = Layout(tmp_path / "out").page_copies("@source")
    folder.mkdir(parents=True)
    for number in range(9):
        (folder / f"{number}.png").touch()

    assert "page 2.2 MB)" in refused(["a"], shot(), compare=True)


def test_the_motion_along_which_flicker_is_measured_needs_room(free, refused, tmp_path):
    free(0)

    assert "weights 1.0 MB)" in refused(["a"], shot())
    assert "weights 1.0 MB, motion 4.5 MB)" in refused(["a"], shot(), motion=True)
    folder = Layout(tmp_path / "out").source_frames
    folder.mkdir(parents=True)
    for number in range(6):
        (folder / f"{number}.npz").touch()
    assert "weights 1.0 MB, motion 2.0 MB)" in refused(["a"], shot(), motion=True)


def test_the_motion_has_the_estimated_size():
    frame = np.random.default_rng(0).random((240, 400, 3), dtype=np.float32)

    data = SourceFrame.of(frame, frame, associated=False).to_bytes()
    assert len(data) == pytest.approx(estimates.MOTION_BYTES * 240 * 400, rel=0.05)


def test_many_bytes_are_reported_in_gb(free, refused):
    free(2000)

    assert "2.1 GB (frames 2.1 GB, weights 1.0 MB)" in refused(["a"], shot(1000))


def test_frames_that_are_there_need_nothing(free, refused, tmp_path):
    free(6)
    (tmp_path / "out" / "a").mkdir(parents=True)
    for number in range(8):
        (tmp_path / "out" / "a" / f"{number}.png").touch()

    assert refused(["a"], shot()) is None
    assert refused(["a"], shot(11)).startswith("3 frames of 1 model, ")
    assert "(frames 6.3 MB, weights 1.0 MB, page 23.3 MB)" in refused(["a"], shot(11), compare=True)
    for number in (8, 9):
        (tmp_path / "out" / "a" / f"{number}.png").touch()
    assert refused(["a"], shot(), compare=True) is None


def test_a_model_that_enlarges_needs_more(free, refused, tmp_path):
    free(23)
    assert refused(["a"], shot()) is None

    layout = Layout(tmp_path / "out")
    Outcome(status="load_failed").save(layout.attempt("a", "1"))
    Outcome(status="success", model=LoadedModel(signature=Signature(scale=2))).save(layout.attempt("a", "2"))

    assert "(frames 84.0 MB, " in refused(["a"], shot())


@pytest.mark.parametrize(
    ("output_format", "about", "size"),
    [
        ("auto", {}, "2.1 MB"),
        ("auto", {"mode": "RGBA"}, "2.8 MB"),
        ("auto", {"mode": "L"}, "700.0 kB"),
        ("auto", {"bit_depth": 10}, "5.7 MB"),
        ("auto", {"bit_depth": 32, "floating": True}, "4.2 MB"),
        ("png", {"bit_depth": 32, "floating": True}, "2.1 MB"),
        ("png16", {}, "5.7 MB"),
        ("exr", {}, "4.2 MB"),
        ("tiff", {}, "2.1 MB"),
        ("tiff", {"bit_depth": 16}, "5.7 MB"),
        ("tiff", {"bit_depth": 16, "floating": True}, "9.0 MB"),
    ],
)
def test_a_frame_is_estimated_by_its_format_depth_and_channels(free, refused, output_format, about, size):
    free(0)
    (frame,) = shot(1, **about).frames
    output = output_name(frame.name, floating=frame.floating, output_format=output_format)
    sequence = Sequence((Frame(**vars(frame) | {"output": output}),))

    assert f"(frames {size}, " in refused(["a"], sequence, output_format)


def test_the_nearest_existing_folder_decides_which_disk(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(estimates.shutil, "disk_usage", lambda place: asked.append(place) or Usage(10**12))
    monkeypatch.setattr(estimates, "artifact_size", lambda record: 1)
    settings = Settings(compare=False)

    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "not" / "yet", Path("not/yet")):
        refuse_shortage(Layout(place), ["a"], shot(), settings, motion=False)
    assert asked == [tmp_path, Path()]
