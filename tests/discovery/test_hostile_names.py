"""Names and values from the store are hostile text: whatever they are, what we write and show is safe."""

import json
import logging
from pathlib import Path
from unittest.mock import patch

import pytest
from dailies.core import files
from dailies.core.errors import StoreError
from dailies.core.logs import job_log
from dailies.core.text import clean, plain
from dailies.discovery.download import download
from dailies.discovery.folder_names import LONGEST
from dailies.discovery.report import table
from dailies.state.layout import Layout
from dailies.store.entities import Experiment, LoggedModel, StoredFile, read_run
from dailies.store.locations import Locations
from dailies.store.tracking import TrackingStore
from helpers.scenes import Scene
from helpers.stores import configured
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlflow.entities import Metric, Param, RunData, RunInfo, RunTag
from mlflow.entities import Run as MlflowRun

TURNED = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
HOSTILE = TURNED + "\u2028\u2029\x85\x9b\x1b\x07\x08\x7f\0\n\r\u200b\ufeff\udcff/\\.%{}<>'\"`|:*?~$"

TEXT = st.text(st.sampled_from(HOSTILE) | st.characters(), max_size=40) | st.sampled_from(
    [
        "../../../escape",
        "/etc/escape",
        "..",
        ".",
        "x" * 9000,
        "\x1b]0;title\x07",
        "\0",
        "</script>",
        "NaN",
        "漢" * 300,
    ]
)
PATH = st.builds(
    lambda name, ending: name + ending, TEXT, st.sampled_from([".pth", "/best.pth", "/MLmodel", ".txt", ""])
)
NUMBER = st.floats() | st.just(1.8e308)


class Hostile(TrackingStore):
    """A server that answers with whatever it is given."""

    state = None

    def __init__(self, found: list[MlflowRun], experiment: str, paths: list[str]) -> None:
        self.name = "http://tracker:5000"
        self.locations = Locations(self.name, (), {})
        self._found = [read_run(run, Experiment(run.info.experiment_id, experiment)) for run in found]
        self._paths = paths

    def experiments(self, names):
        return [Experiment(name, name) for name in names]

    def runs(self, experiments, *, filter_string="", order_by=None, deleted=False):
        return self._found[-1:] if deleted else self._found

    def logged_models(self, experiment_ids):
        return {
            run.run_id: [LoggedModel("m", run.run_id, "m", f"mlflow-artifacts:/{run.run_name}/artifacts", 1)]
            for run in self._found[:1]
        }

    def _remote_files(self, artifact_uri):
        if "refuse" in artifact_uri:
            raise StoreError("store.refused", f"MLflow says: {artifact_uri}")
        return (StoredFile(path, 3) for path in self._paths)

    def fetch(self, artifact_uri, path, folder):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("abc")
        return folder / path


@st.composite
def runs(draw):
    info = RunInfo(
        run_id=draw(TEXT),
        experiment_id=draw(TEXT),
        user_id="",
        status=draw(st.sampled_from(["FINISHED", "KILLED", "RUNNING"])),
        start_time=draw(st.integers(0, 2**53)),
        end_time=None,
        lifecycle_stage="active",
        artifact_uri=draw(
            st.sampled_from(["mlflow-artifacts:/", "", "file:///", "http://", "mlflow-artifacts:/refuse/"])
        )
        + draw(TEXT),
        run_name=draw(TEXT),
    )
    names = TEXT | st.sampled_from(["model.a", "dailies.\u202e", "architecture", "epoch", "loss"])
    return MlflowRun(
        info,
        RunData(
            params=[Param(key, value) for key, value in draw(st.dictionaries(names, TEXT, max_size=4)).items()],
            metrics=[
                Metric(key, value, 1, 0) for key, value in draw(st.dictionaries(names, NUMBER, max_size=3)).items()
            ],
            tags=[RunTag(key, value) for key, value in draw(st.dictionaries(names, TEXT, max_size=3)).items()],
        ),
    )


def assert_strict(path: Path) -> None:
    text = path.read_bytes().decode()
    assert text.replace("\n", "").isprintable(), path
    json.loads(text, parse_constant=pytest.fail)


@settings(max_examples=40)
@given(
    found=st.lists(runs(), max_size=3, unique_by=lambda run: clean(run.info.run_id)[:200]),
    experiment=TEXT,
    paths=st.lists(PATH, max_size=4),
    template=st.sampled_from(["{run_name}", "{experiment}_{architecture}_{run_id:.8}", "{run_id}{epoch}"]),
)
def test_records_names_and_logs_are_safe_whatever_a_store_returns(
    tmp_path_factory, monkeypatch, caplog, found, experiment, paths, template
):
    root = tmp_path_factory.mktemp("hostile")
    layout = Layout(root / "out")
    caplog.clear()
    caplog.set_level(logging.INFO, logger="dailies")
    config = configured("http://tracker:5000", folder_name=template + "{run_id:.3}", filter="params.a = 'b'")
    for module in ("take_snapshot", "download"):
        monkeypatch.setattr(
            f"dailies.discovery.{module}.open_store", lambda config, private: Hostile(found, experiment, paths)
        )

    scene = Scene(layout, config)
    for _ in range(2):
        names = scene.look()
    shown = table(scene.layout) if names else scene.reason
    fetched = set()
    for name in names:
        download(config, layout=layout, model=name)
        receipt = files.read_json(layout.receipt(name))
        assert len(receipt["error"] or "") <= 1000
        fetched |= {layout.weights(name).whole / path for path in receipt.get("files", ())}

    assert all(str(path.relative_to(root)).isprintable() and ".." not in path.parts for path in fetched)
    written = {path for path in root.rglob("*") if path.is_file()} - fetched
    kept = {place(name) for name in names for place in (layout.record, layout.run)}
    own = {*((layout.index, layout.skipped, layout.snapshot) if names else (layout.skipped,))}
    assert written == kept | own | {layout.receipt(name) for name in names}
    assert len({name.casefold() for name in names}) == len(names)
    assert all(name.isprintable() and len(name.encode()) <= LONGEST for name in names)
    for path in written:
        assert_strict(path)
    assert shown.replace("\n", "").isprintable()
    assert max(map(len, shown.splitlines())) < 700
    for run in files.read_json(layout.skipped):
        assert all(value.isprintable() for value in run.values())
        assert len(run["run_id"]) <= 200
        assert len(run["run_name"]) <= 200
        assert len(run["reason"]) <= 1000
    for record in caplog.records:
        assert record.getMessage().isprintable()
        assert len(record.getMessage()) < 2000
    for name in names:
        hints = files.read_json(layout.record(name))["hints"]
        assert all(key.isprintable() and value.isprintable() for key, value in hints.items())
        assert all(len(key) <= 100 and len(value) <= 500 for key, value in hints.items())
        about = files.read_json(layout.run(name))
        assert all(len(value) <= 8000 for kind in ("params", "tags") for value in about[kind].values())


@given(st.text(st.sampled_from(HOSTILE) | st.characters(), max_size=100))
@example(TURNED)
def test_characters_that_reverse_a_line_are_removed(text):
    for safe in (clean(text), plain(text).replace("\n", "").replace("\t", ""), files.dump_json(text).decode()[:-1]):
        assert safe.isprintable()
        assert not set(safe) & set(TURNED + "\u2028\u2029\x85\x9b\x1b\x7f\0")
    assert clean(clean(text)) == clean(text)


@given(st.recursive(TEXT | st.none() | NUMBER, lambda inner: st.dictionaries(TEXT, inner, max_size=3), max_leaves=5))
def test_json_escapes_unsafe_characters(value):
    data = files.dump_json(value)

    assert json.loads(data, parse_constant=pytest.fail) == files.strict(value)
    assert data.decode().replace("\n", "").isprintable()


@given(TEXT)
def test_a_log_shows_no_control_characters(tmp_path, text):
    # pytest keeps what is logged, and its processes cannot hand each other halves of surrogate pairs
    with patch.object(logging.getLogger(), "handlers", []), job_log(str(tmp_path / "log")):
        logging.getLogger("dailies").info("%s", text)
        print(text)

    logged = (tmp_path / "log").read_bytes().decode()
    assert logged.replace("\n", "").replace("\t", "").isprintable()
