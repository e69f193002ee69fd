import io
import logging
import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from dailies.core.errors import SequenceError
from dailies.frames import image, png, video
from helpers.images import read_frame, write_video
from helpers.raising import check, refused
from PIL import Image

WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def pictures(count=5, size=(48, 64), seed=0):
    """Return frames of noise, which no codec can predict."""
    return list(np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8))


def decoded(path, **options):
    """Decode a video; return the clip and its frames as they are read for rendering."""
    clip = video.decode(path, path.parent / "frames", **options)
    found = sorted((path.parent / "frames").iterdir())
    return clip, [image.decode(each.read_bytes(), each.name) for each in found]


def error_of(path):
    with pytest.raises(SequenceError) as error:
        video.decode(path, path.parent / "frames")
    assert not (path.parent / "frames").exists()
    return error.value


def raw(kind, values, *, matrix=2, full=False, tagged=True, size=(16, 12)):
    """Return a frame with one value per plane."""
    frame = av.VideoFrame(*size, kind)
    deep = frame.format.components[0].bits > 8
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(np.full(plane.buffer_size // (2 if deep else 1), value, np.uint16 if deep else np.uint8).tobytes())
    frame.colorspace = matrix
    frame.color_range = (ColorRange.JPEG if full else ColorRange.MPEG) if tagged else ColorRange.UNSPECIFIED
    return frame


def rgb_by_specification(values, *, bits, matrix, full):
    """Return the RGB of one colour, from 0 to 1, according to ITU-T H.273."""
    step = 2 ** (bits - 8)
    y, u, v = values[:3]
    if full:
        y, u, v = y / (2**bits - 1), (u - 128 * step) / (2**bits - 1), (v - 128 * step) / (2**bits - 1)
    else:
        y, u, v = (y - 16 * step) / (219 * step), (u - 128 * step) / (224 * step), (v - 128 * step) / (224 * step)
    red, blue = WEIGHTS[matrix]
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.clip([r, (y - red * r - blue * b) / (1 - red - blue), b], 0, 1)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_lossless_video_is_decoded_exactly(tmp_path, threads):
    expected = pictures(12, size=(5, 7))
    write_video(tmp_path / "shot.v2.mkv", expected, rate=Fraction(24000, 1001))

    clip, found = decoded(tmp_path / "shot.v2.mkv", threads=threads)

    assert clip == video.Clip(frames=12, fps=pytest.approx(23.976, abs=1e-3))
    assert sorted(path.name for path in (tmp_path / "frames").iterdir())[::11] == [
        "shot.v2_000000.png",
        "shot.v2_000011.png",
    ]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.pixels, other)


@pytest.mark.parametrize(
    ("suffix", "codec", "kind"),
    [
        (".mov", "prores_ks", "yuv422p10le"),
        (".mp4", "libx264", "yuv420p"),
        (".mkv", "libx265", "yuv420p10le"),
        (".avi", "mjpeg", "yuvj422p"),
        (".mxf", "mpeg2video", "yuv420p"),
        (".mov", "qtrle", "rgb24"),
        (".m4v", "libx264", "yuv420p"),
        (".webm", "libvpx", "yuv420p"),
        (".webm", "libvpx-vp9", "yuv420p"),
        (".ts", "libx264", "yuv420p"),
        (".mts", "libx264", "yuv420p"),
        (".m2ts", "mpeg2video", "yuv422p"),
        (".mpg", "mpeg1video", "yuv420p"),
        (".mpeg", "mpeg2video", "yuv420p"),
    ],
)
def test_common_containers_and_codecs_are_read(tmp_path, suffix, codec, kind):
    smooth = np.add.outer(np.arange(64), np.arange(96))[:, :, None] + np.arange(3) * 20
    expected = [(smooth + 3 * number).clip(0, 255).astype(np.uint8) for number in range(6)]
    write_video(tmp_path / f"a{suffix}", expected, codec=codec, kind=kind, rate=25)

    clip, found = decoded(tmp_path / f"a{suffix}")

    assert (clip.frames, clip.fps) == (6, 25)
    assert found[0].pixels.dtype == (np.uint16 if "10" in kind else np.uint8)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(image.convert_depth(one.pixels, "uint8").astype(int) - other).mean() < 6


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", sorted(WEIGHTS))
@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        ("yuv420p", 8),
        ("yuv444p", 8),
        ("yuv420p10le", 10),
        ("yuv422p10le", 10),
        ("yuv444p10le", 10),
        ("yuv444p12le", 12),
    ],
)
def test_colours_follow_matrix_and_range_as_tagged(kind, bits, matrix, full):
    step = 2 ** (bits - 8)
    for values in ((100, 90, 150), (16, 128, 128), (235, 128, 128), (180, 200, 60)):
        planes = [value * step for value in values]

        found = video.to_rgb(raw(kind, planes, matrix=matrix, full=full))

        largest = np.iinfo(found.dtype).max
        assert found.dtype == (np.uint8 if bits == 8 else np.uint16)
        expected = rgb_by_specification(planes, bits=bits, matrix=matrix, full=full) * largest
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=0.52 if bits == 8 else 1)


def test_10_bit_black_and_white_fill_16_bits():
    assert video.to_rgb(raw("yuv420p10le", (64, 512, 512), matrix=1)).max() == 0
    assert video.to_rgb(raw("yuv420p10le", (940, 512, 512), matrix=1)).min() == 65535


def test_deep_rgb_and_grey_are_expanded():
    for kind in ("gbrp10le", "gray10le"):
        planes = (1023,) * (3 if kind.startswith("gbr") else 1)
        found = video.to_rgb(raw(kind, planes, matrix=0, full=True))
        assert (found.dtype, found.shape, found.min()) == (np.uint16, (12, 16, len(planes)), 65535)


@pytest.mark.parametrize(("kind", "bits"), [("gray", 8), ("gray10le", 10), ("gray12le", 12), ("gray16le", 16)])
def test_grey_follows_its_range_as_tagged(kind, bits):
    step = 2 ** (bits - 8)
    for full in (False, True):
        codes = np.array([16, 50, 126, 235]) * step
        unit = codes / (2**bits - 1) if full else (codes - 16 * step) / (219 * step)
        found = [video.to_rgb(raw(kind, (code,), matrix=0, full=full))[0, 0, 0] for code in codes]
        largest = np.iinfo(found[0].dtype).max
        np.testing.assert_allclose(found, unit * largest, atol=0.51 if bits == 8 else 20)
        assert video.to_rgb(raw(kind, (codes[1],), tagged=False)).max() == found[1] or not full


def test_alpha_of_limited_range_grey_is_unchanged():
    frame = raw("ya8", (0,))
    frame.planes[0].update(bytes([235, 7]) * (frame.planes[0].buffer_size // 2))

    assert video.to_rgb(frame)[0, 0].tolist() == [255, 255, 255, 7]


def test_alpha_of_a_video_is_kept():
    found = video.to_rgb(raw("yuva444p10le", (940, 512, 512, 1023), matrix=1))

    assert found.shape == (12, 16, 4)
    assert found.min() == 65535
    assert video.to_rgb(raw("yuva420p", (235, 128, 128, 7), matrix=1))[0, 0].tolist() == [255, 255, 255, 7]


def write_alpha(path, codec, count=3, kind="yuva420p", **tags):
    """Write grey frames with a ramp of alpha, as recorded by browsers; return the alpha."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8) * 4, (48, 64))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, kind
        stream.options = {"auto-alt-ref": "0", "lossless": "1"} if codec == "libvpx-vp9" else {"auto-alt-ref": "0"}
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for number in range(count):
            pixels = np.dstack([np.full((48, 64, 3), 50 + 10 * number, np.uint8), ramp])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=kind)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return ramp


@pytest.mark.parametrize(("codec", "tolerance"), [("libvpx-vp9", 1), ("libvpx", 8)])
@pytest.mark.parametrize("suffix", [".webm", ".mkv"])
def test_alpha_in_a_second_stream_is_kept(tmp_path, suffix, codec, tolerance, caplog):
    alpha = write_alpha(tmp_path / f"a{suffix}", codec, count=12)

    clip, found = decoded(tmp_path / f"a{suffix}")

    assert clip.frames == 12
    for number, picture in enumerate(found):
        np.testing.assert_allclose(picture.alpha.astype(int), alpha, atol=tolerance)
        np.testing.assert_allclose(picture.pixels.astype(int), 50 + 10 * number, atol=3 * tolerance)
    assert "alpha" not in caplog.text


def test_dropped_alpha_is_logged(tmp_path, monkeypatch, caplog):
    write_alpha(tmp_path / "a.webm", "libvpx-vp9")
    monkeypatch.setattr(video, "ALPHA_DECODERS", {"vp9": "no such decoder"})

    _, found = decoded(tmp_path / "a.webm")

    assert found[0].alpha is None
    assert "a.webm is rendered without its alpha, which this FFmpeg cannot decode" in caplog.messages


def test_a_damaged_video_with_alpha_is_rejected(tmp_path):
    write_alpha(tmp_path / "a.webm", "libvpx-vp9", count=20)
    data = bytearray((tmp_path / "a.webm").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    (tmp_path / "a.webm").write_bytes(bytes(data))

    assert error_of(tmp_path / "a.webm").code in {"video.truncated", "video.damaged"}


@pytest.mark.parametrize(
    "name", ["take:2.mkv", "http:x.mkv", "concat:a|b.mkv", "pipe:.mkv", "a%03d.mkv", "-i.mkv", "a #2?.mkv"]
)
def test_a_file_name_that_resembles_a_url_is_supported(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mkv", pictures(2))
    (tmp_path / "a.mkv").rename(tmp_path / name)

    assert video.decode(Path(name), Path("frames")).frames == 2
    assert (tmp_path / "frames" / f"{Path(name).stem}_000001.png").is_file()


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_hdr10_metadata_is_written_to_the_frames(tmp_path, suffix):
    mastering = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    tags = {"color_primaries": 9, "color_trc": 16, "colorspace": 9}
    tags["options"] = {"x265-params": f"log-level=none:hdr10=1:master-display={mastering}:max-cll=1000,400"}
    write_video(tmp_path / f"a{suffix}", pictures(2), codec="libx265", kind="yuv420p10le", tags=tags)

    decoded(tmp_path / f"a{suffix}")

    found = dict(png.chunks((tmp_path / "frames" / "a_000001.png").read_bytes()))
    points = (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450)  # red, green, blue, white in units of 0.00002
    assert found["cICP"] == bytes([9, 16, 0, 1])
    assert found["mDCV"] == struct.pack(">8H2I", *points, 1000 * 10_000, 50)
    assert found["cLLI"] == struct.pack(">2I", 1000 * 10_000, 400 * 10_000)


def test_an_hdr_video_without_hdr10_metadata_has_only_a_cicp_chunk(tmp_path):
    tags = {"color_primaries": 9, "color_trc": 16, "colorspace": 9}
    write_video(tmp_path / "a.mkv", pictures(1), kind="yuv444p10le", tags=tags)

    decoded(tmp_path / "a.mkv")

    kinds = [kind for kind, _ in png.chunks((tmp_path / "frames" / "a_000000.png").read_bytes())]
    assert kinds == ["IHDR", "cICP", "IDAT", "IEND"]


@pytest.mark.parametrize(
    ("size", "matrix", "name"), [((720, 576), 6, "BT.601"), ((1280, 720), 1, "BT.709"), ((1920, 1080), 1, "BT.709")]
)
def test_an_untagged_video_is_decoded_as_by_players(size, matrix, name):
    coding = video.colour_coding(raw("yuv420p", (100, 90, 150), tagged=False, size=size))

    assert (coding.matrix, coding.full) == (matrix, False)
    assert coding.assumed == (f"matrix not tagged, {name} assumed by its size", "range not tagged, limited assumed")


def test_an_unsupported_matrix_is_rejected():
    with refused(SequenceError, "video.unsupported_colour", "matrix 14"):
        video.to_rgb(raw("yuv420p", (100, 90, 150), matrix=14))


def test_xyz_is_rejected():
    with refused(SequenceError, "video.unsupported_colour", "XYZ"):
        video.to_rgb(raw("xyz12le", (0,)))


def test_the_format_of_a_video_is_logged(tmp_path, caplog):
    write_video(tmp_path / "a.mp4", pictures(), codec="libx264", kind="yuv420p", rate=25)

    with caplog.at_level(logging.INFO):
        decoded(tmp_path / "a.mp4")

    assert caplog.messages == [
        "a.mp4: h264 yuv420p 64×48, 25 fps, BT.601, limited range, "
        "matrix not tagged, BT.601 assumed by its size, range not tagged, limited assumed"
    ]


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_video_tagged_as_rotated_is_rotated(tmp_path, degrees, caplog):
    (expected,) = pictures(1, size=(6, 10))
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("qtrle", rate=24)
        stream.width, stream.height, stream.pix_fmt = 10, 6, "rgb24"
        stream.set_display_rotation(degrees)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(expected, format="rgb24")))
        container.mux(stream.encode())

    with caplog.at_level(logging.INFO):
        _, (found,) = decoded(tmp_path / "a.mov")

    np.testing.assert_array_equal(found.pixels, np.rot90(expected, degrees // 90))
    assert (
        caplog.messages[-1] == "a.mov is tagged as rotated or mirrored; its frames are rotated or mirrored accordingly"
    )


ONE = 1 << 16


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((-ONE, 0, 0, 0, ONE), lambda pixels: pixels[:, ::-1]),
        ((ONE, 0, 0, 0, -ONE), lambda pixels: pixels[::-1]),
        ((-ONE, 0, 0, 0, -ONE), lambda pixels: pixels[::-1, ::-1]),
        ((0, ONE, 0, ONE, 0), lambda pixels: pixels.transpose(1, 0, 2)),
        ((0, ONE, 0, -ONE, 0), lambda pixels: np.rot90(pixels, -1)),
        ((0, -ONE, 0, -ONE, 0), lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2)),
    ],
    ids=["mirrored", "upside down and mirrored", "half a turn", "sides", "a turn", "other sides"],
)
def test_a_video_tagged_as_mirrored_is_mirrored(tmp_path, matrix, shown):
    (expected,) = pictures(1, size=(6, 10))
    write_video(tmp_path / "a.mov", [expected], codec="qtrle", kind="rgb24")
    data = bytearray((tmp_path / "a.mov").read_bytes())
    struct.pack_into(">5i", data, data.index(b"tkhd") + 44, *matrix)
    (tmp_path / "a.mov").write_bytes(bytes(data))

    _, (found,) = decoded(tmp_path / "a.mov")

    np.testing.assert_array_equal(found.pixels, shown(expected))


def test_the_pixel_aspect_ratio_is_written_to_the_frames(tmp_path):
    aspect = {"sample_aspect_ratio": Fraction(16, 11)}
    write_video(tmp_path / "a.mp4", pictures(1), codec="libx264", kind="yuv420p", tags=aspect)

    decoded(tmp_path / "a.mp4")

    found = dict(png.chunks((tmp_path / "frames" / "a_000000.png").read_bytes()))
    assert found["pHYs"] == (10_000).to_bytes(4) + (14_545).to_bytes(4) + b"\0"


def test_only_wide_gamut_colours_are_tagged_in_the_frames(tmp_path):
    for name, tags in (("hdr", (9, 16)), ("sdr", (1, 1))):
        write_video(
            tmp_path / f"{name}.mkv",
            pictures(1),
            kind="yuv444p10le",
            tags={"color_primaries": tags[0], "color_trc": tags[1], "colorspace": 9},
        )
    video.decode(tmp_path / "hdr.mkv", tmp_path / "hdr")
    video.decode(tmp_path / "sdr.mkv", tmp_path / "sdr")

    assert dict(png.chunks((tmp_path / "hdr" / "hdr_000000.png").read_bytes()))["cICP"] == bytes([9, 16, 0, 1])
    assert "cICP" not in dict(png.chunks((tmp_path / "sdr" / "sdr_000000.png").read_bytes()))


def test_every_frame_of_a_variable_rate_is_written_once(tmp_path, caplog):
    expected = pictures(4, size=(6, 8))
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 8, 6, "bgr0"
        for time, pixels in zip((0, 40, 200, 240), expected, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

    clip, found = decoded(tmp_path / "a.mkv")

    assert clip.frames == 4
    np.testing.assert_array_equal(found[2].pixels, expected[2])
    assert "a.mkv has a variable frame rate: every frame is rendered once, in order" in caplog.messages


def smooth(count):
    """Return frames that a codec predicts from each other."""
    ramp = np.add.outer(np.arange(48), np.arange(64))[:, :, None].repeat(3, axis=2)
    return [(ramp + 5 * number).astype(np.uint8) for number in range(count)]


def test_frames_hidden_by_an_edit_list_are_skipped(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, smooth(24), codec="libx264", kind="yuv420p", tags={"gop_size": 6})
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 12
    assert struct.unpack_from(">I", data, place) == (1000,)  # milliseconds
    struct.pack_into(">I", data, place, 500)
    path.write_bytes(bytes(data))

    assert decoded(path)[0].frames == 12


def copied(path, target, keep):
    """Copy the packets of a video whose number ``keep`` accepts."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and keep(number):
                packet.stream = stream
                container.mux(packet)


def test_an_avi_with_dropped_frames_is_complete(tmp_path):
    expected = pictures(10)
    write_video(tmp_path / "a.avi", expected, codec="rawvideo", kind="bgr24")
    copied(tmp_path / "a.avi", tmp_path / "b.avi", lambda number: number not in {3, 4})

    clip, found = decoded(tmp_path / "b.avi")

    assert clip.frames == 8
    np.testing.assert_array_equal(found[3].pixels, expected[5])


def test_a_video_without_its_first_key_frame_is_rejected(tmp_path):
    write_video(tmp_path / "a.mkv", smooth(24), codec="libx264", kind="yuv420p", tags={"gop_size": 12})
    copied(tmp_path / "a.mkv", tmp_path / "b.mkv", lambda number: number >= 3)

    check(error_of(tmp_path / "b.mkv"), "video.no_beginning", "video b.mkv", "8 of its 21 frames")


def test_undecodable_leading_frames_are_logged(tmp_path, caplog):
    tags = {"gop_size": 12, "options": {"bf": "2"}}
    write_video(tmp_path / "a.ts", smooth(40), codec="mpeg2video", kind="yuv420p", rate=25, tags=tags)
    copied(tmp_path / "a.ts", tmp_path / "b.ts", lambda number: number >= 10)

    assert decoded(tmp_path / "a.ts")[0].frames == 40
    assert not [each for each in caplog.records if each.levelname == "WARNING"]
    assert decoded(tmp_path / "b.ts")[0].frames == 28
    lost = "2 of its 30 frames depend on one before the cut and are left out"
    assert f"b.ts was cut between key frames: {lost}" in caplog.messages


def test_a_video_of_unknown_length_is_logged(tmp_path, caplog):
    write_video(tmp_path / "a.ts", smooth(4), codec="libx264", kind="yuv420p", rate=25)

    with caplog.at_level(logging.INFO):
        decoded(tmp_path / "a.ts")

    assert (
        caplog.messages[-1] == "a.ts states neither its number of frames nor its duration; a missing end goes unnoticed"
    )


def test_an_unknown_codec_is_rejected(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, pictures(), codec="mpeg4", kind="yuv420p")
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"zzzz").replace(b"esds", b"free"))

    check(error_of(path), "video.unknown_codec", "video a.mp4")


def test_interlaced_frames_are_not_deinterlaced(tmp_path, caplog):
    # flags: interlaced DCT and motion estimation
    write_video(
        tmp_path / "a.mkv",
        pictures(3),
        codec="mpeg2video",
        kind="yuv420p",
        rate=25,
        tags={"flags": 0x20000000 | 0x40000},
    )

    clip, _ = decoded(tmp_path / "a.mkv")

    assert clip.frames == 3
    assert "a.mkv is interlaced; its frames are not deinterlaced" in caplog.messages


@pytest.mark.parametrize("data", [b"", b"<!DOCTYPE html>" * 100], ids=["empty", "html"])
def test_a_file_that_is_not_a_video_is_rejected(tmp_path, data):
    (tmp_path / "a.mov").write_bytes(data)

    check(error_of(tmp_path / "a.mov"), "video.unreadable", "video a.mov", "Invalid data found when processing input")


def test_an_audio_file_is_rejected(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))

    check(error_of(tmp_path / "a.mkv"), "video.no_video", "a.mkv")


BROKEN = {"video.truncated", "video.damaged", "video.unreadable", "video.unknown_codec", "video.no_video"}
"""Error codes of truncated videos."""


@pytest.mark.parametrize(
    ("suffix", "codec", "kind"),
    [
        (".mkv", "ffv1", "bgr0"),
        (".mkv", "libx264", "yuv420p"),
        (".mp4", "libx264", "yuv420p"),
        (".mov", "prores_ks", "yuv422p10le"),
        (".avi", "mjpeg", "yuvj420p"),
        (".mxf", "mpeg2video", "yuv420p"),
        (".mxf", "prores_ks", "yuv422p10le"),
    ],
)
@pytest.mark.parametrize(("count", "parts"), [(10, (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)), (40, (0.5, 0.9, 0.99))])
def test_a_truncated_video_is_rejected_unless_all_frames_remain(tmp_path, suffix, codec, kind, count, parts):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"a{suffix}"
    write_video(whole, pictures(count), codec=codec, kind=kind, rate=25)
    assert decoded(whole)[0].frames == count
    shutil.rmtree(tmp_path / "frames")
    data = whole.read_bytes()
    for part in parts:
        path.write_bytes(data[: int(len(data) * part)])
        try:
            assert video.decode(path, tmp_path / "frames").frames == count
            shutil.rmtree(tmp_path / "frames")
        except SequenceError:
            error = error_of(path)
            assert error.code in BROKEN
            check(error, error.code, f"a{suffix}")


@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_a_matroska_that_was_cut_within_its_first_second_is_rejected(tmp_path, codec):
    whole, path = tmp_path / "whole.mkv", tmp_path / "a.mkv"
    write_video(whole, pictures(10, size=(48, 64)), codec=codec, kind="yuv420p", rate=25)
    data = whole.read_bytes()
    for part in range(2, 20):
        path.write_bytes(data[: len(data) * part // 20])
        assert error_of(path).code in BROKEN


def test_a_whole_matroska_of_a_single_frame_is_accepted(tmp_path):
    write_video(tmp_path / "a.mkv", pictures(1), codec="libx264", kind="yuv420p", rate=25)

    assert decoded(tmp_path / "a.mkv")[0].frames == 1


@pytest.mark.parametrize(
    ("suffix", "codec", "kind"),
    [(".mkv", "ffv1", "bgr0"), (".mp4", "libx264", "yuv420p"), (".mov", "prores_ks", "yuv422p10le")],
)
def test_a_damaged_video_is_rejected_with_the_frame_number(tmp_path, suffix, codec, kind):
    path = tmp_path / f"a{suffix}"
    write_video(path, pictures(20, size=(96, 128)), codec=codec, kind=kind)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(np.random.default_rng(0).integers(0, 256, 2000, dtype=np.uint8))
    path.write_bytes(bytes(data))

    check(error_of(path), "video.damaged", f"video a{suffix}", "frame ")


def test_an_interrupted_decoding_leaves_no_frames_folder(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mkv", pictures())
    monkeypatch.setattr(video, "_write_frame", lambda *arguments: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        video.decode(tmp_path / "a.mkv", tmp_path / "frames")
    assert not (tmp_path / "frames").exists()
    monkeypatch.undo()

    assert decoded(tmp_path / "a.mkv")[0].frames == 5


def test_pillow_reads_decoded_frames(tmp_path):
    expected = pictures(1)
    write_video(tmp_path / "a.mkv", expected)
    video.decode(tmp_path / "a.mkv", tmp_path / "frames")

    np.testing.assert_array_equal(read_frame(tmp_path / "frames" / "a_000000.png"), expected[0])
    assert Image.open(io.BytesIO((tmp_path / "frames" / "a_000000.png").read_bytes())).mode == "RGB"
