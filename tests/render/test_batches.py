import logging
import weakref

import numpy as np
import pytest
import torch
from dailies.core.errors import RenderError
from dailies.models.architectures.catalog import ARCHITECTURES
from dailies.models.load import load_model
from dailies.render import engine as engines
from dailies.render.batches import MAX_AUTO_BATCH, even_size
from dailies.render.memory import is_out_of_memory
from helpers.networks import CPU, Do, Limited, Recorder, engine, pixels, probed
from helpers.raising import refused
from torch import nn

COUNT = 10
SIDE = 32
ONE = SIDE * SIDE
"""Pixels of one frame."""


def shot(count=COUNT, height=SIDE, width=SIDE):
    return [pixels(height, width, seed) for seed in range(count)]


def rendered(renderer, given, together=None, dtype=None):
    """Render frames as a job does: as many at a time as the engine wants, or ``together``."""
    done, place = [], 0
    while place < len(given):
        count = together or renderer.batch_size(*given[place].shape[:2])
        some = given[place : place + count]
        done += [each.result() for each in renderer.submit_all(some, [dtype] * len(some))]
        place += count
    return done


def sizes_of(recorder):
    return [len(each) for each in recorder.given]


@pytest.mark.parametrize("batch", [2, 4, 7, 10, 64])
@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (nn.Identity(), lambda frame: frame),
        (Do(torch.neg), lambda frame: 255 - frame),
        (Do(torch.neg_), lambda frame: 255 - frame),
        (Do(lambda x: {"loss": x.mean(), "image": -x}), lambda frame: 255 - frame),
        (Do(lambda x: x - x.mean(dim=(1, 2, 3), keepdim=True) * 0), lambda frame: frame),
    ],
    ids=["identity", "inverse", "in place", "parts", "average"],
)
def test_frames_are_rendered_in_a_batch_as_alone(network, expected, batch):
    renderer, given = engine(network, batch=batch), shot()

    np.testing.assert_array_equal(rendered(renderer, given), [expected(frame) for frame in given])
    assert renderer.batch == (batch if batch <= COUNT else 1)


def test_batches_have_the_size_asked_for_and_the_rest_is_run_singly():
    recorder = Recorder()

    rendered(engine(recorder, batch=4), shot())

    trial = [1, 1, 4]
    assert sizes_of(recorder) == [*trial, 4, 4, 1, 1]


def test_a_cpu_runs_inputs_singly_unless_the_settings_ask_for_more():
    recorder = Recorder()
    renderer = engine(recorder)

    rendered(renderer, shot(), together=4)

    assert renderer.batch_size(SIDE, SIDE) == 1
    assert sizes_of(recorder) == [1] * COUNT


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("unet", {"base_channels": 4}),
        ("nafnet", {"width": 4, "encoder_blocks": (1,), "middle_blocks": 1, "decoder_blocks": (1,)}),
    ],
)
def test_no_bit_depends_on_the_batch(architecture, config, batch, tiled):
    torch.manual_seed(0)
    network = ARCHITECTURES[architecture](**config)
    for name, values in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            nn.init.normal_(values, std=0.2)
    given = shot(6, 70, 40)
    tiles = {"tiled": tiled, "tile_size": 64, "overlap": 32}

    alone = rendered(engine(network, batch=1, **tiles), given, dtype=np.float32)
    together = rendered(engine(network, batch=batch, **tiles), given, dtype=np.float32)

    assert np.ptp(alone) > 0.01
    np.testing.assert_array_equal(together, alone)


def changed_in_third_place(x):
    return torch.cat([x[:2], x[2:] + 0.3]) if len(x) > 2 else x


@pytest.mark.parametrize(
    "mixes",
    [
        lambda x: x - x.mean(),
        nn.BatchNorm2d(3, track_running_stats=False),
        lambda x: x.flip(0),
        lambda x: x[:1].expand(len(x), -1, -1, -1).clone(),
        lambda x: x * (1 + 1e-6 * (len(x) > 1)),
        changed_in_third_place,
    ],
    ids=["mean", "batch norm", "order", "first", "last bits", "third place"],
)
@pytest.mark.parametrize("tiled", [False, True])
def test_inputs_are_run_singly_if_a_batch_changes_any_bit(mixes, tiled, caplog):
    caplog.set_level(logging.INFO)
    given = [np.full((70, 100, 3), 100 + 10 * number, np.uint8) for number in range(6)]  # each alike in all places
    given[3] = pixels(70, 100)
    tiles = {"tiled": tiled, "tile_size": 64, "overlap": 0}
    renderer = engine(Do(mixes), batch=4, **tiles)

    together = rendered(renderer, given, dtype=np.float32)

    alone = rendered(engine(Do(mixes), batch=1, **tiles), given, dtype=np.float32)
    np.testing.assert_array_equal(together, alone)
    assert renderer.batch == 1
    assert len([text for text in caplog.messages if "a batch of 4 changes bits of the output" in text]) == 1


def only_one(x):
    assert len(x) == 1
    return -x


@pytest.mark.parametrize(
    "network",
    [Do(only_one), Do(lambda x: -x.reshape(1, 3, *x.shape[2:])), Do(lambda x: -x[:1])],
    ids=["refuses", "reshapes", "answers one"],
)
@pytest.mark.parametrize("tiled", [False, True])
def test_a_network_for_one_input_gets_inputs_singly(network, tiled):
    renderer, given = engine(network, batch=4, tiled=tiled, tile_size=64, overlap=0), shot(6, 100, 100)

    np.testing.assert_array_equal(rendered(renderer, given), [255 - frame for frame in given])
    assert renderer.batch == 1


def test_a_network_for_one_input_gets_colours_singly():
    renderer, given = probed(Do(only_one), channels=1), shot(3)

    np.testing.assert_array_equal(rendered(renderer, given), [255 - frame for frame in given])


def test_the_colours_of_several_frames_are_one_batch():
    recorder, given = Recorder(), shot(8)
    renderer = probed(recorder, channels=1, tiles={"batch": 4})

    np.testing.assert_array_equal(rendered(renderer, given), given)
    assert sizes_of(recorder)[1:] == [3, 3, 12, 12, 12]


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.convolution(x.reshape(1, 3, x.shape[2], x.shape[3]))


def test_a_traced_program_of_one_input_renders_whatever_batch_is_asked_for(tmp_path):
    torch.manual_seed(0)
    network = Frozen().eval()
    torch.jit.trace(network, torch.zeros(1, 3, 64, 64), check_trace=False).save(tmp_path / "best.pt")
    model, given = load_model(tmp_path / "best.pt", trust_code=True), shot(5, 64, 64)
    renderer = engines.Engine(model, device=CPU, settings=engines.Settings(batch=4))
    renderer.probe()

    np.testing.assert_array_equal(rendered(renderer, given), rendered(engine(network, batch=1), given))


def test_a_failure_of_a_single_input_is_raised():
    def fail(x):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        rendered(engine(Do(fail), batch=4), shot())


def test_frames_of_several_depths_are_one_batch():
    recorder = Recorder()
    given = [pixels(), pixels().astype(np.uint16) * 257, (pixels() / 255).astype(np.float32)]

    done = [each.result() for each in engine(recorder, batch=3).submit_all(given, [None, None, np.uint8])]

    assert sizes_of(recorder)[-1] == 3
    np.testing.assert_array_equal(done[0], given[0])
    np.testing.assert_array_equal(done[1], given[1])
    np.testing.assert_array_equal(done[2], pixels())


def spoil_bright(x):
    return torch.where(x.amax(dim=(1, 2, 3), keepdim=True) > 0.5, x / 0, x)


def test_a_frame_that_is_not_finite_does_not_affect_its_batch():
    given = [np.full((5, 7, 3), level, np.uint8) for level in (90, 200, 100, 110)]

    renderer = engine(
        Do(lambda x: spoil_bright(x) if torch.is_autocast_enabled("cpu") else x), batch=4, precision="bf16"
    )
    done = rendered(renderer, given)

    np.testing.assert_array_equal(done, given)
    assert renderer.precision == "bf16"
    (note,) = renderer.notes
    assert "in bf16 is not finite" in note


def test_a_batch_that_runs_out_of_memory_is_halved_for_good(caplog):
    network, given = Limited(3 * ONE), shot(16)
    renderer = engine(network, batch=8)

    np.testing.assert_array_equal(rendered(renderer, given), given)

    assert [shape[0] for shape in network.shapes] == [1, 1, 8, 1, 1, 4, 1, 1, *[2] * 9]
    assert (renderer.batch, renderer.tiled, renderer.batch_size(SIDE, SIDE)) == (2, False, 2)
    assert [record.args for record in caplog.records if record.levelname == "WARNING"] == [(32, 32, "frames")] * 2


def test_a_single_frame_that_does_not_fit_is_tiled_and_tiles_are_batched_as_they_fit():
    network, given = Limited(2 * ONE), shot(8, 100, 90)
    renderer = engine(network, batch=8, tile_size=64, overlap=0)

    np.testing.assert_array_equal(rendered(renderer, given), given)

    rows = [(count, height * width // ONE) for count, _, height, width in network.shapes]
    failed = [(count, size) for count, size in rows if count * size > 2]
    assert failed == [(1, 12), (1, 4)]
    assert (renderer.tiled, renderer.tile_size, renderer.batch) == (True, 32, 2)


def test_a_frame_that_is_already_rendered_is_not_rendered_again_when_memory_runs_out():
    network, given = Limited(4 * ONE), shot(8)
    renderer = engine(network, batch=4)
    rendered(renderer, given[:4])
    network.limit, network.shapes = 2 * ONE, []

    np.testing.assert_array_equal(rendered(renderer, given, together=8), given)

    assert [shape[0] for shape in network.shapes] == [4, 1, 1, 2, 2, 2, 2, 2]


def test_lack_of_memory_beside_the_network_halves_a_batch_too(monkeypatch):
    network, given, put = Recorder(), shot(4), torch.cat

    def limited(tensors, *arguments, **options):
        if len(tensors) > 2 and tensors[0].dim() == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return put(tensors, *arguments, **options)

    monkeypatch.setattr(torch, "cat", limited)
    renderer = engine(network, batch=4)

    np.testing.assert_array_equal(rendered(renderer, given), given)
    assert (renderer.batch, renderer.tiled) == (2, False)


def test_a_batch_that_does_not_fit_is_no_failure_if_tiles_are_forbidden():
    given = shot(4)

    np.testing.assert_array_equal(rendered(engine(Limited(ONE), batch=4, tiled=False), given), given)


def test_out_of_memory_for_good_is_an_error():
    with refused(RenderError, "render.out_of_memory", "cpu", "tiles of 32 pixels"):
        rendered(engine(Limited(0), batch=4, tile_size=64, overlap=32), shot(4, 100, 90))


def test_tensors_of_a_failed_batch_are_freed():
    given = []

    def fail(x):
        given.append(weakref.ref(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError
        assert [each() for each in given[:-1] if each() is not None and len(each()) > 2] == []
        return x.clone()

    renderer = engine(Do(fail), batch=8)
    rendered(renderer, shot(8))

    assert renderer.batch == 2
    assert [each() for each in given if each() is not None] == []


def test_batched_tiles_are_the_frame():
    recorder, frame = Recorder(), pixels(250, 170)

    done = engine(recorder, tiled=True, tile_size=64, overlap=32, batch=4).render(frame)

    np.testing.assert_array_equal(done, frame)
    sizes = sizes_of(recorder)
    tiles = sum(sizes) - sum([1, 1, max(sizes)])
    assert max(sizes) in {3, 4}
    assert tiles == 35


@pytest.mark.parametrize(
    ("count", "most", "size"), [(15, 4, 3), (15, 8, 5), (16, 8, 8), (3, 8, 3), (7, 4, 3), (1, 8, 1)]
)
def test_batches_of_tiles_need_the_fewest_calls(count, most, size):
    assert even_size(count, most) == size


class Gauge:
    """Measures a device on which a pixel needs 10 bytes."""

    def __init__(self, free):
        self.bytes = free
        self.started = 0

    def start(self):
        self.started += 1

    def peak(self):
        return 10 * ONE

    def free(self):
        return self.bytes


@pytest.mark.parametrize(
    ("free", "batch"), [(0, 1), (20 * ONE, 1), (25 * ONE, 2), (40 * ONE, 3), (10**9, MAX_AUTO_BATCH)]
)
def test_the_first_frame_shows_how_many_fit_a_device(monkeypatch, free, batch):
    gauge, recorder = Gauge(free), Recorder()
    monkeypatch.setattr(engines, "memory_meter", lambda device: gauge)
    renderer, given = engine(recorder), shot(2 * MAX_AUTO_BATCH)
    assert renderer.batch_size(SIDE, SIDE) == 1

    np.testing.assert_array_equal(rendered(renderer, given), given)

    assert gauge.started == 1
    assert renderer.batch_size(SIDE, SIDE) == renderer.batch == batch
    assert renderer.batch_size(2 * SIDE, 2 * SIDE) == max(1, min(MAX_AUTO_BATCH, int(0.8 * free / (40 * ONE))))


def test_a_batch_size_in_the_settings_is_used_whatever_fits(monkeypatch):
    monkeypatch.setattr(engines, "memory_meter", lambda device: Gauge(0))

    assert engine(nn.Identity(), batch=5).batch_size(SIDE, SIDE) == 5


def test_out_of_memory_errors_are_recognised():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tiled", [False, True])
def test_no_bit_depends_on_the_batch_on_cuda(tiled):
    torch.manual_seed(0)
    network, given = ARCHITECTURES["unet"](base_channels=8).eval(), shot(9, 200, 160)
    tiles = {"tiled": tiled, "tile_size": 96, "overlap": 32}

    done = [
        rendered(
            engines.Engine(
                engines.Model(network, "unet"),
                device=torch.device("cuda"),
                settings=engines.Settings(batch=batch, **tiles),
            ),
            given,
        )
        for batch in (1, 4, "auto")
    ]

    np.testing.assert_array_equal(done[1], done[0])
    np.testing.assert_array_equal(done[2], done[0])
