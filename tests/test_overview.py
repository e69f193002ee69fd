"""The overview's table and plots, and Snakemake's report that holds them, opened without a network."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Studio
from dailies import files, overview, sequence
from dailies.overview import MOST_LINES, MOST_POINTS, Plot, draw
from dailies.sequence import Frame
from dailies.sequence import Sequence as FrameSequence

selenium = pytest.importorskip("selenium", reason="selenium, which drives the browser, is not installed")

from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
HOSTILE = "<script>alert(1)</script>&\"'"
SVG = "{http://www.w3.org/2000/svg}"


def about(status: str = "success", **changes) -> dict:
    """Give a model's metadata, as far as the overview reads it."""
    render = {
        "status": status,
        "error": None if status == "success" else f"it broke {HOSTILE}",
        "frames": 2,
        "seconds": 3.0,
        "fps": 0.667,
        "device": "cpu",
        "precision": "fp32",
        "versions": {"torch": "2.13.0"} if status == "success" else None,
    }
    facts = {"architecture": HOSTILE, "epoch": 7, "train_loss": 0.25, "val_loss": None}
    return {**facts, "render": render} | changes


def build(tmp_path: Path, models: dict[str, dict], *, measures: dict | None = None, count: int = 2) -> tuple[str, str]:
    """Write the overview of models with the given metadata, and read the table and the plots."""
    state = tmp_path / ".dailies"
    names = [f"f_{number:04d}.png" for number in range(count)]
    shot = FrameSequence(tuple(Frame(name, name, 4, 4, "RGB", 8, 1, name) for name in names))
    sequence.save(shot, state / "sequence.json")
    for model, told in models.items():
        files.write_json(tmp_path / model / "metadata.json", told)
    if measures:
        files.write_json(state / "metrics.json", measures)
    overview.build(
        [tmp_path / model / "metadata.json" for model in models],
        sequence=state / "sequence.json",
        measures=[state / "metrics.json"] if measures else [],
        table=tmp_path / "overview.html",
        plots=tmp_path / "frames.svg",
        shot="shot",
    )
    return (tmp_path / "overview.html").read_text(), (tmp_path / "frames.svg").read_text()


def texts(svg: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def ways(svg: str) -> dict[str, list[str]]:
    """The ways of the lines by model, in the order of the plots."""
    found: dict[str, list[str]] = {}
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        title = path.find(f"{SVG}title")
        if title is not None:
            found.setdefault(title.text, []).append(path.get("d"))
    return found


def test_the_table_tells_every_model_its_reason_and_the_versions(tmp_path: Path):
    measured = {"training_frames": 0, "mean": {"psnr": 31.5}, "mean_unseen": {"psnr": 31.5}}
    html, _ = build(tmp_path, {"good": about(measured=measured), "bad": about("load_failed")})

    assert "2 models over the 2 frames of shot; 1 failed." in html
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]
    shown = "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;"
    figures = ["2", "3", "0.667", "cpu", "fp32"]
    assert rows[1] == ["good", "success", shown, "7", "0.25", "–", "31.5", *figures]
    assert rows[2] == ["bad", "load_failed", shown, "7", "0.25", "–", "–", *figures]
    assert ["bad", "load_failed", f"it broke {shown}"] in rows
    assert rows[-1] == ["torch", "2.13.0", "1"]
    assert "<script" not in html


def test_metrics_come_in_their_own_order_and_those_of_unseen_frames_behind(tmp_path: Path):
    means = {"psnr": 31.5, "ms_ssim": 0.9, "detail": 1.1}
    measured = {"training_frames": 1, "mean": means, "mean_unseen": means}
    html, _ = build(tmp_path, {"a": about(measured=measured)})

    heads = re.findall(r"<th>(.*?)</th>", html)
    assert [head for head in heads if head.removesuffix("_unseen") in means] == [
        *means,
        *(f"{name}_unseen" for name in means),
    ]


def test_each_number_below_a_plot_stands_below_its_frame_and_once():
    for count, numbers in ((1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3]), (24, [0, 6, 12, 17, 23])):
        svg = ElementTree.fromstring(draw([Plot("seconds", {"a": [0.5] * count})], frames=count))
        middle = [text for text in svg.iter(f"{SVG}text") if text.get("text-anchor") == "middle"]
        places = [90 + 1000 * number / max(count - 1, 1) for number in numbers]
        assert [int(text.text) for text in middle] == numbers
        assert [float(text.get("x")) for text in middle] == pytest.approx(places, abs=0.01)


def test_a_metric_is_drawn_over_the_frames_with_its_gaps(tmp_path: Path):
    metric = {"name": "psnr", "label": "PSNR", "unit": "dB", "higher_is_better": True}
    words = {"verdict": "a is the first <by> PSNR", "missing": None, "problems": ["b: no reference"]}
    measures = words | {"metrics": [metric], "values": {"psnr": {"a": [10.0, 20.0, None, 30.0], HOSTILE: [30.0] * 4}}}
    html, svg = build(tmp_path, {"a": about()}, measures=measures, count=4)

    assert "<p>a is the first &lt;by&gt; PSNR</p><p>b: no reference</p>" in html

    assert "PSNR, dB (higher is better)" in texts(svg)
    assert {"10", "15", "20", "25", "30"} <= set(texts(svg))
    lines = ways(svg)
    assert lines["a"] == ["M90.0 260.0L423.3 150.0M1090.0 40.0h2"]
    assert lines[HOSTILE] == ["M90.0 40.0L423.3 40.0L756.7 40.0L1090.0 40.0"]
    assert texts(svg)[-2:] == ["a", HOSTILE]


def test_long_sequences_and_many_models_stay_small_and_say_so():
    frames = 10 * MOST_POINTS
    plot = Plot("seconds per frame", {f"m{number}": [float(number)] * frames for number in range(MOST_LINES + 5)})

    svg = draw([plot] * 8, frames=frames)

    assert len(svg) < 2_000_000
    assert texts(svg)[-2:] == ["each point is the mean of 10 frames", "the first 20 of 25 models are drawn"]
    lines = ways(svg)
    assert len(lines) == MOST_LINES
    assert all(way.count("L") == MOST_POINTS - 1 for each in lines.values() for way in each)


def test_one_frame_and_nothing_at_all_are_drawn():
    assert ways(draw([Plot("x", {"a": [1.0]})], frames=1)) == {"a": ["M90.0 260.0h2"]}
    assert ways(draw([], frames=4)) == {}


def test_the_report_reads_well_without_a_network(rendered: Studio):
    path = rendered.root / "report.html"
    rendered.snakemake("--report", str(path))

    assert path.stat().st_size < 5_000_000
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed (apt install chromium-driver)")
    models = {rendered.folder(rendered.runs[name]).name for name in ("dark", "middle", "light")}
    with offline_browser() as browser:
        browser.get(path.as_uri())
        said = shown(browser, "by Dailies")
        assert f"Every model of exp was rendered over every frame of {rendered.frames} by Dailies" in said
        assert "compare/index.html there shows them side by side." in said

        choose(browser, "1. Models", "all models in a table")
        browser.switch_to.frame(WebDriverWait(browser, 60).until(lambda at: at.find_element(By.TAG_NAME, "iframe")))
        table = shown(browser, "3 models over the 4 frames of shot; none failed.")
        assert {model for model in models if model in table} == models
        assert "Versions" in table
        browser.switch_to.default_content()

        browser.get(path.as_uri())
        choose(browser, "2. Over the frames", "plots over the frames")
        size = "return [...document.images].filter((each) => each.naturalWidth > 1000).length"
        WebDriverWait(browser, 60).until(lambda at: at.execute_script(size) == 1)

        messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        asked = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        assert {address.split(":")[0] for address in asked} == {"file", "data"}
        assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@contextmanager
def offline_browser() -> Iterator["webdriver.Chrome"]:
    """A Chromium whose network is off, and which notes what it is asked to load."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        off = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.execute_cdp_cmd("Network.enable", {})
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", off)
        yield browser
    finally:
        browser.quit()


def shown(browser: "webdriver.Chrome", text: str) -> str:
    """What the page says, in one line, once it says a text."""

    def told(at: "webdriver.Chrome") -> str | None:
        said = " ".join(at.find_element(By.TAG_NAME, "body").text.split())
        return said if text in said else None

    return WebDriverWait(browser, 60).until(told)


def choose(browser: "webdriver.Chrome", category: str, result: str) -> None:
    """Open a category of the report, and the view of a result in it."""
    click(browser, By.PARTIAL_LINK_TEXT, category)
    click(browser, By.XPATH, f"//*[normalize-space(text())='{result}']/following::a[1]")


def click(browser: "webdriver.Chrome", by: str, what: str) -> None:
    """Click on an element once it is there, and nothing that still moves lies over it."""

    def clicked(at: "webdriver.Chrome") -> bool:
        at.find_element(by, what).click()
        return True

    moving = (ElementClickInterceptedException, StaleElementReferenceException)
    WebDriverWait(browser, 60, ignored_exceptions=moving).until(clicked)
