"""Decoded frames that the jobs of an invocation share."""

import math
import resource
from pathlib import Path

import numpy as np
import pytest
from dailies.core import fork_server
from dailies.frames import frame_cache, image
from helpers.images import write_frame

SIZE = (600, 700, 3)
"""Large enough to be kept."""

OF_A_FRAME = frame_cache.HEADER.size + math.prod(SIZE)
"""The bytes of such a frame."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that jobs share, as a fork server makes it."""
    folder = tmp_path / "memory" / "dailies-test"
    folder.mkdir(parents=True)
    monkeypatch.setattr(fork_server, "SHARED_MEMORY", folder.parent)
    monkeypatch.setenv(fork_server.ADDRESS, folder.name)
    frame_cache._room.cache_clear()
    monkeypatch.setattr(frame_cache, "FULL", set())
    return folder


def values(dtype: str = "uint8") -> np.ndarray:
    """Random values of a frame."""
    return np.random.default_rng(0).integers(0, 255, SIZE).astype(dtype)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def undecodable() -> np.ndarray:
    raise AssertionError("the frame is decoded again")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.usefixtures("folder")
def test_a_frame_is_decoded_once(dtype):
    first = frame_cache.cached("digest", lambda: values(dtype))
    again = frame_cache.cached("digest", undecodable)
    assert again.dtype == dtype
    assert np.array_equal(first, again)
    assert np.array_equal(again, values(dtype))


@pytest.mark.usefixtures("folder")
def test_a_job_that_changes_its_values_does_not_change_those_of_others():
    frame_cache.keep("digest", values())
    frame_cache.cached("digest", undecodable)[:] = 0
    assert np.array_equal(frame_cache.cached("digest", undecodable), values())


@pytest.mark.usefixtures("folder")
def test_frames_of_another_digest_or_model_are_others():
    frame_cache.keep("digest", values(), owner="model")
    assert not frame_cache.cached("digest", lambda: np.zeros(SIZE, np.uint8), owner="other").any()
    assert not frame_cache.cached("another", lambda: np.zeros(SIZE, np.uint8), owner="model").any()
    assert frame_cache.cached("digest", undecodable, owner="model").any()


@pytest.mark.parametrize("digest", ["digest", None])
def test_without_a_server_or_a_digest_every_frame_is_decoded(digest, folder, monkeypatch):
    if digest:
        monkeypatch.delenv(fork_server.ADDRESS)
    frame_cache.cached(digest, values)
    assert not any(folder.iterdir())


def test_small_frames_and_those_with_further_channels_are_not_kept(folder):
    frame_cache.keep("small", np.zeros((5, 7, 3), np.uint8))
    frame_cache.keep("deep", np.zeros((600, 700, 5), np.uint8))
    assert not any(folder.iterdir())


def test_what_exceeds_the_room_is_not_kept_and_rendered_frames_get_half_of_it(folder, monkeypatch):
    monkeypatch.setattr(frame_cache, "LARGEST_TOTAL", 4 * OF_A_FRAME)
    for number in range(6):
        frame_cache.keep(f"{number}", values(), owner="model")
    assert names_in(folder / "model") == ["0", "1"]
    for number in range(6):
        frame_cache.keep(f"{number}", values())
    assert names_in(folder / frame_cache.INPUTS) == ["0", "1"]


@pytest.mark.usefixtures("folder")
def test_a_job_that_found_no_room_does_not_look_for_it_at_every_frame(monkeypatch):
    looked, kept_bytes = [], frame_cache._kept_bytes
    monkeypatch.setattr(frame_cache, "_kept_bytes", lambda folder: looked.append(folder) or kept_bytes(folder))
    monkeypatch.setattr(frame_cache, "LARGEST_TOTAL", OF_A_FRAME)
    for number in range(6):
        frame_cache.keep(f"{number}", values())
    assert len(looked) == 2


def test_large_frames_take_the_room_of_small_ones(folder, monkeypatch):
    monkeypatch.setattr(frame_cache, "LARGEST_TOTAL", 4 * OF_A_FRAME)
    frame_cache.keep("large", np.zeros((2 * SIZE[0], *SIZE[1:]), np.uint8))
    for number in range(4):
        frame_cache.keep(f"{number}", values())
    assert names_in(folder / frame_cache.INPUTS) == ["0", "1", "large"]


def test_a_frame_that_cannot_be_written_whole_leaves_nothing(folder):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        assert np.array_equal(frame_cache.cached("digest", values), values())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not names_in(folder / frame_cache.INPUTS)


def test_frames_that_no_job_needs_make_room(folder, monkeypatch):
    monkeypatch.setattr(frame_cache, "LARGEST_TOTAL", 2 * OF_A_FRAME)
    frame_cache.keep("0", values(), owner="model")
    frame_cache.forget("model", ["0", "never kept"])
    frame_cache.keep("1", values(), owner="model")
    assert names_in(folder / "model") == ["1"]


def test_a_full_memory_is_no_error(folder):
    folder.chmod(0o500)
    (folder / frame_cache.INPUTS).write_bytes(b"in the way, also for root")
    assert np.array_equal(frame_cache.cached("digest", values), values())


@pytest.mark.usefixtures("folder")
def test_a_frame_that_a_job_has_kept_has_the_values_of_its_file(tmp_path):
    write_frame(tmp_path / "frame.png", 0, SIZE[1::-1])
    data = (tmp_path / "frame.png").read_bytes()
    decoded, kept, plain = (image.decode(data, "frame.png", digest=each).pixels for each in ("d", "d", None))
    assert np.array_equal(decoded, plain)
    assert np.array_equal(kept, plain)


@pytest.mark.usefixtures("folder")
def test_a_frame_that_was_inspected_need_not_be_decoded(tmp_path, monkeypatch):
    write_frame(tmp_path / "frame.png", 0, SIZE[1::-1])
    data = (tmp_path / "frame.png").read_bytes()
    plain = image.decode(data, "frame.png").pixels
    assert image.inspect(data, "frame.png", digest="d") == image.inspect(data, "frame.png")
    monkeypatch.setattr(image, "read_ordinary_png", undecodable)
    assert np.array_equal(image.decode(data, "frame.png", digest="d").pixels, plain)
