"""The leaderboard: who is first, whether that is more than chance, and what a reader has to know."""

import csv
from pathlib import Path

import numpy as np
import pytest
from dailies.core import files
from dailies.frames.reference import Reference
from dailies.frames.sequence import Frame, Sequence, save
from dailies.measure.leaderboard import (
    Question,
    page_metrics,
    tabulate,
    told,
)
from dailies.measure.scores import seen_by_models, summed_up
from dailies.state.records import Means, RunRecord
from helpers.json_files import strict_json

COUNT = 40
FRAMES = [Frame(f"f_{n:04d}.jpg", f"f_{n:04d}.png", 7, 5, "RGB", 8, 1, sha256=str(n)) for n in range(COUNT)]
NOISE = np.random.default_rng(0).normal(size=COUNT)


class Board:
    """Measures of models that are made up, and the tables that come of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metadata: list[Path] = []
        self.measures: list[Path] = []
        save(Sequence(tuple(FRAMES)), root / "sequence.json")
        self.add_measures("@source", {"psnr": [25.0] * COUNT, "flicker": [0.0] * COUNT})

    def add(self, name: str, psnr, *, flicker=0.0, status="success", notes=(), error=None, run_name=None, **about):
        self.metadata.append(self.root / "out" / name / "metadata.json")
        render = {"status": status, "error": None if status == "success" else "it broke"}
        about = {"params": {}, "tags": {}, "datasets": []} | about
        files.write_json(
            self.metadata[-1], {"run_id": f"id of {name}", "run_name": run_name or name, "render": render} | about
        )
        values = {"psnr": psnr, "flicker": [flicker] * COUNT} if psnr is not None else {}
        self.add_measures(name, values, notes=list(notes), error=error)

    def add_measures(self, name: str, values: dict, notes=(), error=None) -> None:
        path = self.root / "measures" / name / "all.json"
        frames = [
            {key: float(column[n]) for key, column in values.items() if column[n] is not None} for n in range(COUNT)
        ]
        named = {frame.output: value for frame, value in zip(FRAMES, frames, strict=True) if value}
        ending = {"status": "error" if error else "success", "error": error}
        files.write_json(path, ending if error else ending | {"frames": named, "notes": list(notes)})
        self.measures.append(path)

    def tabulate(self, *, ranked_by="psnr", metrics=("psnr", "flicker"), reference=None) -> None:
        tabulate(
            Question(metrics, ranked_by, self.root / "shot", ("seen",)),
            sequence=self.root / "sequence.json",
            metadata=self.metadata,
            measures=self.measures,
            tables=(self.root / "metrics.csv", self.root / "leaderboard.csv"),
            output=self.root / "metrics.json",
            reference=reference,
        )

    def lines(self, name: str = "leaderboard") -> list[dict[str, str]]:
        with (self.root / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def told(self) -> list[str]:
        return told(self.root / "metrics.json")


@pytest.fixture
def board(tmp_path) -> Board:
    return Board(tmp_path)


def test_the_better_model_is_first_and_said_to_be(board):
    board.add("worse", 30 + NOISE)
    board.add("better", 30.5 + NOISE + 0.01 * NOISE[::-1])

    board.tabulate()

    first, second, source = board.lines()
    assert [line["model"] for line in (first, second, source)] == ["better", "worse", "(source)"]
    assert [line["rank"] for line in (first, second, source)] == ["1", "2", ""]
    assert [line["verdict"] for line in (first, second, source)] == ["first", "worse", ""]
    assert float(second["difference"]) == pytest.approx(-0.5, abs=0.01)
    assert -0.52 < float(second["low"]) < -0.5 < float(second["high"]) < -0.48
    assert (second["ranked_by"], second["frames"], source["psnr"]) == ("psnr", "40", "25")
    assert board.told() == [
        "better is the first by PSNR on 40 frames: 0.499 dB ahead of worse, 95 % interval 0.487 to 0.511."
    ]


def test_a_tie_is_an_answer(board):
    board.add("a", 30 + NOISE)
    board.add("b", 30.01 + NOISE[::-1])
    board.add("far", 20 + NOISE)

    board.tabulate()

    assert [line["verdict"] for line in board.lines()] == ["first", "tie", "worse", ""]
    assert board.told()[0].startswith(
        "b is the first by PSNR on 40 frames: a tie with a (0.01 dB ahead of a, 95 % interval "
    )
    assert board.told()[0].endswith(" for 2 comparisons at once).")


def test_models_that_are_the_same_tie_by_nothing(board):
    board.add("a", 30 + NOISE, flicker=1)
    board.add("b", 30 + NOISE, flicker=1)

    for metric, span in (("psnr", "PSNR on 40 frames: a tie with b (0 dB"), ("flicker", "flicker on 40 frames: a tie")):
        board.tabulate(ranked_by=metric)
        assert board.told()[0].startswith(f"a is the first by {span}")
        assert board.told()[0].endswith("ahead of b, 95 % interval 0 to 0).")
        assert [board.lines()[1][name] for name in ("difference", "low", "high")] == ["0", "0", "0"]


def test_the_more_models_the_less_is_certain_of_each(board):
    board.add("first", 30.5 + NOISE)
    board.add("second", 30 + NOISE + 0.1 * NOISE[::-1])
    board.tabulate()
    alone = board.lines()[1]
    for level in range(8):
        board.add(f"other {level}", level + NOISE)

    board.tabulate()

    among_many = board.lines()[1]
    assert (alone["model"], among_many["model"]) == ("second", "second")
    assert float(among_many["low"]) < float(alone["low"]) < float(alone["high"]) < float(among_many["high"])


def test_less_may_be_better(board):
    board.add("steady", 30 + NOISE, flicker=-3)
    board.add("restless", 40 + NOISE, flicker=2)

    board.tabulate(ranked_by="flicker")

    assert [line["model"] for line in board.lines()] == ["steady", "restless", "(source)"]
    assert board.lines()[1]["difference"] == "-5"
    assert board.told()[0].startswith("steady is the first by flicker on 40 frames: 5 code values ahead of restless, ")


def test_training_frames_of_any_model_decide_nothing_and_are_scored_apart(board):
    learned = np.full(COUNT, 30.0)
    learned[:10] = 50  # on what it was trained on
    board.add("learned", learned, params={"seen": "0-9"})
    board.add("other", np.full(COUNT, 31.0), tags={"seen": "f_0010.jpg"})

    board.tabulate()

    first, second, _ = board.lines()
    assert (first["model"], first["frames"], first["psnr"]) == ("other", "29", "31")
    assert (second["psnr"], second["training_frames"], second["psnr_training"]) == ("30", "10", "50")
    assert (first["training_frames"], first["psnr_training"]) == ("1", "31")
    marked = {
        line["frame"] for line in board.lines("metrics") if line["model"] == "learned" and line["training"] == "yes"
    }
    assert marked == {frame.name for frame in FRAMES[:10]}


def test_where_all_frames_were_trained_on_all_decide_and_it_is_said(board):
    board.add("a", 30 + NOISE, params={"seen": "0-38"})
    board.add("b", 31 + NOISE)

    board.tabulate()

    assert board.told()[0].startswith("b is the first by PSNR on 40 frames (models were trained on some): 1 dB")


def test_models_are_compared_on_frames_that_all_have(board):
    short = [None] * 20 + list(35 + NOISE[20:])
    board.add("short", short)
    board.add("long", [*([60.0] * 20), *(30 + NOISE[20:])])

    board.tabulate()

    assert [(line["model"], line["frames"]) for line in board.lines()][:2] == [("short", "20"), ("long", "20")]


def test_a_failed_model_is_left_out_with_its_reason(board):
    board.add("broken", None, status="load_failed", notes=["not rendered: load_failed: it broke"])
    board.add("good", 30 + NOISE)

    board.tabulate()

    good, broken, _ = board.lines()
    assert (good["rank"], broken["rank"], broken["status"], broken["error"]) == ("1", "", "load_failed", "it broke")
    assert (broken["psnr"], broken["verdict"]) == ("", "")
    assert board.told() == ["good is the first by PSNR on 40 frames: it is the only one."]


def test_a_model_that_was_rendered_in_part_does_not_count(board):
    board.add("part", 50 + NOISE, status="error")
    board.add("good", 30 + NOISE)

    board.tabulate()

    assert [(line["model"], line["rank"], line["psnr"]) for line in board.lines()[1:]] == [
        ("part", "", ""),
        ("(source)", "", "25"),
    ]


def test_a_measurement_that_failed_is_said(board):
    board.add("odd", None, error="frame f.png cannot be read")
    board.add("good", 30 + NOISE)

    board.tabulate()

    assert board.told()[1:] == ["odd: frame f.png cannot be read"]


def test_few_frames_are_too_few_to_tell(board):
    board.add("a", [30.0, 30.0, 30.0] + [None] * 37)
    board.add("b", [20.0, 20.0, 20.0] + [None] * 37)

    board.tabulate()

    assert board.told() == ["a is the first by PSNR on 3 frames: a tie, too few to tell."]
    assert [line["verdict"] for line in board.lines()] == ["first", "tie", ""]


def test_without_a_metric_to_rank_by_models_stay_in_their_order(board):
    board.add("z", 30 + NOISE, flicker=2)
    board.add("a", 35 + NOISE, flicker=1)

    board.tabulate(ranked_by=None, metrics=("flicker",))

    assert [line["model"] for line in board.lines()] == ["z", "a", "(source)"]
    assert [line["rank"] for line in board.lines()] == ["", "", ""]
    assert [line["flicker"] for line in board.lines()] == ["2", "1", "0"]
    assert board.told() == []


def test_how_the_reference_was_paired_is_told_and_noted_on_the_metrics_that_need_it(board):
    reference = Reference({}, ("reference: 38 of 40 frames paired by number",), "2 frames without a reference")
    board.add("a", 30 + NOISE)

    board.tabulate(reference=reference)

    assert board.told()[1:] == ["reference: 38 of 40 frames paired by number", "2 frames without a reference"]
    psnr, flicker = page_metrics(board.root / "metrics.json")
    assert psnr.note == "reference: 38 of 40 frames paired by number; 2 frames without a reference"
    assert "paired" not in flicker.note


def test_a_table_of_a_version_that_did_not_tell_how_the_reference_was_paired_is_read(board):
    board.add("a", 30 + NOISE)
    board.tabulate(reference=Reference({}, (), "2 frames without a reference"))
    path = board.root / "metrics.json"
    files.write_json(path, {key: value for key, value in files.read_json(path).items() if key != "reference"})

    assert board.told()[1:] == ["2 frames without a reference"]


def test_no_name_is_a_formula_in_a_spreadsheet(board):
    board.add("a", 30 + NOISE, run_name='=HYPERLINK("http://evil")')
    board.add("=b", 30 + NOISE, run_name="two\nlines\x1b[31m")

    board.tabulate()

    lines = {line["run_id"]: line for line in board.lines()}
    assert lines["id of a"]["run_name"] == '\'=HYPERLINK("http://evil")'
    assert (lines["id of =b"]["model"], lines["id of =b"]["run_name"]) == ("'=b", "two lines")


def test_the_page_gets_a_value_for_every_frame(board):
    board.add("a", [*([30.0] * 39), None], flicker=1)

    board.tabulate()

    psnr, flicker = page_metrics(board.root / "metrics.json")
    assert (psnr.name, psnr.unit, psnr.higher_is_better, psnr.note) == ("PSNR", "dB", True, "")
    assert psnr.values == {"a": (*([30.0] * 39), None)}
    assert (flicker.higher_is_better, flicker.note[:9]) == (False, "Advisory:")


def test_everything_written_is_strict_and_the_same_for_the_same_measures(board):
    board.add("a", 30 + NOISE)
    board.add("b", 30 + NOISE)
    board.tabulate()
    before = {path: path.read_bytes() for path in board.root.glob("*.[cj]s*")}

    board.tabulate()

    assert strict_json(board.root / "metrics.json")["verdict"].startswith("a is the first by PSNR")
    assert {path: path.read_bytes() for path in board.root.glob("*.[cj]s*")} == before


@pytest.fixture
def summed(board):
    """Sum up a model of whose run only params are known."""

    def sum_up(*names, measures=None, **about):
        RunRecord(run_id="a", params={"seen": "0-9"}).save(board.root / "run.json")
        about |= {"sequence": board.root / "sequence.json", "input_dir": board.root}
        return summed_up(
            board.measures[1:] if measures is None else measures, board.root / "run.json", names=names, **about
        )

    return sum_up


def test_a_model_is_summed_up_over_all_unseen_and_training_frames(board, summed):
    values = np.full(COUNT, 30.0)
    values[:10] = 50
    board.add("a", values, notes=["n"])

    found = summed("seen")

    assert found == Means(
        frames=40,
        training_frames=10,
        notes=("n",),
        mean={"psnr": 35, "flicker": 0},
        mean_unseen={"psnr": 30, "flicker": 0},
        mean_training={"psnr": 50, "flicker": 0},
    )
    assert summed().mean_training is None


def test_what_is_summed_up_says_how_the_reference_was_paired_and_nothing_without_measures(board, summed):
    board.add("a", np.full(COUNT, 30.0))

    assert summed(reference=Reference({}, ("paired by name",), "1 is missing")).reference == (
        "paired by name",
        "1 is missing",
    )
    assert summed(measures=[]) is None


def test_models_are_asked_by_their_folders_which_frames_they_were_trained_on(board):
    board.add("one", None, params={"seen": "2"})
    board.add("two", None, tags={"also": "0-1"})

    found = seen_by_models(
        board.metadata, sequence=board.root / "sequence.json", names=["seen", "also"], input_dir=board.root
    )

    assert found == {"one": {"f_0002.png"}, "two": {"f_0000.png", "f_0001.png"}}
