import numpy as np
from helpers.shots import COUNT, NAMES, blur, write


def test_no_more_is_kept_of_what_is_left_out_than_was_measured_of_it(shot, counted):
    kept = shot.layout.measurement_cache("model", "all")
    shot.add("model", blur)
    shot.measure("model", metrics=("psnr", "ssim", "clipping"))
    for number in range(3):
        write(shot.root / "clean" / NAMES[0], np.full((40, 48, 3), number / 4, np.float32))
        shot.measure("model", metrics=("psnr",))
        shot.measure("model", reference_dir=None, metrics=("clipping",))
    # of the first frame ssim by the first reference, psnr by the last
    assert len(kept.read_text().splitlines()) == 2 * COUNT + 1
    counted.clear()
    shot.measure("model", metrics=("psnr", "ssim", "clipping"))
    assert counted == [NAMES[0]]
    assert len(kept.read_text().splitlines()) == 2 * COUNT

    (shot.root / "shot" / NAMES[0]).unlink()
    shot.scan()
    shot.measure("model", reference_dir=None, metrics=("clipping",))
    assert len(kept.read_text().splitlines()) == 2 * (COUNT - 1)


def test_a_line_that_a_crash_cut_short_is_measured_again(shot, counted):
    shot.add("model", blur)
    first = shot.measure("model", metrics=("psnr",))
    kept = shot.layout.measurement_cache("model", "all")
    kept.write_text(kept.read_text()[:-20])
    counted.clear()

    assert shot.measure("model", metrics=("psnr",)) == first
    assert len(counted) == 1
