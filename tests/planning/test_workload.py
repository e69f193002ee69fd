"""The plan of list_models: frames that are due, time, and space; without rendering, downloading or opening a frame."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from dailies.core import files
from dailies.frames import scan, sequence
from dailies.planning.config import Settings, loading_settings, pixel_settings
from dailies.planning.workload import Workload, plan
from dailies.state.due_shards import basis, frame_keys
from dailies.state.layout import Layout
from dailies.state.manifest import Manifest
from dailies.state.records import (
    Contestant,
    DiscoveryIndex,
    Figures,
    Input,
    Knockout,
    LoadedModel,
    Metadata,
    ModelRecord,
    Outcome,
    RenderedArtifact,
    RenderReport,
    RunRecord,
)
from dailies.store.entities import Artifact, StoredFile
from helpers import REPOSITORY
from helpers.images import write_frame

SIZE = (100, 50)
MEGAPIXEL = 5e-3


class Site:
    """An output folder with selected models, of which a test says what was rendered before."""

    def __init__(self, root: Path) -> None:
        self.input = root / "shot"
        self.input.mkdir()
        self.layout = Layout(root / "out")
        self.settings = Settings(input_dir=self.input, output_dir=root / "out", device="auto")
        self.layout.state.mkdir(parents=True)
        files.write_json(self.layout.skipped, [])

    def add_frames(self, *numbers: int) -> None:
        for number in numbers:
            write_frame(self.input / f"{number}.png", number, SIZE)

    def read_frames(self, **settings) -> None:
        """Do what the rule sequence does."""
        found = scan.scan(self.input, on_bad_frame="skip", cache=self.layout.scan, **settings)
        sequence.save(found, self.layout.sequence)

    def select(self, **architectures: str | None) -> None:
        """Do what discovery does, for models of these names and architectures, of 1 MB each."""
        for model, architecture in architectures.items():
            artifact = Artifact("file:///store", "best.pth", (StoredFile("best.pth", 1_000_000),))
            ModelRecord(run_id=model, architecture=architecture, artifact=artifact).save(self.layout.record(model))
            RunRecord(run_id=model, run_name=model, architecture=architecture).save(self.layout.run(model))
        DiscoveryIndex(models=tuple(architectures)).save(self.layout.index)

    def render(self, model: str, seconds: float = 2.0, *, device: str = "cpu", stop: int | None = None) -> None:
        """Do what a render does, or one that was killed before the frame of number ``stop``."""
        layout, shot = self.layout, sequence.load(self.layout.sequence)
        about = ModelRecord.load(layout.record(model))
        loaded, pixels = LoadedModel(architecture=about.architecture), pixel_settings(self.settings)
        manifest = Manifest(
            layout.manifest(model, "all"),
            folder=layout.frames(model),
            keys=frame_keys(shot, "ab" * 32, pixels, loaded),
        )
        layout.manifests(model).mkdir(parents=True, exist_ok=True)
        for frame in shot.frames[:stop]:
            files.write_bytes(layout.frames(model) / frame.output, b"pixels")
            manifest.add(frame.output, b"pixels", seconds=seconds, device=device, tiled=False)
        if stop is not None:
            return
        outcome = Outcome(
            status="success",
            attempt=1,
            render=Figures(frames=len(shot.frames)),
            model=loaded,
            basis=basis(layout.record(model), shot.digest, pixels, loading_settings(self.settings)),
            artifact=RenderedArtifact(sha256="ab" * 32),
            input=Input(digest=shot.digest),
        )
        outcome.save(layout.attempt(model, "all"))
        outcome.save(layout.outcome(model, "all"))

    def due(self, **changes) -> dict[str, int | None]:
        return {model: due.frames for model, due in self.workload(**changes).models.items()}

    def workload(self, **changes) -> Workload:
        return Workload(self.layout, self.settings.model_copy(update=changes))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Ten frames that were read, and the models a and b."""
    site = Site(tmp_path)
    site.add_frames(*range(10))
    site.read_frames()
    site.select(a="unet", b="unet")
    return site


def test_every_frame_of_a_new_model_is_due_and_none_of_one_that_is_rendered(site):
    site.render("a")

    assert site.due() == {"a": 0, "b": 10}


def test_lost_frames_new_frames_and_changed_frames_are_due(site):
    site.render("a")
    site.render("b")
    (site.layout.frames("a") / "3.png").unlink()
    assert site.due() == {"a": 1, "b": 0}

    site.add_frames(10, 11)
    write_frame(site.input / "5.png", 99, SIZE)
    assert site.due() == {"a": 4, "b": 3}
    site.read_frames()
    assert site.due() == {"a": 4, "b": 3}

    (site.input / "5.png").unlink()
    assert site.due() == {"a": 3, "b": 2}


def test_a_setting_that_changes_pixels_makes_all_frames_due_and_others_none(site):
    site.render("a")

    assert site.due(precision="bf16")["a"] == 10
    assert site.due(default_architecture="nafnet")["a"] == 10
    assert site.due(fps=12, batch=4)["a"] == 0
    assert site.due(shard_frames=4)["a"] == 0


def test_an_artifact_that_changed_makes_all_frames_due(site):
    site.render("a")
    about = ModelRecord.load(site.layout.record("a"))
    replace(about, artifact=Artifact("file:///store", "last.pth", ())).save(site.layout.record("a"))

    assert site.due()["a"] == 10


def test_a_render_that_was_killed_resumes_where_it_stopped(site):
    site.render("a", stop=4)

    assert site.due()["a"] == 6


def test_a_model_that_failed_is_tried_again(site):
    Outcome(status="load_failed", attempt=1).save(site.layout.attempt("a", "all"))
    Outcome(status="load_failed", attempt=1).save(site.layout.outcome("a", "all"))

    assert site.due()["a"] == 10


def test_a_bad_frame_that_is_skipped_is_not_due(site):
    (site.input / "bad.png").write_bytes(b"no frame")
    site.read_frames()
    site.render("a")

    assert site.due()["a"] == 0


def test_frames_that_were_not_read_yet_are_counted_and_their_size_is_unknown(site):
    for path in (site.layout.sequence, site.layout.scan.frames):
        path.unlink()

    found = site.workload()

    assert found.models["a"].frames == 10
    assert found.models["a"].frame_bytes is found.models["a"].seconds is None
    assert "frames of unknown size and 2.0 MB of weights" in found.summary[0]
    assert "10 frames of" in found.summary[1]


@pytest.mark.parametrize("name", ["nowhere", "clip.mov"])
def test_where_frames_cannot_be_counted_they_are_unknown_for_a_reason(site, tmp_path, name):
    (tmp_path / "clip.mov").write_bytes(b"not decoded")

    found = site.workload(input_dir=tmp_path / name)

    assert found.models["a"].frames is None
    assert name in found.summary[1]
    assert found.columns[1] == ("unknown", "unknown", "unknown")


def test_no_frame_is_opened(site, monkeypatch):
    site.render("a")
    site.add_frames(10)
    monkeypatch.setattr(scan, "_inspect", lambda *_: pytest.fail("a frame was opened"))

    assert site.due() == {"a": 1, "b": 11}


def test_the_time_is_that_of_the_model_itself_else_of_its_architecture_else_unknown(site):
    site.select(a="UNet", b="unet", c="nafnet", d=None)
    site.render("a", seconds=2.0)
    site.select(b="unet", c="nafnet", d=None)  # what is no longer selected still counts
    site.render("c", seconds=5.0)
    (site.layout.frames("c") / "3.png").unlink()

    found = site.workload()

    assert [due.seconds for due in found.models.values()] == pytest.approx([20.0, 5.0, None])
    assert [row[1] for row in found.columns] == ["time", "~20 s", "5 s", "unknown"]
    assert "less than 0.01 device hours without 1 model of unknown speed" in found.summary[0]


def test_the_first_frame_of_a_job_does_not_slow_the_others_down_and_pixels_count(site):
    site.render("a", seconds=2.0)
    path = site.layout.manifest("a", "all")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(lines[0]) | {"seconds": 300.0}), *lines[1:]]) + "\n")
    for number in (10, 11):
        write_frame(site.input / f"{number}.png", number, (200, 100))
    site.read_frames()

    assert site.workload().models["a"].seconds == pytest.approx(2 * 4 * 2.0)


def test_times_of_another_device_do_not_count(site):
    site.render("a", device="cuda")

    assert site.workload(device="cpu").models["b"].seconds is None
    assert site.workload(device="cuda:1").models["b"].seconds == pytest.approx(20.0)


def test_frames_and_weights_that_are_there_take_no_room(site):
    site.render("a")
    site.layout.weights("b").whole.mkdir(parents=True)
    one = 0.7 * 3 * SIZE[0] * SIZE[1]

    found = site.workload(precision="bf16").models

    assert (found["a"].frame_bytes, found["a"].weight_bytes) == (0.0, 1_000_000)
    assert found["b"].frame_bytes == pytest.approx(10 * one)
    assert found["b"].weight_bytes == 0
    (site.layout.frames("a") / "3.png").unlink()
    assert site.workload().models["a"].frame_bytes == pytest.approx(one)


def test_the_table_and_the_sums_are_printed_with_the_skipped_runs(site):
    site.render("a")
    skipped = {"run_id": "1", "run_name": "x", "status": "FAILED", "reason": "", "kind": "with another status"}
    files.write_json(site.layout.skipped, [skipped])

    heading, _, first, second, *rest = plan(site.layout, site.settings).splitlines()

    assert heading.split()[:5] == ["model", "frames", "due", "time", "disk"]
    assert first.split()[:6] == ["a", "0", "of", "10", "-", "-"]
    assert second.split()[:8] == ["b", "10", "of", "10", "~20", "s", "1.1", "MB"]
    assert "To render: 10 frames of 1 model; about 105.0 kB of frames and 1.0 MB of weights" in "\n".join(rest)
    assert rest[-1] == "2 models; skipped: 1 FAILED"


def test_labels_and_ranks_are_shown_if_models_differ_in_params_and_have_ranks(site):
    for model, rate in (("a", "0.001"), ("b", "0.01")):
        about = RunRecord.load(site.layout.run(model))
        replace(about, params={"optim.lr": rate, "epochs": "5"}).save(site.layout.run(model))
    Metadata(run_id="b", render=RenderReport(status="success"), rank=1).save(site.layout.metadata("b"))

    heading, _, first, second, *_ = plan(site.layout, site.settings).splitlines()

    assert heading.split()[:3] == ["model", "label", "rank"]
    assert first.split()[:5] == ["a", "a", "(lr", "1e-3)", "-"]
    assert second.split()[:5] == ["b", "b", "(lr", "0.01)", "1"]


def test_frames_that_the_setting_leaves_out_are_not_due(site):
    site.render("a")
    (site.layout.frames("a") / "3.png").unlink()

    assert site.due(frames=3) == {"a": 0, "b": 3}
    assert site.due(frames="2:5") == {"a": 1, "b": 3}
    assert site.workload(frames=3).columns[2][0] == "3 of 3"


def test_frames_that_are_chosen_after_a_quick_look_are_due_except_those_in_place(site):
    site.read_frames(frames=3)
    site.render("a")

    assert site.due(frames="all") == {"a": 7, "b": 10}
    site.read_frames()
    assert site.due(frames="all") == {"a": 7, "b": 10}


def test_where_nothing_is_due_that_is_one_sentence(site):
    site.render("a")
    site.render("b")

    assert site.workload().summary == ["Nothing to render: every model has its 10 frames."]


def test_the_plan_imports_neither_codecs_nor_torch():
    program = "import sys, dailies.planning.workload; print({'torch', 'OpenImageIO', 'numpy', 'PIL'} & {*sys.modules})"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY / "scripts"
    )
    assert found.stdout == "set()\n"


def test_a_decision_for_another_number_of_finalists_is_not_taken_for_the_answer(site):
    contestants = (
        Contestant(model="a", is_finalist=True, reason=""),
        Contestant(model="b", is_finalist=False, reason=""),
    )
    Knockout(metric="psnr", frames=("0.png",), finalists=1, models=contestants).save(site.layout.knockout)

    assert site.due(knockout_frames=3, finalists=1) == {"a": 10, "b": 3}
    assert site.due(knockout_frames=3, finalists=2) == {"a": 3, "b": 3}


def test_before_frames_are_read_a_model_of_a_knockout_needs_those_of_the_first_round(site):
    site.layout.sequence.unlink()

    assert site.due() == {"a": 10, "b": 10}
    assert site.due(knockout_frames=3, finalists=1) == {"a": 3, "b": 3}
