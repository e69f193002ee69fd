"""Scanning folders and videos: order, refusals, cache and fingerprint."""

import io
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
import tifffile
from dailies.core import files
from dailies.core.errors import SequenceError
from dailies.frames import scan
from dailies.frames.sequence import Sequence, load, save
from dailies.state.layout import Layout
from helpers import REPOSITORY
from helpers.bmp_files import with_fields
from helpers.images import read_frame, write_frame, write_video
from helpers.raising import check, refused
from PIL import Image

SCRIPTS = REPOSITORY / "scripts"


@pytest.fixture
def shot(tmp_path):
    """A folder with three frames."""
    folder = tmp_path / "shot"
    folder.mkdir()
    for number in range(3):
        write_frame(folder / f"frame_{number:03d}.png", seed=number)
    return folder


def read(folder, on_bad_frame="error"):
    return scan.scan(folder, on_bad_frame=on_bad_frame, cache=Layout(folder.parent).scan, threads=2)


def error_of_scan(folder, on_bad_frame="error"):
    with pytest.raises(SequenceError) as error:
        read(folder, on_bad_frame)
    return error.value


def names(sequence):
    return [frame.name for frame in sequence.frames]


def test_frames_are_in_natural_order(shot):
    for name in ("frame_10.png", "frame_2.png", "Frame_3.png", "frame_2b.png", "frame.png", "a_11_x.png", "a_9_y.png"):
        write_frame(shot / name, seed=0)

    assert names(read(shot)) == [
        "a_9_y.png",
        "a_11_x.png",
        "frame.png",
        "frame_000.png",
        "frame_001.png",
        "frame_002.png",
        "frame_2.png",
        "frame_2b.png",
        "Frame_3.png",
        "frame_10.png",
    ]


@pytest.mark.parametrize(
    ("name", "rendered"),
    [("frame_007.png", "frame_007.png"), ("A.JPG", "A.png"), ("shot.v2.0013.tiff", "shot.v2.0013.png")],
)
def test_a_rendered_frame_keeps_its_name(name, rendered):
    assert scan.output_name(name) == rendered


@pytest.mark.parametrize(
    ("output_format", "of_integers", "of_floats"),
    [
        ("auto", "a.0007.png", "a.0007.exr"),
        ("png", "a.0007.png", "a.0007.png"),
        ("png16", "a.0007.png", "a.0007.png"),
        ("exr", "a.0007.exr", "a.0007.exr"),
        ("tiff", "a.0007.tif", "a.0007.tif"),
    ],
)
def test_the_suffix_of_a_rendered_frame_is_that_of_its_format(output_format, of_integers, of_floats):
    assert scan.output_name("a.0007.dpx", floating=False, output_format=output_format) == of_integers
    assert scan.output_name("a.0007.exr", floating=True, output_format=output_format) == of_floats


def test_suffixes_are_case_insensitive(tmp_path):
    image = Image.new("RGB", (7, 5))
    for number, ending in enumerate(("png", "PNG", "jpg", "Jpg", "JPEG", "bmp", "BMP", "tif", "TIFF", "tiff")):
        image.save(tmp_path / f"{number}.{ending}")

    assert len(scan.list_frames(tmp_path)) == 10


def test_other_files_are_ignored_and_logged(shot, caplog):
    (shot / "notes.txt").write_text("graded")
    (shot / "sub.png").mkdir()
    (shot / "frame_000.gif").write_bytes(b"")
    (shot / ".frame_009.png").write_bytes(b"hidden")
    (shot / "._frame_000.png").write_bytes(b"what macOS leaves behind")

    with caplog.at_level(logging.INFO):
        assert len(read(shot).frames) == 3

    (note,) = caplog.messages
    assert note == "not frames, ignored: ._frame_000.png, .frame_009.png, frame_000.gif, notes.txt, sub.png"


def test_many_other_files_are_counted(shot, caplog):
    for number in range(20):
        (shot / f"{number:02d}.txt").touch()

    with caplog.at_level(logging.INFO):
        read(shot)

    assert caplog.messages == ["not frames, ignored: 00.txt, 01.txt, 02.txt, 03.txt, 04.txt and 15 more"]


def test_a_folder_of_frames_only_logs_nothing(shot, caplog):
    with caplog.at_level(logging.INFO):
        read(shot)

    assert not caplog.messages


def test_different_sizes_and_kinds_are_recorded(shot):
    write_frame(shot / "frame_003.png", seed=3, size=(40, 9))
    Image.new("L", (3, 2)).save(shot / "frame_004.bmp")

    sequence = read(shot)

    assert [(frame.width, frame.height, frame.mode, frame.bit_depth) for frame in sequence.frames] == [
        (7, 5, "RGB", 8),
        (7, 5, "RGB", 8),
        (7, 5, "RGB", 8),
        (40, 9, "RGB", 8),
        (3, 2, "L", 8),
    ]
    assert sequence.frames[4].output == "frame_004.png"
    assert sequence.frames[3].size == (shot / "frame_003.png").stat().st_size
    assert sequence.largest == 360


@pytest.mark.parametrize(
    ("mode", "recorded"), [("L", "L"), ("LA", "LA"), ("P", "RGB"), ("RGBA", "RGBA"), ("1", "L"), ("CMYK", "RGB")]
)
def test_every_mode_of_8_bit_frames_is_accepted(tmp_path, mode, recorded):
    (tmp_path / "shot").mkdir()
    Image.new(mode, (7, 5)).save(tmp_path / "shot" / ("a.tif" if mode == "CMYK" else "a.png"))

    (frame,) = read(tmp_path / "shot").frames

    assert frame.mode == recorded


def break_frames(shot):
    """Make the second and the last three of six frames unreadable, each in a different way."""
    whole = (shot / "frame_001.png").read_bytes()
    (shot / "frame_001.png").write_bytes(whole[: len(whole) // 2])
    (shot / "frame_003.png").write_bytes(b"")
    tifffile.imwrite(shot / "frame_004.tif", np.zeros((5, 7), np.uint8), photometric=32803)
    (shot / "frame_005.png").symlink_to(shot / "moved.png")


def test_bad_frames_are_listed_with_their_reasons(shot):
    break_frames(shot)

    bad = ("frame frame_001.png", "frame frame_003.png", "frame frame_004.tif", "frame frame_005.png")
    check(error_of_scan(shot), "sequence.unusable_frames", "4 of 6 frames", *bad, "No such file", "on_bad_frame")


def test_skipped_frames_leave_a_gap(shot, caplog):
    break_frames(shot)

    sequence = read(shot, "skip")

    assert [frame.output for frame in sequence.frames] == ["frame_000.png", "frame_002.png"]
    assert [each["name"] for each in sequence.skipped] == [
        "frame_001.png",
        "frame_003.png",
        "frame_004.tif",
        "frame_005.png",
    ]
    assert sequence.skipped[1]["reason"] == "frame frame_003.png cannot be read: it is empty"
    assert "skipped: frame frame_003.png cannot be read: it is empty" in caplog.messages


def test_a_repaired_frame_closes_the_gap(shot):
    break_frames(shot)
    read(shot, "skip")

    write_frame(shot / "frame_003.png", seed=9)

    assert names(read(shot, "skip")) == ["frame_000.png", "frame_002.png", "frame_003.png"]


@pytest.mark.parametrize("on_bad_frame", ["error", "skip"])
def test_a_sequence_of_only_bad_frames_is_rejected(shot, on_bad_frame):
    for path in shot.iterdir():
        path.write_bytes(b"")

    error = error_of_scan(shot, on_bad_frame)

    check(error, "sequence.unusable_frames", "3 of 3 frames", "frame frame_000.png", "empty", "input_dir")


def test_a_hundred_bad_frames_make_a_short_error(tmp_path):
    (tmp_path / "shot").mkdir()
    for number in range(100):
        (tmp_path / "shot" / f"{number}.png").touch()

    error = error_of_scan(tmp_path / "shot")

    check(error, "sequence.unusable_frames", "frame 4.png", "and 95 more")
    assert len(str(error)) < 400


def test_two_frames_with_the_same_rendered_name_are_rejected(shot):
    Image.new("RGB", (7, 5)).save(shot / "frame_001.jpg")

    check(error_of_scan(shot, "skip"), "sequence.name_collision", "frame_001.jpg, frame_001.png")


def stamp(folder):
    return scan.fingerprint(folder, Layout(folder.parent).scan)


@pytest.mark.parametrize("look", [read, stamp])
def test_an_unusable_folder_is_an_error_with_advice(tmp_path, look):
    missing, file, empty = tmp_path / "missing", tmp_path / "clip.gif", tmp_path / "empty"
    file.touch()
    empty.mkdir()
    (empty / "notes.txt").touch()

    for folder, code, advice in (
        (missing, "sequence.missing", "set input_dir"),
        (file, "sequence.not_a_folder", ".mov .mp4 .m4v .mkv .webm .avi .mxf .ts .mts .m2ts .mpg .mpeg"),
        (empty, "sequence.no_frames", ".png .jpg .jpeg .bmp .tif .tiff .exr .dpx .webp .tga .hdr .jp2 .cin"),
    ):
        with refused(SequenceError, code, f"input_dir {folder}", advice):
            look(folder)


def test_a_path_truncated_by_a_yaml_comment_is_suggested(tmp_path):
    (tmp_path / "take #2").mkdir()

    there = f"'{tmp_path}/take #2'"
    with refused(SequenceError, "sequence.missing", f"input_dir {tmp_path}/take ", there, "quote the path"):
        scan.list_frames(tmp_path / "take")


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_a_folder_in_another_unicode_form_is_suggested(tmp_path):
    (tmp_path / DECOMPOSED).mkdir()

    with refused(SequenceError, "sequence.missing", r"'cafe\u0301'"):
        scan.list_frames(tmp_path / COMPOSED)


def test_two_frames_that_differ_only_in_unicode_form_are_rejected(tmp_path):
    (tmp_path / "shot").mkdir()
    for name in (COMPOSED, DECOMPOSED):
        write_frame(tmp_path / "shot" / f"{name}.png", seed=0)

    check(error_of_scan(tmp_path / "shot"), "sequence.name_collision", r"'cafe\u0301.png', 'caf\xe9.png'", "Unicode")


@pytest.mark.parametrize(("before", "after"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_frames_that_reappear_in_another_unicode_form_are_the_same(tmp_path, before, after):
    shot = tmp_path / "shot"
    shot.mkdir()
    write_frame(shot / f"{before}_1.png", seed=1)
    first = read(shot)
    (shot / f"{before}_1.png").rename(shot / f"{after}_1.png")
    write_frame(shot / f"{after}_2.png", seed=2)

    second = read(shot)
    third = scan.scan(shot, on_bad_frame="error", cache=Layout(shot.parent).scan, output_format="exr")

    assert [frame.name for frame in second.frames] == [f"{after}_1.png", f"{after}_2.png"]
    assert [frame.output for frame in second.frames] == [f"{before}_1.png", f"{after}_2.png"]
    assert first.digest == Sequence(second.frames[:1]).digest
    assert [frame.output for frame in third.frames] == [f"{before}_1.exr", f"{after}_2.exr"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)

    with refused(SequenceError, "sequence.unreadable", f"input_dir {loop}", "Too many levels of symbolic links"):
        scan.list_frames(loop)


def test_the_fingerprint_is_stable(shot, tmp_path):
    before = stamp(shot)
    (shot / "notes.txt").touch()
    shutil.copytree(shot, tmp_path / "elsewhere")

    assert stamp(shot) == before == stamp(tmp_path / "elsewhere")


def rewrite(shot):
    path = shot / "frame_001.png"
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda shot: write_frame(shot / "frame_003.png", seed=3),
        lambda shot: (shot / "frame_001.png").unlink(),
        lambda shot: (shot / "frame_001.png").rename(shot / "frame_009.png"),
        lambda shot: (shot / "frame_001.png").write_bytes(b"shorter"),
        lambda shot: (shot / "frame_009.png").symlink_to("nowhere"),
        rewrite,
    ],
    ids=["added", "removed", "renamed", "cut", "broken link", "written again"],
)
def test_the_fingerprint_changes_with_the_frames(shot, change):
    before = stamp(shot)

    change(shot)

    assert stamp(shot) != before


def test_a_cached_frame_is_not_read_again(shot):
    before = read(shot)
    path = shot / "frame_001.png"
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size))  # unreadable, if it were read
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert read(shot) == before


def test_only_nonempty_revisions_are_recorded(shot, tmp_path):
    Image.new("RGB", (8, 8)).save(shot / "frame_003.bmp")
    (shot / "frame_004.bmp").write_bytes(with_fields(32, ((0, 8), (8, 8), (16, 8)))[0])

    sequence = read(shot)
    save(sequence, tmp_path / "sequence.json")

    recorded = files.read_json(tmp_path / "sequence.json")["frames"]
    assert [frame.get("revision") for frame in recorded] == [None, None, None, None, "bmp-1"]
    assert load(tmp_path / "sequence.json") == sequence
    assert read(shot) == sequence


def test_a_later_version_reads_frames_again(shot, monkeypatch):
    before = scan.fingerprint(shot, Layout(shot.parent).scan)
    read(shot)
    monkeypatch.setattr(scan, "READER_VERSION", scan.READER_VERSION + 1)
    described, describe = [], scan._inspect
    monkeypatch.setattr(scan, "_inspect", lambda path, layer: (described.append(path.name), describe(path, layer))[1])

    read(shot)

    assert sorted(described) == ["frame_000.png", "frame_001.png", "frame_002.png"]
    assert scan.fingerprint(shot, Layout(shot.parent).scan) != before


def test_a_modified_frame_is_read_again(shot):
    before = read(shot)
    path = shot / "frame_001.png"
    write_frame(path, seed=77)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))

    after = read(shot)

    changed = [old.name for old, new in zip(before.frames, after.frames, strict=True) if old != new]
    assert changed == ["frame_001.png"]
    assert after.digest != before.digest


@pytest.mark.parametrize("content", ["", "{", "[]", '{"frame_000.png|1|1": {"name": "of an older version"}}'])
def test_an_unreadable_cache_is_ignored(shot, tmp_path, content):
    before = read(shot)
    Layout(tmp_path).scan.frames.write_text(content)

    assert read(shot) == before


def test_bad_frames_are_not_cached(shot):
    break_frames(shot)

    assert str(error_of_scan(shot)) == str(error_of_scan(shot))


def test_a_saved_sequence_is_reproducible(shot, tmp_path):
    save(read(shot), tmp_path / "one.json")
    shutil.copytree(shot, tmp_path / "copy" / "shot", copy_function=shutil.copy)
    os.utime(tmp_path / "copy" / "shot" / "frame_001.png", (0, 0))
    save(read(tmp_path / "copy" / "shot"), tmp_path / "other.json")

    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "other.json").read_bytes()


def test_a_saved_sequence_can_be_loaded(shot, tmp_path):
    break_frames(shot)
    sequence = read(shot, "skip")

    save(sequence, tmp_path / "sequence.json")

    assert load(tmp_path / "sequence.json") == sequence
    assert load(tmp_path / "sequence.json").digest == sequence.digest


def test_a_renamed_frame_changes_the_digest(shot):
    digest = read(shot).digest
    (shot / "frame_002.png").rename(shot / "frame_003.png")

    assert read(shot).digest != digest


def test_undecodable_file_names_are_supported(shot, tmp_path):
    odd = os.fsdecode(b"frame_\xff|9.png")
    shutil.copy(shot / "frame_000.png", shot / odd)

    save(read(shot), tmp_path / "sequence.json")
    frames = load(tmp_path / "sequence.json").frames

    assert odd in [frame.name for frame in frames]
    assert names(read(shot)) == [frame.name for frame in frames]


def write_float(path, channels=("R", "G", "B")):
    frame = np.random.default_rng(0).random((5, 7, len(channels)), dtype=np.float32)
    spec = oiio.ImageSpec(7, 5, len(channels), "half")
    spec.channelnames = channels
    file = oiio.ImageOutput.create(str(path))
    file.open(str(path), spec)
    assert file.write_image(frame)
    file.close()


LAYERS = tuple(f"{layer}.{c}" for layer in ("beauty", "specular") for c in "RGB")


def test_a_layer_is_part_of_the_contents_of_a_frame(shot):
    write_float(shot / "frame_003.exr", LAYERS)
    plain = read(shot)

    other = scan.scan(shot, on_bad_frame="skip", cache=Layout(shot.parent).scan, layer="spec*")
    again = read(shot)

    assert [frame.layer for frame in plain.frames] == ["", "", "", "beauty"]
    assert (names(other), other.frames[0].layer, other.layer) == (["frame_003.exr"], "specular", "spec*")
    assert "frame frame_000.png has no layer 'spec*'" in other.skipped[0]["reason"]
    assert other.frames[0].contents != plain.frames[3].contents
    assert plain.frames[0].contents == [plain.frames[0].sha256]
    assert again == plain
    assert Sequence(plain.frames[3:]).digest != Sequence(other.frames).digest
    for sequence in (plain, other):
        save(sequence, shot.parent / "sequence.json")
        assert load(shot.parent / "sequence.json") == sequence


def test_only_a_set_layer_is_saved(shot):
    save(read(shot), shot.parent / "sequence.json")

    assert "layer" not in (shot.parent / "sequence.json").read_text()


def test_the_fingerprint_changes_with_the_layer(shot):
    cache = Layout(shot.parent).scan

    assert len({scan.fingerprint(shot, cache, layer) for layer in (None, "a", "b")}) == 3


def test_a_video_has_no_layers(clip):
    with refused(SequenceError, "video.no_layers", "'beauty'", "clip.mkv"):
        scan.scan(clip, on_bad_frame="error", cache=Layout(clip.parent).scan, layer="beauty")


def test_floats_are_rendered_to_exr_whatever_their_suffix(shot):
    write_float(shot / "frame_003.exr")
    Image.fromarray(np.zeros((5, 7), np.float32)).save(shot / "frame_004.tif")

    frames = read(shot).frames[3:]

    assert [frame.output for frame in frames] == ["frame_003.exr", "frame_004.exr"]
    assert [(frame.floating, frame.mode, frame.bit_depth) for frame in frames] == [(True, "RGB", 16), (True, "L", 32)]


def test_another_output_format_renames_cached_frames(shot):
    before = read(shot)
    after = scan.scan(shot, on_bad_frame="error", cache=Layout(shot.parent).scan, output_format="exr")

    assert [frame.output for frame in after.frames] == ["frame_000.exr", "frame_001.exr", "frame_002.exr"]
    assert after.digest != before.digest


def test_frames_that_differ_only_in_suffix_are_rejected(shot):
    write_float(shot / "frame_001.exr")

    check(error_of_scan(shot), "sequence.name_collision", "frame_001.exr, frame_001.png")


def test_a_note_is_logged_once_for_all_its_frames(shot, caplog):
    for number in range(3, 10):
        write_float(shot / f"frame_{number:03d}.exr", ("R", "G", "B", "Z"))

    read(shot)
    again = read(shot)

    named = "frame_003.exr, frame_004.exr, frame_005.exr, frame_006.exr, frame_007.exr and 2 more"
    assert caplog.messages == [f"{named}: channels Z are kept in EXR only"] * 2
    save(again, shot.parent / "sequence.json")
    assert load(shot.parent / "sequence.json") == again


def choose(folder, frames):
    return scan.scan(folder, on_bad_frame="error", cache=Layout(folder.parent).scan, frames=frames, threads=2)


def test_frames_that_are_not_chosen_are_not_read_but_have_their_places(shot):
    whole = read(shot)
    (shot / "frame_001.png").write_bytes(b"no image")

    few = choose(shot, 2)
    save(few, shot.parent / "sequence.json")

    assert few.frames == (whole.frames[0], whole.frames[2])
    assert (few.positions, few.before, few.choice) == ((0, 2), {}, "2 of 3 frames")
    assert load(shot.parent / "sequence.json") == few


def test_frames_that_were_read_before_are_not_read_again_after_a_smaller_choice(shot, monkeypatch):
    whole = read(shot)
    choose(shot, 1)
    monkeypatch.setattr(scan, "_inspect", None)

    assert read(shot) == whole
    assert choose(shot, "1:").before == {whole.frames[2]: whole.frames[1]}
    assert choose(shot, 3) == whole


def test_names_collide_even_if_only_one_of_them_is_chosen(shot):
    write_frame(shot / "frame_001.jpg", seed=0)

    with refused(SequenceError, "sequence.name_collision"):
        choose(shot, 2)


def test_a_choice_of_frames_is_part_of_the_fingerprint(shot):
    cache = Layout(shot.parent).scan

    assert scan.fingerprint(shot, cache, None, "all") == scan.fingerprint(shot, cache)
    assert len({scan.fingerprint(shot, cache, None, frames) for frames in ("all", 2, "0:2")}) == 3


@pytest.fixture
def clip(tmp_path):
    """A video of four grey frames."""
    path = tmp_path / "clip.mkv"
    write_video(path, [np.full((6, 8, 3), 50 * number, np.uint8) for number in range(4)])
    return path


def test_a_video_is_scanned_as_numbered_frames(clip, tmp_path):
    sequence, layout = read(clip), Layout(tmp_path)
    save(sequence, layout.sequence)

    assert [frame.output for frame in sequence.frames] == [f"clip_{number:06d}.png" for number in range(4)]
    assert (sequence.folder, sequence.fps) == (layout.scan.video, 24)
    assert load(layout.sequence) == sequence
    assert [int(read_frame(sequence.folder / frame.name)[0, 0, 0]) for frame in sequence.frames] == [0, 50, 100, 150]


def test_frames_of_a_video_are_chosen_from_all_that_it_holds(clip, tmp_path):
    found = choose(clip, 2)

    assert names(found) == ["clip_000000.png", "clip_000003.png"]
    assert (found.choice, found.folder, found.fps) == ("2 of 4 frames", Layout(tmp_path).scan.video, 24)


def test_a_sequence_of_a_video_can_be_moved(clip, tmp_path):
    save(read(clip), Layout(tmp_path).sequence)
    moved = Layout(tmp_path.rename(tmp_path.with_name("moved")))

    assert load(moved.sequence).folder == moved.scan.video


def test_a_video_is_decoded_once(clip, monkeypatch):
    before = read(clip)
    times = [path.stat().st_mtime_ns for path in sorted(before.folder.iterdir())]

    assert read(clip) == before
    assert [path.stat().st_mtime_ns for path in sorted(before.folder.iterdir())] == times


def test_another_video_or_lost_frames_are_decoded_again(clip):
    cache = Layout(clip.parent).scan
    before, first = read(clip), scan.fingerprint(clip, cache)
    shutil.rmtree(before.folder)

    assert scan.fingerprint(clip, cache) != first
    assert read(clip) == before
    assert scan.fingerprint(clip, cache) == first
    (before.folder / "clip_000002.png").unlink()
    assert read(clip) == before
    write_video(clip, [np.zeros((6, 8, 3), np.uint8)] * 2)
    assert scan.fingerprint(clip, cache) != first
    assert len(read(clip).frames) == 2


def test_a_damaged_video_is_rejected_every_time(clip):
    clip.write_bytes(b"")

    for _ in range(2):
        check(error_of_scan(clip), "video.unreadable", "video clip.mkv", "Invalid data found when processing input")


def test_a_jpeg_is_described_by_its_own_bytes(shot):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    (shot / "frame_003.JPG").write_bytes(buffer.getvalue())

    about = asdict(read(shot).frames[3])

    assert about | {"sha256": None} == {
        "name": "frame_003.JPG",
        "output": "frame_003.png",
        "width": 8,
        "height": 8,
        "mode": "RGB",
        "bit_depth": 8,
        "floating": False,
        "notes": (),
        "revision": "",
        "layer": "",
        "size": len(buffer.getvalue()),
        "sha256": None,
    }


def test_fingerprints_import_no_heavy_libraries(shot):
    code = (
        "import sys; from pathlib import Path;"
        "from dailies.frames import scan; from dailies.state import layout, manifest;"
        f"scan.fingerprint(Path({str(shot)!r}), layout.Layout(Path('out')).scan);"
        "print({'numpy', 'PIL', 'OpenImageIO', 'av', 'torch', 'mlflow'} & set(sys.modules))"
    )

    printed = subprocess.check_output([sys.executable, "-c", code], env={"PYTHONPATH": str(SCRIPTS)}, text=True)

    assert printed == "set()\n"
