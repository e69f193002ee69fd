"""Pairing by names, tokens, numbers and templates."""

import pytest
from dailies.frames.pairing import expected_names, frame_numbers, pair, template_problem


def names(form: str, numbers=range(1, 4)) -> list[str]:
    return [form.format(number) for number in numbers]


def paired(frames: list[str], files: list[str], **changes) -> tuple[list[str | None], list[str]]:
    """Return the file of each frame, and the methods that found them."""
    found = pair(frames, files, **changes)
    assert len(set(found.files.values())) == len(found.files) == sum(found.methods.values())
    return [found.files.get(name) for name in frames], list(found.methods)


@pytest.mark.parametrize(
    ("frames", "files"),
    [
        ("f_{}.png", "f_{}.exr"),
        ("café_{}.png", "café_{}.TIF"),  # NFC and NFD
        ("clean.{:04d}.dpx", "clean.{:04d}.png"),
    ],
)
def test_names_are_compared_without_suffixes(frames, files):
    assert paired(names(frames), names(files)) == (names(files), ["by name"])


@pytest.mark.parametrize(
    ("frames", "files", "way"),
    [
        ("080{}x2.png", "080{}.png", "'x2' of the sequence"),
        ("000{}x4m.png", "000{}.png", "'x4m' of the sequence"),
        ("img_000{}_x4.png", "img_000{}.png", "'x4' of the sequence"),
        ("000{}_1920x1080.png", "000{}.png", "'1920x1080' of the sequence"),
        ("000{}.png", "000{}_gt.png", "'gt' of the reference"),
        ("f{}LR.png", "f{}HR.png", "'LR' of the sequence and 'HR' of the reference"),
        ("noisy_{}.png", "clean_{}.png", "'noisy' of the sequence and 'clean' of the reference"),
        ("s{0}_in_{0}.png", "s{0}_target_{0}.png", "'in' of the sequence and 'target' of the reference"),
        ("a{}-left.v2.png", "a{}-left.png", "'v2' of the sequence"),
        ("帧{}噪.png", "帧{}净.png", "'噪' of the sequence and '净' of the reference"),
    ],
)
def test_a_token_shared_by_a_whole_folder_is_ignored(frames, files, way):
    assert paired(names(frames), names(files)) == (names(files), [f"by name without {way}"])


def test_a_token_distinguishes_frames_with_equal_numbers():
    frames, files = ([f"{scene}_0001_{kind}.png" for scene in ("city", "lake", "wood")] for kind in ("noisy", "clean"))

    assert paired(frames, files)[0] == files


def test_a_token_missing_from_some_names_is_compared():
    assert paired(["a1_x2.png", "b2.png"], ["a1.png", "c9.png"]) == ([None, None], [])


@pytest.mark.parametrize(
    ("frame", "file", "is_pair"),
    [
        ("0801x2.png", "0801.png", True),
        ("f_7_noisy.png", "f_7_clean.png", True),
        ("left.png", "right.png", False),
        ("a_left.png", "a_right.png", False),
        ("f_0100.png", "f_0101.png", False),
    ],
)
def test_a_token_of_a_single_frame_is_ignored_only_if_a_number_remains(frame, file, is_pair):
    assert paired([frame], [file])[0] == [file if is_pair else None]


@pytest.mark.parametrize(
    ("frames", "files"),
    [
        ("plate_001{}.dpx", "clean.1{}.exr"),
        ("f_000{}_x4.png", "g_{}.png"),  # the last number of every name is the scale
        ("f_000{}_1920x1080.png", "g{}v2.png"),
        ("shot.-000{}.png", "clean.-{}.exr"),
        ("shot.-000{}_x2.png", "clean.-{}.exr"),
    ],
)
def test_frames_are_paired_by_number_if_names_differ(frames, files):
    assert paired(names(frames), names(files)) == (names(files), ["by number"])


def test_the_scale_of_a_dataset_needs_no_separator():
    frames, files = ([f"{name}{scale}.png" for name in ("baby", "bird", "head")] for scale in ("x4", ""))

    assert paired(frames, files) == (files, ["by name without 'x4' of the sequence"])
    assert paired(files, frames) == (frames, ["by name without 'x4' of the reference"])


def test_equal_numbers_are_paired_by_name_without_leading_zeros():
    frames = [f"s{scene}_{number:03d}.png" for scene in (1, 2) for number in range(2)]
    files = [f"s{scene:02d}_{number:04d}.exr" for scene in (1, 2) for number in range(2)]

    assert paired(frames, files) == (files, ["by name without leading zeros"])


def test_negative_frame_numbers_are_paired():
    frames, files = names("shot.{:05d}.png", range(-2, 3)), names("clean.{:04d}.png", range(-2, 3))

    assert paired(frames, files) == (files, ["by number"])


def test_names_take_precedence_over_numbers_and_methods_are_counted():
    found = pair(["a_1.png", "b_2.png", "c_3.png"], ["a_1.png", "x_2.png", "y_9.png"])

    assert found.files == {"a_1.png": "a_1.png", "b_2.png": "x_2.png"}
    assert found.methods == {"by name": 1, "by number": 1}
    assert found.ambiguous == {}


def test_ambiguous_frames_are_not_paired_and_listed():
    found = pair(
        ["f_1.png", "f_2.png", "f_3.png", "g_4.png", "h_4.png"],
        ["f_1.png", "f_1.exr", "x_2.png", "y_2.png", "f_3.png", "z_4.png"],
    )

    assert found.files == {"f_3.png": "f_3.png"}
    assert found.ambiguous == {
        "f_1.png": ("f_1.png", "f_1.exr"),
        "f_2.png": ("x_2.png", "y_2.png"),
        "g_4.png": ("z_4.png",),
        "h_4.png": ("z_4.png",),
    }


def test_a_file_belongs_to_one_frame_only():
    found = pair(["a_1.png", "b_1.png"], ["a_1.png"])

    assert (found.files, found.ambiguous) == ({"a_1.png": "a_1.png"}, {})


@pytest.mark.parametrize(
    ("offset", "frames", "files", "expected_files"),
    [
        (1, names("clip_{:06d}.png", range(3)), names("{:04d}.png"), names("{:04d}.png")),
        (1, names("f_{:02d}.png", (8, 9)), names("f_{:02d}.png", (8, 9, 10)), ["f_09.png", "f_10.png"]),
        (-1, names("f_{}.png"), names("f_{}.png"), [None, "f_1.png", "f_2.png"]),
        (-3, names("f_{:04d}_x2.png"), names("f_{:04d}.png", (-2, -1, 0)), names("f_{:04d}.png", (-2, -1, 0))),
        (
            1001,
            names("plate.{:04d}.png", range(3)),
            names("{}.exr", (1001, 1002, 1003)),
            names("{}.exr", (1001, 1002, 1003)),
        ),
        (1, ["left.png", "f_1.png"], ["left.png", "f_2.png"], [None, "f_2.png"]),
    ],
)
def test_an_offset_applies_to_names_and_numbers(offset, frames, files, expected_files):
    assert paired(frames, files, offset=offset)[0] == expected_files


@pytest.mark.parametrize(
    ("template", "files"),
    [
        ("{stem}_gt", "f_{:02d}_gt.tif"),
        ("{stem}_gt.exr", "f_{:02d}_gt.EXR"),
        ("{number:04d}", "{:04d}.png"),
        ("{number:04d}.png", "{:04d}.png"),
        ("clean.{number}", "clean.{}.png"),
        ("{stem}/gt", "f_{:02d}/gt.png"),
        ("é_{number}", "é_{}.png"),
    ],
)
def test_a_template_may_include_the_suffix(template, files):
    assert paired(names("f_{:02d}.png"), names(files), template=template) == (names(files), ["by reference_name"])


def test_a_template_replaces_all_other_methods():
    frames, files = names("f_{}.png"), ["f_1.png", "f_2.png", "f_3.png", "f_2_gt.png", "f_3_gt.png", "f_3_gt.exr"]

    found = pair(frames, files, template="{stem}_gt")

    assert found.files == {"f_2.png": "f_2_gt.png"}
    assert found.ambiguous == {"f_3.png": ("f_3_gt.png", "f_3_gt.exr")}
    assert pair(frames, files, template="{stem}_gt.exr").files == {"f_3.png": "f_3_gt.exr"}


def test_a_template_can_be_combined_with_an_offset():
    files = names("{:04d}.png")

    assert paired(names("f_{}.png"), files, template="{number:04d}", offset=1)[0] == ["0002.png", "0003.png", None]
    assert paired(names("f_{}.png"), names("f_{}_gt.png"), template="{stem}_gt", offset=-1)[0] == [
        None,
        "f_1_gt.png",
        "f_2_gt.png",
    ]
    assert expected_names("{number:04d}.exr", ["f_9.png", "left.png"], 1) == ["0010.exr"]
    assert expected_names("{stem}_gt", ["left.png"]) == ["left_gt.*"]


def test_frames_of_a_video_are_paired_only_by_number():
    frames, files = names("f_{:06d}.png", range(3)), ["f_000000.png", "x_0.png", "y_1.png"]

    assert paired(frames, files, by_name=False) == ([None, "y_1.png", None], ["by number"])


def test_the_frame_number_is_the_last_number_that_varies():
    assert frame_numbers(["f_1_x4.png", "f_2_x4.png", "f_3_x4.png"]) == {
        "f_1_x4.png": 1,
        "f_2_x4.png": 2,
        "f_3_x4.png": 3,
    }
    assert frame_numbers(["s2_1.png", "s2_1.v3.png"]) == {"s2_1.png": 1, "s2_1.v3.png": 3}
    assert frame_numbers(["shot_010_v2.0042.png", "clean.png"]) == {"shot_010_v2.0042.png": 42}
    assert frame_numbers(["a_1.png", "b_1.png"]) == {"a_1.png": 1, "b_1.png": 1}


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{stem}_gt", None),
        ("a/{number:>6}.exr", None),
        ("{{{stem}}}", None),
        ("{stem", "cannot be read: expected '}' before end of string"),
        ("{frame}", "uses the unknown field '{frame}'; allowed: {stem} and {number}"),
        ("{}_gt", "uses the unknown field '{}'; allowed: {stem} and {number}"),
        ("{stem.x}", "uses the unknown field '{stem.x}'; allowed: {stem} and {number}"),
        (
            "{stem:04d}",
            "cannot format stem as '04d'; allowed: a format for values such as 'f_0001'",
        ),
        ("{number:s}", "cannot format number as 's'; allowed: a format for values such as 1"),
        ("gt.png", "uses neither {stem} nor {number}, so all frames would have the same reference"),
        ("/clean/{stem}", "points outside reference_dir; allowed: a name, or a name in a sub-folder of it"),
        ("../{stem}", "points outside reference_dir; allowed: a name, or a name in a sub-folder of it"),
    ],
)
def test_an_invalid_template_is_explained(template, problem):
    assert template_problem(template) == problem
