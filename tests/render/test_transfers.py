import numpy as np
import pytest
from dailies.render.tensors import Transfers
from helpers.networks import CPU, pixels
from helpers.streams import CUDA, Simulated


@pytest.fixture
def simulated(monkeypatch, request):
    with Simulated(monkeypatch, request.param) as device:
        yield device


def frame_of(dtype, seed):
    return (pixels(6, 8, seed).astype(float) / 255 * (1 if dtype == np.float32 else np.iinfo(dtype).max)).astype(dtype)


@pytest.mark.parametrize("simulated", range(10), indirect=True)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_frames_in_transfer_do_not_overwrite_each_other(simulated, dtype):
    transfers, under_way, given = Transfers(CUDA), [], [frame_of(dtype, seed) for seed in range(6)]

    for frame in given:
        inverse = simulated.calculated(np.negative, transfers.upload(frame, CUDA))
        finite = simulated.calculated(lambda values: np.isfinite(values).all(), inverse)
        under_way.append(transfers.download(inverse, finite))
        del inverse, finite
    assert simulated.waits == 0

    arrays = [download.array(np.dtype(dtype)) for download in under_way]
    on_arrival = np.array(arrays)
    del under_way
    simulated.finish()
    np.testing.assert_array_equal(on_arrival, np.negative(given))
    np.testing.assert_array_equal(arrays, on_arrival)


@pytest.mark.parametrize("simulated", range(3), indirect=True)
def test_output_that_is_not_finite_has_no_array(simulated):
    transfers, frames = Transfers(CUDA), [np.full((6, 8, 3), value, np.float32) for value in (0.5, np.nan)]
    given = [simulated.calculated(np.negative, transfers.upload(frame, CUDA)) for frame in frames]

    downloads = [transfers.download(each, simulated.calculated(lambda x: np.isfinite(x).all(), each)) for each in given]

    assert [download.array(np.dtype(np.float32)) is None for download in downloads] == [False, True]


@pytest.mark.parametrize("simulated", [0], indirect=True)
@pytest.mark.parametrize("home", [CPU, CUDA])
def test_frames_that_are_read_only_views_are_uploaded(simulated, home):
    frame = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)[:, :, :3]
    frame.flags.writeable = False

    values = Transfers(CUDA).upload(frame, home)

    simulated.finish()
    np.testing.assert_array_equal(values.numpy(), frame)
