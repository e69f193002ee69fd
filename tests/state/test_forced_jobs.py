"""What an invocation is told to run again."""

from pathlib import Path

from dailies.state import forced_jobs
from dailies.state.forced_jobs import Forced


def asked(*names: str, everything: bool = False) -> Forced:
    return forced_jobs.requested(everything=everything, names=names, rules=["infer", "measure"])


def test_names_of_rules_and_of_files_are_distinguished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forced = asked("infer", "out/a.json")

    assert (forced.rules, forced.files) == (("infer",), (str(tmp_path / "out" / "a.json"),))
    assert forced.covers(["infer"], [])
    assert forced.covers(["measure"], [tmp_path / "out" / "a.json"])
    assert forced.covers(["measure"], [Path("out/a.json")])
    assert not forced.covers(["measure"], [Path("out/b.json")])


def test_all_or_nothing():
    assert asked(everything=True).covers(["any"], [])
    assert not asked().covers(["infer"], [Path("a")])
    assert (bool(asked(everything=True)), bool(asked("infer")), bool(asked())) == (True, True, False)


def test_jobs_on_other_machines_read_what_is_forced_until_the_next_invocation(tmp_path):
    forced = asked("infer", "a.json")

    forced_jobs.announce(forced, tmp_path / "forced.json")
    assert forced_jobs.announced(tmp_path / "forced.json") == forced
    assert asked("infer", "a.json").token != forced.token

    forced_jobs.announce(asked(), tmp_path / "forced.json")
    assert not forced_jobs.announced(tmp_path / "forced.json")
    assert list(tmp_path.iterdir()) == []
