import logging
import os
import pathlib
import pickle
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from dailies.core.errors import LoadError
from dailies.models.architectures.catalog import ARCHITECTURES
from dailies.models.factories import Factories
from dailies.models.load import Hints, load_model, unflattened
from dailies.models.signature import Signature
from dailies.models.training_progress import TrainingProgress
from helpers.raising import check
from helpers.raising import refused as expect_refusal
from helpers.stores import mlflow2
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

KNOWN = ("nafnet, unet", "spandrel")
CONFIGS = {"unet": {"base_channels": 2}, "nafnet": {"size": "small", "width": 4}}


def network(name="unet"):
    """A small network with random weights, none of them 0 or 1."""
    built = ARCHITECTURES[name](**CONFIGS[name])
    with torch.no_grad():
        for values in built.state_dict().values():
            if values.is_floating_point():
                values.copy_(torch.rand_like(values) + 0.1)
    return built.eval()


def checkpoint(built=None, name="unet", **changes):
    return {
        "model_state_dict": (built or network(name)).state_dict(),
        "model_config": CONFIGS[name],
        "architecture": name,
        "epoch": 10,
        "train_loss": 0.5,
    } | changes


def without(*keys):
    return {key: value for key, value in checkpoint().items() if key not in keys}


class Hostile:
    """A pickle that leaves a mark on the disk when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "best_model.pth"


@pytest.fixture
def load(path):
    """Save an object and load it as a model."""

    def saved_and_loaded(content, **options):
        torch.save(content, path)
        return load_model(path, **options)

    return saved_and_loaded


@pytest.fixture
def refused(path):
    """Save an object, or write bytes, and return the error that loading it raises."""

    def error_of(content, **options):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(LoadError) as error:
            load_model(path, **options)
        assert type(error.value) is LoadError
        return error.value

    return error_of


@pytest.mark.parametrize("name", ["unet", "nafnet"])
def test_a_loaded_model_computes_what_the_network_computed(load, name):
    original, frame = network(name), torch.rand(1, 3, 32, 64) * 2 - 1

    model = load(checkpoint(original, name))

    assert model.architecture == name
    assert model.signature == Signature(channels=3, value_range=(-1.0, 1.0), multiple=32)
    with torch.inference_mode():
        torch.testing.assert_close(model.network(frame), original(frame), rtol=0, atol=0)


def test_a_loaded_network_is_ready_to_render(load):
    built = load(checkpoint()).network

    assert not any(module.training for module in built.modules())
    assert not any(values.requires_grad for values in built.parameters())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_become_float32(load, kind):
    original = network().to(kind)
    expected = network()
    expected.load_state_dict(original.state_dict())
    frame = torch.rand(1, 3, 32, 32)

    built = load(checkpoint(original)).network

    assert {values.dtype for values in built.parameters()} == {torch.float32}
    with torch.inference_mode():
        torch.testing.assert_close(built(frame), expected(frame), rtol=0, atol=0)


def test_whole_number_weights_become_float32(load):
    state = {key: values.round().to(torch.int64) for key, values in network().state_dict().items()}

    assert load(checkpoint(model_state_dict=state)).network.outc.weight.dtype == torch.float32


@pytest.mark.parametrize("wrap", [OrderedDict, dict, lambda state: {k: nn.Parameter(v) for k, v in state.items()}])
def test_a_state_dict_of_any_type_loads(load, wrap):
    state = {key: values for key, values in network().state_dict().items() if values.is_floating_point()}
    others = {key: values for key, values in network().state_dict().items() if key not in state}

    model = load(checkpoint(model_state_dict=wrap(state) | others))

    torch.testing.assert_close(model.network.outc.weight.data, state["outc.weight"])


@pytest.mark.parametrize("word", ["UNet", "UNET", " unet "])
def test_the_case_of_an_architecture_does_not_matter(load, word):
    assert load(checkpoint(architecture=word)).architecture == "unet"


def test_the_architecture_of_the_checkpoint_wins_over_that_of_the_run(load):
    assert load(checkpoint(), hints=Hints(architecture="nafnet")).architecture == "unet"


@pytest.mark.parametrize(
    "content", [without("architecture"), checkpoint(architecture=None), checkpoint(architecture="")]
)
def test_the_run_states_the_architecture_if_the_checkpoint_does_not(load, content):
    assert load(content, hints=Hints(architecture="UNet")).architecture == "unet"


def test_without_model_config_the_published_sizes_are_used(load):
    small = {"base_channels": 64}
    content = checkpoint(ARCHITECTURES["unet"](**small)) | {"model_config": None}

    assert load(content).network.outc.weight.shape == (3, 64, 1, 1)


@pytest.mark.parametrize(
    ("told", "facts"),
    [
        ({"epoch": 10, "train_loss": 0.5}, {"epoch": 10, "train_loss": 0.5}),
        ({"epoch": "2e3", "train_loss": "0.25"}, {"epoch": 2000, "train_loss": 0.25}),
        ({"epoch": np.int64(7), "train_loss": np.float32(0.5)}, {"epoch": 7, "train_loss": 0.5}),
        ({"epoch": torch.tensor(7), "train_loss": torch.tensor(0.5)}, {"epoch": 7, "train_loss": 0.5}),
        ({"epoch": "null", "train_loss": float("nan")}, {}),
        ({"epoch": None, "train_loss": float("inf")}, {}),
        ({"epoch": 2.5, "train_loss": "nan"}, {}),
        ({"epoch": -1, "train_loss": [0.5]}, {}),
        ({"epoch": torch.ones(2), "train_loss": 10**400}, {}),
        ({"epoch": 0, "train_loss": 0, "val_loss": 0.125}, {"epoch": 0, "train_loss": 0.0, "val_loss": 0.125}),
    ],
)
def test_progress_is_read_from_the_checkpoint(load, told, facts):
    assert load(without("epoch", "train_loss") | told).progress == TrainingProgress(**facts)


def test_a_checkpoint_may_lack_progress(load):
    assert load(without("epoch", "train_loss")).progress == TrainingProgress()


def test_harmless_things_beside_the_weights_load(load):
    beside = {
        "loss": np.float64(0.5),
        "curve": np.arange(3.0),
        "flags": np.array([True, False]),
        "labels": np.array(["a", "b"]),
        "path": pathlib.Path("runs/7"),
        "windows": pathlib.PureWindowsPath("C:/runs/7"),
        "dtype": torch.float16,
        "size": torch.Size([1, 3]),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.99)}]},
    }

    assert load(checkpoint(**beside)).progress.epoch == 10


@pytest.mark.parametrize(
    ("written", "read"),
    [(b"numpy._core.multiarray\nscalar", b"numpy.core.multiarray\nscalar"), (b"pathlib\n", b"pathlib._local\n")],
    ids=["numpy 1", "python 3.13"],
)
def test_files_of_other_versions_load(path, written, read):
    # the older format keeps the pickle as it is, so that names can be replaced
    content = checkpoint(loss=np.float64(0.5), path=pathlib.PurePosixPath("runs"))
    torch.save(content, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert written in data
    path.write_bytes(data.replace(written, read))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert load_model(path).progress.epoch == 10


def test_a_path_from_windows_loads_anywhere(path):
    torch.save(checkpoint(path=pathlib.PurePosixPath("C")), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"PurePosixPath", b"WindowsPath"))

    assert load_model(path).architecture == "unet"


def test_misfits_are_counted_and_the_first_are_named(refused):
    state = network().state_dict()
    del state["outc.bias"]
    state |= {f"loss.{number}": torch.zeros(1) for number in range(7)}
    state["outc.weight"] = torch.zeros(3, 4, 1, 1)

    check(
        refused(checkpoint(model_state_dict=state)),
        "model.weights_misfit",
        "best_model.pth",
        "1 missing (outc.bias)",
        "7 unexpected (loss.0, loss.1, loss.2, loss.3, loss.4 and 2 more)",
        "(outc.weight 3×4×1×1 instead of 3×2×1×1)",
    )


def test_the_weights_determine_the_size_of_the_network(load):
    built = ARCHITECTURES["unet"](base_channels=3)

    model = load(checkpoint(built))

    assert sum(map(torch.numel, model.network.state_dict().values())) == sum(
        map(torch.numel, built.state_dict().values())
    )
    assert model.notes == ("model_config and the weights disagree, and the weights win: base_channels 2 instead of 3",)


def test_weights_that_are_not_tensors_are_misfits(refused):
    state = network().state_dict() | {"outc.bias": [0.0, 0.0, 0.0]}

    check(refused(checkpoint(model_state_dict=state)), "model.weights_misfit", "(outc.bias list instead of 3)")


def test_weights_without_values_are_refused(refused):
    state = {key: values.to("meta") for key, values in network().state_dict().items()}

    check(refused(checkpoint(model_state_dict=state)), "model.empty_weights", "100", "inc.conv.0.weight, ")


def test_hostile_keys_stay_on_one_short_line(refused):
    state = network().state_dict() | {"\x1b[31mred\n" + "x" * 5000: torch.zeros(1)}

    error = refused(checkpoint(model_state_dict=state))

    check(error, "model.weights_misfit", "1 unexpected (red xxx")
    assert len(str(error)) < 300


FOREIGN = {f"body.{number}.weight": torch.zeros(2, 2) for number in range(7)}
"""Weights of a network that nobody knows."""


@pytest.mark.parametrize(
    ("word", "stated"),
    [
        ("swinir", "'swinir'"),
        ("res/\x1b[31mnet\n", "'res/net'"),
        (None, ""),
    ],
)
def test_an_unknown_architecture_is_named_with_the_known_ones(refused, word, stated):
    check(
        refused(checkpoint(architecture=word, model_state_dict=FOREIGN)),
        "model.unknown_architecture",
        "best_model.pth",
        stated,
        "body.0.weight, body.1.weight, body.2.weight, body.3.weight, body.4.weight and 2 more",
        "nafnet, unet",
        "spandrel",
        "model_factory",
        "default_architecture",
    )


@pytest.mark.parametrize("name", ["unet", "nafnet"])
@pytest.mark.parametrize(("word", "notes"), [("swinir", 1), (None, 0), ("UNET", 0)])
def test_weights_that_fit_a_built_in_network_are_its_weights_whatever_the_file_states(load, name, word, notes):
    built, image = network(name), torch.rand(1, 3, 16, 16)

    model = load(checkpoint(built, name, architecture=word if word != "UNET" else name.upper(), model_config={}))

    assert (model.architecture, model.builder) == (name, "dailies")
    assert len(model.notes) == notes
    with torch.inference_mode():
        assert torch.equal(model.network(image), built(image))


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        ([1, 2], "an object of type list"),
        (torch.zeros(3), "an object of type Tensor"),
        ({}, "an empty dict"),
        ({"epoch": 1, "state": {}}, "a dict with the keys 'epoch', 'state'"),
        (dict.fromkeys("abcdefg", 0), "a dict with the keys 'a', 'b', 'c', 'd', 'e' and 2 more"),
    ],
    ids=["list", "tensor", "empty", "dict", "large dict"],
)
def test_the_content_of_other_files_is_described(refused, content, holds):
    check(refused(content), "model.no_tensors", "best_model.pth", holds, *KNOWN)


@pytest.mark.parametrize(
    ("config", "notes"),
    [
        ([64], ("model_config is not a dict and is ignored: [64]",)),
        ({1: 64}, ("settings in model_config that unet does not use are ignored: 1",)),
        ({"depth": 3}, ("settings in model_config that unet does not use are ignored: depth",)),
        (
            {"base_channels": 2, "smart": {"use_attention": False}, "norm_type": "group", "dropout_p": 0},
            ("settings in model_config that unet does not use are ignored: dropout_p, norm_type, smart",),
        ),
        ({"base_channels": -1}, None),
        ({"base_channels": 10**9}, None),
    ],
)
def test_a_config_that_contradicts_the_weights_is_ignored_with_a_note(load, config, notes):
    model = load(checkpoint(model_config=config))

    disagree = "model_config and the weights disagree, and the weights win: base_channels"
    assert model.notes == notes if notes else model.notes[0].startswith(disagree)


def test_an_invalid_config_is_refused_if_the_weights_are_unknown(refused):
    error = refused(checkpoint(model_config={"base_channels": -1}, model_state_dict=FOREIGN))

    check(error, "model.build_failed", "unet", "{'base_channels': -1}")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html><title>Sign in</title>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"\x89HDF\r\n\x1a\n", "Keras"),
        (b"\x93NUMPY\x01\0", "NumPy"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"epoch,loss", "'epoch,loss'"),
        (bytes(range(256)), ""),
        (pickle.dumps({"model_state_dict": {}}, protocol=4), "'model_state_dict'"),
    ],
    ids=["empty", "html", "lfs", "keras", "numpy", "gzip", "text", "bytes", "pickle"],
)
@pytest.mark.parametrize("trust_code", [False, True])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_that_torch_did_not_write_is_refused(refused, data, kind, trust_code):
    error = refused(data, trust_code=trust_code)

    if kind == "'model_state_dict'" and trust_code:  # its author's own reader is asked, too
        check(error, "model.unloadable", "best_model.pth")
    else:
        codes = {"empty": "model.damaged", "'model_state_dict'": "model.no_tensors"}
        check(error, codes.get(kind, "model.not_a_checkpoint"), "best_model.pth", kind, *KNOWN)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(path, refused, part):
    torch.save(checkpoint(), path)
    data = path.read_bytes()

    check(refused(data[: int(len(data) * part)]), "model.damaged", "best_model.pth", "cut short", *KNOWN)


@settings(max_examples=30, deadline=None)
@given(flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), min_size=1, max_size=5))
def test_a_damaged_checkpoint_loads_or_is_refused(path, flips):
    torch.save(checkpoint(), path)
    data = bytearray(path.read_bytes())
    for place, change in flips:
        data[int(place * len(data))] ^= change
    path.write_bytes(data)

    with warnings.catch_warnings(), suppress(LoadError):
        warnings.simplefilter("ignore")
        load_model(path)


@pytest.mark.parametrize("older_format", [False, True], ids=["zip", "older format"])
def test_code_in_a_checkpoint_does_not_run(path, tmp_path, older_format):
    mark = tmp_path / "mark"
    torch.save(checkpoint(extra=Hostile(mark)), path, _use_new_zipfile_serialization=not older_format)

    called = f"{os.system.__module__}.system"
    with expect_refusal(LoadError, "model.needs_permission", "best_model.pth", called, "set trust_"):
        load_model(path)

    assert not mark.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_bare_pickle_does_not_run(path, tmp_path, protocol):
    mark = tmp_path / "mark"
    path.write_bytes(pickle.dumps(Hostile(mark), protocol=protocol))

    with pytest.raises(LoadError, match=r"best_model\.pth") as error:
        load_model(path)

    assert error.value.code in {"model.needs_permission", "model.damaged"}
    assert not mark.exists()


def test_the_weights_of_a_whole_pickled_network_are_used_without_its_code(load):
    built, image = network(), torch.rand(1, 3, 16, 16)

    model = load(built)

    assert model.builder == "dailies"
    with torch.inference_mode():
        assert torch.equal(model.network(image), built(image))


def test_an_unknown_network_that_was_pickled_whole_is_refused_with_the_classes_that_it_needs(refused):
    error = refused(nn.Sequential(nn.Conv2d(3, 3, 1), nn.PReLU(), nn.Identity(), Invert()))

    needed = f"{Invert.__module__}.Invert, torch.nn.modules.activation.PReLU, "
    check(error, "model.needs_permission", "best_model.pth", needed, "set trust_", "model_factory")


def test_a_trusted_pickle_runs_its_code_and_loads(path, tmp_path, caplog):
    mark = tmp_path / "mark"
    torch.save(checkpoint(extra=Hostile(mark)), path)

    model = load_model(path, trust_code=True)

    assert mark.exists()
    assert model.progress.epoch == 10
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "best_model.pth" in record.message
    assert f"{os.system.__module__}.system" in record.message


def test_safe_globals_are_restored_after_loading(load):
    before = set(torch.serialization.get_safe_globals())

    load(checkpoint())

    assert set(torch.serialization.get_safe_globals()) == before


def test_a_hostile_file_name_stays_on_one_line(tmp_path):
    path = tmp_path / "a\x1b[31m\nb.pth"
    path.touch()

    with expect_refusal(LoadError, "model.damaged", "a b.pth"):
        load_model(path)


class Invert(nn.Module):
    """A network for ``channels`` whose answer is its input with the sign turned."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv.weight.data = -torch.eye(channels)[:, :, None, None]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.conv(pixels)


def exported(path: Path, network: nn.Module, channels: int = 3, *, dynamic: bool) -> Path:
    side = torch.export.Dim.AUTO
    shapes = ({2: side, 3: side},) if dynamic else None
    program = torch.export.export(network.eval(), (torch.zeros(1, channels, 64, 96),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def test_programs_load_as_models(tmp_path: Path):
    scripted = tmp_path / "best_model.pt"
    torch.jit.script(Invert().eval()).save(scripted)
    pixels = torch.rand(1, 3, 32, 64)
    for path, kind in ((scripted, "torchscript"), (exported(tmp_path / "m.pt2", Invert(), dynamic=True), "export")):
        model = load_model(path, trust_code=True)
        assert model.architecture == kind
        assert torch.equal(model.network(pixels), -pixels)


def flavored(tmp_path: Path, mlmodel: str = "flavors: {pytorch: {model_data: data, code: code}}") -> Path:
    """An MLflow model folder that brings code along, as MLflow lays it out."""
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (folder / "code").mkdir()
    (folder / "MLmodel").write_text(mlmodel)
    (folder / "data" / "pickle_module_info.txt").write_text("brought_along")
    code = f"from pathlib import Path\nPath({str(tmp_path / 'marker')!r}).touch()\n"
    (folder / "code" / "brought_along.py").write_text(code + "class Thing: pass\n")
    return folder


@contextmanager
def imported(name: str, code: str) -> Iterator[ModuleType]:
    """Make a module that can be imported for as long as the context lasts."""
    module = ModuleType(name)
    exec(code, module.__dict__)
    sys.modules[name] = module
    try:
        yield module
    finally:
        del sys.modules[name]


def save_thing(folder: Path) -> None:
    """Save an instance of a class in the code that a model folder brings along."""
    with imported("brought_along", "class Thing: pass") as module:
        torch.save({"thing": module.Thing()}, folder / "data" / "model.pth")


def test_code_that_a_model_brings_along_does_not_run(tmp_path: Path):
    folder = flavored(tmp_path)
    save_thing(folder)

    with expect_refusal(LoadError, "model.needs_permission", "model.pth", "brought_along.Thing", "set trust_"):
        load_model(folder)

    assert not (tmp_path / "marker").exists()


def test_code_beside_weights_does_not_run(tmp_path: Path):
    folder = flavored(tmp_path)
    torch.save(checkpoint(), folder / "data" / "model.pth")

    assert load_model(folder).architecture == "unet"
    assert not (tmp_path / "marker").exists()


def test_trusted_code_that_a_model_brings_along_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = flavored(tmp_path)
    save_thing(folder)

    with expect_refusal(LoadError, "model.no_tensors", "model.pth", "'thing'"):
        load_model(folder, trust_code=True)

    assert (tmp_path / "marker").exists()


def test_a_trusted_network_that_was_pickled_whole_finds_its_class_in_python_path(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "code").mkdir()
    code = "from torch import nn\nclass Inverse(nn.Module):\n    def forward(self, pixels):\n        return -pixels\n"
    (tmp_path / "code" / "ours_whole.py").write_text(code)
    with imported("ours_whole", code) as module:
        torch.save(module.Inverse(), tmp_path / "whole.pth")

    with expect_refusal(LoadError, "model.unloadable", "ours_whole", "pip install", "python_path"):
        load_model(tmp_path / "whole.pth", trust_code=True)
    found = Factories(python_path=(tmp_path / "code",))
    model = load_model(tmp_path / "whole.pth", factories=found, trust_code=True)

    assert (model.builder, model.architecture) == ("pickle", "inverse")
    assert torch.equal(model.network(torch.ones(1, 3, 4, 4)), -torch.ones(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("mlmodel", "code", "names"),
    [
        ("", "model.bad_mlmodel", ["MLmodel"]),
        ("flavors: [pytorch]", "model.bad_mlmodel", ["MLmodel"]),
        ("{{{", "model.bad_mlmodel", ["MLmodel"]),
        (
            "flavors: {sklearn: {}, python_function: {}}",
            "model.unknown_flavour",
            ["sklearn, python_function", "pytorch and onnx"],
        ),
        (
            "flavors: {pytorch: {model_data: data}}",
            "model.flavour_without_file",
            ["pytorch", "pickle_module_info.txt"],
        ),
        ("flavors: {pytorch: {model_data: ../..}}", "model.flavour_without_file", ["pytorch", "none"]),
        ("flavors: {onnx: {data: /etc}}", "model.flavour_without_file", ["onnx", "none"]),
    ],
)
def test_the_content_of_other_folders_is_described(tmp_path: Path, mlmodel: str, code: str, names: list[str]):
    with expect_refusal(LoadError, code, "model", *names):
        load_model(flavored(tmp_path, mlmodel))


def test_a_link_out_of_a_model_folder_is_not_followed(tmp_path: Path):
    folder = flavored(tmp_path)
    torch.save(checkpoint(), tmp_path / "secret.pth")
    (folder / "data" / "model.pth").symlink_to(tmp_path / "secret.pth")

    with expect_refusal(LoadError, "model.flavour_without_file"):
        load_model(folder)


def test_a_model_that_mlflow_2_pickled_loads_when_it_is_trusted(tmp_path: Path):
    (folder,) = mlflow2(tmp_path).glob("artifacts/*/artifacts/model")
    torch.manual_seed(1)
    original, image = nn.Conv2d(3, 3, 1), torch.rand(1, 3, 8, 8)

    with expect_refusal(LoadError, "model.needs_permission", "model.pth", "torch.nn.modules.conv.Conv2d"):
        load_model(folder)
    model = load_model(folder, trust_code=True)

    assert (model.architecture, model.builder) == ("conv2d", "pickle")
    with torch.inference_mode():
        torch.testing.assert_close(model.network(image), original(image))


@pytest.mark.parametrize(
    ("flat", "result"),
    [
        ({}, {}),
        ({"width": "8", "name": "a b"}, {"width": 8, "name": "a b"}),
        ({"encoder.blocks": "[1, 2]", "encoder.norm": "True"}, {"encoder": {"blocks": [1, 2], "norm": True}}),
        ({"a": "1", "a.b": "2"}, {"a": 1}),
        ({"x": "None", "y": "{", "z": "1e-3"}, {"x": None, "y": "{", "z": 0.001}),
    ],
)
def test_flattened_params_become_a_configuration(flat, result):
    assert unflattened(flat) == result


def test_hints_come_from_the_run_and_the_configuration():
    said = {"model.arch": "unet", "model.width": "8", "dailies.scale": "2"}
    settings = {"default_architecture": "nafnet", "architecture_from": ["model.arch", "arch"], "signatures": {"a": {}}}

    assert Hints.gather("folder", settings, architecture=None, run_hints=said) == Hints(
        folder="folder",
        architecture="nafnet",
        config={"arch": "unet", "width": 8},
        signature={"scale": "2"},
        signatures={"a": {}},
    )


def test_without_model_params_all_params_are_the_configuration():
    settings = {"default_architecture": None, "signatures": {}}

    hints = Hints.gather("folder", settings, architecture=None, run_hints={}, params={"width": "8", "optim.lr": "1e-4"})

    assert hints.config == {"width": 8, "optim": {"lr": 0.0001}}
    assert hints.params == {"width": "8", "optim.lr": "1e-4"}
