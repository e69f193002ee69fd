"""Promoting a model: what is written to the registry, and what is refused."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from dailies.core import files
from dailies.core.errors import DailiesError, PromotionError, StoreError
from dailies.state.records import BEST, TIE, WORSE, Leaderboard, MetricRecord, RankedModel, RankingRecord
from helpers.in_process import render_all
from helpers.json_files import strict_json
from helpers.publishing import measure, promoted, version
from helpers.raising import check
from helpers.studio import Studio, all_written
from helpers.weights import grey_checkpoint
from sqlalchemy import Engine, event


def refusal(studio: Studio, **changes) -> DailiesError:
    """Return the error of a refused promotion; check that the store is unchanged."""
    before = (studio.root / "mlflow.db").read_bytes()
    with pytest.raises((PromotionError, StoreError)) as error:
        promoted(studio, **changes)
    assert (studio.root / "mlflow.db").read_bytes() == before
    assert not list(studio.state.glob("promoting-*"))
    return error.value


def numbers(studio: Studio, name: str = "denoiser") -> list[int]:
    return sorted(int(each.version) for each in studio.client.search_model_versions(f"name='{name}'"))


def test_snakemake_promote_registers_the_named_folder_once(rendered: Studio):
    folder = rendered.folder(rendered.runs["dark"])
    measure(rendered, "dark")
    card = ("--config", f"model={folder}/", "registered_model=denoiser", "alias=champion")

    first = rendered.snakemake("promote", *card)
    after_first = (rendered.root / "mlflow.db").read_bytes()

    assert f"{folder.name} is now version 1 of denoiser, and @champion." in first
    assert promoted(rendered, f"{folder}/").endswith(
        "is version 1 of denoiser, @champion already; nothing was changed."
    )
    assert (rendered.root / "mlflow.db").read_bytes() == after_first
    found = version(rendered)
    run_id = rendered.runs["dark"]
    assert (int(found.version), found.run_id) == (1, run_id)
    assert found.source == f"runs:/{run_id}/checkpoints/best_model_unet.pth"
    frames = [[path.name, files.sha256_of(path)] for path in sorted(folder.glob("*.png"))]
    tags = dict(found.tags)
    assert tags.pop("dailies.promoted_at").endswith("+00:00")
    assert tags.pop("dailies.promoted_by")
    assert tags == {
        "dailies.version": "0.1.0",
        "dailies.model": folder.name,
        "dailies.artifact_sha256": rendered.metadata(run_id)["artifact"]["sha256"],
        "dailies.sequence_digest": strict_json(rendered.state / "sequence.json")["digest"],
        "dailies.frames": "4",
        "dailies.frames_digest": files.digest(frames),
        "dailies.metrics.psnr": "31.25",
    }
    assert not (rendered.root / "mlruns").exists()


def test_a_promoted_model_is_rendered_as_a_registered_model_and_not_again_as_itself(rendered: Studio):
    promoted(rendered)

    before = all_written(rendered)
    render_all(rendered)
    assert all_written(rendered) == before
    render_all(rendered, models=["denoiser@champion"], experiment_name=None, output_dir=str(rendered.root / "o"))

    (line,) = strict_json(rendered.root / "o" / "batch_summary.json")
    assert (line["status"], line["run_id"]) == ("success", rendered.runs["dark"])


def test_a_moved_alias_names_the_previous_version(rendered: Studio):
    promoted(rendered, "dark")
    assert promoted(rendered, "light").endswith(
        "is now version 2 of denoiser, and @champion, which was version 1 before."
    )
    assert version(rendered).tags["dailies.alias_moved_from.champion"] == "1"
    assert promoted(rendered, "dark").endswith("is version 1 of denoiser, and @champion, which was version 2 before.")
    assert version(rendered).tags["dailies.alias_moved_from.champion"] == "2"
    assert promoted(rendered, "dark", alias="second").endswith("is version 1 of denoiser, and @second.")
    assert numbers(rendered) == [1, 2]


def test_an_existing_version_of_the_same_file_is_reused(rendered: Studio):
    run_id = rendered.runs["dark"]
    location = rendered.client.get_run(run_id).info.artifact_uri
    rendered.client.create_registered_model("denoiser")
    path = "checkpoints/best_model_unet.pth"
    rendered.client.create_model_version("denoiser", f"{location}/{path}", run_id=run_id)
    rendered.client.create_model_version("denoiser", f"{location}/checkpoints/other.pth", run_id=run_id)
    rendered.client.create_model_version("denoiser", "runs:/" + "0" * 32 + "/lost", run_id="0" * 32)

    assert promoted(rendered).endswith("is version 1 of denoiser, and @champion.")
    assert numbers(rendered) == [1, 2, 3]
    assert version(rendered).tags["dailies.frames"] == "4"


def test_tags_of_metrics_are_replaced(rendered: Studio):
    measure(rendered, "dark", mean={"psnr": 31.25, "ssim": 0.9})
    promoted(rendered)
    measure(rendered, "dark", mean={"psnr": 32.5}, mean_unseen={"psnr": 30.5}, training_frames=2)

    assert promoted(rendered).endswith("@champion already; its tags were updated.")
    metrics = {key: value for key, value in version(rendered).tags.items() if ".metrics." in key}
    assert metrics == {"dailies.metrics.psnr": "32.5", "dailies.metrics.psnr_unseen": "30.5"}
    assert numbers(rendered) == [1]


def test_promoting_a_model_that_is_not_clearly_the_best_says_so(rendered: Studio):
    dark, light = (rendered.folder(rendered.runs[name]).name for name in ("dark", "light"))
    path = rendered.folder(rendered.runs["dark"]) / "metadata.json"
    about = strict_json(path)

    def ranked(rank: int, verdict: str) -> str:
        files.write_json(path, about | {"rank": rank, "verdict": verdict})
        places = [RankedModel(model=light, rank=3 - rank, verdict=TIE, mean=30.0)]
        places.insert(rank - 1, RankedModel(model=dark, rank=rank, verdict=verdict, mean=30.0))
        record = RankingRecord(
            metric="psnr", frames=4, of=4, on_training_frames=False, source=None, models=tuple(places)
        )
        metric = MetricRecord(name="psnr", label="PSNR", group="reference", higher_is_better=True)
        Leaderboard(ranking=record, metrics=(metric,)).save(rendered.layout.verdict)
        return promoted(rendered)

    assert f"ties for the first place by PSNR with {light}" in ranked(1, TIE)
    assert f"ranks 2 of 2 by PSNR; the first is {light}" in ranked(2, WORSE)
    tags = version(rendered).tags
    assert (tags["dailies.rank"], tags["dailies.verdict"]) == ("2", WORSE)
    assert "Note" not in ranked(1, BEST)
    rendered.layout.verdict.unlink()
    files.write_json(path, about)
    promoted(rendered)
    assert "dailies.rank" not in version(rendered).tags


def test_other_weights_under_the_same_name_are_another_version(rendered: Studio):
    promoted(rendered)
    rendered.log_checkpoint(rendered.runs["dark"], grey_checkpoint(0.3))

    folder = rendered.folder(rendered.runs["dark"]).name
    check(refusal(rendered), "publish.artifact_changed", folder, "(sha256 ", "run snakemake")

    render_all(rendered)
    assert promoted(rendered).endswith("is now version 2 of denoiser, and @champion, which was version 1 before.")


def test_missing_keys_are_named_before_any_job(rendered: Studio):
    there = ", ".join(sorted(rendered.folder(rendered.runs[name]).name for name in ("dark", "light", "middle")))
    how = "snakemake promote --config model=<folder> registered_model=<name> alias=<alias>; rendered models: " + there

    check(refusal(rendered, alias=None), "publish.incomplete_request", "promote needs alias: ", there)
    printed = rendered.snakemake("promote", "--dry-run", expect=1)
    assert f"dailies: promote needs model and registered_model and alias: {how}\n" in printed
    assert "Traceback" not in printed


def test_an_ambiguous_or_unknown_model_is_refused(rendered: Studio):
    folders = sorted(rendered.folder(rendered.runs[name]).name for name in ("dark", "light", "middle"))
    twin = folders[0].replace("dark", "darker")
    shutil.copytree(rendered.output / folders[0], rendered.output / twin)
    shutil.copytree(rendered.output / folders[1], rendered.output / f"{folders[1]}_2")

    check(refusal(rendered, model="dark"), "publish.ambiguous_model", "dark", f"{folders[0]}, {twin}")
    there = (str(rendered.output), f"{folders[0]}, ")
    check(refusal(rendered, model="nobody"), "publish.unknown_model", "nobody", *there)
    check(refusal(rendered, model="/"), "publish.unknown_model")
    assert promoted(rendered, folders[1]).startswith(f"{folders[1]} is now version 1")  # an exact name is not ambiguous


def test_a_failed_model_is_refused(rendered: Studio):
    path = rendered.folder(rendered.runs["dark"]) / "metadata.json"
    about = strict_json(path)
    files.write_json(path, about | {"render": about["render"] | {"status": "load_failed", "error": "no network"}})

    check(refusal(rendered), "publish.not_rendered", path.parent.name, "load_failed", "no network")


@pytest.mark.parametrize("harm", ["lost", "cut", "other sequence"])
def test_a_model_whose_frames_have_changed_is_refused(rendered: Studio, harm: str):
    folder = rendered.folder(rendered.runs["dark"])
    frame, sequence = folder / "frame_000002.png", rendered.state / "sequence.json"
    if harm == "lost":
        frame.unlink()
    elif harm == "cut":
        frame.write_bytes(frame.read_bytes()[:-1])
    else:
        shot = strict_json(sequence)
        shot["frames"][0]["sha256"] = "0" * 64
        files.write_json(sequence, shot | {"digest": "0" * 64})

    check(refusal(rendered), "publish.frames_changed", folder.name, "run snakemake")


def test_a_model_without_its_records_or_artifact_is_refused(rendered: Studio):
    name = rendered.folder(rendered.runs["dark"]).name
    next((rendered.root / "artifacts" / rendered.runs["dark"]).rglob("*.pth")).unlink()
    check(refusal(rendered), "publish.artifact_unavailable", name, "checkpoints/best_model_unet.pth")

    shutil.rmtree(rendered.state / "models")
    check(refusal(rendered), "publish.unknown_origin", name, "run snakemake")


def test_a_deleted_run_is_refused(rendered: Studio):
    rendered.client.delete_run(rendered.runs["dark"])

    check(refusal(rendered), "publish.run_deleted", rendered.runs["dark"])


@pytest.mark.parametrize(
    ("changes", "code", "names"),
    [
        ({"alias": "Latest"}, "publish.bad_alias", "'Latest'"),
        ({"alias": "v3"}, "publish.bad_alias", "latest or v1"),
        ({"alias": "a b"}, "publish.bad_alias", "'a b'"),
        ({"name": "a/b"}, "publish.bad_registered_model", "'a/b'"),
        ({"name": "n" * 251}, "publish.bad_registered_model", "250 characters"),
    ],
)
def test_names_that_mlflow_rejects_are_refused(rendered: Studio, changes: dict, code: str, names: str):
    check(refusal(rendered, **changes), code, names)


@pytest.fixture
def impatient() -> Iterator[None]:
    """Let MLflow wait for a locked database for a tenth of a second, not for twenty."""

    def shorten(_connection, _cursor, statement: str, parameters, _context, _many) -> tuple:
        return statement.replace("busy_timeout = 20000", "busy_timeout = 100"), parameters

    event.listen(Engine, "before_cursor_execute", shorten, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shorten)


@pytest.mark.usefixtures("impatient")
def test_a_locked_store_is_reported(rendered: Studio, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE", "1")
    with closing(sqlite3.connect(rendered.root / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "database is locked" in str(refusal(rendered))
