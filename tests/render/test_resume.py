"""What a second render writes again, and what it leaves as it is."""

import shutil
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from dailies.core import files
from dailies.core.typed import from_json
from dailies.frames import image, sequence
from dailies.state.due_shards import frame_keys
from dailies.state.records import LoadedModel
from helpers.frame_files import written
from helpers.images import read_frame, write_frame
from helpers.json_files import strict_json
from helpers.program_files import onnx_images
from helpers.render_sites import NAMES, SETTINGS, Inverse, fail, inverse_like
from helpers.weights import LOADING, grey, grey_checkpoint
from torch import nn


def signatures(pattern="model", **said):
    """The settings of loading with a signature."""
    return {"loading": LOADING | {"signatures": {pattern: said}}}


def by_loader(code="first", **loaders):
    """The settings of loading with a user's function, which loads the inverse."""
    loaders = loaders or {"model": "test_render_loaders:inverse"}
    return {"loading": LOADING | {"model_loader": loaders, "loader_code": dict.fromkeys(loaders.values(), code)}}


@pytest.fixture(autouse=True)
def user_module(monkeypatch):
    """A module with the user's function."""
    module = types.ModuleType("test_render_loaders")
    module.inverse = lambda path: Inverse()
    monkeypatch.setitem(sys.modules, module.__name__, module)


# changes of settings, code and weights


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"threads": 2, "attempt": 7, "device": "auto", "trust_code": True}, []),
        ({"settings": SETTINGS | {"precision": "bf16"}}, NAMES),
        ({"settings": SETTINGS | {"tiled": True}}, NAMES),
        ({"settings": SETTINGS | {"tile_size": 96}}, NAMES),
        (signatures("t*", value_range=[0, 1]), NAMES),
        (signatures(multiple=8), NAMES),
        (signatures(scale=1), []),
        (signatures("another", value_range=[0, 1]), []),
        ({"loading": LOADING | {"default_architecture": "unet"}}, []),
        ({"loading": LOADING | {"python_path": ["."]}}, []),
        (by_loader(), NAMES),
        (by_loader(another="test_render_loaders:inverse"), []),
    ],
)
def test_frames_are_rendered_again_if_pixels_may_depend_on_a_change(site, network, changes, expected):
    first = site.render_well()
    calls = network.calls

    with site.writes(*expected):
        second = site.render_well(**changes)

    network_record = second["model"]["network"]
    assert network_record["code"] == ("first" if ":" in network_record["builder"] else None)
    if not changes:
        assert second == first
        assert network.calls == calls == len(NAMES)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (by_loader(), []),
        (by_loader(another="other:load", model="test_render_loaders:inverse"), []),
        ({"loading": by_loader()["loading"] | {"code": "of a factory"}}, []),
        (by_loader("edited"), NAMES),
        ({"loading": LOADING}, NAMES),
    ],
)
def test_frames_of_a_loader_are_rendered_again_if_its_code_is_edited(site, network, changes, expected):
    site.render_well(**by_loader())

    with site.writes(*expected):
        site.render_well(**changes)


def test_another_artifact_renders_all_frames_again(site):
    site.render_well()
    site.download(grey_checkpoint(-0.5))

    with site.writes(*NAMES):
        site.render_well()

    np.testing.assert_array_equal(site.pixels()[NAMES[0]], np.full((5, 7, 3), grey(-0.5)))


def test_another_config_beside_the_same_weights_is_loaded_but_may_make_the_same_network(site, network):
    site.render_well()
    site.amend_receipt(config_sha256="ab")

    with site.writes():
        assert site.render_well()["artifact"]["config_sha256"] == "ab"


def test_another_output_renders_all_frames_again(site, use):
    use(inverse_like(lambda x: (x, -x)))
    site.render_well(**signatures(output=0))

    with site.writes(*NAMES):
        site.render_well(**signatures(output=1))

    site.check_inverted()


def test_other_constants_render_all_frames_again_and_are_recorded(site, use):
    use(inverse_like(lambda x: x[:, 3:] - x[:, :3]))

    outcome = site.render_well(**signatures(channels=4, extra_channels=[0.0]))

    assert outcome["model"]["signature"]["extra_channels"] == [0.0]
    site.check_inverted()
    with site.writes(*NAMES):
        site.render_well(**signatures(channels=4, extra_channels=[0.5]))


# changes of frames


def test_only_lost_frames_are_rendered_again(site, network):
    site.render_well()
    (site.folder / NAMES[3]).unlink()
    (site.folder / NAMES[5]).write_bytes(b"cut")

    with site.writes(NAMES[3], NAMES[5]):
        outcome = site.render_well(attempt=2)

    assert network.calls == 8
    assert (outcome["attempt"], outcome["render"]["frames"]) == (2, 6)


def test_only_changed_input_frames_are_rendered_again(site, network):
    site.render_well()
    write_frame(site.shot / NAMES[2], seed=99)
    site.read_sequence()

    with site.writes(NAMES[2]):
        site.render_well()

    site.check_inverted()


def test_only_added_frames_are_rendered(site, network):
    site.render_well()
    added = ["frame_000006.png", "frame_000007.png"]
    for number, name in enumerate(added):
        write_frame(site.shot / name, number)
    site.read_sequence()

    with site.writes(*added):
        assert site.render_well()["render"]["frames"] == 8


def test_a_frame_that_left_the_sequence_is_not_counted(site):
    site.render_well()
    (site.shot / NAMES[0]).unlink()
    site.read_sequence()

    outcome = site.render_well()

    assert (outcome["render"]["frames"], outcome["input"]["frames"]) == (5, 5)


def test_another_layer_renders_its_frames_again_and_the_same_one_does_not(site, network):
    for path in site.shot.iterdir():
        path.unlink()
    channels = [f"{layer}.{colour}" for layer in ("beauty", "matte") for colour in "RGB"]
    for number, greys in enumerate([(0.25, 0.5), (0.75, 0.125)]):
        values = np.repeat(np.float32(greys), 3) * np.ones((5, 7, 6), np.float32)
        (site.shot / f"f_{number}.exr").write_bytes(written(values, ".exr", depth="half", channels=channels))

    def render(**options):
        site.read_sequence(**options)
        site.render_well()
        paths = sorted(site.folder.glob("*.exr"))
        pictures = [image.decode(path.read_bytes(), path.name).pixels for path in paths]
        return [1 - float(picture[0, 0, 0]) for picture in pictures], [path.stat().st_mtime_ns for path in paths]

    plain, first = render()
    matte, second = render(layer="matte")
    named, third = render(layer="beau*")
    again, fourth = render()

    assert (plain, matte, named, again) == ([0.25, 0.75], [0.5, 0.125], [0.25, 0.75], [0.25, 0.75])
    assert first != second != third == fourth


# failed and interrupted renders


def test_a_lost_record_costs_no_frame(site, network):
    first = site.render_well()
    site.job.last_attempt.unlink()

    with site.writes():
        assert site.render() == first


def test_frames_outlive_a_failed_download(site, network):
    site.render_well()
    receipt = files.read_json(site.weights.receipt)
    files.write_json(site.weights.receipt, {"status": "download_failed", "error": "no answer", "uri": "store"})
    site.fail_to_render("download_failed", attempt=2)
    files.write_json(site.weights.receipt, receipt)

    with site.writes():
        outcome = site.render_well(attempt=3)

    assert outcome["render"]["frames"] == 6
    assert outcome["model"]["architecture"] == "test"


def test_frames_outlive_a_broken_artifact(site):
    site.render_well()
    site.download({"epoch": 3})
    site.fail_to_render("load_failed", attempt=2)
    site.download(grey_checkpoint(0.5))

    with site.writes():
        site.render_well(attempt=3)


@pytest.mark.parametrize("error", [RuntimeError("cosmic ray"), KeyboardInterrupt()])
def test_an_interrupted_render_resumes_and_ends_with_the_same_bytes_and_figures(site, network, error):
    undisturbed = site.render_well()
    expected = {name: (site.folder / name).read_bytes() for name in NAMES}
    for path in site.folder.iterdir():
        path.unlink()
    network.before[network.calls + 5] = fail(error)

    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            site.render()
    else:
        assert site.fail_to_render("error", "cosmic ray")["render"]["frames"] == 4
    assert list(site.written()) == NAMES[:4]
    with site.writes(*NAMES[4:]):
        outcome = site.render_well(attempt=2)

    assert {name: (site.folder / name).read_bytes() for name in NAMES} == expected
    figures, lines = outcome["render"], site.manifest_lines()
    assert figures.keys() == undisturbed["render"].keys()
    assert figures["frames"] == len(lines) == 6
    assert figures["seconds"] == round(sum(line["seconds"] for line in lines.values()), 2)
    assert site.render_well()["render"] == figures


def test_temporary_files_of_a_killed_job_are_removed(site):
    site.folder.mkdir(parents=True)
    (site.folder / f".{NAMES[0]}.0123abcd.tmp").write_bytes(b"half a frame")
    (site.folder / "notes.txt").write_text("mine")

    site.render_well()

    assert sorted(path.name for path in site.folder.iterdir()) == [*NAMES, "notes.txt"]


# forced renders


def damage(path):
    """Overwrite the end of a frame without changing its size."""
    path.write_bytes(path.read_bytes()[:-30] + bytes(30))


def test_a_forced_render_writes_every_frame_again_once(site, network):
    site.render_well()
    damage(site.folder / NAMES[2])
    with site.writes():
        site.render_well()

    with site.writes(*NAMES):
        outcome = site.render_well(attempt=2, forced="f")

    assert (outcome["attempt"], outcome["forced"], outcome["render"]["frames"]) == (2, "f", 6)
    site.check_inverted()
    with site.writes():
        site.render_well(attempt=2, forced="f")
        assert "forced" not in site.render_well(attempt=2)
    with site.writes(*NAMES):
        site.render_well(attempt=3, forced="another")


@pytest.mark.parametrize("forced", ["f", None])
def test_a_forced_render_that_failed_resumes(site, network, forced):
    site.render_well()
    damage(site.folder / NAMES[5])
    network.before = {network.calls + 4: fail(RuntimeError("no power"))}
    with site.writes(*NAMES[:3]):
        site.fail_to_render("error", "no power", attempt=2, forced="f")

    with site.writes(*NAMES[3:]):
        outcome = site.render_well(attempt=3, forced=forced)

    assert outcome["render"]["frames"] == 6
    site.check_inverted()


@pytest.fixture
def first_round(site) -> dict:
    """The job of the first round of a knockout, on frames 0, 3 and 5, after it and the others were rendered."""
    receipt = site.layout.candidate_receipt("model")
    receipt.parent.mkdir(parents=True)
    receipt.write_bytes(site.weights.receipt.read_bytes())
    first_round = {"shard": "knockout", "knockout_frames": 3}
    site.render_well(**first_round)
    site.render_well(knockout_frames=3)
    return first_round


def test_a_forced_invocation_renders_the_frames_of_a_first_round_once(site, network, first_round):
    damage(site.folder / NAMES[0])
    damage(site.folder / NAMES[2])

    with site.writes(NAMES[0], NAMES[3], NAMES[5]):
        site.render_well(**first_round, attempt=2, forced="f")
    with site.writes(NAMES[1], NAMES[2], NAMES[4]):
        outcome = site.render_well(knockout_frames=3, attempt=2, forced="f")

    assert outcome["render"]["frames"] == 6
    site.check_inverted()
    with site.writes(*NAMES):  # the first round of another invocation renders nothing for this one
        site.render_well(knockout_frames=3, attempt=3, forced="another")


def test_a_forced_render_relies_on_no_frame_that_an_interrupted_first_round_did_not_render(site, network, first_round):
    network.before = {network.calls + 2: fail(RuntimeError("no power"))}
    site.fail_to_render("error", "no power", **first_round, attempt=2, forced="f")

    with site.writes(*NAMES[1:]):
        site.render_well(knockout_frames=3, attempt=2, forced="f")


# shards


@pytest.fixture
def render_shards(site):
    """Return a function that renders the shards of a split and returns all outcomes in the folder."""

    def render(shard_frames, shards, **changes):
        for shard in shards:
            site.render_well(shard=shard, shard_frames=shard_frames, **changes)
        return {path.stem: strict_json(path) for path in sorted(site.job.outcome.parent.iterdir())}

    return render


def test_a_shard_renders_only_its_own_frames(site, network, render_shards):
    outcome = render_shards(2, "2")["2"]

    site.check_inverted(NAMES[2:4])
    assert (outcome["render"]["frames"], outcome["input"]["frames"]) == (2, 2)


def test_temporary_files_of_another_shard_stay(site):
    site.folder.mkdir(parents=True)
    drafts = [site.folder / f".{name}.0123abcd.tmp" for name in NAMES]
    for draft in drafts:
        draft.write_bytes(b"half a frame")

    site.render_well(shard="2", shard_frames=2)

    assert [draft.exists() for draft in drafts] == [True, True, False, False, True, True]
    for draft in drafts:
        draft.unlink(missing_ok=True)


def test_another_split_renders_nothing_again(site, network, render_shards):
    render_shards(0, ["all"])

    with site.writes():
        for shard_frames, shards in ((2, "123"), (4, "12"), (0, ["all"])):
            outcomes = render_shards(shard_frames, shards)
            assert list(outcomes) == list(shards)
            assert sum(outcome["render"]["frames"] for outcome in outcomes.values()) == 6
    assert network.calls == 6


def test_outcomes_of_shards_of_another_split_are_deleted(network, render_shards):
    render_shards(2, "123")

    assert list(render_shards(3, "1", settings=SETTINGS | {"precision": "tf32"})) == ["1"]


def test_outcomes_of_shards_whose_frames_moved_are_deleted(site, network, render_shards):
    render_shards(2, "123")
    write_frame(site.shot / "frame_0.png", seed=9)
    site.read_sequence()

    assert list(render_shards(2, "2")) == ["2"]


# keys of frames


def key_of(site, outcome, **changes):
    """Return the key that all frames of a render have if their digests and the artifact's are known ones."""
    shot = sequence.load(site.layout.sequence)
    shot = replace(shot, frames=tuple(replace(frame, sha256="0" * 64) for frame in shot.frames))
    model, job = from_json(LoadedModel, outcome["model"]), replace(site.job, **changes)
    (key,) = set(frame_keys(shot, "1" * 64, job.settings, model).values())
    return key


Pair = inverse_like(lambda x: (x.mean(), -x))
Deep = inverse_like(lambda x: -x + 0 * nn.functional.interpolate(x[:, :, ::64, ::64], scale_factor=64.0))
"""The inverse, for sizes that are multiples of 64."""


@pytest.mark.parametrize(
    ("network", "signature", "key"),
    [
        (Inverse, {}, "867b9f51"),
        (Pair, {}, "694b561c"),
        (Inverse, {"channels": 4}, "60806e16"),
        (Inverse, {"multiple": 8}, "2afce667"),
        (Deep, {}, "867b9f51"),
    ],
    ids=["plain", "part", "alpha", "multiple", "deep"],
)
def test_keys_of_frames_are_those_of_earlier_versions(site, use, network, signature, key):
    """Computed by the version before outputs, constant channels and found multiples, whose frames stay valid."""
    site.fill((9, 9, 9), size=(64, 64))
    use(network)
    changes = signatures("test", **signature)

    assert key_of(site, site.render_well(**changes), **changes).startswith(key)


def test_a_multiple_that_the_probe_found_is_recorded_and_in_the_keys_of_tiled_renders_only(site, use):
    use(Deep)
    tiled = {"settings": SETTINGS | {"tiled": True}}

    whole, tiles = site.render_well(), site.render_well(**tiled)

    for outcome in (whole, tiles):
        model = outcome["model"]
        assert (model["signature"]["multiple"], model["told_multiple"]) == (64, 32)
        assert "multiple 64 is used" in model["notes"][0]
    initial = {"model": tiles["model"] | {"signature": tiles["model"]["signature"] | {"multiple": 32}}}
    assert key_of(site, whole) == key_of(site, initial)
    assert key_of(site, tiles, **tiled) != key_of(site, initial, **tiled)
    site.check_inverted()


def test_the_only_image_of_an_onnx_program_keeps_the_key_of_its_frames(site):
    pytest.importorskip("onnxruntime")
    path = site.weights.whole / "model.onnx"
    for outputs in ({"final": -1}, {"final": -1, "mean": None}):
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        onnx_images(path, outputs)
        site.receive(path)

        outcome = site.render_well()

        # of the version that took the first image without a note
        assert key_of(site, outcome).startswith("1a9c677f")
    assert "part ['final']" in outcome["model"]["notes"][0]
    assert read_frame(site.folder / NAMES[0]).shape == (5, 7, 3)
