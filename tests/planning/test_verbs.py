"""What a command line asks for beside running jobs."""

import pytest
from dailies.planning import verbs
from dailies.planning.verbs import DELETE_OUTPUT, UNLOCK
from dailies.state.layout import Layout


@pytest.mark.parametrize(
    ("verb", "arguments", "asked"),
    [
        (UNLOCK, ["--unlock"], True),
        (UNLOCK, ["-n", "--unl"], True),
        (UNLOCK, ["--until", "unlock"], False),
        (UNLOCK, ["--un"], False),
        (UNLOCK, [], False),
        (DELETE_OUTPUT, ["--delete-all-output", "--cores", "1"], True),
        (DELETE_OUTPUT, ["--delete-all"], True),
        (DELETE_OUTPUT, ["--delete-temp-output"], False),
    ],
)
def test_what_a_command_line_asks_for(verb, arguments, asked):
    assert verbs.is_asked(verb, arguments) is asked


@pytest.mark.parametrize(
    ("arguments", "deletes"),
    [
        (["--delete-all-output"], True),
        (["--delete-temp", "--cores", "1"], True),
        (["--delete-all-output", "--dry-run"], False),
        (["-np", "--delete-all-output"], False),
        (["all"], False),
    ],
)
def test_a_command_line_that_deletes_is_told_from_one_that_shows_what_it_would(arguments, deletes):
    assert verbs.deletes(arguments) is deletes


def test_the_frames_that_a_deletion_leaves_are_counted(tmp_path):
    layout = Layout(tmp_path)
    for model, frames in {"a": 2, "b": 1, "gone": 0}.items():
        layout.manifests(model).mkdir(parents=True)
        (tmp_path / model).mkdir()
        layout.metadata(model).touch()
        for number in range(frames):
            (tmp_path / model / f"{number}.png").touch()
    (tmp_path / "not ours").mkdir()
    (tmp_path / "not ours" / "a.png").touch()

    assert verbs.left_by_deletion(Layout(tmp_path)) == (
        "--delete-all-output leaves 3 frames of 2 models in place, and what is known of them, so the next invocation "
        f"renders none of them again; to delete them too, delete the folder {tmp_path}"
    )


def test_where_no_frame_is_left_nothing_is_said(tmp_path):
    assert verbs.left_by_deletion(Layout(tmp_path)) is None
