import logging
import os
import sys
import warnings

import pytest
from dailies.core.errors import LoadError
from dailies.core.logs import Errors, failures, job_log


@pytest.fixture
def path(tmp_path):
    return tmp_path / "job.log"


def failed(path, error):
    """Run a job that raises and return its log's lines and its exit code."""

    def job():
        with job_log(str(path)):
            print("on the way")
            raise error

    with pytest.raises(SystemExit) as ended:
        job()
    return path.read_text(encoding="utf-8").splitlines(), ended.value.code


def test_a_log_holds_everything_that_a_job_prints(path):
    with job_log(str(path)):
        logging.getLogger("dailies.render.job").info("frame %d of %d", 3, 9)
        logging.getLogger("anything").warning("mind the gap")
        warnings.warn("old habits", stacklevel=1)
        print("printed")
        print("to stderr", file=sys.stderr)

    lines = path.read_text().splitlines()
    assert lines[0].endswith(" INFO    frame 3 of 9")
    assert lines[1].endswith(" WARNING mind the gap")
    assert any("UserWarning: old habits" in line for line in lines[2:4])
    assert lines[-2:] == ["printed", "to stderr"]


def test_an_error_for_the_user_ends_the_log_and_the_job(path):
    lines, code = failed(path, LoadError("model.damaged", "best.pth is damaged"))

    assert lines == ["on the way", "failed: best.pth is damaged [model.damaged]"]
    assert code == 1


def test_another_error_leaves_its_traceback_and_then_the_reason(path):
    lines, code = failed(path, ZeroDivisionError("division by zero"))

    assert lines[0] == "on the way"
    assert lines[1] == "Traceback (most recent call last):"
    assert any(line.strip() == "raise error" for line in lines)
    assert lines[-1] == "failed: ZeroDivisionError: division by zero"
    assert code == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(3)])
def test_an_interruption_is_passed_on(path, stop):
    with pytest.raises(type(stop)), job_log(str(path)):
        raise stop


@pytest.mark.parametrize("error", [None, LoadError("model.x", "x"), KeyboardInterrupt()])
def test_everything_is_as_before_when_a_job_is_over(path, error):
    root = logging.getLogger()
    before = (sys.stdout, sys.stderr, list(root.handlers), root.level, warnings.showwarning)

    try:
        with job_log(str(path)):
            assert sys.stdout is not before[0]
            if error:
                raise error
    except BaseException:
        assert error

    assert (sys.stdout, sys.stderr, list(root.handlers), root.level, warnings.showwarning) == before


def test_a_log_starts_anew(path):
    failed(path, LoadError("model.first", "first"))

    lines, _ = failed(path, LoadError("model.second", "second"))

    assert lines == ["on the way", "failed: second [model.second]"]


def test_text_that_no_encoding_holds_is_logged(path):
    with job_log(str(path)):
        print("frame_\udcff.png 夜")

    assert path.read_text(encoding="utf-8") == "frame_\\udcff.png 夜\n"


def test_lines_are_there_while_the_job_runs(path):
    with job_log(str(path)):
        logging.getLogger("dailies").info("frame 1 of 9")

        assert path.read_text().endswith("frame 1 of 9\n")


def test_the_reasons_of_the_jobs_that_failed_since_are_found(tmp_path):
    endings = {
        "infer_a": "failed: no frames",
        "infer_b": "success",
        "old": "failed: long ago",
        "cut": "failed: x\nafter",
    }
    for name, text in endings.items():
        (tmp_path / f"{name}.log").write_text(f"on the way\n{text}\n")
    (tmp_path / "empty.log").touch()
    os.utime(tmp_path / "old.log", (1000, 1000))

    assert failures(tmp_path, since=2000) == ["infer_a failed: no frames"]
    assert failures(tmp_path / "none", since=0) == []


def test_errors_alone_are_printed(capsys):
    logger = logging.getLogger("silent")
    logger.propagate = False
    logger.addHandler(Errors())

    logger.warning("mind the gap")
    logger.error(None, extra={"event": "for a formatter of its own"})
    logger.error("%d models failed: \x1b[2J", 3)

    assert capsys.readouterr() == ("", "3 models failed: \\x1b[2J\n")
