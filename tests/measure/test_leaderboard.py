"""The leaderboard: its tables, the order of the models and the verdict."""

import csv
from pathlib import Path

import numpy as np
import pytest
from dailies.core import files
from dailies.frames.reference import Reference
from dailies.frames.sequence import Frame, Sequence, save
from dailies.measure.leaderboard import LeaderboardSettings, page_metrics, report, tabulate
from helpers.json_files import strict_json

COUNT = 40
FRAMES = [Frame(f"f_{n:04d}.jpg", f"f_{n:04d}.png", 7, 5, "RGB", 8, 1, sha256=str(n)) for n in range(COUNT)]
NOISE = np.random.default_rng(0).normal(size=COUNT)


class Board:
    """Made-up values of models, and the tables made of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs: list[Path] = []
        self.outcomes: list[Path] = []
        self.measures: list[Path] = []
        save(Sequence(tuple(FRAMES)), root / "sequence.json")
        self.add_measures("@source", {"psnr": [25.0] * COUNT, "flicker": [0.0] * COUNT})

    def add(self, name: str, psnr, *, flicker=0.0, status="success", notes=(), error=None, run_name=None, **about):
        self.runs.append(self.root / "runs" / f"{name}.json")
        about = {"params": {}, "tags": {}, "datasets": []} | about
        files.write_json(self.runs[-1], {"run_id": f"id of {name}", "run_name": run_name or name} | about)
        self.outcomes.append(self.root / "renders" / name / "all.json")
        files.write_json(self.outcomes[-1], {"status": status, "error": None if status == "success" else "it broke"})
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
            LeaderboardSettings(metrics, ranked_by, self.root / "shot", ("seen",)),
            sequence=self.root / "sequence.json",
            runs=self.runs,
            outcomes=self.outcomes,
            measures=self.measures,
            tables=(self.root / "metrics.csv", self.root / "leaderboard.csv"),
            output=self.root / "metrics.json",
            reference=reference,
        )

    def lines(self, name: str = "leaderboard") -> list[dict[str, str]]:
        with (self.root / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def report(self) -> list[str]:
        return report(self.root / "metrics.json")


@pytest.fixture
def board(tmp_path) -> Board:
    return Board(tmp_path)


def test_the_better_model_ranks_first(board):
    board.add("worse", 30 + NOISE)
    board.add("better", 30.5 + NOISE + 0.01 * NOISE[::-1])

    board.tabulate()

    first, second, source = board.lines()
    assert [line["model"] for line in (first, second, source)] == ["better", "worse", "(source)"]
    assert [line["rank"] for line in (first, second, source)] == ["1", "2", ""]
    assert [line["verdict"] for line in (first, second, source)] == ["best", "worse", ""]
    assert float(second["difference"]) == pytest.approx(-0.5, abs=0.01)
    assert -0.52 < float(second["low"]) < -0.5 < float(second["high"]) < -0.48
    assert (second["ranked_by"], second["frames"], source["psnr"]) == ("psnr", "40", "25")
    assert board.report() == [
        "better ranks first by PSNR on 40 frames: 0.499 dB ahead of worse, 95 % interval 0.487 to 0.511."
    ]


def test_models_whose_interval_includes_0_tie(board):
    board.add("a", 30 + NOISE)
    board.add("b", 30.01 + NOISE[::-1])
    board.add("far", 20 + NOISE)

    board.tabulate()

    assert [line["verdict"] for line in board.lines()] == ["tie", "tie", "worse", ""]
    assert board.report()[0].startswith(
        "b ranks first by PSNR on 40 frames: a tie with a (0.01 dB ahead, 95 % interval "
    )
    assert board.report()[0].endswith(" for 2 comparisons at once).")


def test_identical_models_tie_with_a_difference_of_0(board):
    board.add("a", 30 + NOISE, flicker=1)
    board.add("b", 30 + NOISE, flicker=1)

    for metric, span in (("psnr", "PSNR on 40 frames: a tie with b (0 dB"), ("flicker", "flicker on 40 frames: a tie")):
        board.tabulate(ranked_by=metric)
        assert board.report()[0].startswith(f"a ranks first by {span}")
        assert board.report()[0].endswith("ahead, 95 % interval 0 to 0).")
        assert [board.lines()[1][name] for name in ("difference", "low", "high")] == ["0", "0", "0"]


def test_intervals_widen_with_the_number_of_models(board):
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


def test_the_lowest_value_ranks_first_if_lower_is_better(board):
    board.add("steady", 30 + NOISE, flicker=-3)
    board.add("restless", 40 + NOISE, flicker=2)

    board.tabulate(ranked_by="flicker")

    assert [line["model"] for line in board.lines()] == ["steady", "restless", "(source)"]
    assert board.lines()[1]["difference"] == "-5"
    assert board.report()[0].startswith("steady ranks first by flicker on 40 frames: 5 code values ahead of restless, ")


def test_training_frames_of_any_model_do_not_decide_and_have_their_own_means(board):
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


def test_if_all_frames_were_trained_on_all_decide_and_the_verdict_says_so(board):
    board.add("a", 30 + NOISE, params={"seen": "0-38"})
    board.add("b", 31 + NOISE)

    board.tabulate()

    assert board.report()[0].startswith(
        "b ranks first by PSNR on 40 frames (models were trained on some of them): 1 dB"
    )


def test_models_are_compared_on_the_frames_that_all_have(board):
    short = [None] * 20 + list(35 + NOISE[20:])
    board.add("short", short)
    board.add("long", [*([60.0] * 20), *(30 + NOISE[20:])])

    board.tabulate()

    assert [(line["model"], line["frames"]) for line in board.lines()][:2] == [("short", "20"), ("long", "20")]


def test_a_failed_model_has_no_rank_but_a_reason(board):
    board.add("broken", None, status="load_failed", notes=["not rendered: load_failed: it broke"])
    board.add("good", 30 + NOISE)

    board.tabulate()

    good, broken, _ = board.lines()
    assert (good["rank"], broken["rank"], broken["status"], broken["error"]) == ("1", "", "load_failed", "it broke")
    assert (broken["psnr"], broken["verdict"]) == ("", "")
    assert board.report() == ["good ranks first by PSNR on 40 frames: it is the only model."]


def test_a_partly_rendered_model_has_no_rank(board):
    board.add("part", 50 + NOISE, status="error")
    board.add("good", 30 + NOISE)

    board.tabulate()

    assert [(line["model"], line["rank"], line["psnr"]) for line in board.lines()[1:]] == [
        ("part", "", ""),
        ("(source)", "", "25"),
    ]


def test_a_failure_to_measure_is_reported(board):
    board.add("odd", None, error="frame f.png cannot be read")
    board.add("good", 30 + NOISE)

    board.tabulate()

    assert board.report()[1:] == ["odd: frame f.png cannot be read"]


def test_a_few_frames_are_a_tie(board):
    board.add("a", [30.0, 30.0, 30.0] + [None] * 37)
    board.add("b", [20.0, 20.0, 20.0] + [None] * 37)

    board.tabulate()

    said, remark, *_ = board.report()
    assert said == "a ranks first by PSNR on 3 frames: a tie, because there are too few frames for a comparison."
    assert "fewer than 12" in remark
    assert [line["verdict"] for line in board.lines()] == ["tie", "tie", ""]


def test_without_a_metric_to_rank_by_models_stay_in_their_order(board):
    board.add("z", 30 + NOISE, flicker=2)
    board.add("a", 35 + NOISE, flicker=1)

    board.tabulate(ranked_by=None, metrics=("flicker",))

    assert [line["model"] for line in board.lines()] == ["z", "a", "(source)"]
    assert [line["rank"] for line in board.lines()] == ["", "", ""]
    assert [line["flicker"] for line in board.lines()] == ["2", "1", "0"]
    assert board.report() == []


def test_the_pairing_of_the_reference_is_reported_and_noted_on_the_metrics_that_need_it(board):
    reference = Reference({}, ("reference: 38 of 40 frames paired by number",), "2 frames without a reference")
    board.add("a", 30 + NOISE)

    board.tabulate(reference=reference)

    assert board.report()[1:] == ["reference: 38 of 40 frames paired by number", "2 frames without a reference"]
    psnr, flicker = page_metrics(board.root / "metrics.json")
    assert psnr.note == "reference: 38 of 40 frames paired by number; 2 frames without a reference"
    assert "paired" not in flicker.note


def test_a_record_of_a_version_without_the_pairing_is_read(board):
    board.add("a", 30 + NOISE)
    board.tabulate(reference=Reference({}, (), "2 frames without a reference"))
    path = board.root / "metrics.json"
    files.write_json(path, {key: value for key, value in files.read_json(path).items() if key != "reference"})

    assert board.report()[1:] == ["2 frames without a reference"]


def test_names_are_not_formulas_in_a_spreadsheet(board):
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
    assert psnr.values == {"a": (*([30.0] * 39), None), "@source": (25.0,) * 40}
    assert (flicker.higher_is_better, flicker.note[:9]) == (False, "Advisory:")


def test_the_same_values_give_the_same_bytes_of_strict_json(board):
    board.add("a", 30 + NOISE)
    board.add("b", 30 + NOISE)
    board.tabulate()
    before = {path: path.read_bytes() for path in board.root.glob("*.[cj]s*")}

    board.tabulate()

    assert strict_json(board.root / "metrics.json")["verdict"].startswith("a ranks first by PSNR")
    assert {path: path.read_bytes() for path in board.root.glob("*.[cj]s*")} == before


def test_a_ranking_on_some_frames_says_so_in_the_terminal_the_table_and_on_the_page(board):
    for name, level in {"a": 31.0, "b": 30.0}.items():
        board.add(name, [level + NOISE[n] if n % 2 else None for n in range(COUNT)])
    for path in board.measures:
        record = files.read_json(path)
        frames = {name: values for name, values in record["frames"].items() if int(name[2:6]) % 2}
        files.write_json(path, record | {"frames": frames, "of": COUNT})

    board.tabulate(metrics=("psnr",))

    first, second = board.report()
    assert "a ranks first by PSNR on 20 of 40 frames" in first
    assert "measure_frames" in second
    assert board.lines()[0]["frames"] == "20"
    assert len(board.lines("metrics")) == 3 * 20
    (psnr,) = page_metrics(board.root / "metrics.json")
    assert psnr.note.startswith("20 of 40 frames")
    assert sum(value is not None for value in psnr.values["a"]) == 20
    assert strict_json(board.root / "metrics.json")["ranking"]["measured"] == 20
