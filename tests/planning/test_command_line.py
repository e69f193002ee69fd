"""What a command line requests besides running jobs."""

import pytest
from dailies.planning import command_line
from dailies.planning.command_line import DELETE_OUTPUT, UNLOCK
from dailies.state.layout import Layout


@pytest.mark.parametrize(
    ("option", "arguments", "expected"),
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
def test_an_option_is_recognised_in_full_and_abbreviated(option, arguments, expected):
    assert command_line.has_option(option, arguments) is expected


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
def test_a_dry_run_deletes_nothing(arguments, deletes):
    assert command_line.deletes(arguments) is deletes


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

    text = command_line.left_by_deletion(Layout(tmp_path))

    assert "--delete-all-output leaves 3 frames of 2 models" in text
    assert str(tmp_path) in text


def test_without_frames_nothing_is_left(tmp_path):
    assert command_line.left_by_deletion(Layout(tmp_path)) is None
