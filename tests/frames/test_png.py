import io
import itertools
import struct
import threading
import time
import zlib

import av
import numpy as np
import pytest
from dailies.frames import png
from helpers.png_files import png_files
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def random(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def decoded_by_specification(data):
    """Read a PNG according to the specification, with checksums and without any code of the writer."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = [], 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", data, place + 8 + length)[0] == zlib.crc32(kind + body)
        chunks.append((kind, body))
        place += 12 + length
    assert chunks[-1] == (b"IEND", b"")
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", dict(chunks)[b"IHDR"])
    assert rest == [0, 0, 0]
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    step = channels * depth // 8
    lines = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    rows, above = [], np.zeros(width * step, int)
    for line in np.frombuffer(lines, np.uint8).reshape(height, 1 + width * step).astype(int):
        above = unfiltered(line[0], line[1:], above, step)
        rows.append(above)
    return np.array(rows, np.uint8).view(f">u{depth // 8}").reshape(height, width, channels)


def unfiltered(kind, line, above, step):
    row = np.zeros_like(line)
    for i, value in enumerate(line):
        left, corner = (row[i - step], above[i - step]) if i >= step else (0, 0)
        near = left + above[i] - corner
        paeth = min((left, above[i], corner), key=lambda guess: abs(near - guess))
        row[i] = (value + (0, left, above[i], (left + above[i]) // 2, paeth)[kind]) % 256
    return row


def decoded_by_pillow(data):
    """Read an 8-bit PNG with Pillow, which silently reads 16-bit RGB as 8-bit."""
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7, 1), (5, 7, 2), (5, 7, 4), (1, 1, 3), (1, 64, 3), (130, 2, 4)])
def test_written_files_follow_the_specification(shape, dtype):
    pixels = random(shape, dtype)

    np.testing.assert_array_equal(decoded_by_specification(png.encode(pixels)), pixels)


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 20),
    channels=st.integers(1, 4),
    step=st.integers(0, 9),
    seed=st.integers(0, 100),
)
def test_pillow_reads_written_files(height, width, channels, step, seed):
    smooth = np.add.outer(np.arange(height), np.arange(width))[:, :, None] * step + random((1, 1, channels), seed=seed)
    pixels = (smooth % 256).astype(np.uint8)

    np.testing.assert_array_equal(decoded_by_pillow(png.encode(pixels)), pixels)


@settings(max_examples=50, deadline=None)
@given(file=png_files())
def test_ordinary_files_are_read_according_to_the_specification(file):
    assert png.is_ordinary(file.data) == file.ordinary
    if file.ordinary:
        pixels = png.decode(file.data)
        assert pixels.dtype.itemsize == file.depth // 8
        assert pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, decoded_by_specification(file.data))


@pytest.mark.parametrize("comment", [b"take 3", b"IDAT"])
def test_a_transparent_colour_after_a_text_chunk_is_recognised(comment):
    content = dict(png.chunks(png.encode(random((5, 7, 3)))))
    parts = {"IHDR": content["IHDR"], "tEXt": b"Comment\0" + comment, "tRNS": bytes(6), "IDAT": content["IDAT"]}

    assert not png.is_ordinary(png.SIGNATURE + b"".join(png.chunk(*part) for part in parts.items()))


def with_pixels(data, deflated):
    """Replace the deflated pixels of a file."""
    kinds = dict(png.chunks(data)) | {"IDAT": deflated}
    return png.SIGNATURE + b"".join(png.chunk(kind, kinds[kind]) for kind in ("IHDR", "IDAT", "IEND"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: b"", "its pixels do not fill the size in its header"),
        (lambda rows: zlib.compress(rows[:-1]), "its pixels do not fill the size in its header"),
        (lambda rows: zlib.compress(rows + b"0"), "its pixels do not fill the size in its header"),
        (lambda rows: zlib.compress(rows)[:-5], "its pixels do not fill the size in its header"),
        (lambda rows: zlib.compress(rows)[:-2], "its pixels do not fill the size in its header"),
        (lambda rows: zlib.compress(rows + bytes(10**7)), "its pixels do not fill the size in its header"),
        (lambda rows: zlib.compress(rows)[:-1] + b"0", "its pixels cannot be inflated"),
        (lambda rows: b"nothing deflated", "its pixels cannot be inflated"),
        (lambda rows: zlib.compress(b"\5" + rows[1:]), "its rows have an unknown filter type"),
    ],
    ids=[
        "none",
        "too few",
        "too many",
        "cut off",
        "cut in its checksum",
        "a bomb",
        "checksum",
        "not deflated",
        "filter",
    ],
)
def test_undecodable_pixels_are_rejected(change, reason):
    data = png.encode(random((5, 7, 3)))
    rows = zlib.decompress(dict(png.chunks(data))["IDAT"])

    with pytest.raises(ValueError, match=f"^{reason}"):
        png.decode(with_pixels(data, change(rows)))


def test_a_file_without_a_decoded_frame_is_rejected(monkeypatch):
    class Silent:
        create = staticmethod(lambda name, mode: Silent())

        def decode(self, packet):
            return []

    monkeypatch.setattr(av, "CodecContext", Silent)

    with pytest.raises(ValueError, match="its pixels cannot be decoded"):
        png.decode(png.encode(random((5, 7, 3))))


def longest_pause(work):
    """Return the longest time that another thread had to wait for some work, as a fraction of the time of the work."""
    moments, done = [], threading.Event()

    def watch():
        while not done.is_set():
            moments.append(time.perf_counter())
            time.sleep(0)

    thread = threading.Thread(target=watch)
    thread.start()
    start = time.perf_counter()
    work()
    end = time.perf_counter()
    done.set()
    thread.join()
    inside = [start, *(moment for moment in moments if start < moment < end), end]
    return max(after - before for before, after in itertools.pairwise(inside)) / (end - start)


def test_encoding_and_decoding_release_the_gil():
    pixels = random((540, 960, 3)) // 16
    data = png.encode(pixels)

    for work in (lambda: png.decode(data), lambda: png.encode(pixels)):
        assert any(longest_pause(work) < 0.5 for _ in range(40))


def test_non_contiguous_pixels_are_written_correctly():
    pixels = random((16, 16, 6))[::2, ::-1, 1:4]

    np.testing.assert_array_equal(decoded_by_pillow(png.encode(pixels)), pixels)


def test_carried_chunks_precede_the_pixels():
    data = png.encode(random((5, 7, 3)), carried=[png.chunk("gAMA", struct.pack(">I", 45455))])

    assert [kind for kind, _ in png.chunks(data)] == ["IHDR", "gAMA", "IDAT", "IEND"]
    assert Image.open(io.BytesIO(data)).info["gamma"] == 0.45455


def test_truncation_and_flipped_bits_are_detected():
    data = png.encode(random((5, 7, 3)))

    for place in range(8, len(data)):
        with pytest.raises(ValueError, match="it is truncated"):
            list(png.chunks(data[:place]))
        broken = bytearray(data)
        broken[place] ^= 0x10
        with pytest.raises(ValueError, match=r"it is (truncated|damaged: a checksum does not match)"):
            list(png.chunks(bytes(broken)))
