"""The configuration: values as users write them, refusals that name the key, and what is generated from both."""

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from dailies.core import files
from dailies.core.errors import ConfigError
from dailies.planning.config import TOPICS, Settings, loading_settings, pixel_settings, schemas
from dailies.planning.setting_errors import GONE
from dailies.planning.validation import as_written, validated
from helpers import REPOSITORY
from jsonschema import Draft202012Validator
from snakemake.cli import parse_config

CONFIG = REPOSITORY / "config"
KEYS = list(Settings.model_fields)


def accepted(environ=None, /, **config) -> Settings:
    return validated(config, environ or {})


def refused(environ=None, /, **config) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        validated(config, environ or {})
    return error.value


def from_command_line(*entries) -> Settings:
    """Validate what ``snakemake --config`` makes of its arguments."""
    return validated(parse_config(entries), {})


class TestValues:
    def test_nothing_given_is_the_demo(self):
        assert accepted() == Settings()
        assert accepted().input_dir == Path("demo/frames")

    def test_settings_survive_snakemakes_config_and_a_second_validation(self):
        settings = accepted(
            run_ids="a,b", filter="params.a = 'b", tiled="yes", output_dir="~/out", signatures={"a": {"scale": 2}}
        )

        assert validated(settings.as_config(), {}) == settings
        assert Settings.from_job(settings.as_config() | {"key of a module": 1}) == settings

    def test_the_given_configuration_is_not_changed(self):
        given = {"max_runs": "5"}

        validated(given, {})

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
            ("filter_status=", None),
            ("filter_status=finished", "FINISHED"),
            ("transfer=none", None),
            ("filter=metrics.`val/psnr` > 30", "metrics.`val/psnr` > 30"),
            ("filter=params.a = 'b' and tags.c = 'd'", "params.a = 'b' and tags.c = 'd'"),
            ('filter=tags."a b" = "it\'s"', 'tags."a b" = "it\'s"'),
            ("order_by=metrics.`val/psnr` DESC", "metrics.`val/psnr` DESC"),
            ("tiled=true", True),
            ("tiled=False", False),
            ("tiled=Auto", "auto"),
            ("recheck_artifacts=no", False),
            ("batch=4", 4),
            ("batch=AUTO", "auto"),
            ("compile=yes", True),
            ("compare=off", False),
            ("fps=23.976", 23.976),
            ("device=CUDA", "cuda"),
            ("device=cuda:11", "cuda:11"),
            ("trust_code=YES", True),
            ("trust_code=12", ("12",)),
            ("trust_code=[0]", ("0",)),
            ("trust_code=12, 0123456789abcdef0123456789ABCDEF", ("12", "0123456789abcdef0123456789ABCDEF")),
            ("trust_code=[3, 12345678901234567890123456789012]", ("3", "12345678901234567890123456789012")),
            ("models=net@champion, my net/3", ("net@champion", "my net/3")),
            ("models=[models:/a@b/1, c@d]", ("models:/a@b/1", "c@d")),
            ("models=none", None),
            ("parity_tolerance=[5, 1.5]", (5, 1.5)),
            ("parity_tolerance=0,0", (0, 0)),
            ("run_ids=a, b,", ("a", "b")),
            ("run_ids=[00123, 1e5]", ("00123", "1e5")),
            ("run_ids=12345678901234567890123456789012", ("12345678901234567890123456789012",)),
            ("experiment_name=2024", ("2024",)),
            ("experiment_name=unets, then others", ("unets, then others",)),
            ("experiment_name=[a, b]", ("a", "b")),
            ("epoch_from=[]", ()),
            ("output_dir=2024", Path("2024")),
            ("artifact_remap={/old: /new}", {"/old": "/new"}),
            ("folder_name={run_id}", "{run_id}"),
            ("folder_name={run_name}_{run_id:.8}", "{run_name}_{run_id:.8}"),
            ("model_loader={swinir_*: torch.jit:load}", {"swinir_*": "torch.jit:load"}),
            ("reference_name={number:04d}", "{number:04d}"),
            ("reference_offset=-1", -1),
        ],
    )
    def test_from_the_command_line(self, entry, value):
        assert from_command_line(entry) == Settings().model_copy(update={entry.partition("=")[0]: value})

    @pytest.mark.parametrize(
        ("given", "value"),
        [
            ({"experiment_name": ["a", 2024]}, ("a", "2024")),
            ({"run_ids": ["00123"]}, ("00123",)),
            ({"max_runs": "5"}, 5),
            ({"folder_name": {"run_id": None}}, "{run_id}"),
            ({"mlflow_uri": "/data/me@lab/mlruns"}, "/data/me@lab/mlruns"),
            ({"mlflow_uri": "sqlite:////data/me@lab/mlflow.db"}, "sqlite:////data/me@lab/mlflow.db"),
            ({"input_dir": "~/frames"}, Path.home() / "frames"),
            ({"output_dir": "./out//here/"}, Path("out/here")),
            ({"output_dir": "a b/[c]*?|"}, Path("a b/[c]*?|")),
            ({"metrics": "none"}, None),
            ({"allowed_artifact_schemes": "s3, sftp"}, ("s3", "sftp")),
        ],
    )
    def test_from_a_file(self, given, value):
        (key,) = given

        assert getattr(accepted(**given), key) == value

    @pytest.mark.parametrize("given", [24, 24.0, "24"])
    def test_whole_numbers_stay_whole(self, given):
        assert repr(accepted(fps=given).fps) == "24"
        assert repr(accepted(parity_tolerance=[given, 1.5]).parity_tolerance) == "(24, 1.5)"

    @pytest.mark.parametrize(
        ("entry", "value"),
        [
            ("input_dir=shots/take #2", Path("shots/take #2")),
            ("input_dir='shots/take #2'", Path("shots/take #2")),
            ("output_dir=a: b", Path("a: b")),
            ("reference_dir=[clean]", Path("[clean]")),
            ("reference_dir={clean}", Path("{clean}")),
            ("reference_dir=none", None),
            ("reference_dir=", None),
            *(
                (f"input_dir={text}", Path(text))
                for text in ("0123", "1_000", "1e5", "inf", "True", "yes", "- a", "&a b")
            ),
            ("input_dir='O'Neil'", Path("O'Neil")),
            ("input_dir=shots/caf\u00e9\u00a0#1", Path("shots/caf\u00e9\u00a0#1")),
            ("layer=*.Combined", "*.Combined"),
            ("mlflow_uri=/mlruns #2", "/mlruns #2"),
            ("run_ids=00123", ("00123",)),
            ("experiment_name=unet #3", ("unet #3",)),
            ("filter=tags.a = 'b: c'", "tags.a = 'b: c'"),
            ("max_runs=5", 5),
            ("batch=4", 4),
            ("tiled=yes", True),
            ("trust_code=[3]", ("3",)),
            ("folder_name={run_id}", "{run_id}"),
        ],
    )
    def test_a_text_on_the_command_line_is_kept_as_written(self, entry, value):
        given = as_written(parse_config([entry]), [entry])

        assert getattr(validated(given, {}), entry.partition("=")[0]) == value

    @pytest.mark.parametrize(
        ("entry", "value"),
        [
            ("python_path=/a #b", "/a #b"),
            ("python_path=[/a, /b]", ["/a", "/b"]),
            ("model_factory={unet: 'a:b'}", {"unet": "a:b"}),
            ("signatures={unet: {channels: 1}}", {"unet": {"channels": "1"}}),
        ],
    )
    def test_a_list_or_mapping_stays_one_if_the_key_takes_it(self, entry, value):
        assert as_written(parse_config([entry]), [entry]) == {entry.partition("=")[0]: value}

    def test_a_value_that_is_not_from_the_command_line_is_left_alone(self):
        assert as_written({"input_dir": "of a module"}, ["input_dir=take #2"]) == {"input_dir": "of a module"}
        assert as_written({"input_dir": "a"}, ["unknown=b #c", "no entry"]) == {"input_dir": "a"}

    def test_without_an_address_the_environment_gives_it(self):
        environ = {"MLFLOW_TRACKING_URI": "http://server:5000"}

        assert accepted(environ, mlflow_uri="null").mlflow_uri == "http://server:5000"
        assert accepted(environ).mlflow_uri == "sqlite:///demo/mlflow.db"

    def test_credentials_of_the_environment_stay_there(self):
        assert accepted({"MLFLOW_TRACKING_URI": "http://me:hush@server:5000"}, mlflow_uri=None).mlflow_uri is None


class TestRefusals:
    @pytest.mark.parametrize(
        ("key", "meant"),
        [
            ("max_run", "max_runs"),
            ("experiment", "experiment_name"),
            ("filter-status", "filter_status"),
            ("--max-runs", "max_runs"),
            ("Device", "device"),
            ("zzz", ", ".join(KEYS)),
        ],
    )
    def test_a_wrong_key_names_the_right_one(self, key, meant):
        error = refused(**{key: 1})

        assert error.code == "config.unknown_key"
        assert f"'{key}'" in str(error)
        assert meant in str(error)

    @pytest.mark.parametrize("key", [*GONE, "model-cache"])
    def test_a_removed_key_is_refused_with_its_replacement(self, key):
        error = refused(**{key: None})

        assert error.code == "config.removed_key"
        assert GONE[key.replace("-", "_")] in str(error)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("filter_status", "DONE"),
            ("device", "gpu"),
            ("device", 0),
            ("precision", "none"),
            ("tiled", 1),
            ("batch", 0),
            ("batch", "2.5"),
            ("batch", True),
            ("compile", "max"),
            ("autotune", 5),
            ("fps", 0),
            ("fps", "fast"),
            ("trust_code", "all"),
            ("trust_code", None),
            ("trust_code", []),
            ("trust_code", [True]),
            ("trust_code", ["12", "abc"]),
            ("trust_code", 123456789012345678901234),
            ("models", "net"),
            ("models", ["a/b"]),
            ("models", []),
            ("max_runs", 0),
            ("max_runs", 2.5),
            ("max_runs", float("nan")),
            ("max_runs", True),
            ("overlap", -1),
            ("tile_size", None),
            ("output_dir", ""),
            ("output_dir", ["a", "b"]),
            ("experiment_name", []),
            ("run_ids", ","),
            ("run_ids", [["a"]]),
            ("parity_tolerance", 3),
            ("parity_tolerance", [2, -1]),
            ("parity_tolerance", [2, True]),
            ("epoch_from", None),
            ("metrics", "psnr,vmaf"),
            ("artifact_remap", "/a:/b"),
            ("allowed_artifact_schemes", "S3://"),
            ("model_loader", "loaders.load"),
            ("model_loader", "/code/loaders.py:load"),
            ("model_loader", ["loaders:load"]),
            ("model_loader", 3),
            ("model_loader", {"": "loaders:load"}),
        ],
    )
    def test_a_wrong_value_is_shown_with_its_key(self, key, value):
        error = refused(**{key: value})

        shown = "none" if value is None else "true" if value is True else repr(value)
        assert error.code == "config.wrong_value"
        assert str(error).startswith(f"{key} is {shown}; allowed: ")

    @pytest.mark.parametrize(
        ("key", "value", "words"),
        [
            ("tile_size", 500, ["a multiple of 32 from 32 to 8192", "512"]),
            ("tile_size", "30", ["nearest is 32"]),
            ("tile_size", 9000, ["nearest is 8192"]),
            ("trust_code", 1, ["[1]"]),
            ("trust_code", "0", ["[0]"]),
            ("device", "gpu", ["auto, cuda, mps, cpu or cuda:N"]),
            ("filter_status", "DONE", ["FINISHED, RUNNING, FAILED, KILLED, SCHEDULED or none"]),
            ("experiment_name", [], ["one experiment name, a list of them or none"]),
            ("artifact_remap", {"/a": "/b", 7: 1}, ["{7: 1}", "{/old/mlruns: /new/mlruns}"]),
            ("model_loader", {"unet": "a:b", "swinir_*": "loaders"}, ["{'swinir_*': 'loaders'}", "loaders:load"]),
            ("compare", "x" * 200, ["true or false"]),
        ],
    )
    def test_a_wrong_value_is_refused_with_the_allowed_ones(self, key, value, words):
        message = str(refused(**{key: value}))

        assert all(word in message for word in [key, *words])
        assert len(message) < 200

    @pytest.mark.parametrize(
        ("config", "read"),
        [
            (parse_config(["run_ids=123e4567"]), "the number inf"),
            (parse_config(["run_ids=00123"]), "the number 123"),
            (parse_config(["experiment_name=1.10"]), "the number 1.1"),
            (parse_config(["output_dir=1e5"]), "the number 100000.0"),
            (parse_config(["filter=tags.a = 'b: c'"]), "a mapping"),
            (yaml.safe_load("input_dir: {a: b}"), "a mapping"),
            (yaml.safe_load("experiment_name: yes"), "true"),
            (yaml.safe_load("run_ids: [abc, 2024-01-02]"), "2024-01-02"),
            (yaml.safe_load("output_dir: 2024-01-02"), "2024-01-02"),
        ],
    )
    def test_a_text_that_was_read_as_something_else(self, config, read):
        error, (key,) = refused(**config), config

        assert error.code == "config.misread_text"
        assert str(error).startswith(f"{key} was read as {read}, ")
        assert (f"'{key}=[...]'" in str(error)) == (key in ("run_ids", "experiment_name"))

    def test_everything_wrong_is_reported_line_by_line(self):
        config = {"max_run": 5, "device": "gpu", "tile_size": 500, "overlap": 600, "folder_name": "x"}

        error = refused(**config)

        assert error.code == "config.several"
        assert [line.split()[0] for line in str(error).splitlines()] == [
            "'max_run'",
            "tile_size",
            "device",
            "folder_name",
        ]

    @pytest.mark.parametrize(("tile_size", "overlap", "most"), [(512, 481, 480), (32, 64, 0)])
    def test_tiles_must_be_able_to_advance(self, tile_size, overlap, most):
        error = refused(tile_size=tile_size, overlap=overlap)

        assert error.code == "config.overlap"
        assert f"at most {most}" in str(error)
        assert accepted(tile_size=tile_size, overlap=most).overlap == most

    @pytest.mark.parametrize(
        ("code", "config", "named"),
        [
            ("config.nothing_selected", {"experiment_name": "none"}, ["experiment_name", "models", "run_ids"]),
            ("config.no_store", {"mlflow_uri": None}, ["mlflow_uri", "MLFLOW_TRACKING_URI"]),
            ("config.browser_address", {"mlflow_uri": "http://s:5000/#/experiments/3"}, ["write http://s:5000/,"]),
            ("config.unsafe_scheme", {"allowed_artifact_schemes": ["s3", "file"]}, ["file", "artifact_remap"]),
            ("config.reference_name", {"reference_name": "gt", "reference_dir": "r"}, ["reference_name", "{stem}"]),
            ("config.signatures", {"signatures": {"unet": {"scale": 9}}}, ["signatures of unet", "scale", "'9'"]),
            ("config.python_path", {"python_path": "typo"}, ["python_path", "'typo'"]),
            ("config.metric_without_reference", {"metrics": ["psnr"]}, ["metrics", "psnr", "reference_dir"]),
            ("config.incomplete_knockout", {"knockout_frames": 12, "reference_dir": "r"}, ["finalists", "is 0"]),
            ("config.incomplete_knockout", {"finalists": 5, "reference_dir": "r"}, ["knockout_frames", "is 0"]),
            ("config.knockout_frames", {"knockout_frames": 11, "finalists": 5, "reference_dir": "r"}, ["11", "12"]),
            *(
                ("config.knockout_without_metric", {"knockout_frames": 12, "finalists": 5} | about, named)
                for about, named in (
                    ({}, ["knockout_frames", "reference_dir", "rank_by"]),
                    ({"rank_by": "flicker", "metrics": "flicker"}, ["rank_by", "flicker", "neighbouring"]),
                )
            ),
            ("config.rank_by", {"rank_by": "psnr"}, ["rank_by", "psnr", "auto, flicker, detail, clipping"]),
            ("config.order_by", {"order_by": "measured.psnr DESC"}, ["order_by", "nothing is measured"]),
            *(
                (
                    "config.order_by",
                    {"order_by": order, "metrics": ["psnr", "detail"], "reference_dir": "r"},
                    ["order_by", repr(order), "measured.psnr, measured.detail"],
                )
                for order in ("measured.vmaf", "measured.ssim", "measured.psnr UPWARDS")
            ),
        ],
    )
    def test_the_checks_of_several_keys(self, code, config, named):
        error = refused(**config)

        assert error.code == code
        assert all(name in str(error) for name in named)

    def test_one_selection_is_enough(self):
        assert accepted(experiment_name=None, models="net/1").experiment_name is None
        assert accepted(experiment_name=None, run_ids=["a"]).models is None

    @pytest.mark.parametrize(
        ("template", "named"),
        [
            ("{name}_{run_id}", "{name}"),
            ("{run_id.__class__}_{run_id}", "{run_id.__class__}"),
            ("{epoch}ep", "{epoch}ep"),
            ("{run_id", "{run_id"),
            ("{run_name:.4f}", "'.4f'"),
            ("{run_id:{epoch}}", "'{epoch}'"),
            ("{run_id!x}", "'x'"),
        ],
    )
    def test_a_folder_name_that_cannot_work(self, template, named):
        error = refused(folder_name=template)

        assert error.code == "config.folder_name"
        assert named in str(error)

    @pytest.mark.parametrize(
        ("source", "target", "place"),
        [
            ("frames", "frames", "the same as"),
            ("a/../frames", "./frames/", "the same as"),
            ("frames", "frames/out", "inside"),
            (".", "out", "inside"),
        ],
    )
    def test_output_may_not_be_in_the_input(self, source, target, place):
        error = refused(input_dir=source, output_dir=target)

        assert error.code == "config.output_in_input"
        assert f" is {place} input_dir '{source}'" in str(error)

    def test_input_may_be_beside_or_below_the_output(self):
        assert accepted(input_dir="frames", output_dir="frames_out")
        assert accepted(input_dir="out/frames", output_dir="out")

    def test_a_link_does_not_hide_that_output_is_in_the_input(self, tmp_path):
        (tmp_path / "frames").mkdir()
        (tmp_path / "link").symlink_to("frames")

        error = refused(input_dir=str(tmp_path / "frames"), output_dir=str(tmp_path / "link" / "out"))
        assert error.code == "config.output_in_input"

    @pytest.mark.parametrize(
        ("output_dir", "why"),
        [
            ("renders/{shot}", "wildcard"),
            ("renders/}", "wildcard"),
            ("$HOME/out", "$HOME"),
            ("~nobody-of-that-name/out", "no user"),
            ("s3://bucket/out", "address"),
            ("out\n", "control character"),
            ("out\x07", "control character"),
        ],
    )
    def test_an_output_folder_that_means_something_else(self, output_dir, why):
        error = refused(output_dir=output_dir)

        assert error.code == "config.output_dir"
        assert why in str(error)

    @pytest.mark.parametrize(
        ("uri", "remedy"),
        [
            ("http://me:hush@server:5000", "MLFLOW_TRACKING_PASSWORD"),
            ("HTTPS://me@server", "MLFLOW_TRACKING_PASSWORD"),
            ("https://me:hu/sh@server", "MLFLOW_TRACKING_PASSWORD"),
            ("https://server/?token=hush", "MLFLOW_TRACKING_PASSWORD"),
            ("me:hush@server:5000", "MLFLOW_TRACKING_URI"),
            ("postgresql://server/mlflow?user=me&password=hush", "MLFLOW_TRACKING_URI"),
        ],
    )
    def test_credentials_in_the_address_are_not_repeated(self, uri, remedy):
        error = refused(mlflow_uri=uri)

        assert error.code == "config.credentials"
        assert remedy in str(error)
        assert "hush" not in str(error)

    def test_credentials_in_other_refusals_are_not_repeated(self):
        assert "hush" not in str(refused(mlflow_uri=["http://me:hush@server"]))
        assert "hush" not in str(refused(mlflow_uri="http://me:hush@studio/#/experiments/3"))

    def test_a_metric_whose_package_is_missing(self, monkeypatch, tmp_path):
        monkeypatch.setattr("dailies.planning.setting_checks.find_spec", lambda module: None)
        (tmp_path / "alexnet.pth").touch()

        for name in ("flip", "lpips"):
            error = refused(metrics=[name], reference_dir="r", lpips_backbone=str(tmp_path / "alexnet.pth"))
            assert error.code == "config.metric_not_installed"
            assert f" {name}, " in str(error)

    def test_the_backbone_of_lpips_must_exist(self, tmp_path):
        asked = {"metrics": "auto, lpips", "reference_dir": "r"}
        kept = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"

        for error, path in (
            (refused({"TORCH_HOME": str(tmp_path)}, **asked), kept),
            (refused(**asked, lpips_backbone="~/gone.pth"), Path.home() / "gone.pth"),
        ):
            assert error.code == "config.lpips_backbone"
            assert str(path) in str(error)
        kept.parent.mkdir(parents=True)
        kept.touch()
        assert accepted({"TORCH_HOME": str(tmp_path)}, **asked).metrics == ("auto", "lpips")
        assert accepted(lpips_backbone="gone.pth").lpips_backbone == Path("gone.pth")  # not needed, so not looked for

    @pytest.mark.parametrize("key", ["model_factory", "model_loader"])
    @pytest.mark.parametrize("module", ["nowhere", "loaders.inner", "loaders.py", "program.networks"])
    def test_the_module_of_a_users_function_must_exist(self, code, key, module):
        for given in (f"{module}:load", {"a": f"{module}:load", "b": "torch.jit:load"}):
            error = refused(**{key: given, "python_path": str(code)})
            assert error.code == "config.missing_module"
            assert str(error).startswith(f"{key} names the module {module}, ")
            assert str(code) in str(error)
            assert str(error).endswith("without .py.") == module.endswith(".py")
        for found in ("loaders", "program", "program.inner", "program.inner.networks", "torch.jit"):
            accepted(**{key: f"{found}:load", "python_path": str(code)})

    def test_the_name_of_the_projects_own_package_is_taken(self, tmp_path):
        (tmp_path / "dailies.py").touch()

        error = refused(model_factory="dailies.nets:build", python_path=[str(tmp_path)])
        assert error.code == "config.reserved_module"
        assert "model_factory" in str(error)


@pytest.fixture
def code(tmp_path):
    """A folder with the user's modules."""
    (tmp_path / "program" / "inner").mkdir(parents=True)
    for name in ("loaders.py", "factories.py", "program/inner/networks.py"):
        (tmp_path / name).write_text("")
    return tmp_path


LOADING = {"default_architecture", "model_factory", "python_path", "signatures", "architecture_from", "code"}


class TestWhatDecidesOnPixels:
    """These values are part of every frame's key: another byte, and frames of existing folders are rendered again."""

    @pytest.mark.parametrize(
        ("config", "digest"),
        [
            ({}, "6642163ed4644af3"),
            ({"tiled": False}, "5f608b2f2c28bd4a"),
            (
                {"precision": "bf16", "parity_tolerance": [4.0, 0.5]},
                "0e4b450317bf64ec",
            ),
            (
                {"compile": True, "autotune": True, "tiled": True, "output_format": "exr", "transfer": None},
                "5dc6171c3f948318",
            ),
        ],
    )
    def test_pixel_settings_keep_their_bytes(self, config, digest):
        assert files.digest(pixel_settings(accepted(**config)))[:16] == digest

    @pytest.mark.parametrize(
        ("config", "digest"),
        [
            ({}, "623c8f87df598838"),
            (
                {
                    "model_factory": "torch.jit:load",
                    "signatures": {"unet": {"value_range": [0, 1], "output": 1}, "swinir_*": {"channels": 1}},
                    "python_path": ["/dev/", "/"],
                    "architecture_from": "net",
                    "default_architecture": "unet",
                },
                "68b563da316ff289",
            ),
            (
                {"model_loader": {"a": "torch.jit:load"}, "model_factory": {"*": "torch.jit:load"}},
                "1ea5b048dbfae7d8",
            ),
        ],
    )
    def test_loading_settings_keep_their_bytes(self, config, digest):
        assert files.digest(loading_settings(accepted(**config)))[:16] == digest

    def test_only_what_changes_pixels_is_a_pixel_setting(self):
        frames, tiles = {"output_format": "auto", "transfer": "clip"}, {"tile_size": 512, "overlap": 64}
        checked = {"parity_tolerance": [2, 0.25]}

        assert pixel_settings(accepted()) == {"precision": "fp32", "tiled": "auto"} | frames | tiles
        assert pixel_settings(accepted(tiled=False, tile_size=256)) == {"precision": "fp32", "tiled": False} | frames
        for change in ({"precision": "bf16"}, {"compile": True}, {"autotune": True}):
            assert pixel_settings(accepted(**change)) == pixel_settings(accepted()) | checked | change
        for change in ({"batch": 4}, {"parity_tolerance": [9, 9]}, {"device": "cpu", "max_runs": 3, "shard_frames": 5}):
            assert pixel_settings(accepted(**change)) == pixel_settings(accepted())

    def test_without_a_loader_its_keys_are_absent(self, code):
        settings = accepted(model_factory="factories:build", python_path=str(code))

        assert loading_settings(settings).keys() == LOADING
        assert loading_settings(accepted(python_path=str(code), model_loader={})).keys() == LOADING

    def test_a_loader_changes_nothing_for_the_networks_of_a_factory(self, code):
        before = loading_settings(accepted(model_factory="factories:build", python_path=str(code)))

        both = {"model_factory": "factories:build", "model_loader": {"a": "loaders:load", "b": "torch.jit:load"}}
        after = loading_settings(accepted(**both, python_path=str(code)))

        assert {key: after[key] for key in LOADING} == before
        assert after["model_loader"] == both["model_loader"]
        assert after["loader_code"].keys() == {"loaders:load", "torch.jit:load"}
        assert after["loader_code"]["torch.jit:load"] is None

    def test_editing_a_loaders_package_changes_its_digest_alone(self, code):
        loaders = {"a": "loaders:load", "b": "program.inner.networks:load"}
        settings = accepted(model_loader=loaders, python_path=str(code))
        before = loading_settings(settings)
        assert loading_settings(settings) == before

        (code / "program" / "inner" / "others.py").write_text("another = 1")
        after = loading_settings(settings)

        first, second = loaders.values()
        assert after["loader_code"][first] == before["loader_code"][first] is not None
        assert after["loader_code"][second] != before["loader_code"][second]
        assert after | {"loader_code": None} == before | {"loader_code": None}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestWhatIsGenerated:
    def test_nothing_is_stale(self, generator):
        stale = [path.name for path, text in generator.generated().items() if path.read_text(encoding="utf-8") != text]

        assert not stale, "run make docs"

    def test_the_schema_is_valid_and_its_defaults_pass_it(self, generator):
        schema = yaml.safe_load(generator.schema())

        Draft202012Validator.check_schema(schema)
        Draft202012Validator(schema).validate(Settings().as_config())
        Draft202012Validator(schema).validate(yaml.safe_load((CONFIG / "config.yaml").read_text()))
        assert list(schema["properties"]) == KEYS

    def test_the_schema_refuses_wrong_values(self, generator):
        check = Draft202012Validator(yaml.safe_load(generator.schema()))

        for wrong in ({"max_run": 5}, {"device": "gpu"}, {"tile_size": 500}, {"models": ["a/b"]}, {"fps": 0}):
            assert not check.is_valid(wrong)
        for right in ({"run_ids": "a,b"}, {"device": "cuda:1"}, {"model_loader": "a:b"}, {"trust_code": ["12"]}):
            assert check.is_valid(right)

    def test_every_key_is_in_one_topic_and_described_in_sentences(self):
        assert [key for topic in TOPICS for key in topic.model_fields] == KEYS
        for key, rule in schemas().items():
            assert re.fullmatch(r"[A-Z].*\.(`` *\.)?", rule["description"]), key

    def test_the_users_file_shows_the_defaults(self):
        text = (CONFIG / "config.yaml").read_text()
        commented = re.sub(r"^# (?=[a-z_]+:)", "", text, flags=re.MULTILINE)

        shipped = accepted(reference_dir="demo/reference")  # the demo's, which other frames do not have
        assert accepted(**yaml.safe_load(text)) == shipped
        assert accepted(**yaml.safe_load(commented)) == shipped
        assert set(yaml.safe_load(commented)) == {key for key in KEYS if not key.endswith("_from")}


def test_validation_imports_nothing_heavy():
    heavy = {"mlflow", "torch", "numpy", "snakemake"}
    code = f"import sys, dailies.planning.validation; print(*{heavy} & sys.modules.keys())"

    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "scripts", capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == ""
