"""The decision of a knockout: who renders all frames, and why."""

from pathlib import Path

import numpy as np
import pytest
from dailies.frames import sequence
from dailies.frames.sequence import KNOCKOUT, Frame, Sequence
from dailies.measure.job import NOT_RENDERED
from dailies.measure.knockout import basis, decide, rounds, summary
from dailies.planning.config import Settings
from dailies.state.layout import Layout
from dailies.state.records import Attempt, Contestant, Knockout, Measures, RunRecord

COUNT, FIRST = 60, 12
FRAMES = tuple(Frame(f"f_{n:02d}.png", f"f_{n:02d}.png", 8, 8, "RGB", 8, 1, "") for n in range(COUNT))
NAMES = [frame.output for frame in sequence.split(Sequence(FRAMES), 0, FIRST)[KNOCKOUT].frames]


class Contest:
    """A sequence, and models with measures of the first round."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root / "out")
        self.settings = Settings(
            input_dir=root,
            output_dir=root / "out",
            reference_dir=root,
            metrics=("psnr",),
            knockout_frames=FIRST,
            finalists=2,
        )
        self.models: list[str] = []
        self.lines: list[str] = []
        sequence.save(Sequence(FRAMES), self.layout.sequence)

    def add(self, model: str, mean: float | None = None, spread: float = 0.02, **record) -> None:
        """Add a model with values around a mean, or with another record of its measures."""
        self.models.append(model)
        values = mean + np.random.default_rng(len(self.models)).normal(0, spread, FIRST) if mean is not None else ()
        frames = {name: {"psnr": float(value)} for name, value in zip(NAMES, values, strict=False)}
        Measures(**{"frames": frames} | record).save(self.layout.measures(model, KNOCKOUT))
        RunRecord(run_id=model, run_name=model).save(self.layout.run(model))

    def decide(self, **changes) -> dict[str, Contestant]:
        """Decide, and return the decision on each model."""
        decide(
            self.settings.model_copy(update=changes),
            ["question"],
            sequence=self.layout.sequence,
            runs=[self.layout.run(model) for model in self.models],
            measures=[self.layout.measures(model, KNOCKOUT) for model in self.models],
            output=self.layout.knockout,
        )
        record = Knockout.load(self.layout.knockout)
        self.lines = summary(record, str)
        return dict(record.by_model)

    def finalists(self, **changes) -> list[str]:
        return [model for model, each in self.decide(**changes).items() if each.is_finalist]


@pytest.fixture
def contest(tmp_path: Path) -> Contest:
    return Contest(tmp_path)


def test_the_first_round_is_a_shard_of_evenly_spread_frames_beside_the_others():
    parts = sequence.split(Sequence(FRAMES), 25, FIRST)

    assert list(parts) == ["1", "2", "3", KNOCKOUT]
    assert (len(parts[KNOCKOUT].frames), parts[KNOCKOUT].frames[0], parts[KNOCKOUT].frames[-1]) == (
        FIRST,
        FRAMES[0],
        FRAMES[-1],
    )
    assert parts[KNOCKOUT].before == {}
    assert list(sequence.split(Sequence(FRAMES), 0, COUNT)) == ["all"]


def test_the_best_models_are_finalists_and_the_others_learn_by_how_much_they_are_behind(contest):
    for model, mean in (("c", 30.0), ("a", 34.0), ("d", 29.0), ("b", 32.0)):
        contest.add(model, mean)

    found = contest.decide()

    assert [(model, each.rank, each.is_finalist) for model, each in found.items()] == [
        ("a", 1, True),
        ("b", 2, True),
        ("c", 3, False),
        ("d", 4, False),
    ]
    assert found["a"].to_first is None
    assert found["c"].to_first.difference == pytest.approx(-4, abs=0.1)
    assert found["c"].to_first.high < 0
    assert found["c"].reason.startswith("rank 3 of 4 by PSNR on 12 frames: ")
    assert "behind a, 95 % interval" in found["c"].reason
    assert contest.finalists(finalists=3) == ["a", "b", "c"]


def test_all_that_tie_with_the_first_are_finalists(contest):
    for model, mean in (("a", 30.0), ("b", 29.95), ("c", 29.9), ("d", 20.0)):
        contest.add(model, mean, spread=0.5)

    assert contest.finalists(finalists=1) == ["a", "b", "c"]
    assert any("2 finalists more" in line for line in contest.lines)


def test_a_model_that_failed_is_neither_a_finalist_nor_knocked_out(contest):
    contest.add("a", 30.0)
    contest.add("broken", notes=(f"{NOT_RENDERED}: load_failed: no network",))
    contest.add("unmeasured", error="frame f_00.png cannot be read")

    found = contest.decide()

    assert [model for model, each in found.items() if each.is_finalist] == ["a"]
    assert (found["broken"].failed, found["unmeasured"].failed) == (True, False)
    assert "load_failed" in found["broken"].reason
    assert "f_00.png" in found["unmeasured"].reason


def test_nobody_is_knocked_out_if_nothing_could_be_measured(contest):
    contest.add("a")
    contest.add("broken", notes=(f"{NOT_RENDERED}: error: out of memory",))

    assert contest.finalists() == ["a"]
    assert "none is knocked out" in contest.lines[0]


def test_frames_that_models_were_trained_on_do_not_decide(contest):
    contest.add("a", 30.0)
    contest.add("b", 20.0)
    contest.add("c", 10.0)
    RunRecord(run_id="a", run_name="a", tags={"dailies.training_frames": "0-30"}).save(contest.layout.run("a"))

    assert contest.finalists(finalists=1) == ["a", "b", "c"]
    assert "too few frames" in contest.decide(finalists=1)["c"].reason


def test_a_decision_is_out_of_date_if_a_model_was_rendered_or_measured_again(contest):
    contest.add("a", 30.0)
    contest.decide()
    first = Knockout.load(contest.layout.knockout).basis

    facts = {"a": rounds(contest.layout, "a")}
    assert first == basis(["question"], facts)
    assert first != basis(["another"], facts)
    Attempt(status="success", attempt=2, basis="ab").save(contest.layout.attempt("a", KNOCKOUT))
    assert first != basis(["question"], {"a": rounds(contest.layout, "a")})


def test_a_first_round_with_too_few_frames_to_compare_is_reported(contest):
    contest.add("a", 34.0)
    contest.add("b", 30.0)
    for model in ("a", "b"):
        record = Measures.load(contest.layout.measures(model, KNOCKOUT))
        left = {name: record.frames[name] for name in NAMES[1:]}
        Measures(frames=left).save(contest.layout.measures(model, KNOCKOUT))

    assert contest.finalists(finalists=1) == ["a", "b"]
    assert any("11 frames" in line and "knockout_frames" in line for line in contest.lines)


def test_enough_frames_to_compare_need_no_report(contest):
    contest.add("a", 34.0)
    contest.add("b", 30.0)

    assert contest.finalists(finalists=1) == ["a"]
    assert not any("knockout_frames" in line for line in contest.lines)
