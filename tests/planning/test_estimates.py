"""What jobs ask a scheduler for: more for larger frames, models and batches, and never too little for Snakemake."""

import pytest
from dailies.frames import sequence
from dailies.frames.sequence import Frame, Sequence
from dailies.planning import estimates
from dailies.planning.config import Settings
from dailies.state.records import ModelRecord, RunRecord
from dailies.store.entities import Artifact, StoredFile

SETTINGS = Settings()


def shot(width=1920, height=1080, count=10, **changes):
    about = {"mode": "RGB", "bit_depth": 8} | changes
    return Sequence(
        tuple(Frame(f"{n}.png", f"{n}.png", width, height, size=1, sha256=str(n), **about) for n in range(count))
    )


@pytest.fixture
def record(tmp_path):
    """Write the record of a model of so many bytes."""

    def write(size):
        path = tmp_path / "model.json"
        artifact = Artifact("store", "best.pth", (StoredFile("best.pth", size),))
        ModelRecord(run_id="ab12", artifact=artifact).save(path)
        return path

    return write


def test_a_models_size_is_that_of_its_files_or_a_large_one(record):
    assert estimates.artifact_size(record(7)) == 7
    assert estimates.artifact_size(record(None)) == estimates.MODEL_BYTES


def test_a_download_that_may_load_several_files_asks_for_more(record, tmp_path):
    place, about = record(100_000_000), tmp_path / "run.json"
    least = estimates.download_memory(place, about), estimates.download_minutes(place, about)
    assert least == (estimates.DOWNLOAD_MEMORY, 11)

    RunRecord(run_id="ab12", alternatives=(Artifact("store", "last.pth", ()),)).save(about)

    assert estimates.download_memory(place, about) == estimates.DOWNLOAD_MEMORY + estimates.TORCH + 300
    assert estimates.download_minutes(place, about) == 16


def test_memory_grows_with_frame_model_depth_and_batch(record):
    least = estimates.render_memory(record(1_000_000), shot(7, 5), SETTINGS)
    usual = estimates.render_memory(record(1_000_000), shot(), SETTINGS)

    assert least >= estimates.LEAST
    # 2.07 million pixels of 1.2 kB in the network, 12 frames of 6.2 MB on their way
    assert usual - least == pytest.approx(2488 + 75, abs=2)
    assert estimates.render_memory(record(301_000_000), shot(), SETTINGS) - usual == 900
    assert estimates.render_memory(record(1_000_000), shot(bit_depth=16), SETTINGS) - usual == pytest.approx(75, abs=1)
    batch = estimates.render_memory(record(1_000_000), shot(), Settings(batch=4))
    assert batch - usual == pytest.approx(3 * 2488, abs=2)
    assert estimates.render_memory(record(1_000_000), shot(), Settings(batch="auto")) == usual


def test_tiles_take_the_memory_of_a_tile(record):
    tiled = Settings(tiled=True)
    whole, small = (estimates.render_memory(record(10), shot(*size), tiled) for size in ((3840, 2160), (512, 512)))

    assert whole - small == pytest.approx(12 * 3 * (3840 * 2160 - 512**2) / 1e6, abs=2)


def test_the_deepest_frame_decides(record):
    mixed = Sequence((*shot(count=1, bit_depth=16).frames, *shot(count=1).frames))

    assert estimates.render_memory(record(10), mixed, SETTINGS) == estimates.render_memory(
        record(10), shot(bit_depth=16), SETTINGS
    )


def test_no_job_requests_less_than_was_measured():
    """MLflow's client took 224 MB (docs/benchmarks.md); four frames of 8K are four of 265 MB with alpha."""
    assert estimates.DOWNLOAD_MEMORY >= estimates.SNAKEMAKE + 2 * 224
    assert estimates.SEQUENCE_MEMORY >= estimates.SNAKEMAKE + 4 * 7680 * 4320 * 4 * 2 / 1e6
    assert estimates.START >= 10


def test_minutes_follow_the_frames_and_the_model(record, tmp_path):
    assert estimates.render_minutes(record(1), shot(7, 5)) == estimates.START + 1
    assert estimates.render_minutes(record(1), shot(1000, 1000, count=60)) == estimates.START + 11
    slow = estimates.render_minutes(record(3_000_000_000), shot(7, 5))
    assert slow == estimates.START + 11
    assert estimates.download_minutes(record(3_000_000_000), tmp_path / "run.json") == estimates.START + 10


def test_measuring_takes_more_of_both_with_lpips():
    usual = ("psnr", "ssim")
    assert estimates.measure_memory(shot(), usual) == 600 + 1245
    assert estimates.measure_memory(shot(), (*usual, "lpips")) == 600 + 1245 + estimates.TORCH
    assert estimates.measure_minutes(shot(1000, 1000, count=60), usual) == estimates.START + 1
    assert estimates.measure_minutes(shot(1000, 1000, count=60), ("lpips",)) == estimates.START + 2


def test_the_pages_job_follows_frames_and_models(tmp_path):
    listing = tmp_path / "sequence.json"
    sequence.save(shot(7, 5), listing)
    assert (estimates.page_memory(listing), estimates.page_minutes(listing, models=3)) == (600, estimates.START + 1)
    sequence.save(shot(3840, 2160, count=100, mode="RGBA", bit_depth=32, floating=True), listing)
    assert estimates.page_memory(listing) == pytest.approx(500 + 4 * 3840 * 2160 * 28 / 1e6, abs=1)
    assert estimates.page_minutes(listing, models=9) == pytest.approx(estimates.START + 10 * 829 * 0.3 / 60, abs=1)


def test_the_videos_job_follows_frames_models_and_threads(tmp_path):
    listing = tmp_path / "sequence.json"
    sequence.save(shot(1000, 1000), listing)
    few, more = (estimates.video_memory(listing, models=models, threads=4) for models in (2, 12))
    assert few == 350 + 1000 + 5 * (3 * 4 + 3 + 12)
    assert more - few == 5 * 3 * 10
    assert estimates.video_memory(listing, models=2, threads=9) == 350 + 1000 + 10 * (3 * 4 + 3 + 12)
