"""The record of a reference, its messages and its fingerprint."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from dailies.core.errors import SequenceError
from dailies.frames import scan, sequence
from dailies.frames.reference import (
    Reference,
    ReferenceSettings,
    check,
    fingerprint,
    load,
    load_if_any,
    missing_message,
    write,
)
from dailies.frames.sequence import Frame, Sequence, save
from dailies.planning.config import Settings
from dailies.state.layout import Layout
from helpers.images import write_video
from helpers.json_files import strict_json
from helpers.raising import refused
from PIL import Image


def shot(*names: str) -> Sequence:
    return Sequence(
        tuple(Frame(name, f"{Path(name).stem}.png", 7, 5, "RGB", 8, 1, sha256=name) for name in names),
    )


@pytest.fixture
def folder(tmp_path):
    """Return a function that creates files in the folder of the reference."""

    def fill(*names: str) -> Path:
        for name in names:
            path = tmp_path / "clean" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        return tmp_path / "clean"

    return fill


@pytest.fixture
def paired(tmp_path):
    """Return a function that pairs a reference with named frames, or with a known sequence."""

    def pair(place: Path, *names: str, known: Sequence | None = None, **how) -> Reference:
        save(known or shot(*names), Layout(tmp_path).sequence)
        output = Layout(tmp_path).pairing
        write(
            ReferenceSettings(place, **how),
            sequence_file=Layout(tmp_path).sequence,
            input_dir=tmp_path / "shot",
            transfer="clip",
            cache=Layout(tmp_path).reference_scan,
            output=output,
            threads=1,
        )
        return load(output)

    return pair


def grey(number: int) -> np.ndarray:
    return np.full((6, 8, 3), 40 * number, np.uint8)


def moving(number: int) -> np.ndarray:
    """Return a frame of a pan by four pixels per frame."""
    wide = np.random.default_rng(3).integers(0, 256, (6, 30), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([wide[:, 4 * number : 4 * number + 64]] * 3, axis=2)


def test_frames_are_paired_by_name_and_the_report_says_so(folder, paired, tmp_path):
    place = folder("frame_1.exr", "frame_2.TIF", "notes.txt")

    reference = paired(place, "frame_1.png", "frame_2.png")

    assert reference.paths == {"frame_1.png": place / "frame_1.exr", "frame_2.png": place / "frame_2.TIF"}
    assert reference.report == ["reference: 2 frames paired by name"]
    assert load_if_any([str(Layout(tmp_path).pairing)]) == reference
    assert load_if_any([]) is None


def test_unpaired_frames_and_files_are_reported(folder, paired):
    place = folder(*(f"clean.{number:04d}.png" for number in range(12, 18)))

    reference = paired(place, *(f"plate_{number}.dpx" for number in (*range(8, 14),)))

    assert {name: path.name for name, path in reference.paths.items()} == {
        "plate_12.png": "clean.0012.png",
        "plate_13.png": "clean.0013.png",
    }
    assert reference.report == [
        "reference: 2 of 6 frames paired by number",
        "4 frames of the reference not used: clean.0014.png, clean.0015.png, clean.0016.png and 1 more",
        "4 frames without a reference, not compared with one: plate_8.dpx, plate_9.dpx, plate_10.dpx and 1 more",
    ]


def test_every_method_and_ambiguous_frames_are_reported(folder, paired):
    place = folder("a_1.png", "x_2.png", "c_3.png", "d_3.png")

    assert paired(place, "a_1.png", "b_2.png", "e_3.png").report == [
        "reference: 2 of 3 frames paired, 1 by name and 1 by number",
        "1 frame not paired, because several files match; set reference_name to choose: e_3.png (c_3.png, d_3.png)",
        "2 frames of the reference not used: c_3.png, d_3.png",
        "1 frame without a reference, not compared with one: e_3.png",
    ]


def test_only_ambiguous_frames_are_an_error_that_lists_candidates(folder):
    place = folder("a_1.png", "a_1.jpg", "a_2.png", "a_2.jpg")

    candidates = "a_1.png (a_1.jpg, a_1.png); a_2.png (a_2.jpg, a_2.png)"
    with refused(SequenceError, "reference.ambiguous", str(place), "reference_name", candidates):
        check(ReferenceSettings(place), shot("a_1.png", "a_2.png"))


def test_a_template_and_an_offset_are_reported(folder, paired):
    place = folder("1/gt.png", "2/gt.png", "2/mask.png", "gt.png")

    reference = paired(place, "f_0.png", "f_1.png", template="{number}/gt", offset=1)

    assert reference.paths == {"f_0.png": place / "1" / "gt.png", "f_1.png": place / "2" / "gt.png"}
    assert reference.messages == (
        "reference: 2 frames paired by reference_name, with reference_offset 1",
        "1 frame of the reference not used: 2/mask.png",
    )


def test_a_shift_is_reported_with_the_offset_to_set(paired, tmp_path):
    for number in range(6):
        for kind, name in (("shot", f"f_{number}.png"), ("clean", f"{number + 1:04d}.png")):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(moving(number)).save(tmp_path / kind / name)
    known = scan.scan(tmp_path / "shot", on_bad_frame="error", cache=Layout(tmp_path).scan, threads=1)

    shifted, fixed = (paired(tmp_path / "clean", known=known, offset=offset) for offset in (0, 1))

    assert shifted.messages[-1] == (
        "warning: the reference seems to be shifted: frames match its frames 1 frame later far better than "
        "those that they are paired with; set reference_offset to 1 (it is 0)"
    )
    assert fixed.report == ["reference: 6 frames paired by number, with reference_offset 1"]
    assert fixed.paths["f_5.png"].name == "0006.png"
    few = scan.scan(tmp_path / "shot", on_bad_frame="error", cache=Layout(tmp_path).scan, frames=2, threads=1)
    spread = paired(tmp_path / "clean", known=few)
    assert spread.messages[-1] == shifted.messages[-1]
    assert {name: path.name for name, path in spread.paths.items()} == {"f_5.png": "0005.png"}
    assert spread.missing == "1 frame without a reference, not compared with one: f_0.png"
    assert (
        paired(tmp_path / "clean", known=known, offset=3).messages[-1].endswith("set reference_offset to 1 (it is 3)")
    )


def test_a_video_is_decoded_once_and_paired_by_number(paired, tmp_path):
    write_video(tmp_path / "clean.mkv", [grey(number) for number in range(4)])

    reference = paired(tmp_path / "clean.mkv", "f_0.png", "f_1.png", "f_4.png", offset=-1)

    home = Layout(tmp_path).reference_scan.folder
    assert reference.paths == {
        "f_1.png": home / "video" / "clean_000000.png",
        "f_4.png": home / "video" / "clean_000003.png",
    }
    assert reference.report[1:] == [
        "2 frames of the reference not used: clean_000001.png, clean_000002.png",
        "1 frame without a reference, not compared with one: f_0.png",
    ]
    assert int(np.asarray(Image.open(reference.paths["f_4.png"]))[0, 0, 0]) == 120
    written = (home / "video" / "clean_000000.png").stat().st_mtime_ns
    assert paired(tmp_path / "clean.mkv", "f_0.png").paths["f_0.png"].stat().st_mtime_ns == written
    moved = Layout(tmp_path).state.rename(tmp_path / "moved")
    assert load(moved / "reference.json").paths["f_0.png"].is_file()


def test_two_videos_are_paired_by_number(paired, tmp_path):
    for name in ("noisy.mkv", "clean.mkv"):
        write_video(tmp_path / name, [grey(number) for number in range(3)])
    known = scan.scan(tmp_path / "noisy.mkv", on_bad_frame="error", cache=Layout(tmp_path).scan, threads=1)

    reference = paired(tmp_path / "clean.mkv", known=known)

    assert [path.name for path in reference.paths.values()] == [f"clean_{number:06d}.png" for number in range(3)]
    assert reference.report == ["reference: 3 frames paired by number"]
    assert sorted(path.name for path in Layout(tmp_path).scan.video.iterdir())[0] == "noisy_000000.png"


def test_decoded_frames_are_deleted_if_the_reference_is_a_folder(folder, paired, tmp_path):
    write_video(tmp_path / "clean.mkv", [grey(1)])
    paired(tmp_path / "clean.mkv", "f_0.png")
    assert Layout(tmp_path).reference_scan.folder.is_dir()

    paired(folder("f_0.png"), "f_0.png")

    assert not Layout(tmp_path).reference_scan.folder.exists()


def test_the_record_is_reproducible_and_strict_json(folder, paired, tmp_path):
    record = Layout(tmp_path).pairing
    paired(folder("f_1.png"), "f_1.png")
    first = record.read_bytes()
    paired(folder("f_1.png"), "f_1.png")

    assert record.read_bytes() == first
    assert strict_json(record)["files"] == {"f_1.png": "f_1.png"}


def test_no_pair_at_all_is_an_error_with_both_names_and_an_offset(folder):
    place = folder("clean_101.png", "clean_102.png")

    both = ("clean_101.png, clean_102.png", "a_1.png, a_2.png")
    with refused(
        SequenceError, "reference.nothing_paired", str(place), *both, "reference_name", "reference_offset (100 "
    ):
        check(ReferenceSettings(place), shot("a_1.png", "a_2.png"))
    with refused(SequenceError, "reference.nothing_paired", "a.png", "reference_name"):
        check(ReferenceSettings(place), shot("a.png"))
    with refused(SequenceError, "reference.nothing_paired", "a_1.png", "5 frames", "reference_offset"):
        check(ReferenceSettings(place, offset=5), shot("a_1.png"))


def test_a_template_that_matches_nothing_is_an_error_with_the_expected_names(folder):
    place = folder("f_1_gt.png", "f_2_gt.png", "f_3_gt.png", "f_4_gt.png")

    there, wanted = "f_1_gt.png, f_2_gt.png, f_3_gt.png and 1 more", "f_1_clean.*, f_2_clean.*, f_3_clean.* and 2 more"
    with refused(SequenceError, "reference.name_matches_nothing", "'{stem}_clean'", str(place), there, wanted):
        check(ReferenceSettings(place, "{stem}_clean"), shot(*(f"f_{number}.png" for number in range(1, 6))))


def test_an_unpaired_video_advises_only_the_offset(tmp_path, paired):
    write_video(tmp_path / "clean.mkv", [grey(1)])

    with refused(SequenceError, "reference.nothing_paired", "reference_offset (-1001 ") as error:
        paired(tmp_path / "clean.mkv", "plate.1001.png")
    assert "reference_name" not in str(error.value)


def test_a_template_for_a_video_is_rejected(tmp_path):
    write_video(tmp_path / "clean.mkv", [grey(1)])

    with refused(SequenceError, "reference.name_for_video", "clean.mkv", "reference_name"):
        fingerprint(ReferenceSettings(tmp_path / "clean.mkv", "{stem}"), Layout(tmp_path).reference_scan)


def test_an_unusable_reference_dir_is_explained(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()

    for place, code, allowed in (
        ("gone", "reference.missing", "reference_dir"),
        ("file", "reference.not_a_folder", " ".join(sequence.VIDEOS)),
        ("empty", "reference.no_frames", " ".join(sequence.EXTENSIONS)),
    ):
        with refused(SequenceError, code, f"reference_dir {tmp_path / place}", allowed):
            fingerprint(ReferenceSettings(tmp_path / place), Layout(tmp_path).reference_scan)
    with refused(SequenceError, "reference.no_frames", "sub-folders"):
        fingerprint(ReferenceSettings(tmp_path / "empty", "{stem}/a"), Layout(tmp_path).reference_scan)


def test_the_fingerprint_depends_only_on_frames_and_pairing_settings(folder, tmp_path):
    place = folder("a_1.png", "a_2.png")
    first = fingerprint(ReferenceSettings(place), Layout(tmp_path).reference_scan)

    folder("notes.txt", ".hidden.png", "sub/a_3.png")
    assert fingerprint(ReferenceSettings(place), Layout(tmp_path).reference_scan) == first
    others = {
        fingerprint(ReferenceSettings(place, *how), Layout(tmp_path).reference_scan)
        for how in (("{stem}", 0), (None, 1), ("{stem}/a", 0))
    }
    os.utime(place / "a_1.png", ns=(1, 1))
    second = fingerprint(ReferenceSettings(place), Layout(tmp_path).reference_scan)
    folder("a_3.png")
    assert len({first, second, fingerprint(ReferenceSettings(place), Layout(tmp_path).reference_scan), *others}) == 6


def test_the_fingerprint_depends_on_a_video_and_its_decoded_frames(paired, tmp_path):
    settings, cache = ReferenceSettings(tmp_path / "clean.mkv"), Layout(tmp_path).reference_scan
    write_video(settings.place, [grey(1)])
    paired(settings.place, "f_0.png")
    first = fingerprint(settings, cache)

    shutil.rmtree(cache.video)
    assert fingerprint(settings, cache) != first
    paired(settings.place, "f_0.png")
    assert fingerprint(settings, cache) == first
    write_video(settings.place, [grey(1), grey(2)])
    assert fingerprint(settings, cache) != first


def test_missing_frames_are_listed_and_counted():
    assert missing_message([]) is None
    assert missing_message(["a", "b"]) == "2 frames without a reference, not compared with one: a, b"
    assert missing_message("abcdefg").endswith(": a, b, c and 4 more")


def test_settings_without_reference_dir_have_no_reference():
    about = {"reference_name": "{stem}", "reference_offset": 3}

    assert ReferenceSettings.from_settings(Settings(**about)) is None
    assert ReferenceSettings.from_settings(Settings(reference_dir="r", **about)) == ReferenceSettings(
        Path("r"), "{stem}", 3
    )
