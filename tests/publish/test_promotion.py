"""Promoting a model: what is written to the registry, and what is refused, by real stores and real snakemake."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from dailies.core import files
from dailies.core.errors import DailiesError, PromotionError, StoreError
from dailies.state import manifest
from helpers.json_files import strict_json
from helpers.publishing import measure, promoted, version
from helpers.raising import check
from helpers.studio import Studio
from helpers.weights import grey_checkpoint


def refusal(studio: Studio, **changes) -> DailiesError:
    """Return the error of a promotion that is refused; the store is as it was."""
    before = (studio.root / "mlflow.db").read_bytes()
    with pytest.raises((PromotionError, StoreError)) as error:
        promoted(studio, **changes)
    assert (studio.root / "mlflow.db").read_bytes() == before
    assert not list(studio.state.glob("promoting-*"))
    return error.value


def numbers(studio: Studio, name: str = "denoiser") -> list[int]:
    return sorted(int(each.version) for each in studio.client.search_model_versions(f"name='{name}'"))


def test_snakemake_promote_registers_the_folder_that_was_named(rendered: Studio):
    folder = rendered.folder(rendered.runs["dark"])
    measure(rendered, "dark")
    card = ("--config", f"model={folder}/", "registered_model=denoiser", "alias=champion")

    first = rendered.snakemake("promote", *card)
    after_first = (rendered.root / "mlflow.db").read_bytes()
    second = rendered.snakemake("promote", *card)

    assert f"{folder.name} is now version 1 of denoiser, and @champion." in first
    assert f"{folder.name} is version 1 of denoiser, @champion already; nothing was changed." in second
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


def test_what_was_promoted_is_not_rendered_again_and_can_be_as_a_registered_model(rendered: Studio):
    promoted(rendered)

    assert "Nothing to be done" in rendered.snakemake("-n")
    output = rendered.snakemake(models=["denoiser@champion"], experiment_name=None, output_dir=str(rendered.root / "o"))

    (line,) = strict_json(rendered.root / "o" / "batch_summary.json")
    assert (line["status"], line["run_id"]) == ("success", rendered.runs["dark"]), output


def test_an_alias_that_moves_says_from_where(rendered: Studio):
    promoted(rendered, "dark")
    assert promoted(rendered, "light").endswith(
        "is now version 2 of denoiser, and @champion, which was version 1 before."
    )
    assert version(rendered).tags["dailies.alias_moved_from.champion"] == "1"
    assert promoted(rendered, "dark").endswith("is version 1 of denoiser, and @champion, which was version 2 before.")
    assert version(rendered).tags["dailies.alias_moved_from.champion"] == "2"
    assert promoted(rendered, "dark", alias="second").endswith("is version 1 of denoiser, and @second.")
    assert numbers(rendered) == [1, 2]


def test_a_version_that_someone_registered_of_the_same_file_is_used(rendered: Studio):
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


def test_new_measures_are_tagged_and_old_ones_taken_away(rendered: Studio):
    measure(rendered, "dark", mean={"psnr": 31.25, "ssim": 0.9})
    promoted(rendered)
    measure(rendered, "dark", mean={"psnr": 32.5}, mean_unseen={"psnr": 30.5}, training_frames=2)

    assert promoted(rendered).endswith("@champion already; what it was judged on is written anew.")
    metrics = {key: value for key, value in version(rendered).tags.items() if ".metrics." in key}
    assert metrics == {"dailies.metrics.psnr": "32.5", "dailies.metrics.psnr_unseen": "30.5"}
    assert numbers(rendered) == [1]


def test_the_same_file_name_with_other_weights_is_another_version(rendered: Studio):
    promoted(rendered)
    rendered.log_checkpoint(rendered.runs["dark"], grey_checkpoint(0.3))

    folder = rendered.folder(rendered.runs["dark"]).name
    check(refusal(rendered), "publish.artifact_changed", folder, "(sha256 ", "run snakemake")

    rendered.snakemake()
    assert promoted(rendered).endswith("is now version 2 of denoiser, and @champion, which was version 1 before.")


def test_what_is_missing_is_said_at_once(rendered: Studio):
    there = ", ".join(sorted(rendered.folder(rendered.runs[name]).name for name in ("dark", "light", "middle")))
    how = "snakemake promote --config model=<folder> registered_model=<name> alias=<alias>; the models here: " + there

    check(refusal(rendered, alias=None), "publish.incomplete_request", "promote needs alias: ", there)
    printed = rendered.snakemake("promote", "--dry-run", expect=1)
    assert f"dailies: promote needs model and registered_model and alias: {how}\n" in printed
    assert "Traceback" not in printed


def test_a_model_that_is_not_just_one_is_refused(rendered: Studio):
    folders = sorted(rendered.folder(rendered.runs[name]).name for name in ("dark", "light", "middle"))
    twin = folders[0].replace("dark", "darker")
    shutil.copytree(rendered.output / folders[0], rendered.output / twin)
    shutil.copytree(rendered.output / folders[1], rendered.output / f"{folders[1]}_2")

    check(refusal(rendered, model="dark"), "publish.ambiguous_model", "dark", f"{folders[0]}, {twin}")
    there = (str(rendered.output), f"{folders[0]}, ")
    check(refusal(rendered, model="nobody"), "publish.unknown_model", "nobody", *there)
    check(refusal(rendered, model="/"), "publish.unknown_model")
    assert promoted(rendered, folders[1]).startswith(f"{folders[1]} is now version 1")  # whole, it names itself


def test_a_failed_model_is_refused(rendered: Studio):
    path = rendered.folder(rendered.runs["dark"]) / "metadata.json"
    about = strict_json(path)
    files.write_json(path, about | {"render": about["render"] | {"status": "load_failed", "error": "no network"}})

    check(refusal(rendered), "publish.not_rendered", path.parent.name, "load_failed", "no network")


@pytest.mark.parametrize("harm", ["lost", "cut", "other sequence"])
def test_a_model_whose_frames_are_not_those_that_were_rendered_is_refused(rendered: Studio, harm: str):
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
def test_names_that_mlflow_does_not_accept_are_refused(rendered: Studio, changes: dict, code: str, names: str):
    check(refusal(rendered, **changes), code, names)


def test_a_read_only_store_is_refused(rendered: Studio):
    database = rendered.root / "mlflow.db"
    database.chmod(0o444)

    check(refusal(rendered), "store.read_only", str(database))


def test_a_store_of_another_mlflow_is_not_upgraded(rendered: Studio):
    database = rendered.root / "mlflow.db"

    def of(revision: str) -> None:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
            connection.commit()

    of("451aebb31d03")
    advice = (f"mlflow db upgrade sqlite:///{database}", "mlflow_uri")
    check(refusal(rendered), "store.older_format", str(database), *advice)
    of("ffffffffffff")
    check(refusal(rendered), "store.newer_format", str(database))


def test_a_locked_store_says_so(rendered: Studio, monkeypatch):
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_RECYCLE", "1")
    with closing(sqlite3.connect(rendered.root / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "database is locked" in str(refusal(rendered))


def test_frames_in_place_are_told_by_the_last_line(tmp_path: Path):
    lines = [manifest.PENDING, manifest.Entry("a.png", "key", 3, "old", 1.0, "cpu", tiled=False)]
    (tmp_path / "1.jsonl").write_text("".join(map(manifest._line, lines)))
    (tmp_path / "2.jsonl").write_text(manifest._line(manifest.Entry("b.png", "key", 9, "cut", 1.0, "cpu", tiled=False)))
    names = ("a.png", "b.png")
    for name in names:
        (tmp_path / name).write_bytes(b"abc")

    assert {name: entry.sha256 for name, entry in manifest.in_place(tmp_path, tmp_path, names).items()} == {
        "a.png": "old"
    }
