import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dailies.config import allowed, as_written, loading_settings, pixel_settings, validated
from dailies.errors import ConfigError
from helpers import REPOSITORY
from jsonschema import Draft202012Validator
from snakemake.cli import parse_config

CONFIG = REPOSITORY / "config"
SCHEMA = CONFIG / "config.schema.yaml"
RULES = yaml.safe_load(SCHEMA.read_text())["properties"]
TRUSTED = "allowed: true, false, one experiment or run id or a list of them"
DEFAULTS = {key: rule["default"] for key, rule in RULES.items()} | {
    "experiment_name": ["copyair_experiments"],
    "metrics": ["auto"],
}
TEXT_HINT = "not as text; write it in quotes in the configuration file."
PARITY = "parity_tolerance is {}; allowed: two numbers of at least 0, in brackets."
LOADER = "text such as loaders:load, a mapping such as {'restorer_*': 'loaders:load'} or none"
LIST_HINT = "not as text; write it in brackets on the command line, '{}=[...]', or in quotes in the configuration file."


def accepted(environ=None, **config):
    return validated(config, SCHEMA, environ or {})


def refused(environ=None, /, **config):
    with pytest.raises(ConfigError) as error:
        validated(config, SCHEMA, environ or {})
    return str(error.value)


def from_command_line(*entries):
    """Validate what ``snakemake --config`` makes of its arguments."""
    return validated(parse_config(entries), SCHEMA, {})


def test_nothing_given_is_the_demo():
    assert accepted() == DEFAULTS


def test_a_complete_configuration_stays_as_it_is():
    complete = accepted(run_ids="a,b", filter="params.a = 'b", tiled="yes", output_dir="~/out")

    assert validated(complete, SCHEMA, {}) == complete


def test_the_given_configuration_is_not_changed():
    given = {"max_runs": "5"}

    validated(given, SCHEMA, {})

    assert given == {"max_runs": "5"}


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("max_runs=5", 5),
        ("max_runs=1e3", 1000),
        ("max_runs=null", None),
        ("max_runs=None", None),
        ("tile_size=256.0", 256),
        ("filter_status=none", None),
        ("transfer=none", None),
        ("output_format=png16", "png16"),
        ("filter_status=", None),
        ("filter_status=finished", "FINISHED"),
        ("filter=null", None),
        ("filter=metrics.`val/psnr` > 30", "metrics.`val/psnr` > 30"),
        ("filter=params.a = 'b' and tags.c = 'd'", "params.a = 'b' and tags.c = 'd'"),
        ('filter=tags."a b" = "it\'s"', 'tags."a b" = "it\'s"'),
        ("order_by=metrics.`val/psnr` DESC", "metrics.`val/psnr` DESC"),
        ("tiled=true", True),
        ("tiled=False", False),
        ("tiled=Auto", "auto"),
        ("batch=4", 4),
        ("batch=AUTO", "auto"),
        ("compile=yes", True),
        ("autotune=on", True),
        ("compare=off", False),
        ("fps=23.976", 23.976),
        ("trust_pickle=YES", True),
        ("trust_pickle=12", ["12"]),
        ("trust_pickle=[0]", ["0"]),
        ("trust_pickle=123456789012345678", ["123456789012345678"]),
        ("trust_pickle=12, 0123456789abcdef0123456789ABCDEF", ["12", "0123456789abcdef0123456789ABCDEF"]),
        ("trust_pickle=[3, 12345678901234567890123456789012]", ["3", "12345678901234567890123456789012"]),
        ("models=net@champion", ["net@champion"]),
        ("models=net@champion, my net/3", ["net@champion", "my net/3"]),
        ("models=[models:/a@b/1, c@d]", ["models:/a@b/1", "c@d"]),
        ("models=none", None),
        ("recheck_artifacts=no", False),
        ("device=CUDA", "cuda"),
        ("device=cuda:11", "cuda:11"),
        ("precision=BF16", "bf16"),
        ("on_bad_frame=Skip", "skip"),
        ("parity_tolerance=[5, 1.5]", [5, 1.5]),
        ("parity_tolerance=0,0", [0, 0]),
        ("run_ids=null", None),
        ("run_ids=[a,b]", ["a", "b"]),
        ("run_ids=a, b,", ["a", "b"]),
        ("run_ids=a", ["a"]),
        ("run_ids=[00123, 1e5]", ["00123", "1e5"]),
        ("run_ids=12345678901234567890123456789012", ["12345678901234567890123456789012"]),
        ("experiment_name=2024", ["2024"]),
        ("experiment_name=unets, then others", ["unets, then others"]),
        ("experiment_name=[a, b]", ["a", "b"]),
        ("epoch_from=my/epochs", ["my/epochs"]),
        ("epoch_from=[]", []),
        ("output_dir=2024", "2024"),
        ("artifact_remap={/old: /new}", {"/old": "/new"}),
        ("folder_name={run_id}", "{run_id}"),
        ("folder_name={run_id:.8}", "{run_id:.8}"),
        ("folder_name={run_name}_{run_id:.8}", "{run_name}_{run_id:.8}"),
        ("checkpoint_pattern=checkpoints/last*.pth", "checkpoints/last*.pth"),
        ("model_loader=torch.jit:load", "torch.jit:load"),
        ("model_loader={swinir_*: torch.jit:load}", {"swinir_*": "torch.jit:load"}),
        ("model_loader=none", None),
        ("reference_name={stem}_gt", "{stem}_gt"),
        ("reference_name={number:04d}", "{number:04d}"),
        ("reference_offset=-1", -1),
    ],
)
def test_values_from_the_command_line(entry, value):
    key = entry.partition("=")[0]

    assert from_command_line(entry) == DEFAULTS | {key: value}


def test_several_values_from_the_command_line():
    assert from_command_line("max_runs=5", "device=cpu", "tiled=true") == (
        DEFAULTS | {"max_runs": 5, "device": "cpu", "tiled": True}
    )


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"experiment_name": ["a", 2024]}, ["a", "2024"]),
        ({"run_ids": ["00123"]}, ["00123"]),
        ({"max_runs": "5"}, 5),
        ({"folder_name": {"run_id": None}}, "{run_id}"),
        ({"mlflow_uri": "/data/me@lab/mlruns"}, "/data/me@lab/mlruns"),
        ({"mlflow_uri": "sqlite:////data/me@lab/mlflow.db"}, "sqlite:////data/me@lab/mlflow.db"),
        ({"input_dir": "~/frames"}, str(Path.home() / "frames")),
        ({"output_dir": "~"}, str(Path.home())),
        ({"output_dir": "./out//here/"}, "out/here"),
        ({"output_dir": "a b/[c]*?|"}, "a b/[c]*?|"),
        ({"output_dir": "../out"}, "../out"),
    ],
)
def test_values_from_a_file(given, value):
    (key,) = given

    assert accepted(**given)[key] == value


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("max_run", "'max_run' is not a key; did you mean max_runs?"),
        ("experiment", "'experiment' is not a key; did you mean experiment_name?"),
        ("filter-status", "'filter-status' is not a key; write filter_status."),
        ("--max-runs", "'--max-runs' is not a key; write max_runs."),
        ("Device", "'Device' is not a key; write device."),
        ("zzz", f"'zzz' is not a key; the keys are {', '.join(RULES)}."),
    ],
)
def test_a_wrong_key_names_the_right_one(key, message):
    assert refused(**{key: 1}) == message


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model_cache", "model_cache is gone: every output folder downloads its own models; take it out."),
        ("png_compression", "png_compression is gone: PNG files are always written in the fast way; take it out."),
        (
            "video_lossless",
            "video_lossless is gone: videos are H.264, the frames themselves are lossless; take it out.",
        ),
        ("model-cache", "model_cache is gone: every output folder downloads its own models; take it out."),
    ],
)
def test_a_key_of_an_earlier_version_is_told_to_be_gone(key, message):
    assert refused(**{key: None}) == message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "filter_status",
            "DONE",
            "filter_status is 'DONE'; allowed: FINISHED, RUNNING, FAILED, KILLED, SCHEDULED or none.",
        ),
        ("device", "gpu", "device is 'gpu'; allowed: auto, cuda, mps, cpu or cuda:N for GPU number N."),
        ("device", 0, "device is 0; allowed: auto, cuda, mps, cpu or cuda:N for GPU number N."),
        ("precision", "fp8", "precision is 'fp8'; allowed: fp32, tf32, fp16 or bf16."),
        ("precision", "none", "precision is 'none'; allowed: fp32, tf32, fp16 or bf16."),
        ("on_bad_frame", "warn", "on_bad_frame is 'warn'; allowed: error or skip."),
        ("tiled", "maybe", "tiled is 'maybe'; allowed: true, false or auto."),
        ("tiled", 1, "tiled is 1; allowed: true, false or auto."),
        ("batch", 0, "batch is 0; allowed: auto or a whole number from 1 to 256."),
        ("batch", "2.5", "batch is '2.5'; allowed: auto or a whole number from 1 to 256."),
        ("batch", "many", "batch is 'many'; allowed: auto or a whole number from 1 to 256."),
        ("batch", True, "batch is true; allowed: auto or a whole number from 1 to 256."),
        ("compile", "max", "compile is 'max'; allowed: true or false."),
        ("autotune", 5, "autotune is 5; allowed: true or false."),
        ("recheck_artifacts", "always", "recheck_artifacts is 'always'; allowed: auto, true or false."),
        ("fps", 0, "fps is 0; allowed: a number from 1 to 240 or none."),
        ("fps", "fast", "fps is 'fast'; allowed: a number from 1 to 240 or none."),
        ("compare", "maybe", "compare is 'maybe'; allowed: true or false."),
        ("trust_pickle", 1, f"trust_pickle is 1; {TRUSTED}; for the experiment with id 1 write [1]."),
        ("trust_pickle", "0", f"trust_pickle is '0'; {TRUSTED}; for the experiment with id 0 write [0]."),
        ("trust_pickle", "all", f"trust_pickle is 'all'; {TRUSTED}."),
        ("trust_pickle", None, f"trust_pickle is none; {TRUSTED}."),
        ("trust_pickle", [], f"trust_pickle is []; {TRUSTED}."),
        ("trust_pickle", [True], f"trust_pickle is [True]; {TRUSTED}."),
        ("trust_pickle", ["12", "abc"], f"trust_pickle is ['12', 'abc']; {TRUSTED}."),
        ("trust_pickle", 123456789012345678901234, f"trust_pickle is 123456789012345678901234; {TRUSTED}."),
        ("models", "net", "models is 'net'; allowed: one name@alias or name/version, a list of them or none."),
        ("models", ["a/b"], "models is ['a/b']; allowed: one name@alias or name/version, a list of them or none."),
        ("models", [], "models is []; allowed: one name@alias or name/version, a list of them or none."),
        ("max_runs", 0, "max_runs is 0; allowed: a whole number of at least 1 or none."),
        ("max_runs", "five", "max_runs is 'five'; allowed: a whole number of at least 1 or none."),
        ("max_runs", 2.5, "max_runs is 2.5; allowed: a whole number of at least 1 or none."),
        ("max_runs", float("nan"), "max_runs is nan; allowed: a whole number of at least 1 or none."),
        ("max_runs", True, "max_runs is true; allowed: a whole number of at least 1 or none."),
        ("overlap", -1, "overlap is -1; allowed: a whole number of at least 0."),
        ("tile_size", 500, "tile_size is 500; allowed: a multiple of 32 from 32 to 8192; the nearest is 512."),
        ("tile_size", "30", "tile_size is '30'; allowed: a multiple of 32 from 32 to 8192; the nearest is 32."),
        ("tile_size", 9000, "tile_size is 9000; allowed: a multiple of 32 from 32 to 8192; the nearest is 8192."),
        ("tile_size", None, "tile_size is none; allowed: a multiple of 32 from 32 to 8192."),
        ("output_dir", "", "output_dir is ''; allowed: text."),
        ("output_dir", ["a", "b"], "output_dir is ['a', 'b']; allowed: text."),
        ("experiment_name", [], "experiment_name is []; allowed: one experiment name, a list of them or none."),
        ("run_ids", [], "run_ids is []; allowed: one run id, a list of them or none."),
        ("run_ids", ",", "run_ids is ','; allowed: one run id, a list of them or none."),
        ("run_ids", [["a"]], "run_ids is [['a']]; allowed: one run id, a list of them or none."),
        ("parity_tolerance", 3, PARITY.format("3")),
        ("parity_tolerance", [2, -1], PARITY.format("[2, -1]")),
        ("parity_tolerance", "2 1", PARITY.format("'2 1'")),
        ("parity_tolerance", None, PARITY.format("none")),
        ("epoch_from", None, "epoch_from is none; allowed: one name or a list of them."),
        (
            "artifact_remap",
            "/a:/b",
            "artifact_remap is '/a:/b'; allowed: a mapping such as {/old/mlruns: /new/mlruns}.",
        ),
        (
            "artifact_remap",
            {"/a": 1},
            "artifact_remap is {'/a': 1}; allowed: a mapping such as {/old/mlruns: /new/mlruns}.",
        ),
        ("model_loader", "loaders.load", f"model_loader is 'loaders.load'; allowed: {LOADER}."),
        ("model_loader", "/code/loaders.py:load", f"model_loader is '/code/loaders.py:load'; allowed: {LOADER}."),
        ("model_loader", "loaders:", f"model_loader is 'loaders:'; allowed: {LOADER}."),
        ("model_loader", ["loaders:load"], f"model_loader is ['loaders:load']; allowed: {LOADER}."),
        ("model_loader", 3, f"model_loader is 3; allowed: {LOADER}."),
        ("model_loader", {"": "loaders:load"}, f"model_loader is {{'': 'loaders:load'}}; allowed: {LOADER}."),
        (
            "model_loader",
            {"unet": "loaders:load", "swinir_*": "loaders"},
            f"model_loader is {{'swinir_*': 'loaders'}}; allowed: {LOADER}.",
        ),
        (
            "artifact_remap",
            {f"/old/{number}": f"/new/{number}" for number in range(20)} | {7: 1},
            "artifact_remap is {7: 1}; allowed: a mapping such as {/old/mlruns: /new/mlruns}.",
        ),
        ("compare", "x" * 200, f"compare is '{'x' * 76}...; allowed: true or false."),
    ],
)
def test_a_wrong_value_says_what_is_allowed(key, value, message):
    assert refused(**{key: value}) == message


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("run_ids=123e4567", f"run_ids was read as the number inf, {LIST_HINT.format('run_ids')}"),
        ("run_ids=00123", f"run_ids was read as the number 123, {LIST_HINT.format('run_ids')}"),
        ("experiment_name=1.10", f"experiment_name was read as the number 1.1, {LIST_HINT.format('experiment_name')}"),
        ("output_dir=1e5", f"output_dir was read as the number 100000.0, {TEXT_HINT}"),
        ("filter=tags.a = 'b: c'", f"filter was read as a mapping, {TEXT_HINT}"),
    ],
)
def test_a_text_that_the_command_line_lost_is_refused(entry, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        from_command_line(entry)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("input_dir=shots/take #2", "shots/take #2"),
        ("input_dir='shots/take #2'", "shots/take #2"),
        ("output_dir=a: b", "a: b"),
        ("output_dir=a:", "a:"),
        ("reference_dir=[clean]", "[clean]"),
        ("reference_dir={clean}", "{clean}"),
        ("reference_dir=none", None),
        ("reference_dir=", None),
        ("input_dir=0123", "0123"),
        ("input_dir=1_000", "1_000"),
        ("input_dir=1e5", "1e5"),
        ("input_dir=inf", "inf"),
        ("input_dir=True", "True"),
        ("input_dir=yes", "yes"),
        ("input_dir=2024-05-01", "2024-05-01"),
        ("input_dir=- a", "- a"),
        ("input_dir=&a b", "&a b"),
        ("input_dir=O'Neil", "O'Neil"),
        ("input_dir='O'Neil'", "O'Neil"),
        ("input_dir=shots/caf\u00e9\u00a0#1", "shots/caf\u00e9\u00a0#1"),
        ("layer=*.Combined", "*.Combined"),
        ("layer=[ab]", "[ab]"),
        ("lpips_backbone=/a #b", "/a #b"),
        ("mlflow_uri=/mlruns #2", "/mlruns #2"),
        ("run_ids=00123", ["00123"]),
        ("experiment_name=unet #3", ["unet #3"]),
        ("filter=tags.a = 'b: c'", "tags.a = 'b: c'"),
        ("filter=params.a = 'b'", "params.a = 'b'"),
        ("max_runs=5", 5),
        ("batch=4", 4),
        ("tiled=yes", True),
        ("precision=bf16", "bf16"),
        ("folder_name={run_id}", "{run_id}"),
    ],
)
def test_a_text_on_the_command_line_is_what_was_written(entry, value, tmp_path):
    key = entry.partition("=")[0]

    given = as_written(parse_config([entry]), [entry], SCHEMA)
    found = validated(given, SCHEMA, {"MLFLOW_TRACKING_URI": str(tmp_path)})

    assert found[key] == value


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("python_path=/a #b", "/a #b"),
        ("python_path=[/a, /b]", ["/a", "/b"]),
        ("model_factory={unet: 'a:b'}", {"unet": "a:b"}),
        ("signatures={unet: {channels: 1}}", {"unet": {"channels": "1"}}),
    ],
)
def test_a_list_or_mapping_on_the_command_line_stays_one_where_the_key_takes_it(entry, value):
    assert as_written(parse_config([entry]), [entry], SCHEMA) == {entry.partition("=")[0]: value}


def test_a_value_that_is_not_the_command_lines_is_left_alone():
    assert as_written({"input_dir": "of a module"}, ["input_dir=take #2"], SCHEMA) == {"input_dir": "of a module"}
    assert as_written({"input_dir": "a"}, ["unknown=b #c", "no entry"], SCHEMA) == {"input_dir": "a"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("input_dir: {a: b}", f"input_dir was read as a mapping, {TEXT_HINT}"),
        ("experiment_name: yes", f"experiment_name was read as true, {LIST_HINT.format('experiment_name')}"),
        ("run_ids: [abc, 2024-01-02]", f"run_ids was read as 2024-01-02, {LIST_HINT.format('run_ids')}"),
        ("output_dir: 2024-01-02", f"output_dir was read as 2024-01-02, {TEXT_HINT}"),
    ],
)
def test_a_text_that_yaml_took_for_something_else_is_refused(line, message):
    assert refused(**yaml.safe_load(line)) == message


def test_everything_wrong_is_reported_line_by_line():
    assert refused(max_run=5, device="gpu", tile_size=500, overlap=600, folder_name="x").splitlines() == [
        "'max_run' is not a key; did you mean max_runs?",
        "device is 'gpu'; allowed: auto, cuda, mps, cpu or cuda:N for GPU number N.",
        "tile_size is 500; allowed: a multiple of 32 from 32 to 8192; the nearest is 512.",
        "folder_name is 'x'; it must contain {run_id} or {run_name}, which tell models apart.",
    ]


@pytest.mark.parametrize(
    ("tile_size", "overlap", "message"),
    [
        (512, 512, "overlap is 512 and tile_size is 512; allowed: an overlap of at most 480."),
        (512, 481, "overlap is 481 and tile_size is 512; allowed: an overlap of at most 480."),
        (32, 64, "overlap is 64 and tile_size is 32; allowed: an overlap of at most 0."),
    ],
)
def test_tiles_must_be_able_to_advance(tile_size, overlap, message):
    assert refused(tile_size=tile_size, overlap=overlap) == message


def test_the_widest_overlap_is_accepted():
    assert accepted(tile_size=512, overlap=480)["overlap"] == 480


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{frame}_gt", "reference_name names '{frame}'; allowed: {stem} and {number}."),
        ("gt", "reference_name names neither {stem} nor {number}, so all frames would have one reference."),
        ("{stem", "reference_name cannot be read: expected '}' before end of string."),
        ("../{stem}", "reference_name leaves reference_dir; allowed: a name, or a name in a sub-folder of it."),
    ],
)
def test_a_name_of_the_reference_that_cannot_work(template, message):
    assert refused(reference_name=template, reference_dir="r") == message


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{name}_{run_id}",
            "folder_name names '{name}'; allowed: run_name, run_id, architecture, epoch, train_loss, val_loss, "
            "experiment, start_time.",
        ),
        (
            "{run_id.__class__}_{run_id}",
            "folder_name names '{run_id.__class__}'; allowed: run_name, run_id, architecture, epoch, train_loss, "
            "val_loss, experiment, start_time.",
        ),
        (
            "{epoch}ep",
            "folder_name is '{epoch}ep'; it must contain {run_id} or {run_name}, which tell models apart.",
        ),
        ("{run_id", "folder_name '{run_id' cannot be read: expected '}' before end of string."),
        (
            "{run_name:.4f}",
            "folder_name cannot write run_name in the format '.4f'; "
            "allowed: a format that suits a value such as 'unet'.",
        ),
        ("{run_id:{epoch}}", "folder_name cannot write run_id in the format '{epoch}'; allowed: "),
        ("{run_id!x}", "folder_name cannot write run_id in the format 'x'; allowed: "),
    ],
)
def test_a_folder_name_that_cannot_work(template, message):
    assert refused(folder_name=template).startswith(message)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("frames", "frames", "output_dir 'frames' is the same as input_dir 'frames'; allowed: a folder outside it."),
        (
            "a/../frames",
            "./frames/",
            "output_dir './frames/' is the same as input_dir 'a/../frames'; allowed: a folder outside it.",
        ),
        ("frames", "frames/out", "output_dir 'frames/out' is inside input_dir 'frames'; allowed: a folder outside it."),
        (".", "out", "output_dir 'out' is inside input_dir '.'; allowed: a folder outside it."),
    ],
)
def test_output_may_not_lie_in_the_input(source, target, message):
    assert refused(input_dir=source, output_dir=target) == message


def test_input_may_lie_beside_or_below_the_output():
    assert accepted(input_dir="frames", output_dir="frames_out")
    assert accepted(input_dir="out/frames", output_dir="out")


def test_a_link_does_not_hide_that_output_lies_in_the_input(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "link").symlink_to("frames")

    assert "is inside" in refused(input_dir=str(tmp_path / "frames"), output_dir=str(tmp_path / "link" / "out"))


IN_ENVIRONMENT = (
    "mlflow_uri holds a user name or password, which would be written to files; "
    "set mlflow_uri to null, and MLFLOW_TRACKING_URI in the environment."
)
AS_VARIABLES = (
    "mlflow_uri holds a user name or password, which would be written to files; write it without, "
    "and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment."
)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://me:hush@server:5000", AS_VARIABLES),
        ("HTTPS://me@server", AS_VARIABLES),
        ("https://me:hu/sh@server", AS_VARIABLES),
        ("https://server/?token=hush", AS_VARIABLES),
        ("me:hush@server:5000", IN_ENVIRONMENT),
        ("postgresql://me:hush@server/mlflow", IN_ENVIRONMENT),
        ("postgresql://server/mlflow?user=me&password=hush", IN_ENVIRONMENT),
    ],
)
def test_credentials_in_the_address_are_refused_and_not_repeated(uri, message):
    assert refused(mlflow_uri=uri) == message


def test_credentials_in_a_value_of_the_wrong_type_are_not_repeated():
    assert refused(mlflow_uri=["http://me:hush@server"]) == (
        "mlflow_uri is ['http://***@server']; allowed: text or none."
    )


def test_no_address_is_the_one_of_the_environment():
    environ = {"MLFLOW_TRACKING_URI": "http://server:5000"}

    assert accepted(environ, mlflow_uri="null")["mlflow_uri"] == "http://server:5000"
    assert accepted(environ)["mlflow_uri"] == "sqlite:///demo/mlflow.db"


def test_credentials_of_the_environment_stay_there():
    environ = {"MLFLOW_TRACKING_URI": "http://me:hush@server:5000"}

    assert accepted(environ, mlflow_uri=None)["mlflow_uri"] is None


@pytest.mark.parametrize("environ", [{}, {"MLFLOW_TRACKING_URI": ""}])
def test_no_address_anywhere_is_refused(environ):
    assert refused(environ, mlflow_uri=None) == (
        "mlflow_uri is none and the environment variable MLFLOW_TRACKING_URI is not set; set one of them."
    )


def test_only_what_changes_pixels_is_a_pixel_setting():
    frames = {"output_format": "auto", "transfer": "clip"}
    tiles = {"tile_size": 512, "overlap": 64}
    assert pixel_settings(accepted()) == {"precision": "fp32", "tiled": "auto"} | frames | tiles
    assert pixel_settings(accepted(tiled=False, tile_size=256)) == {"precision": "fp32", "tiled": False} | frames
    lower = {"precision": "bf16", "parity_tolerance": [2, 0.25]}
    assert pixel_settings(accepted(precision="bf16")) == lower | {"tiled": "auto"} | frames | tiles
    compiled = {"precision": "fp32", "compile": True, "parity_tolerance": [2, 0.25]}
    assert pixel_settings(accepted(compile=True)) == compiled | {"tiled": "auto"} | frames | tiles
    tuned = {"precision": "fp32", "autotune": True, "parity_tolerance": [2, 0.25]}
    assert pixel_settings(accepted(autotune=True)) == tuned | {"tiled": "auto"} | frames | tiles
    assert pixel_settings(accepted(batch=4)) == pixel_settings(accepted())
    assert pixel_settings(accepted(parity_tolerance=[9, 9])) == pixel_settings(accepted())
    assert pixel_settings(accepted(device="cpu", max_runs=3, shard_frames=5)) == pixel_settings(accepted())


LOADING = {"default_architecture", "model_factory", "python_path", "signatures", "architecture_from", "code"}


@pytest.fixture
def code(tmp_path):
    """A folder with the user's modules."""
    (tmp_path / "program" / "inner").mkdir(parents=True)
    for name in ("loaders.py", "factories.py", "program/inner/networks.py"):
        (tmp_path / name).write_text("")
    return tmp_path


def test_no_loader_leaves_what_decides_on_a_network_as_it_was(code):
    config = accepted(model_factory="factories:build", python_path=str(code))

    assert loading_settings(config).keys() == LOADING
    assert loading_settings(accepted(python_path=str(code), model_loader={})).keys() == LOADING


def test_a_loader_changes_nothing_for_the_networks_of_a_factory(code):
    before = loading_settings(accepted(model_factory="factories:build", python_path=str(code)))

    both = {"model_factory": "factories:build", "model_loader": {"a": "loaders:load", "b": "torch.jit:load"}}
    after = loading_settings(accepted(**both, python_path=str(code)))

    assert {key: after[key] for key in LOADING} == before
    assert after["model_loader"] == both["model_loader"]
    assert after["loader_code"].keys() == {"loaders:load", "torch.jit:load"}
    assert after["loader_code"]["torch.jit:load"] is None


def test_editing_a_loaders_package_changes_its_digest_alone(code):
    config = accepted(model_loader={"a": "loaders:load", "b": "program.inner.networks:load"}, python_path=str(code))
    before = loading_settings(config)
    assert loading_settings(config) == before

    (code / "program" / "inner" / "others.py").write_text("another = 1")
    after = loading_settings(config)

    assert after["loader_code"]["loaders:load"] == before["loader_code"]["loaders:load"] is not None
    assert after["loader_code"]["program.inner.networks:load"] != before["loader_code"]["program.inner.networks:load"]
    assert after | {"loader_code": None} == before | {"loader_code": None}


@pytest.mark.parametrize("key", ["model_factory", "model_loader"])
@pytest.mark.parametrize(
    ("function", "module", "advice"),
    [
        ("nowhere:load", "nowhere", ""),
        ("loaders.inner:load", "loaders.inner", ""),
        ("loaders.py:load", "loaders.py", "; write it without .py"),
        ("program.networks:load", "program.networks", ""),
    ],
)
def test_the_module_of_a_users_function_must_be_there(code, key, function, module, advice):
    message = f"{key} names the module {module}, which is neither in python_path ({code}) nor installed{advice}."

    assert refused(**{key: function, "python_path": str(code)}) == message
    assert refused(**{key: {"a": function, "b": "torch.jit:load"}, "python_path": str(code)}) == message
    for found in ("loaders", "program", "program.inner", "program.inner.networks", "torch.jit"):
        accepted(**{key: f"{found}:load", "python_path": str(code)})


def test_a_folder_of_python_path_must_be_there(tmp_path):
    message = f"python_path names '{tmp_path}/typo', which is no folder; allowed: folders that hold Python modules."

    assert refused(model_loader="torch.jit:load", python_path=f"{tmp_path}/typo") == message


def test_validation_imports_nothing_heavy():
    code = "import sys, dailies.config; print(*{'mlflow', 'torch', 'numpy', 'snakemake'} & sys.modules.keys())"
    scripts = REPOSITORY / "scripts"

    answer = subprocess.run([sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == ""


def test_the_schema_is_one_and_its_defaults_pass_it():
    schema = yaml.safe_load(SCHEMA.read_text())

    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate({key: rule["default"] for key, rule in RULES.items()})
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("key", RULES)
def test_every_key_is_described_in_sentences(key):
    assert re.fullmatch(r"[A-Z].*\.(`` *\.)?", RULES[key]["description"], flags=re.DOTALL)


def test_the_users_file_says_the_defaults():
    text = (CONFIG / "config.yaml").read_text()
    commented = re.sub(r"^# (?=[a-z_]+:)", "", text, flags=re.MULTILINE)

    shipped = DEFAULTS | {"reference_dir": "demo/reference"}  # that of the demo, which nothing else would have
    assert validated(yaml.safe_load(text), SCHEMA, {}) == shipped
    assert validated(yaml.safe_load(commented), SCHEMA, {}) == shipped
    assert set(yaml.safe_load(commented)) == {key for key in RULES if not key.endswith("_from")}


def section(key):
    """Write what config/README.md says about a key."""
    rule = RULES[key]
    default = rule["default"]
    items = default if isinstance(default, list) and default else [default]
    shown = ", ".join(
        f"`{'null' if item is None else str(item).lower() if isinstance(item, bool) else item}`" for item in items
    )
    return f"### {key}\n\n{rule['description']}\n\nDefault: {shown}. Allowed: {allowed(rule)}.\n"


@pytest.mark.parametrize("key", RULES)
def test_the_readme_says_what_the_schema_says(key):
    readme = (CONFIG / "README.md").read_text()

    assert " ".join(section(key).split()) in " ".join(readme.split())


def test_the_readme_has_the_keys_of_the_schema():
    readme = (CONFIG / "README.md").read_text()

    assert re.findall(r"^### (\w+)$", readme, flags=re.MULTILINE) == list(RULES)


def test_the_readme_maps_arguments_to_keys():
    readme = (CONFIG / "README.md").read_text()
    table = re.findall(r"^\| `--([a-z-]+).*?` \| `--config (\w+)=", readme, flags=re.MULTILINE)

    assert {argument.replace("-", "_"): key for argument, key in table} == {key: key for _, key in table}
    assert {key for _, key in table} <= RULES.keys()
    assert len(table) == 9


def test_no_setting_lets_a_store_name_any_disk_or_server():
    assert refused(allowed_artifact_schemes=["s3", "file"]) == (
        "allowed_artifact_schemes lists file, which would let a store name any disk or server; "
        "take it out, and map what you trust in artifact_remap."
    )
    assert refused(allowed_artifact_schemes="S3://") == (
        "allowed_artifact_schemes is 'S3://'; allowed: one scheme or a list of them."
    )
    assert accepted(allowed_artifact_schemes="s3, sftp")["allowed_artifact_schemes"] == ["s3", "sftp"]


def test_something_must_be_selected():
    assert refused(experiment_name="none") == (
        "experiment_name, models and run_ids are all none, so there is nothing to render; set one of them."
    )
    assert accepted(experiment_name=None, models="net/1")["experiment_name"] is None
    assert accepted(experiment_name=None, run_ids=["a"])["models"] is None


def test_what_is_to_be_measured_must_be_possible(monkeypatch, tmp_path):
    assert (
        refused(metrics=["psnr"]) == "metrics lists psnr, which needs a reference; set reference_dir, or take it out."
    )
    assert refused(rank_by="psnr") == (
        "rank_by is psnr, which is not measured; allowed: auto, flicker, detail, clipping."
    )
    assert refused(order_by="measured.psnr DESC") == (
        "order_by is 'measured.psnr DESC'; of what is measured it may name, with ASC or DESC: none, as nothing is "
        "measured."
    )
    for given in ("measured.vmaf", "measured.ssim", "measured.psnr UPWARDS"):
        assert refused(order_by=given, metrics=["psnr", "detail"], reference_dir="r") == (
            f"order_by is {given!r}; of what is measured it may name, with ASC or DESC: measured.psnr, measured.detail."
        )
    assert accepted(order_by="measured.psnr desc", reference_dir="r")["order_by"] == "measured.psnr desc"
    assert refused(metrics="psnr,vmaf", reference_dir="r") == (
        "metrics is 'psnr,vmaf'; allowed: one of auto, psnr, ssim, ms_ssim, flip, lpips, flicker, detail and clipping, "
        "a list of them or none."
    )
    monkeypatch.setattr("dailies.config.find_spec", lambda module: None)
    assert refused(metrics=["flip"], reference_dir="r") == (
        "metrics lists flip, which needs a package that is not installed; pip install flip-evaluator."
    )
    path = tmp_path / "alexnet.pth"
    path.touch()
    assert refused(metrics=["lpips"], reference_dir="r", lpips_backbone=str(path)) == (
        "metrics lists lpips, which needs a package that is not installed; pip install --no-deps lpips."
    )


def test_the_backbone_of_lpips_must_be_there(tmp_path):
    asked = {"metrics": "auto, lpips", "reference_dir": "r"}
    kept = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    advice = (
        "download https://download.pytorch.org/models/alexnet-owt-7be5be79.pth and name the file in lpips_backbone."
    )

    told = f"metrics lists lpips, which needs the file {kept}, and it is not there; {advice}"
    assert refused({"TORCH_HOME": str(tmp_path)}, **asked) == told
    told = f"metrics lists lpips, which needs the file {Path.home()}/gone.pth, and it is not there; {advice}"
    assert refused(**asked, lpips_backbone="~/gone.pth") == told
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert accepted({"TORCH_HOME": str(tmp_path)}, **asked)["metrics"] == ["auto", "lpips"]
    assert accepted(lpips_backbone="gone.pth")["lpips_backbone"] == "gone.pth"  # as long as nobody asks for it


def test_metrics_may_be_a_list_a_text_or_none():
    assert from_command_line("metrics=[auto, ssim]", "reference_dir=r")["metrics"] == ["auto", "ssim"]
    assert from_command_line("metrics=auto,ssim", "reference_dir=r", "rank_by=SSIM")["rank_by"] == "ssim"
    assert from_command_line("metrics=none", "reference_dir=r")["metrics"] is None


@pytest.mark.parametrize(
    ("output_dir", "why"),
    [
        ("renders/{shot}", "a brace is a wildcard in the paths of Snakemake, and nothing is put in its place"),
        ("renders/}", "a brace is a wildcard in the paths of Snakemake, and nothing is put in its place"),
        ("$HOME/out", "variables such as $HOME are not replaced"),
        ("~nobody-of-that-name/out", "no user of that name has a folder here"),
        ("s3://bucket/out", "it is an address, not a folder"),
        ("out\n", "it holds a control character"),
        ("out\x07", "it holds a control character"),
    ],
)
def test_an_output_folder_that_means_something_else_is_refused(output_dir, why):
    assert refused(output_dir=output_dir) == (
        f"output_dir is {output_dir!r}, but {why}; write the path of a folder as it is."
    )


def test_the_address_of_a_page_in_a_browser_is_no_server():
    assert refused(mlflow_uri="http://studio:5000/#/experiments/3") == (
        "mlflow_uri is 'http://studio:5000/#/experiments/3', the address of a page in a browser; write "
        "http://studio:5000/, without what is behind #."
    )
    assert "secret" not in refused(mlflow_uri="http://me:secret@studio/#/experiments/3")


def test_the_name_of_the_projects_own_package_is_taken(tmp_path):
    (tmp_path / "dailies.py").touch()

    assert refused(model_factory="dailies.nets:build", python_path=[str(tmp_path)]) == (
        "model_factory names the module dailies, which is the name of this project's own package; give yours another "
        "name, or put the function into a module of another name."
    )
