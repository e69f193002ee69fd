import errno
import hashlib
import logging
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
import torch
from dailies.core import files, fork_server
from dailies.core.errors import RenderError, SequenceError
from dailies.frames import frame_cache, image, thumbnail_sheet
from dailies.frames import oiio as codec
from dailies.frames.sequence import Frame, Sequence
from dailies.models.load import Model
from dailies.render import pipeline
from dailies.render.engine import Engine, Rendering, Settings
from dailies.render.pipeline import Route, ahead, prefetch, read, render_frames, settle
from dailies.render.thumbnails import Thumbnails
from dailies.state.manifest import Manifest
from helpers.images import read_frame, write_frame
from helpers.networks import Do
from helpers.raising import refused
from PIL import Image

COUNT = 20
FIELDS = {"mode": "RGB", "bit_depth": 8, "size": 0}
PATIENCE = 60
"""Seconds after which what has not ended counts as a hang."""


class Inverter:
    """An engine that inverts without a network, and can run actions before frames and results."""

    def __init__(self):
        self.device = SimpleNamespace(type="cpu")
        self.calls = 0
        self.before = {}
        """Actions before a frame is submitted, by the number of the call."""
        self.late = {}
        """Actions before a result is returned, by the number of the call."""
        self.batch = 1
        self.groups = []
        """The sizes of the batches that were submitted."""

    def batch_size(self, height, width):
        return self.batch

    def submit_all(self, given, dtypes):
        self.groups.append(len(given))
        return [self.submit(pixels, dtype) for pixels, dtype in zip(given, dtypes, strict=True)]

    def submit(self, pixels, dtype):
        self.calls += 1
        self.before.get(self.calls, lambda: None)()
        return Rendering(partial(self.result, self.calls, (255 - pixels).astype(dtype)), tiled=False)

    def result(self, call, pixels):
        self.late.get(call, lambda: None)()
        return pixels


class Line:
    """Twenty frames, an engine, a manifest, and the pipeline between them."""

    def __init__(self, root, threads):
        self.shot, self.folder = root / "shot", root / "out"
        self.shot.mkdir()
        self.frames = [self.frame(number) for number in range(COUNT)]
        self.names = [frame.name for frame in self.frames]
        self.engine = Inverter()
        self.manifest = Manifest(root / "frames.jsonl", folder=self.folder, keys=dict.fromkeys(self.names, "key"))
        self.route = Route(self.shot, self.folder, "clip", "auto", threads)
        self.prefetched = {}
        self.thumbnails = None

    def frame(self, number):
        path = self.shot / f"{number:03d}.png"
        write_frame(path, number)
        data = path.read_bytes()
        return Frame(path.name, path.name, 7, 5, sha256=hashlib.sha256(data).hexdigest(), **FIELDS)

    def damage(self, number):
        """Replace a frame by something that is no image, and its digest in the sequence."""
        path = self.shot / self.names[number]
        path.write_bytes(path.read_bytes()[:40])
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.frames[number] = Frame(path.name, path.name, 7, 5, sha256=digest, **FIELDS)

    def run(self):
        """Render and raise the error of the pipeline; a hang is a failure."""
        outcome = Future()

        def work():
            try:
                given = (self.frames, self.route, self.engine, self.manifest, self.prefetched, self.thumbnails)
                outcome.set_result(render_frames(*given))
            except BaseException as error:
                outcome.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return outcome.result(timeout=PATIENCE)

    def assert_whole(self, names):
        """Check that these frames, and no others, are in place and in the manifest."""
        assert sorted(path.name for path in self.folder.glob("*")) == sorted(names)
        assert sorted(self.manifest.done()) == sorted(names)
        for name in names:
            np.testing.assert_array_equal(read_frame(self.folder / name), 255 - read_frame(self.shot / name))


@pytest.fixture(params=[1, 3, 8], ids=lambda threads: f"{threads} threads")
def line(request, tmp_path):
    return Line(tmp_path, request.param)


def fail(error):
    def action(*_arguments, **_keywords):
        raise error

    return action


def test_thumbnails_are_made_of_the_written_frames_but_not_of_those_with_alpha(line, tmp_path, monkeypatch):
    monkeypatch.setattr(thumbnail_sheet, "LARGE", 4)
    Image.new("RGBA", (7, 5), (1, 2, 3, 4)).save(line.shot / "009.png")
    line.frames[9] = replace(line.frames[9], sha256=files.sha256_of(line.shot / "009.png"))
    sequence = Sequence((*line.frames,))
    line.thumbnails = Thumbnails(sequence, tmp_path / "sheets")

    line.run()

    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == ["0.jpg", "2.jpg"]
    for number, frames in enumerate(thumbnail_sheet.groups(sequence)):
        if number != 1:
            digests = [files.sha256_of(line.folder / frame.output) for frame in frames]
            path = tmp_path / "sheets" / f"{number}.jpg"
            assert thumbnail_sheet.digest_in(path) == thumbnail_sheet.digest_of(
                thumbnail_sheet.size_of(frames), digests
            )


def test_rendered_frames_are_kept_for_other_jobs_with_the_values_of_their_files(line, tmp_path, monkeypatch):
    (tmp_path / "dailies-test").mkdir()
    monkeypatch.setattr(fork_server, "SHARED_MEMORY", tmp_path)
    monkeypatch.setenv(fork_server.ADDRESS, "dailies-test")
    monkeypatch.setattr(frame_cache, "SMALLEST", 0)
    for number, mode in ((3, "L"), (9, "RGBA")):
        Image.new(mode, (7, 5), 100).save(line.shot / line.names[number])
        line.frames[number] = replace(line.frames[number], sha256=files.sha256_of(line.shot / line.names[number]))

    line.run()

    kept = {path.name: path for path in (tmp_path / "dailies-test" / "out").iterdir()}
    rendered = {files.sha256_of(line.folder / name): name for name in line.names}
    assert sorted(kept) == sorted(digest for digest, name in rendered.items() if name not in {"003.png", "009.png"})
    for digest in kept:
        known = frame_cache.cached(digest, fail(AssertionError("it is decoded again")), owner="out")
        np.testing.assert_array_equal(known, read_frame(line.folder / rendered[digest]))


def test_every_frame_is_rendered(line):
    line.run()

    line.assert_whole(line.names)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("batch", [1, 4, "auto"])
def test_every_frame_is_rendered_on_cuda(line, batch):
    line.engine = Engine(Model(Do(torch.neg), "test"), device=torch.device("cuda"), settings=Settings(batch=batch))

    line.run()

    line.assert_whole(line.names)


def test_frames_are_synced_to_the_disk_before_a_render_returns(line, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))

    line.run()

    assert {(line.folder / name).stat().st_ino for name in line.names} <= {*synced}
    assert synced.count(line.manifest.path.stat().st_ino) == 2  # before the first frame and after the last


def test_the_values_of_the_first_frame_of_each_format_are_verified(line, monkeypatch):
    line.frames = [replace(frame, output=f"{Path(frame.name).stem}.exr") for frame in line.frames]
    line.manifest = Manifest(
        line.manifest.path, folder=line.folder, keys=dict.fromkeys([frame.output for frame in line.frames], "key")
    )
    line.route = replace(line.route, output_format="exr")
    starts, verify = [], codec._verify_values
    monkeypatch.setattr(
        codec,
        "_verify_values",
        lambda *args, start, **more: (starts.append(start), verify(*args, start=start, **more))[1],
    )

    line.run()

    assert sorted(starts) == [0] + [4] * (COUNT - 1)


def test_a_file_that_does_not_hold_what_was_rendered_is_not_written(line, monkeypatch):
    steered = ("textureformat", oiio.TypeString, "LatLong Environment")
    monkeypatch.setattr(image, "exr_attributes", lambda attributes: [steered])
    line.route = replace(line.route, output_format="exr")

    with refused(RenderError, "output.unreadable", "exr", "at frame ", ".png"):
        line.run()

    line.assert_whole([])


def test_nothing_to_render_is_no_error(line):
    line.frames = []

    line.run()

    assert line.manifest.done() == {}


@pytest.mark.parametrize("number", [0, COUNT // 2])
def test_a_prefetched_frame_is_not_read_again(line, number, monkeypatch):
    line.prefetched = prefetch(line.frames[number], line.route)
    line.prefetched[line.frames[number]].result()
    others = []
    monkeypatch.setattr(pipeline, "read", lambda frame, route: others.append(frame.name) or read(frame, route))

    line.run()

    line.assert_whole(line.names)
    assert sorted(others) == [name for name in line.names if name != line.names[number]]
    assert not line.prefetched, "the frame stays in memory"


@pytest.mark.parametrize("number", [0, COUNT // 2])
def test_the_error_of_a_prefetched_frame_is_raised_when_it_is_due(line, number):
    line.damage(number)
    line.prefetched = prefetch(line.frames[number], line.route)

    with refused(SequenceError, "frame.unreadable", f"frame {number:03d}.png"):
        line.run()

    line.assert_whole(line.names[:number])


@pytest.mark.parametrize("number", [0, COUNT // 2, COUNT - 1])
def test_a_bad_frame_ends_the_job_with_its_own_message(line, number):
    line.damage(number)

    with refused(SequenceError, "frame.unreadable", f"frame {number:03d}.png"):
        line.run()

    line.assert_whole(line.names[:number])


def test_a_frame_that_changed_ends_the_job_with_its_own_message(line):
    write_frame(line.shot / line.names[7], seed=99)

    with refused(RenderError, "render.frame_changed", "frame 007.png"):
        line.run()

    line.assert_whole(line.names[:7])


def test_an_engine_that_fails_ends_the_job_and_names_the_frame(line):
    line.engine.before[8] = fail(RenderError("render.not_finite", "output is not finite"))

    with refused(RenderError, "render.not_finite", "frame 007.png"):
        line.run()

    line.assert_whole(line.names[:7])


def test_an_engine_that_fails_late_ends_the_job_and_names_the_frame(line):
    line.engine.late[8] = fail(RenderError("render.not_finite", "output is not finite"))

    with refused(RenderError, "render.not_finite", "frame 007.png"):
        line.run()

    assert line.manifest.done().keys() >= set(line.names[:7])
    line.assert_whole(line.manifest.done())


def test_a_frame_is_submitted_while_another_is_rendered(line):
    second_submitted = threading.Event()
    line.engine.before[2] = second_submitted.set
    waited = []
    line.engine.late[1] = lambda: waited.append(second_submitted.wait(PATIENCE))

    line.run()

    assert waited == [True]


def test_a_full_disk_ends_the_job_soon_and_what_was_written_stays(line, monkeypatch):
    written, write = [], files.write_bytes

    def write_until_full(path, data, **how):
        if path.parent == line.folder:
            written.append(path.name)
            if len(written) > 5:
                raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data, **how)

    monkeypatch.setattr(files, "write_bytes", write_until_full)

    with pytest.raises(OSError, match="No space left on device"):
        line.run()

    line.assert_whole(written[:5])
    assert line.engine.calls <= 5 + 2 * line.route.threads + 2


def test_a_frame_is_decoded_while_another_is_in_the_network(line, monkeypatch):
    second_was_read, read = threading.Event(), pipeline.read

    def watched(frame, route):
        picture = read(frame, route)
        if frame.name == line.names[1]:
            second_was_read.set()
        return picture

    monkeypatch.setattr(pipeline, "read", watched)
    waited = []
    line.engine.before[1] = lambda: waited.append(second_was_read.wait(PATIENCE))

    line.run()

    assert waited == [True]


def test_a_frame_is_encoded_while_another_is_in_the_network(line, monkeypatch):
    first_is_there, write = threading.Event(), files.write_bytes

    def watched(path, data, **how):
        write(path, data, **how)
        if path.name == line.names[0]:
            first_is_there.set()

    monkeypatch.setattr(files, "write_bytes", watched)
    waited = []
    line.engine.before[2] = lambda: waited.append(first_is_there.wait(PATIENCE))

    line.run()

    assert waited == [True]


@pytest.mark.parametrize(("batch", "groups"), [(4, [4] * 5), (7, [7, 7, 6]), (64, [20])])
def test_frames_are_submitted_in_batches_and_the_last_one_may_be_smaller(line, batch, groups):
    line.engine.batch = batch

    line.run()

    assert line.engine.groups == groups
    line.assert_whole(line.names)


def test_the_batch_size_may_change_while_frames_are_rendered(line):
    line.engine.before[3] = lambda: setattr(line.engine, "batch", 5)

    line.run()

    assert line.engine.groups == [5, 5, 5, 2]
    line.assert_whole(line.names)


def test_a_batch_has_frames_of_one_size(line):
    for number in (2, 3, 9):
        path = line.shot / line.names[number]
        write_frame(path, number, size=(8, 6))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        line.frames[number] = Frame(path.name, path.name, 8, 6, sha256=digest, **FIELDS)
    line.engine.batch = 4

    line.run()

    assert line.engine.groups == [2, 2, 4, 4, 4, 2]  # the tenth frame went alone, and so did the one before it
    line.assert_whole(line.names)


@pytest.mark.parametrize("number", [0, 6, COUNT - 1])
def test_frames_before_a_bad_one_are_written_although_their_batch_is_not_full(line, number):
    line.engine.batch = 4
    line.damage(number)

    with refused(SequenceError, "frame.unreadable", f"frame {number:03d}.png"):
        line.run()

    line.assert_whole(line.names[:number])


def test_frames_of_a_failed_batch_are_submitted_singly_to_name_the_bad_one(line):
    line.engine.batch = 4
    bad = read_frame(line.shot / line.names[6])
    submit = line.engine.submit

    def failing(pixels, dtype):
        if np.array_equal(pixels, bad):
            raise RenderError("render.not_finite", "output is not finite")
        return submit(pixels, dtype)

    line.engine.submit = failing

    with refused(RenderError, "render.not_finite", "frame 006.png"):
        line.run()

    line.assert_whole(line.names[:6])


def test_no_more_frames_than_a_batch_needs_are_in_memory(line, monkeypatch):
    line.engine.batch = 4
    most = watched_memory(line, monkeypatch)

    line.run()

    threads = line.route.threads
    assert most[0] <= min(threads, pipeline.MAX_READERS) + 4 + 4 + threads + 4 + 2


def test_few_frames_are_in_memory_at_once(line, monkeypatch):
    most = watched_memory(line, monkeypatch)

    line.run()

    threads = line.route.threads
    assert most[0] <= min(threads, pipeline.MAX_READERS) + 2 + threads + 2


def watched_memory(line, monkeypatch):
    """Count the frames between reading and writing; return a list that holds the highest count so far."""
    read, write, lock = pipeline.read, files.write_bytes, threading.Lock()
    held, most = [0], [0]

    def count(change):
        with lock:
            held[0] += change
            most[0] = max(most[0], held[0])

    def counted_read(frame, route):
        count(1)
        return read(frame, route)

    def counted_write(path, data, **how):
        write(path, data, **how)
        if path.parent == line.folder:
            count(-1)

    monkeypatch.setattr(pipeline, "read", counted_read)
    monkeypatch.setattr(files, "write_bytes", counted_write)
    return most


def test_results_are_in_order_and_computed_no_further_ahead_than_the_limit():
    begun = []
    with ThreadPoolExecutor(4) as pool:
        results = ahead(range(50), lambda number: begun.append(number) or -number, pool, limit=lambda: 3)
        for expected in range(50):
            assert next(results) == (expected, -expected)
            assert len(begun) <= expected + 4


def test_an_error_is_raised_when_its_item_is_due():
    with ThreadPoolExecutor(4) as pool:
        results = ahead([3, 2, 1, 0, 5], lambda number: 6 // number, pool, limit=lambda: 5)

        assert [next(results)[1] for _ in range(3)] == [2, 3, 6]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_the_error_of_a_future_is_raised_while_others_are_unfinished():
    failed, under_way = Future(), Future()
    failed.set_exception(OSError("full"))

    with pytest.raises(OSError, match="full"):
        settle({failed, under_way}, limit=2)
    assert settle({under_way}, limit=1) == {under_way}


def test_progress_is_logged_in_frames_and_seconds(line, monkeypatch, caplog):
    monkeypatch.setattr(pipeline, "PROGRESS_SECONDS", -1)

    with caplog.at_level(logging.INFO):
        line.run()

    assert len(caplog.messages) == COUNT
    assert caplog.messages[-1].startswith(f"frame {COUNT} of {COUNT}, ")
    assert caplog.messages[-1].endswith(" fps, 0 s left")
