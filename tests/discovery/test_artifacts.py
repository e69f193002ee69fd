import pytest
from dailies.core.text import number, whole, word
from dailies.discovery.artifacts import alternatives, candidates, files_matching, matching
from dailies.discovery.facts import FactNames, Facts, facts, hints
from dailies.store.entities import Artifact, LoggedModel, Run, StoredFile
from hypothesis import given
from hypothesis import strategies as st

NAMES = FactNames(
    architecture=("model.architecture", "arch"),
    epoch=("epoch", "training.epochs"),
    train_loss=("train/loss", "loss"),
    val_loss=("val/loss",),
)


def a_run(**values):
    known = {"params": {}, "metrics": {}, "tags": {}, "artifact_uri": "s3://bucket/1/id/artifacts"}
    return Run("id", "name", "exp", "1", "FINISHED", None, None, **(known | values))


def listing(*paths):
    """Files in the order in which they were written, on a store that tells no times."""
    return tuple(StoredFile(path, 10) for path in paths)


def found(*paths, logged=()):
    return [artifact.label for artifact in candidates(a_run(), listing(*paths), logged)]


def a_model(model_id):
    return LoggedModel(model_id, "id", "model", f"s3://bucket/1/models/{model_id}/artifacts", 1)


@pytest.mark.parametrize(
    "ranked",
    [
        ["checkpoints/best_model_unet.pth", "checkpoints/last.pth", "checkpoints/epoch_10.pth"],
        ["deep/er/Best.PTH", "a/latest.pt", "model.safetensors", "b/model.pt2", "a/model.onnx"],
        ["best.ckpt", "final.ckpt", "model.ckpt", "optimizer.ckpt"],
        ["epoch_010.pth", "epoch_9.pth", "epoch_1.pth"],
        ["last.pth", "optimizer_best.pt"],
        ["40000_E.pth", "40000_G.pth", "40000_optimizerG.pth"],
        ["net_g_latest.pth", "net_d_latest.pth"],
        ["G_12.pth", "D_12.pth"],
        ["epoch_3.pth", "best_discriminator.pt", "latest_discriminator.pt"],
        ["model.pth", "vgg19.pth"],
        ["model.safetensors", "checkpoint"],
        ["model.pt", "best_optimizer.pt"],
        ["unet.pth", "lr_scheduler.pt"],
        ["unet.pth", "grad_scaler.pt"],
        ["unet.pth", "rng_state.pt"],
        ["best_upscaler.pth", "last_upscaler.pth"],
        ["last.pth", "elastic.pth"],
        ["best_optimal.pth", "final.pth"],
        ["model.pth", "model.safetensors", "model.pt2", "model.onnx"],
        ["best.pt2", "last.ckpt", "z.onnx"],
    ],
)
def test_weights_are_ranked_by_their_file_name(ranked):
    assert found(*ranked) == ranked
    assert found(*ranked[::-1]) == ranked


def test_the_newest_comes_first_among_equals():
    files = (
        StoredFile("best_2.pth", 1, modified=1),
        StoredFile("best_1.pth", 1, modified=2),
        StoredFile("z.pth", 1, 3),
    )

    assert [artifact.path for artifact in candidates(a_run(), files)] == ["best_1.pth", "best_2.pth", "z.pth"]


def test_other_files_are_no_models():
    assert found("notes.txt", "checkpoints/best.pth.txt", "log", "MLmodel.yaml", "config.json") == []


def test_files_of_other_endings_come_last_and_only_if_their_content_may_be_a_model():
    files = listing("checkpoint", "model_best.pth.tar", "net.onnx", "MLmodel", "optimizer.bin", "b.pth")

    def asked(looks):
        return [artifact.label for artifact in candidates(a_run(), files, looks_like_model=looks)]

    everything = ["b.pth", "id", "net.onnx", "model_best.pth.tar", "checkpoint", "optimizer.bin"]
    assert asked(lambda file: True) == everything
    assert asked(lambda file: file.path == "checkpoint") == ["b.pth", "id", "net.onnx", "checkpoint"]
    assert candidates(a_run(), (StoredFile("checkpoint", 0),)) == []


def test_the_trainers_best_checkpoint_comes_first():
    files = listing("best.ckpt", "a/a.ckpt", "b/b.ckpt")

    artifacts = candidates(a_run(), files, best={"a/a.ckpt"})

    assert [artifact.path for artifact in artifacts] == ["a/a.ckpt", "best.ckpt", "b/b.ckpt"]


def test_files_of_an_mlflow_model_are_not_weights_of_their_own():
    inside = ["model/MLmodel", "model/data/model.pth", "model/extra_files/best.pth"]

    whole, inner = candidates(a_run(), listing(*inside, "model.txt", "models/notes.txt"))

    assert (whole.path, whole.label, whole.is_weights) == ("model", "model", False)
    assert [file.path for file in whole.files] == inside
    assert (inner.path, inner.is_weights) == ("model/extra_files/best.pth", True)
    assert found(*inside, "model_2/best.pth") == ["model_2/best.pth", "model", "model/extra_files/best.pth"]


def test_files_that_a_flavour_loads_itself_are_no_candidates():
    own = ["m/MLmodel", "m/data/model.pth", "m/data/pickle_module_info.txt", "m/python_model.pkl", "m/model.onnx"]

    assert found(*own, "m/artifacts/net.pth", "m/checkpoints/last.pth.tar") == [
        *("m", "m/artifacts/net.pth", "m/checkpoints/last.pth.tar"),
    ]


def test_files_in_logged_models_come_after_all_models():
    inside = {a_model("m-1").artifact_uri: listing("MLmodel", "artifacts/net.pth", "data/model.pth")}

    artifacts = candidates(a_run(), listing("a/MLmodel"), [a_model("m-1"), a_model("m-2")], inside=inside)

    assert [(artifact.label, bool(artifact.files)) for artifact in artifacts] == [
        *(("m-1", True), ("m-2", False), ("a", True), ("artifacts/net.pth", True)),
    ]
    assert artifacts[3].uri == a_model("m-1").artifact_uri


SHARDS = ["m/model-00001-of-00002.safetensors", "m/model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("index", "parts"),
    [
        ("m/model.safetensors.index.json", SHARDS),
        ("m/pytorch_model.bin.index.json", [f"m/pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]),
        (
            "m/diffusion_pytorch_model.safetensors.index.fp16.json",
            [f"m/diffusion_pytorch_model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)],
        ),
        ("m/model.safetensors.index.fp16.json", [f"m/model-0000{n}-of-00002.fp16.safetensors" for n in (1, 2)]),
    ],
)
def test_a_model_in_several_files_is_one_artifact(index, parts):
    files = listing(index, *parts, "m/config.json", "m/notes.json", "config.json")

    (only,) = candidates(a_run(), files, looks_like_model=lambda file: not file.path.endswith(".json"))

    assert (only.path, only.is_weights, only.config) == (index, True, "m/config.json")
    assert [file.path for file in only.files] == [index, *parts, "m/config.json"]
    assert list(matching([only], parts[0].partition("/")[2])) == [only]


def test_parts_without_an_index_are_one_artifact_too():
    (only,) = candidates(a_run(), listing(*SHARDS))

    assert only.path == SHARDS[0]
    assert [file.path for file in only.files] == SHARDS


def test_a_single_part_is_a_file_like_any_other():
    assert found("model-00001-of-00001.safetensors") == ["model-00001-of-00001.safetensors"]


def test_a_config_beside_weights_comes_with_them_and_is_no_part_of_them():
    large = StoredFile("b/config.json", 2**21)

    artifacts = candidates(a_run(), (*listing("a/best.pth", "a/config.json", "b/last.pth"), large))

    assert [[file.path for file in artifact.files] for artifact in artifacts] == [
        *(["a/best.pth", "a/config.json"], ["b/last.pth"]),
    ]
    assert [artifact.config for artifact in artifacts] == ["a/config.json", None]


def test_alternatives_are_few_and_of_several_families():
    epochs = [f"epoch_{number}.pth" for number in range(20)]
    others = [f"{letter}.pth" for letter in "abcdefghij"]

    first, *rest = candidates(a_run(), listing("best.pth", *epochs, *others))

    kept = [artifact.path for artifact in alternatives(first, rest)]
    assert kept == ["j.pth", "i.pth", "h.pth", "g.pth", "f.pth", "epoch_19.pth", "epoch_18.pth", "e.pth"]
    newest, *older = candidates(a_run(), listing(*epochs))
    assert [artifact.path for artifact in alternatives(newest, older)] == ["epoch_18.pth"]


def test_a_pattern_may_ask_for_a_file_of_any_name():
    files = listing("a/notes.txt", "m/MLmodel", "m/net.json", "m/best.json", "m/config.json")

    assert [artifact.path for artifact in files_matching("uri", files, "m/*.json")] == [
        *("m/best.json", "m/config.json", "m/net.json"),
    ]
    assert files_matching("uri", files, "*.pth") == []


def test_an_mlflow_model_may_lie_at_the_root():
    files = listing("MLmodel", "data/model.pth", "requirements.txt")

    (only,) = candidates(a_run(), files)

    assert (only.path, only.files) == ("", files)
    assert found("MLmodel", "data/model.pth", "best.pth") == ["best.pth", "id"]


def test_a_folder_named_like_weights_is_a_folder():
    (only,) = candidates(a_run(), listing("unet.pt/MLmodel", "unet.pt/data/model.pth"))

    assert not only.is_weights


def test_raw_weights_come_before_logged_models_before_model_folders():
    logged = [a_model("m-2"), a_model("m-1")]

    assert found("a/MLmodel", "last.pth", logged=logged) == ["last.pth", "m-2", "m-1", "a"]


def test_the_weights_beside_an_onnx_file_come_with_it():
    (only,) = candidates(a_run(), listing("a/net.onnx", "a/net.onnx.data", "net.onnx.data"))

    assert [file.path for file in only.files] == ["a/net.onnx", "a/net.onnx.data"]
    assert only.is_weights


def test_onnx_and_unlikely_files_come_after_mlflow_models():
    files = ["a/MLmodel", "best.onnx", "optimizer.pt", "any.safetensors"]

    assert found(*files, logged=[a_model("m-1")]) == ["any.safetensors", "m-1", "a", "best.onnx", "optimizer.pt"]


def test_a_pattern_is_over_paths_and_file_names():
    artifacts = candidates(a_run(), listing("a/best.pth", "a/last.pth", "b/last.pth", "m/MLmodel"), [a_model("m-1")])

    def labels(pattern):
        return [artifact.label for artifact in matching(artifacts, pattern)]

    assert labels(None) == ["a/best.pth", "b/last.pth", "a/last.pth", "m-1", "m"]
    assert labels("last.pth") == ["b/last.pth", "a/last.pth"]
    assert labels("a/*") == ["a/best.pth", "a/last.pth"]
    assert labels("*/LAST.pth") == []
    assert labels("m-*") == ["m-1"]
    assert labels("m") == ["m"]


def test_a_number_in_a_path_may_be_longer_than_python_reads():
    assert len(found("9" * 5000 + ".pth", "8.pth")) == 2


def test_size_is_known_when_every_files_is():
    assert Artifact("u", "", (StoredFile("a", 1), StoredFile("b", 2))).size == 3
    assert Artifact("u", "", (StoredFile("a", 1), StoredFile("b", None))).size is None


def test_facts_come_from_params_metrics_and_tags_in_the_order_of_the_names():
    run = a_run(
        params={"training.epochs": "2e3", "arch": "ignored", "train/loss": "nan", "loss": "0.125"},
        metrics={"val/loss": 0.5, "epoch": float("nan")},
        tags={"model.architecture": "NAFNet/32"},
    )

    assert facts(run, NAMES) == Facts("NAFNet/32", 2000, 0.125, 0.5)


def test_a_run_may_state_no_facts():
    assert facts(a_run(), NAMES) == Facts(None, None, None, None)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("2e3", 2000),
        ("2500.0", 2500),
        (" 12 ", 12),
        (7.0, 7),
        (0, 0),
        ("null", None),
        ("", None),
        ("-1", None),
        ("2.5", None),
        ("inf", None),
        ("1e300", None),
        (1.7976931348623157e308, None),
        (None, None),
        ([1], None),
    ],
)
def test_whole_numbers(value, result):
    assert whole(value) == result


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("0.5", 0.5),
        ("-1e-3", -0.001),
        (3, 3.0),
        ("nan", None),
        ("-inf", None),
        (-1.7976931348623157e308, None),
        ("1e999", None),
        (10**400, None),
        ("0,5", None),
        ({}, None),
    ],
)
def test_numbers(value, result):
    assert number(value) == result


@pytest.mark.parametrize(
    ("value", "result"),
    [("UNet", "UNet"), (" u\nnet ", "u net"), ("None", None), ("null", None), ("nan", None), ("", None), (3, "3")],
)
def test_words(value, result):
    assert word(value) == result


VALUES = st.dictionaries(
    st.sampled_from(["epoch", "train/loss", "loss", "val/loss", "arch"]),
    st.text(max_size=30) | st.floats().map(str) | st.sampled_from(["null", "2e3", "1e999", "٣", "1_0", "0x10"]),
)


@given(params=VALUES, metrics=st.dictionaries(st.sampled_from(["epoch", "val/loss"]), st.floats()), tags=VALUES)
def test_any_values_give_facts_that_can_be_used(params, metrics, tags):
    told = facts(a_run(params=params, metrics=metrics, tags=tags), NAMES)

    assert told.epoch is None or 0 <= told.epoch <= 10**9
    for loss in (told.train_loss, told.val_loss):
        assert loss is None or abs(loss) < 1.797e308
    assert told.architecture is None or (told.architecture.isprintable() and 0 < len(told.architecture) <= 100)


PATHS = st.lists(st.text("abest/0129.pthMLmodel_", min_size=1, max_size=12) | st.text(max_size=12), max_size=8)


@given(PATHS)
def test_any_listing_gives_each_file_at_most_one_model(paths):
    artifacts = candidates(a_run(), listing(*paths))

    assert all(artifact.files for artifact in artifacts)
    assert all(artifact.is_weights for artifact in artifacts if len(artifact.files) == 1 and artifact.path in paths)


def test_training_frames_are_no_hint_for_rendering():
    said = {"dailies.training_frames": "0-9", "dailies.scale": "2"}
    run = Run("id", "name", "exp", "1", "FINISHED", 1, 2, "file:///x", params=said, tags=said)

    assert hints(run) == {"dailies.scale": "2"}
