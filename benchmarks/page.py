"""Measure the comparison page in a real browser: opening it, the next frame, filtering, playing.

python benchmarks/page.py [MODELS FRAMES WIDTH HEIGHT]

A page of 50 models × 500 frames of 640 × 360, unless said otherwise, in turn with one of 3 models × 20 frames of the
same size; figures are medians, and ratios to the small page. With a side of more than 400 pixels a page has thumbnails,
which are made first. It needs chromium and chromedriver.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts")]

from dailies.compare import page  # noqa: E402
from dailies.frames import sequence  # noqa: E402
from dailies.measure.leaderboard import LeaderboardSettings, page_metrics, tabulate  # noqa: E402
from dailies.models.signature import Signature  # noqa: E402
from dailies.state import collect  # noqa: E402
from dailies.state.layout import SOURCE, Layout  # noqa: E402
from dailies.state.records import SUCCESS, Figures, LoadedModel, Measures, Outcome, RunRecord  # noqa: E402

METRICS = ("psnr", "ssim", "ms_ssim")
MODELS, FRAMES, SIZE = 50, 500, (640, 360)
REPEATS, SECONDS = 7, 4
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-extensions --window-size=1920,1080"

SHOWN = """
    const [frame, done] = arguments;
    const there = () => document.documentElement.dataset.ready === String(frame);
    const step = () => requestAnimationFrame(there() ? done : step);
    step();
"""

COUNT = """
    const [seconds, done] = arguments;
    const seen = [];
    const watcher = new MutationObserver(() => seen.push(document.documentElement.dataset.ready));
    watcher.observe(document.documentElement, { attributeFilter: ["data-ready"] });
    setTimeout(() => done(seen.filter((frame, at) => frame !== seen[at - 1]).length / seconds), 1000 * seconds);
"""


def generate(root: Path, models: int, frames: int, size: tuple[int, int]) -> Path:
    """Make a page; a model's frames are hard links to one of a few, so that the disk holds them."""
    rng = np.random.default_rng(0)
    names = [f"frame_{number:06d}.png" for number in range(frames)]
    folders = [root / "shot", *(root / "out" / f"model_{number:03d}" for number in range(models))]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        image = Image.fromarray(rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)).resize(size)
        ImageDraw.Draw(image).text((20, 20), f"picture {number}", fill="white", font_size=40)
        image.save(folder / names[0])
        for name in names[1:]:
            os.link(folder / names[0], folder / name)
    layout = Layout(root / "out")
    header = sequence.Frame("", "", *size, mode="RGB", bit_depth=8, size=1, sha256="")
    shot = sequence.Sequence(tuple(sequence.replace(header, name=name, output=name) for name in names))
    sequence.save(shot, layout.sequence)
    for number, folder in enumerate(folders[1:]):
        describe(layout, folder.name, number, frames)
    levels = {SOURCE: 24.0} | {folder.name: 30 + number / 20 for number, folder in enumerate(folders[1:])}
    for subject, level in levels.items():
        values = {name: dict(zip(METRICS, level + rng.normal(0, 1, len(METRICS)), strict=True)) for name in names}
        Measures(frames=values).save(layout.measures(subject, "all"))
    models = [folder.name for folder in folders[1:]]
    tabulate(
        LeaderboardSettings(METRICS, "psnr", root / "shot", ()),
        sequence=layout.sequence,
        runs=[layout.run(model) for model in models],
        outcomes=[layout.outcome(model, "all") for model in models],
        measures=[layout.measures(subject, "all") for subject in levels],
        tables=(layout.frame_table, layout.leaderboard),
        output=layout.verdict,
    )
    metadata_files = [layout.metadata(model) for model in models]
    collect.summarize(metadata_files, output=layout.summary, ranking=layout.verdict)
    page.build(
        metadata_files,
        summary=layout.summary,
        sequence=layout.sequence,
        input_dir=root / "shot",
        layout=layout,
        tracking_uri="http://localhost:5000",
        fps=24,
        metrics=page_metrics(layout.verdict),
        ranking=layout.verdict,
    )
    return layout.page


def describe(layout: Layout, model: str, number: int, frames: int) -> None:
    """Write the records of a model with 40 params and 20 metrics, as if it had been rendered."""
    run = RunRecord(
        run_id=f"{number:032x}",
        run_name=f"{'even' if number % 2 == 0 else 'odd'}_{number}",
        experiment="benchmark",
        architecture="unet",
        epoch=number,
        train_loss=0.1,
        val_loss=0.1 / (number + 1),
        params={f"training.param_{key}": str(number * key) for key in range(40)},
        metrics={f"val/metric_{key}": number / (key + 1) for key in range(20)},
    )
    run.save(layout.run(model))
    loaded = LoadedModel(signature=Signature(scale=1))
    outcome = Outcome(status=SUCCESS, render=Figures(frames=frames, seconds=1.0), model=loaded)
    outcome.save(layout.outcome(model, "all"))
    collect.describe(
        layout.run(model),
        [layout.outcome(model, "all")],
        sequence=layout.sequence,
        manifests=layout.manifests(model),
        folder=layout.frames(model),
        output=layout.metadata(model),
    )


class Page:
    """A page in a browser."""

    def __init__(self, driver: webdriver.Chrome, path: Path) -> None:
        self.driver = driver
        self.path = path

    def open(self, address: str = "") -> float:
        """Open the page afresh; give the seconds until its first frame is on the screen."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.path.as_uri()}#{address}")
        self.driver.execute_async_script(SHOWN, 0)
        return self.driver.execute_script("return performance.getEntriesByName('dailies-shown')[0].startTime / 1000")

    def press(self, key: str, frame: int) -> float:
        """Press a key; give the seconds until a frame is on the screen."""
        start = time.perf_counter()
        self.driver.switch_to.active_element.send_keys(key)
        self.driver.execute_async_script(SHOWN, frame)
        return time.perf_counter() - start

    def step(self) -> float:
        """Give the seconds until the next frame is on the screen."""
        self.open()
        return self.press(Keys.ARROW_RIGHT, 1)

    def jump(self) -> float:
        """Give the seconds until the last frame, which nothing has loaded ahead, is on the screen."""
        self.open()
        last = self.driver.execute_script("return DATA.frames.length - 1")
        return self.press(Keys.END, last)

    def filter(self) -> float:
        """Give the seconds until half of the models are filtered out, from the first letter on."""
        self.open()
        start = time.perf_counter()
        self.driver.find_element(By.ID, "filter").send_keys("odd")
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        return time.perf_counter() - start

    def rate(self, address: str) -> float:
        """Give how many frames a second are on the screen while the page plays 24."""
        self.open(address)
        self.driver.switch_to.active_element.send_keys(Keys.SPACE)
        rate = self.driver.execute_async_script(COUNT, SECONDS)
        self.driver.switch_to.active_element.send_keys(Keys.SPACE)
        return rate


def medians(action: Callable[[Page], float], pages: dict[str, Page]) -> dict[str, float]:
    """Do the same to every page in turn, and give the medians."""
    times: dict[str, list[float]] = {name: [] for name in pages}
    for _ in range(REPEATS):
        for name, each in pages.items():
            times[name].append(action(each))
    return {name: statistics.median(values) for name, values in times.items()}


def main(models: int, frames: int, size: tuple[int, int]) -> None:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    with tempfile.TemporaryDirectory(prefix=".benchmark.", dir=REPOSITORY) as folder:
        root = Path(folder)
        for flag in [*FLAGS.split(), f"--user-data-dir={root / 'profile'}"]:
            options.add_argument(flag)
        start = time.perf_counter()
        large = generate(root / "large", models, frames, size)
        took = time.perf_counter() - start
        print(f"built for {models} models x {frames} frames of {size[0]} x {size[1]}: {took:.0f} s")
        sheets = [path.stat().st_size for path in (large.parent / "page" / "thumbnails").glob("*/*")]
        print(f"thumbnails: {sum(sheets) / 1e6:.0f} MB in {len(sheets)} files")
        small = generate(root / "small", 3, 20, size)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        driver.set_script_timeout(120)
        try:
            pages = {"large": Page(driver, large), "small": Page(driver, small)}
            actions = {"open": Page.open, "next frame": Page.step, "last frame": Page.jump, "filter": Page.filter}
            for name, action in actions.items():
                found = medians(action, pages)
                print(f"{name:12} {found['large']:6.2f} s  {found['large'] / found['small']:5.2f} x the small page")
            for view in ("grid", "wipe"):
                print(f"playing, {view:5} {pages['large'].rate(f'view={view}'):5.1f} of 24 frames a second")
        finally:
            driver.quit()


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]] or [MODELS, FRAMES, *SIZE]
    main(given[0], given[1], (given[2], given[3]))
