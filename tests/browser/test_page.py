"""The comparison page in a real Chromium, opened from disk: its own controls are used, and the screen is looked at.

With DAILIES_SCREENSHOTS set to a folder, the pictures of the page that these tests look at are kept there.
"""

import base64
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from dailies.compare import bundle, side_by_side
from dailies.compare.files_beside_page import write_extras
from dailies.state.records import FrameMetric
from dailies.state.votes import read_export
from helpers.images import flat
from helpers.requires import lacking
from helpers.shows import BARS, HOSTILE, Show, add_means, bars
from PIL import Image, ImageFilter

selenium = pytest.importorskip("selenium", reason="selenium, which drives the browser, is not installed")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402

pytestmark = pytest.mark.browser

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --hide-scrollbars --force-color-profile=srgb"
)
SIZE = (16, 9)
FRAMES = 12
SOURCE, REFERENCE = "@source", "@reference"
RED, GREEN, NOISE = "model_1", "model_2", "model_3"


def source(number: int) -> np.ndarray:
    return flat(40 + number, 80, 120, size=SIZE)


def reference(number: int) -> np.ndarray:
    return flat(50 + number, 90, 110, size=SIZE)


def red(number: int) -> np.ndarray:
    return flat(200 - number, 40, 60, size=SIZE)


def green(number: int) -> np.ndarray:
    return flat(30, 180 - number, 70, size=SIZE)


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)


PIXELS = {SOURCE: source, REFERENCE: reference, RED: red, GREEN: green, NOISE: noise}


PLACE = """
    const box = document.querySelectorAll(arguments[0])[arguments[1]].getBoundingClientRect();
    return [box.left, box.top, box.right, box.bottom].map(Math.round);
"""

WRITE_NUMBERS = """
    const [width, height] = arguments;
    const family = getComputedStyle(document.body).getPropertyValue("--figures");
    const context = document.createElement("canvas").getContext("2d");
    Object.assign(context.canvas, { width, height: 256 * height });
    context.font = `500 ${Math.round(0.82 * height)}px ${family}`;
    context.textAlign = "right";
    context.textBaseline = "middle";
    return ["#ff9d94", "#8fd694", "#9db8ff"].map((ink) => {
      context.fillStyle = "#000";
      context.fillRect(0, 0, width, 256 * height);
      context.fillStyle = ink;
      for (let value = 0; value < 256; value++) {
        context.fillText(value, width - 0.2 * height, (value + 0.53) * height);
      }
      return context.canvas.toDataURL();
    });
"""

NAMELESS = """
    const named = (each) => each.ariaLabel || each.textContent.trim() || each.labels?.length || each.title;
    return [...document.querySelectorAll("button, select, input, canvas[role]")]
      .filter((each) => each.checkVisibility() && !named(each))
      .map((each) => each.outerHTML);
"""

FAINT = """
    const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([red, green, blue]) =>
      0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
    const ground = (each) => {
      const [red, green, blue, alpha = 1] = numbers(getComputedStyle(each).backgroundColor);
      return alpha > 0.5 || !each.parentElement ? [red, green, blue] : ground(each.parentElement);
    };
    const contrast = (each) => {
      const [low, high] = [light(numbers(getComputedStyle(each).color)), light(ground(each))].sort((a, b) => a - b);
      return (high + 0.05) / (low + 0.05);
    };
    const written = (each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    return [...document.querySelectorAll("body *")]
      .filter((each) => each.checkVisibility() && !each.disabled && written(each) && contrast(each) < 4.5)
      .map((each) => [contrast(each), each.outerHTML.slice(0, 120)]);
"""


WATCH = """
    window.passed = [];
    const scrub = document.getElementById("scrub");
    const watch = () => {
      if (passed.at(-1)?.[1] !== scrub.value) passed.push([performance.now(), scrub.value]);
      requestAnimationFrame(watch);
    };
    watch();
"""

SPOKEN = """
    window.spoken = [];
    const LIVE = "output, [role=status], [aria-live]";
    const parent = (node) => (node.closest ? node : node.parentElement);
    new MutationObserver((changes) => {
      const told = changes.map(({ target }) => parent(target).closest(LIVE)).filter(Boolean);
      spoken.push(...told.filter((each) => each.ariaLive !== "off").map((each) => each.id));
    }).observe(document.body, { childList: true, characterData: true, subtree: true });
"""

PRESS_BOTH = """
    return ["a", "b", "b"].map((key, time) => {
      if (time === 2) document.querySelector(".flicker").dataset.phase = "a"; // as after a beat
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
      return document.querySelector(".flicker").dataset.phase;
    });
"""

BADGES = """
    window.badges = [];
    const look = () => badges.push(...[...document.querySelectorAll(".badge")].map((each) => each.checkVisibility()));
    new MutationObserver(look).observe(document.getElementById("stage"), { childList: true, subtree: true });
"""

SMALL = """[...document.querySelectorAll("#options, #look, #controls, #jumps")]
    .flatMap((region) => [...region.querySelectorAll("button, select")])
    .filter((each) => each.checkVisibility())
    .map((each) => [each.getBoundingClientRect(), each.id || each.textContent])
    .filter(([box]) => box.width < 24 || box.height < 32 || box.right > innerWidth)
    .map(([, name]) => name)"""

LOADING = """
    window.brokenWhileLoading = [];
    new MutationObserver((changes) => {
      const added = changes.flatMap((change) => [...change.addedNodes]);
      if (added.some((node) => node.src?.endsWith("app.js")))
        brokenWhileLoading.push(document.getElementById("broken").checkVisibility());
    }).observe(document, { childList: true, subtree: true });
"""

SEEK = """
    const [at, done] = arguments;
    const video = document.querySelector("video");
    video.onerror = () => done(video.error.message);
    video.onseeked = () => done();
    video.currentTime = at;
"""

PLAY = """
    const done = arguments[0];
    const video = document.querySelector("video");
    video.onerror = () => done(video.error.message);
    video.onended = () => done();
    video.currentTime = 1.7;
    video.play().catch((error) => done(String(error)));
"""


class Browser:
    """A window with the page, and what a user does and sees there."""

    def __init__(self, driver: webdriver.Chrome, page: Path, *, size: tuple[int, int] = (1440, 900), **device) -> None:
        self.driver = driver
        self.page = page
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False} | device
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": screen["mobile"]})

    def open(self, address: str = "", frame: int = 0) -> None:
        """Open the page afresh, and wait until it shows a frame."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.page.as_uri()}#{address}")
        self.wait_for(frame)

    def wait_for(self, frame: int) -> None:
        """Wait until the frame of that number is on the screen."""
        self.until(lambda: self.run("return document.documentElement.dataset.ready") == str(frame))
        self.settle()

    def settle(self) -> None:
        """Wait until what was asked for last is drawn."""
        self.driver.execute_async_script(
            "const done = arguments[0]; let left = 4;"
            "const step = () => (left-- ? requestAnimationFrame(step) : done()); step()"
        )

    def until(self, holds) -> None:
        """Wait until something holds, for a minute at most: the machine may be busy."""
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end, self.log()
            time.sleep(0.02)

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def log(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def find(self, selector: str):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        self.find(selector).click()
        self.settle()

    def choose(self, selector: str, value: str) -> None:
        Select(self.find(selector)).select_by_value(value)
        self.settle()

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)
        self.settle()

    def mouse(self, kind: str, x: float, y: float, **more) -> None:
        event = {"type": kind, "x": x, "y": y, "button": "none"} | more
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def point(self, x: float, y: float) -> None:
        self.mouse("mouseMoved", x, y)
        self.settle()

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        self.mouse("mouseMoved", *start)
        self.mouse("mousePressed", *start, button="left", buttons=1, clickCount=1)
        for place in (middle, end):
            self.mouse("mouseMoved", *place, button="left", buttons=1)
        self.mouse("mouseReleased", *end, button="left", clickCount=1)
        self.settle()

    def wheel(self, x: float, y: float, by: float) -> None:
        self.mouse("mouseWheel", x, y, deltaX=0, deltaY=by)
        self.settle()

    def screen(self, name: str | None = None, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """What is on the screen, or in a box of it: uint8 RGB of shape (height, width, 3)."""
        clip = {}
        if box:
            left, top, right, bottom = box
            clip = {"clip": {"x": left, "y": top, "width": right - left, "height": bottom - top, "scale": 1}}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "optimizeForSpeed": True} | clip)
        image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
        if name and (folder := os.environ.get("DAILIES_SCREENSHOTS")):
            Path(folder).mkdir(parents=True, exist_ok=True)
            image.save(Path(folder) / f"{name}.png", optimize=True)
        return np.asarray(image)

    def box(self, ids: str, part: str = ".picture", number: int = 0) -> tuple[int, int, int, int]:
        """Where on the screen a part of the panel of these pictures is: left, top, right, bottom."""
        return self.place(f'.panel[data-ids="{ids}"] {part}', number)

    def place(self, selector: str, number: int = 0) -> tuple[int, int, int, int]:
        """Where on the screen an element is: left, top, right, bottom."""
        return tuple(self.run(PLACE, selector, number))

    def at(self, ids: str, u: float = 0.5, v: float = 0.5) -> tuple[float, float]:
        """A place on a panel, from (0, 0) at its upper left to (1, 1)."""
        left, top, right, bottom = self.box(ids)
        return left + u * (right - left), top + v * (bottom - top)

    def colour(self, ids: str, u: float = 0.5, v: float = 0.5) -> list[int]:
        """The colour on the screen at a place of a panel."""
        x, y = map(int, self.at(ids, u, v))
        return self.screen(box=(x, y, x + 1, y + 1))[0, 0].tolist()

    def picture(self, ids: str) -> np.ndarray:
        """The pixels of a panel on the screen."""
        return self.screen(box=self.box(ids))

    def panels(self) -> list[str]:
        """The panels on the screen, from the upper left to the lower right."""
        return self.run("return [...document.querySelectorAll('.panel')].map((panel) => panel.dataset.ids)")

    def values(self, ids: str, label: int = 0) -> list[int]:
        """Read the numbers of a pixel from the screen: compare each with all that may be written there."""
        seen = self.screen(box=self.box(ids, ".readout", label)).astype(int)
        height = seen.shape[0]
        width = (seen.shape[1] - height) // 3
        found = []
        for channel, candidates in enumerate(self.written(width, height)):
            start = height + channel * width
            unlike = np.abs(candidates - seen[:, start : start + width]).sum((1, 2, 3))
            found.append(int(unlike.argmin()))
        return found

    def written(self, width: int, height: int) -> list[np.ndarray]:
        """All numbers as the page writes them, for each of the three colours: (256, height, width, 3)."""
        texts = self.run(WRITE_NUMBERS, width, height)
        images = [Image.open(io.BytesIO(base64.b64decode(text.split(",")[1]))) for text in texts]
        return [np.asarray(image.convert("RGB")).reshape(256, height, width, 3).astype(int) for image in images]


def add_frames(show: Show, count: int = FRAMES) -> None:
    for number in range(count):
        show.add_frame(f"frame_{number:03d}.png", source(number))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if not (CHROMIUM and DRIVER):
        lacking("browser", "chromium and chromedriver are not installed (apt install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def show(tmp_path_factory: pytest.TempPathFactory) -> Show:
    """Three models, one of hostile name, a failed one, a reference, and metrics of the frames."""
    show = Show(tmp_path_factory.mktemp("show"))
    add_frames(show)
    show.reference.mkdir()
    for number in range(FRAMES):
        Image.fromarray(reference(number)).save(show.reference / f"frame_{number:03d}.png")
    show.add_model("red", red, run={"params": {"lr": "1e-3", "kind": "warm"}, "metrics": {"val/psnr": 31.5}})
    show.add_model("green", green, run={"params": {"lr": "5e-4", "kind": "cold"}, "metrics": {"val/psnr": 33.25}})
    show.add_model(HOSTILE, noise, run={"params": {"lr": HOSTILE, "__proto__": "x"}, "metrics": {"val/psnr": 30.0}})
    show.add_model("broken", error="best.pth is <b>damaged</b>")
    for folder, mean in zip(show.models, (30.0, 32.27272727), strict=False):
        add_means(folder, {"psnr": mean})
    psnr = {
        RED: [30.0] * 4 + [20.0] + [30.0] * 7,
        GREEN: [31.0] * 9 + [45.0] + [31.0] * 2,
        NOISE: [None] * FRAMES,
    }
    show.build(
        reference=show.paired(),
        tracking_uri="https://me:secret@studio/mlflow",
        metrics=[FrameMetric("PSNR", psnr, higher_is_better=True, unit="dB")],
        trained={RED: {f"frame_{number:03d}.png" for number in range(1, 7)}, GREEN: ["frame_006.png", "another.png"]},
    )
    return show


@pytest.fixture
def browser(driver: webdriver.Chrome, show: Show) -> Iterator[Browser]:
    """The page in a window of 1440 by 900; whatever a test does there, nothing goes wrong in the page itself."""
    browser = Browser(driver, show.page)
    browser.log()
    yield browser
    assert browser.log() == []


def near(colour: list[int], wanted, tolerance: int = 1) -> bool:
    return bool(np.abs(np.asarray(colour) - np.asarray(wanted)).max() <= tolerance)


def one(pixels: np.ndarray) -> list[int]:
    """The colour of a frame of one colour."""
    return pixels[0, 0].tolist()


def test_the_grid_shows_every_picture_of_a_frame_and_the_arrows_the_next(browser):
    browser.open()
    assert browser.panels() == list(PIXELS)
    for number, key in ((0, None), (1, Keys.ARROW_RIGHT), (11, Keys.END), (10, Keys.ARROW_LEFT), (0, Keys.HOME)):
        if key:
            browser.keys(key)
        browser.wait_for(number)
        for ids in (SOURCE, REFERENCE, RED, GREEN):
            assert browser.colour(ids) == one(PIXELS[ids](number)), (ids, number)


def test_the_page_asks_nothing_of_any_network(browser):
    browser.open()

    events = (json.loads(entry["message"])["message"] for entry in browser.driver.get_log("performance"))
    asked = {each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"}

    assert any(url.endswith("/page/data.js") for url in asked)
    assert not [url for url in asked if url.startswith(("http", "ws"))]


def test_a_wipe_shows_a_left_and_b_right_of_a_line_that_is_dragged(browser):
    browser.open(f"view=wipe&a={RED}&b={GREEN}")
    both = f"{RED} {GREEN}"
    assert browser.colour(both, 0.4) == one(red(0))
    assert browser.colour(both, 0.6) == one(green(0))

    browser.drag(browser.at(both, 0.5), browser.at(both, 0.3))
    assert browser.colour(both, 0.4) == one(green(0))
    assert browser.colour(both, 0.25) == one(red(0))

    browser.keys("]", "]", "]", "]", "]")
    assert browser.colour(both, 0.5) == one(red(0))


def test_a_slider_that_was_moved_with_the_mouse_leaves_the_arrows_to_the_frames(browser):
    browser.open(f"view=wipe&a={RED}&b={GREEN}")
    left, top, right, bottom = browser.place("#wipe")
    browser.drag(((left + right) / 2, (top + bottom) / 2), (right - 20, (top + bottom) / 2))
    line = browser.find("#wipe").get_attribute("value")
    browser.keys(Keys.ARROW_RIGHT)

    browser.wait_for(1)
    assert browser.find("#wipe").get_attribute("value") == line


def test_flicker_shows_the_one_whose_key_is_pressed(browser):
    browser.open(f"view=flicker&a={RED}&b={GREEN}&rate=0")
    both = f"{RED} {GREEN}"

    for key, wanted in (("a", red), ("b", green), ("a", red)):
        browser.keys(key)
        assert browser.colour(both) == one(wanted(0))


def test_flicker_changes_by_itself_at_the_pace_that_is_chosen(browser):
    browser.open(f"view=flicker&a={RED}&b={GREEN}&rate=0")
    browser.choose("#rate", "4")

    colours = set()
    browser.until(lambda: colours.add(tuple(browser.colour(f"{RED} {GREEN}"))) or len(colours) == 2)

    assert colours == {tuple(one(red(0))), tuple(one(green(0)))}
    assert browser.run(PRESS_BOTH) == ["a", "b", "b"]


def test_whoever_asks_for_less_motion_sees_no_flicker_that_was_not_asked_for(browser):
    reduced = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": reduced})
    try:
        browser.open(f"view=flicker&a={RED}&b={GREEN}")
        assert Select(browser.find("#rate")).first_selected_option.get_attribute("value") == "0"
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_difference_is_amplified_by_the_gain_and_to_whatever_is_chosen(browser):
    browser.open(f"view=difference&a={SOURCE}&b={REFERENCE}&gain=1")
    assert browser.colour(f"{SOURCE} {REFERENCE}") == [10, 10, 10]

    browser.drag(browser.at(f"{SOURCE} {REFERENCE}"), browser.at(f"{SOURCE} {REFERENCE}"))  # a pointer is in use
    browser.choose("#gain", "8")
    assert near(browser.colour(f"{SOURCE} {REFERENCE}"), [80, 80, 80])
    browser.keys("]")
    assert near(browser.colour(f"{SOURCE} {REFERENCE}"), [160, 160, 160])

    browser.choose("#choose-b", RED)
    browser.choose("#gain", "1")
    assert browser.colour(f"{SOURCE} {RED}") == [160, 40, 60]


def test_a_difference_of_noise_is_not_smoothed_away_where_frames_are_reduced(browser, driver, tmp_path):
    show = Show(tmp_path)
    board = np.indices((1500, 2400)).sum(0) % 2 * 40
    show.add_frame("a.png", np.repeat(board[..., None], 3, 2).astype(np.uint8))
    show.add_model("inverse", lambda _: np.repeat(40 - board[..., None], 3, 2).astype(np.uint8))
    show.build()
    large = Browser(driver, show.page)

    large.open("view=difference&a=@source&b=model_1&gain=1")

    assert near(large.colour(f"{SOURCE} model_1"), [40, 40, 40])


def test_an_onion_skin_mixes_b_into_a(browser):
    browser.open(f"view=onion&a={RED}&b={GREEN}&onion=0.5")
    both = f"{RED} {GREEN}"
    assert near(browser.colour(both), (red(0)[0, 0].astype(int) + green(0)[0, 0]) / 2, 2)

    browser.find("#onion").send_keys(Keys.END)
    browser.settle()
    assert browser.colour(both) == one(green(0))


def test_pinned_models_stand_side_by_side_and_zoom_and_move_together(browser, tmp_path):
    browser.open(f"b={RED}")
    for ids in (SOURCE, NOISE):
        browser.point(*browser.at(ids))
        browser.click(f'#stage .panel[data-ids="{ids}"] .chip.pin')
    browser.keys("s")
    browser.wait_for(0)
    assert browser.panels() == [SOURCE, NOISE]

    browser.wheel(*browser.at(SOURCE), -900)
    browser.point(2, 2)
    zoomed = browser.picture(NOISE)
    scale = int(float(browser.find("#percent").text.rstrip(" %")) / 100)
    assert scale > 100
    assert sees_only_squares(zoomed, noise(0), scale)

    x, y = browser.at(NOISE)
    browser.drag((x, y), (x + 90, y + 40))
    browser.point(2, 2)
    np.testing.assert_array_equal(browser.picture(NOISE)[140:300, 190:400], zoomed[100:260, 100:310])

    browser.keys("l", "j")
    moved = browser.picture(NOISE)
    right, down = (round(length / 8) for length in (zoomed.shape[1], zoomed.shape[0]))
    browser.keys("h", "k")
    back = browser.picture(NOISE)
    np.testing.assert_array_equal(moved[:-down, :-right], back[down:, right:])

    browser.keys("0")
    assert browser.find("#percent").text != f"{scale * 100} %"


def sees_only_squares(seen: np.ndarray, frame: np.ndarray, scale: int) -> bool:
    """Whether each colour of ``seen`` is one of ``frame``, and changes come in steps of at least ``scale`` pixels."""
    colours = {tuple(pixel) for pixel in frame.reshape(-1, 3)}
    inner = seen[4:-4, 4:-4]
    edges = np.flatnonzero((inner[0, 1:] != inner[0, :-1]).any(1))
    return {tuple(pixel) for pixel in np.unique(inner.reshape(-1, 3), axis=0)} <= colours and (
        len(edges) < 2 or np.diff(edges).min() >= scale - 1
    )


def test_one_to_one_shows_each_pixel_once(browser):
    browser.open(f"view=side&a={NOISE}&b={RED}")
    browser.keys("z")

    seen = browser.picture(NOISE)
    middle = seen[seen.shape[0] // 2 - 20 :, seen.shape[1] // 2 - 20 :][:40, :40]
    places = [
        (y, x)
        for y in range(40 - SIZE[1])
        for x in range(40 - SIZE[0])
        if np.array_equal(middle[y : y + SIZE[1], x : x + SIZE[0]], noise(0))
    ]

    assert browser.find("#percent").text == "100 %"
    assert len(places) == 1


def test_the_values_of_a_pixel_are_written_for_all_pictures(browser):
    browser.open("frame=frame_002.png", frame=2)
    for x, y in ((3, 5), (15, 8), (0, 0)):
        left, top, right, bottom = browser.box(RED)
        scale = min((right - left) // SIZE[0], (bottom - top) // SIZE[1])
        corner = ((left + right) / 2 - scale * SIZE[0] / 2, (top + bottom) / 2 - scale * SIZE[1] / 2)
        browser.point(corner[0] + (x + 0.5) * scale, corner[1] + (y + 0.5) * scale)

        assert browser.find("#pixel").text.split() == ["x", str(x), "y", str(y)]
        for ids, pixels in PIXELS.items():
            assert browser.values(ids) == pixels(2)[y, x].tolist(), (ids, x, y)

    browser.point(5, 5)
    assert browser.find("#pixel").text == ""


def test_the_difference_of_a_pixel_is_written_too(browser):
    browser.open(f"view=difference&a={SOURCE}&b={NOISE}")
    browser.point(*browser.at(f"{SOURCE} {NOISE}", 0.5, 0.5))
    x, y = (int(part) for part in browser.find("#pixel").text.split()[1::2])

    one_value, other = source(0)[y, x].astype(int), noise(0)[y, x].astype(int)

    values = [browser.values(f"{SOURCE} {NOISE}", label) for label in range(3)]
    assert values == [one_value.tolist(), abs(one_value - other).tolist(), other.tolist()]


def test_digits_choose_models_letters_the_place_and_x_swaps_them(browser):
    browser.open(f"view=wipe&a={SOURCE}&b={RED}")
    for keys, ids in (
        (["2"], f"{SOURCE} {GREEN}"),
        (["a", "1"], f"{RED} {GREEN}"),
        (["x"], f"{GREEN} {RED}"),
        (["i"], f"{SOURCE} {RED}"),
        (["b", "r"], f"{SOURCE} {REFERENCE}"),
        (["g"], None),
    ):
        browser.keys(*keys)
        assert ids is None or browser.panels() == [ids]
    assert len(browser.panels()) == 5


def test_the_space_bar_plays_at_the_rate_that_is_chosen_and_stops(browser):
    browser.open(f"view=wipe&a={SOURCE}&b={RED}&fps=12")

    browser.run(SPOKEN)
    start = time.monotonic()
    browser.keys(Keys.SPACE)
    browser.until(lambda: int(browser.run("return document.documentElement.dataset.ready")) >= 6)
    took = time.monotonic() - start
    assert browser.run("return spoken") == []  # a screen reader would not come to an end
    browser.keys(Keys.SPACE)
    frame = int(browser.find("#scrub").get_attribute("value"))
    browser.wait_for(frame)
    time.sleep(0.3)

    assert took > 0.3
    assert browser.colour(f"{SOURCE} {RED}", 0.4) == one(source(frame))
    assert browser.find("#play").get_attribute("aria-label") == "Play"


def test_it_plays_on_from_the_frame_that_someone_goes_to(browser):
    browser.open(f"view=wipe&a={SOURCE}&b={RED}&fps=6&frame=frame_007.png", frame=7)
    browser.until(lambda: browser.find("#worst").is_displayed())
    browser.run(WATCH)
    browser.keys(Keys.SPACE)
    browser.until(lambda: int(browser.find("#scrub").get_attribute("value")) > 7)
    browser.keys("n")
    browser.until(lambda: browser.run("return passed.findIndex(([, frame]) => frame === '4') + 2 < passed.length"))
    browser.keys(Keys.SPACE)

    frames = [int(frame) for _, frame in browser.run("return passed")]
    assert frames[frames.index(4) + 1] in {5, 6}


def test_the_scrubber_is_a_slider_for_mouse_and_keyboard(browser):
    browser.open()
    left, top, right, bottom = browser.place("#scrub")
    browser.drag((left + 6, (top + bottom) / 2), ((left + right) / 2, (top + bottom) / 2))
    frame = int(browser.find("#scrub").get_attribute("value"))
    assert frame in {5, 6}
    browser.wait_for(frame)
    assert browser.colour(RED) == one(red(frame))

    browser.find("#scrub").send_keys(Keys.ARROW_RIGHT)
    browser.wait_for(frame + 1)
    assert browser.find("#scrub").get_attribute("aria-valuetext") == f"frame_{frame + 1:03d}.png, {frame + 2} of 12"


def test_a_link_shows_what_was_seen(browser):
    browser.open()
    browser.find("#filter").send_keys("lr<=1e-3")
    browser.choose("#sort", "metric:val/psnr")
    browser.run("document.activeElement.blur()")
    browser.keys("d", "1", Keys.ARROW_RIGHT, "]")
    browser.wait_for(1)
    browser.wheel(*browser.at(f"{SOURCE} {GREEN}", 0.4), -400)
    browser.point(2, 2)
    time.sleep(0.6)
    address = browser.run("return location.hash.slice(1)")
    seen = browser.screen("link")

    browser.open(address, frame=1)
    browser.point(2, 2)

    np.testing.assert_array_equal(browser.screen("link-again"), seen)
    assert browser.find("#filter").get_attribute("value") == "lr<=1e-3"


def test_the_back_button_returns_to_the_view_before(browser):
    browser.open(f"b={GREEN}")
    for key, frame in (("w", 0), (Keys.ARROW_RIGHT, 1), ("d", 1)):
        browser.keys(key)
        browser.wait_for(frame)
        time.sleep(0.6)  # the address follows a moment later

    browser.driver.back()
    browser.wait_for(1)
    assert browser.find('[data-view="wipe"]').get_attribute("aria-pressed") == "true"
    browser.driver.back()
    browser.wait_for(0)
    assert browser.panels() == list(PIXELS)
    browser.driver.refresh()
    browser.wait_for(0)
    assert browser.panels() == list(PIXELS)


@pytest.mark.parametrize("address", ["view=nonsense&frame=x&a=gone&zoom=abc&pins=%25E0%25A4&gain=7", "%%%", "blind=x"])
def test_a_link_that_makes_no_sense_shows_the_page_as_it_is_at_first(browser, address):
    browser.open(address)

    assert browser.panels() == list(PIXELS)


def test_the_list_is_filtered_sorted_and_pinned(browser):
    browser.open()

    def models():
        return browser.panels()[2:]

    for words, found in (
        ("warm", [RED]),
        ("lr<1e-3", [GREEN]),
        ("val/psnr>=31 unet", [RED, GREEN]),
        ("kind!=warm psnr<40", [GREEN]),
        ("nothing like this", []),
        ("", [RED, GREEN, NOISE]),
    ):
        browser.find("#filter").clear()
        browser.find("#filter").send_keys(words or " ")
        browser.settle()
        assert models() == found, words
        assert browser.find("#none").is_displayed() == (not found)

    browser.choose("#sort", "metric:val/psnr")
    assert models() == [GREEN, RED, NOISE]
    browser.click("#direction")
    assert models() == [NOISE, RED, GREEN]
    browser.choose("#sort", "param:lr")
    assert models()[0] == GREEN

    browser.click(f'#list li[data-id="{RED}"] .chip.pin')
    assert models()[0] == RED
    assert browser.find(f'#list li[data-id="{RED}"] .digit').text == "1"
    assert browser.run("return document.activeElement === document.body")


def test_what_was_used_from_the_keyboard_keeps_the_focus(browser):
    browser.open()
    for place in (f'#list li[data-id="{NOISE}"]', f'.panel[data-ids="{GREEN}"]'):
        browser.find(f"{place} .chip.pin").send_keys(Keys.ENTER)
        browser.settle()
        assert browser.run("return document.activeElement.matches(arguments[0])", f"{place} .chip.pin")
        assert browser.run("return document.activeElement.ariaPressed") == "true"

    browser.keys("t")
    browser.settle()
    browser.find('#table [data-sort="metric:val/psnr"]').send_keys(Keys.ENTER)
    assert browser.run("return document.activeElement.parentElement.ariaSort") == "descending"
    browser.keys(Keys.ENTER)
    assert browser.run("return document.activeElement.parentElement.ariaSort") == "ascending"


def test_a_click_on_the_graph_goes_to_the_frame_below(browser):
    browser.open(f"a={RED}&b={GREEN}")
    browser.until(lambda: browser.find("#graph").is_displayed())
    browser.settle()
    left, top, right, bottom = browser.place("#graph")
    graph = browser.screen(box=(left, top, right, bottom)).astype(int)
    amber = (np.abs(graph - [0xF2, 0xA5, 0x41]).max(2) < 70).any(0)  # a line may lie between two rows of pixels
    assert amber.mean() > 0.8
    assert np.abs(graph[:, amber] - [0x5C, 0xB8, 0xE6]).max(2).min() < 70

    x = left + 6 + (right - left - 12) * 7 / (FRAMES - 1)
    browser.drag((x, (top + bottom) / 2), (x, (top + bottom) / 2))
    browser.wait_for(7)
    assert browser.colour(RED) == one(red(7))
    assert "31 dB" in browser.find("#graph-values").text


def test_the_worst_frame_and_the_largest_disagreement_are_one_key_away(browser):
    browser.open(f"a={RED}&b={GREEN}&slot=b")
    browser.until(lambda: browser.find("#worst").is_displayed())
    assert browser.find("#worst").text == "Worst of B"
    assert "green" in browser.find("#worst").get_attribute("title")
    browser.keys("a")
    assert browser.find("#worst").text == "Worst of A"
    assert "red" in browser.find("#worst").get_attribute("title")

    browser.keys("n")
    browser.wait_for(4)
    browser.click("#apart")
    browser.wait_for(9)
    browser.keys("m")
    browser.wait_for(4)
    browser.click("#worst")
    browser.wait_for(4)


def test_the_table_tells_all_and_links_to_the_run(browser):
    browser.open("view=table&differing=0")
    text = browser.find("#table").text

    for part in ("red", "green", "val/psnr", "33.25", "warm", "load failed: best.pth is <b>damaged</b>"):
        assert part in text
    assert browser.find("#table a.run").get_attribute("href") == f"https://studio/mlflow/#/runs/{1:032x}"

    browser.click('#table button[data-sort="metric:val/psnr"]')
    names = [cell.text.splitlines()[0] for cell in browser.all("#table tbody .name")]
    assert names[:4] == ["Source", "Reference", "green", "red"]
    assert names[-1] == "broken"
    assert browser.find('#table th[aria-sort="descending"]').text.startswith("val/psnr")

    browser.click("#differing")
    assert "cpu" not in browser.find("#table").text


def test_frames_that_training_has_seen_are_marked(browser):
    for frame, a, b, marked in ((2, True, False, RED), (6, True, True, GREEN), (9, False, False, None)):
        browser.open(f"view=side&a={RED}&b={GREEN}&frame=frame_{frame:03d}.png", frame=frame)
        browser.until(lambda: browser.find("#graph").is_displayed())
        browser.settle()
        left, top, right, bottom = browser.place("#marks")
        x = round(left + 6 + (right - left - 12) * frame / (FRAMES - 1))
        marks = browser.screen(box=(x - 2, top, x + 3, bottom)).astype(int)
        assert bool((np.abs(marks - [0xF2, 0xA5, 0x41]).max(2) < 8).any()) == a, frame
        assert bool((np.abs(marks - [0x5C, 0xB8, 0xE6]).max(2) < 8).any()) == b, frame
        badges = browser.all(f'.panel[data-ids="{marked}"] .badge')
        assert [badge.text for badge in badges] == (["trained"] if marked else [])

    browser.choose("#choose-a", SOURCE)
    browser.choose("#choose-b", NOISE)
    assert not browser.find("#marks").is_displayed()
    browser.click("#blind")
    assert not browser.find("#marks").is_displayed()
    assert browser.all(".badge") == []


def test_means_of_frames_that_training_has_not_seen_are_in_the_table_and_sort_the_list(browser):
    browser.open("view=table")
    browser.choose("#sort", "mean:psnr")

    titles = [cell.text.strip() for cell in browser.all("#table thead tr:last-child th")]
    column = next(index for index, title in enumerate(titles) if title.startswith("psnr"))
    rows = browser.all("#table tbody tr:not(.fixed)")[:3]
    shown = [row.find_elements(By.CSS_SELECTOR, "th, td")[column].text for row in rows]
    assert shown == ["32.273\nbest", "30", "–"]
    assert browser.run("return [...document.querySelectorAll('#list li')].map((li) => li.dataset.id)")[2:] == [
        GREEN,
        RED,
        NOISE,
    ]


def test_the_graph_says_between_which_values_its_lines_run(browser):
    browser.open(f"a={RED}&b={GREEN}")
    browser.until(lambda: browser.find("#graph").is_displayed())

    assert (browser.find("#graph-high").text, browser.find("#graph-low").text) == ("45", "20")


def test_the_page_links_to_what_lies_beside_it_and_to_nothing_else(browser, driver, show):
    browser.open()
    assert not browser.find("#extras").is_displayed()

    beside = {"contact_sheet.png": "Contact sheet", "side_by_side.mp4": "Video"}
    try:
        for name in beside:
            show.page.with_name(name).write_bytes(b"something")
        write_extras(show.layout)
        browser.open()
        links = browser.all("#extras a")
        assert {Path(link.get_attribute("href")).name: link.text for link in links} == beside
        browser.click("#blind")
        assert not browser.find("#extras").is_displayed()
    finally:
        for name in beside:
            show.page.with_name(name).unlink()
        write_extras(show.layout)


def test_failed_models_are_listed_with_their_reason(browser, driver, show):
    low = Browser(driver, show.page, size=(1280, 300))
    low.open()
    assert low.place("#failed summary")[3] <= low.place("#failed")[3]
    Browser(driver, show.page)
    browser.open()
    browser.click("#failed summary")

    assert "best.pth is <b>damaged</b>" in browser.find("#failed").text


def test_hostile_names_and_parameters_are_text(browser):
    for view in ("grid", "table", "wipe", "side"):
        browser.open(f"view={view}&a={NOISE}&b={RED}&sort=param:lr")
        assert browser.run("return typeof hacked") == "undefined"
        shown = browser.run("return document.body.textContent")
        assert HOSTILE in shown
    assert browser.all("img") == []


def test_a_blind_test_hides_names_and_exports_votes(browser, show, tmp_path):
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    browser.open("sort=metric:val/psnr&frame=frame_003.png", frame=3)
    browser.run("localStorage.clear()")
    browser.open("sort=metric:val/psnr&frame=frame_003.png", frame=3)
    browser.click("#blind")
    browser.wait_for(3)

    visible = browser.find("body").text
    assert not any(word in visible for word in ("red", "green", "broken", "31.5", "dB"))
    assert browser.run("return !document.title.includes('red') && !location.hash.includes('model_')")
    assert not browser.find('[data-view="table"]').is_enabled()
    browser.keys("p")

    cast = []
    for choice in ("a", "tie", "b"):
        a, b = browser.panels()
        by_colour = {tuple(one(red(3))): RED, tuple(one(green(3))): GREEN}
        assert {by_colour.get(tuple(browser.colour(ids)), NOISE) for ids in (a, b)} == {a, b}
        cast.append((a, b, choice))
        if choice == "tie":
            browser.keys(Keys.SHIFT + "n")
        else:
            browser.click(f'#ballot [data-vote="{choice}"]')
        browser.wait_for(3)
    assert browser.find("#round").text == "Every pair was shown. Pair 1 of 3. 3 votes so far."
    assert len({frozenset(pair[:2]) for pair in cast}) == 3

    browser.click("#export")
    browser.until((tmp_path / "votes.json").is_file)
    exported = json.loads((tmp_path / "votes.json").read_text())
    assert [(vote["a"]["model"], vote["b"]["model"], vote["winner"]) for vote in exported["votes"]] == cast
    imported = read_export(tmp_path / "votes.json", show.layout).votes
    assert [(vote.a.model, vote.b.model, vote.winner) for vote in imported] == cast
    assert {vote.frame for vote in imported} == {"frame_003.png"}
    assert len({vote.id for vote in imported}) == 3

    time.sleep(0.5)
    address = browser.run("return location.hash.slice(1)")
    pair = browser.panels()
    browser.open(address, frame=3)
    assert browser.panels() == pair

    browser.click("#reveal")
    result = browser.find("#result").text
    assert "red" in result
    assert "100 % (21 to 100 %)" in result or "0 % (0 to 79 %)" in result  # of one vote, which was drawn
    assert "about 3 more" in result  # four votes of one mind are the fewest that decide
    assert browser.run("return document.activeElement.closest('dialog')?.id") == "result"
    browser.click("#discard")
    assert browser.all('#list .chip.pin[aria-pressed="true"]') == []
    browser.click("#blind")
    assert browser.find("#round").text == "Pair 1 of 3. 0 votes so far."


def test_pairs_sides_and_frames_of_a_blind_test_are_drawn_anew_and_evenly(browser):
    browser.run("localStorage.clear()")
    browser.open("filter=val/psnr>30")  # red and green
    browser.click("#blind")
    browser.click("#shuffle")
    shown = set()
    for _ in range(30):
        browser.keys(Keys.SHIFT + "n")
        shown.add((tuple(browser.panels()), *browser.run("return [State.values.blind, State.values.frame]")))
    assert {panels for panels, *_ in shown} == {(RED, GREEN), (GREEN, RED)}
    assert len({blind for _, blind, _ in shown}) == 30
    assert len({frame for *_, frame in shown}) > 3
    assert "30 votes" in browser.find("#round").text

    browser.click("#reveal")
    browser.click("#discard")
    browser.open()
    browser.click("#blind")
    pairs = []
    for _ in range(9):
        pairs.append(frozenset(browser.panels()))
        browser.keys(Keys.SHIFT + "a")
    assert sorted(map(pairs.count, set(pairs))) == [3, 3, 3]
    browser.click("#reveal")
    browser.click("#discard")


def inferno() -> np.ndarray:
    """The colours that the error map must use, as matplotlib publishes them: (256, 3)."""
    colormaps = pytest.importorskip("matplotlib", reason="the colour scale is compared with matplotlib's").colormaps
    return np.round(np.asarray(colormaps["inferno"].colors) * 255).astype(int)


def pixels_of(browser: Browser, ids: str) -> np.ndarray:
    """The colour on the screen at the middle of each pixel of a frame that is fitted into its panel."""
    seen = browser.picture(ids).astype(int)
    scale = min(seen.shape[1] // SIZE[0], seen.shape[0] // SIZE[1])
    top, left = (round(seen.shape[axis] / 2 - scale * SIZE[1 - axis] / 2) for axis in (0, 1))
    return seen[top + scale // 2 :: scale, left + scale // 2 :: scale][: SIZE[1], : SIZE[0]]


def shows(browser: Browser, ids: str, pixels: np.ndarray) -> bool:
    return bool((pixels_of(browser, ids) == pixels).all())


def test_the_error_map_shows_the_largest_difference_of_a_pixel_in_the_colour_of_its_scale(browser):
    difference = np.abs(noise(2).astype(int) - reference(2))
    ids = f"{NOISE} {REFERENCE}"
    for gain, channel in ((1, "all"), (8, "all"), (2, "green")):
        browser.open(f"view=error&a={NOISE}&b={RED}&gain={gain}&channel={channel}&frame=frame_002.png", frame=2)
        error = difference.max(2) if channel == "all" else difference[..., 1]
        np.testing.assert_array_equal(pixels_of(browser, ids), inferno()[np.minimum(255, gain * error)])

    ticks = browser.run("return [...document.querySelectorAll('#legend-ticks span')].map((tick) => tick.textContent)")
    assert ticks == ["0", "32", "64", "96", "≥ 128"]
    assert "green only" in browser.find("#legend-kind").text

    browser.point(*browser.at(ids))
    x, y = (int(part) for part in browser.find("#pixel").text.split()[1::2])
    assert browser.values(ids) == difference[y, x].tolist()

    browser.keys("e")
    assert browser.panels() == [f"{ids} {REFERENCE}" for ids in (SOURCE, RED, GREEN, NOISE)]
    browser.keys("c", "c", "c")
    level = np.abs(reference(2).astype(int) - red(2)).max()
    assert near(browser.colour(f"{RED} {REFERENCE}"), inferno()[min(255, 2 * level)], 0)


def test_a_box_marks_the_part_of_the_frame_with_the_largest_mean_error(browser, driver, tmp_path):
    """The worst block of 4 by 4 pixels is half a code value worse than others, and the largest error is elsewhere."""
    show = Show(tmp_path)
    true = np.random.default_rng(0).integers(60, 190, (54, 96, 3), dtype=np.uint8)
    made = true + np.uint8(5)
    made[20:24, 40:44][np.indices((4, 4)).sum(0) % 2 == 0] += 1
    made[50, 90] = true[50, 90] + 12
    made[48:52, 88:92][:2] = true[48:52, 88:92][:2]
    show.reference.mkdir()
    show.add_frame("a.png", true)
    Image.fromarray(true).save(show.reference / "a.png")
    show.add_model("model", lambda _: made)
    show.build(reference=show.paired())
    page = Browser(driver, show.page)

    for address in ("", "&channel=green", "&zoom=6&x=0.5&y=0.5"):
        page.open(f"view=error&a=model_1&b=model_1&gain=16{address}")
        ids = f"model_1 {REFERENCE}"
        scale = int(page.find("#percent").text.rstrip(" %")) / 100
        boxed = page.picture(ids).astype(int)
        page.run("document.querySelector('.region').style.visibility = 'hidden'")
        rows, columns = np.nonzero((page.picture(ids) != boxed).any(2))
        middle = np.array(boxed.shape[1::-1]) // 2
        corners = np.array([(columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)])
        np.testing.assert_allclose((corners - middle) / scale + (48, 27), [(40, 20), (44, 24)], atol=0.25)

    page.open(f"view=error&a={SOURCE}&b={SOURCE}")
    before = page.picture(f"{SOURCE} {REFERENCE}")
    page.run("document.querySelector('.region').style.visibility = 'hidden'")
    np.testing.assert_array_equal(page.picture(f"{SOURCE} {REFERENCE}"), before)  # without errors there is no box


def test_the_box_of_a_thumbnail_is_where_it_is_in_the_frame(browser, driver, tmp_path):
    show = Show(tmp_path)
    true = flat(90, 90, 90, size=(1600, 900))
    made = true.copy()
    made[600:700, 400:500] = 200
    show.reference.mkdir()
    show.add_frame("a.png", true)
    Image.fromarray(true).save(show.reference / "a.png")
    for number in range(24):
        show.add_model(f"model {number}", lambda _: made)
    show.build(reference=show.paired())
    page = Browser(driver, show.page)
    ids = f"model_1 {REFERENCE}"

    page.open("view=error&errors=all")
    assert "Thumbnails" in page.find("#notes").text
    boxed = page.picture(ids).astype(int)
    page.run(f"document.querySelector('.panel[data-ids=\"{ids}\"] .region').style.visibility = 'hidden'")
    rows, columns = np.nonzero((page.picture(ids) != boxed).any(2))
    scale = float(page.find("#percent").text.rstrip(" %")) / 100
    x, y = ((columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2) - np.array(boxed.shape[1::-1]) / 2

    assert 400 < x / scale + 800 < 500
    assert 600 < y / scale + 450 < 700


def test_alpha_is_shown_as_a_channel_and_colours_remain_exact_where_it_is_0(browser, driver, tmp_path):
    show = Show(tmp_path)
    colours, alpha = noise(1), np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE[1], SIZE[0])
    show.add_frame("a.png", np.dstack([noise(2), 255 - alpha]))
    show.reference.mkdir()
    Image.fromarray(noise(3)).save(show.reference / "a.png")
    show.add_model("model", lambda _: np.dstack([colours, alpha]))
    show.build(reference=show.paired())
    page = Browser(driver, show.page)

    page.open(f"view=side&a=model_1&b={REFERENCE}")
    np.testing.assert_array_equal(pixels_of(page, "model_1"), colours)
    page.click("#open-look")
    page.choose("#channel", "alpha")
    page.until(lambda: shows(page, "model_1", alpha[..., None]))
    assert page.find("#altered").text == "Not shown as rendered: alpha only."
    assert page.find(f'.panel[data-ids="{REFERENCE}"] .message').text == "Reference: no alpha channel"
    page.choose("#choose-b", SOURCE)
    page.until(lambda: shows(page, SOURCE, 255 - alpha[..., None]))
    page.keys("q")
    np.testing.assert_array_equal(pixels_of(page, "model_1"), colours)

    browser.open("channel=alpha")  # frames without alpha have no such channel
    assert browser.run("return [...document.querySelectorAll('#channel option')].map((each) => each.value)") == [
        "all",
        "red",
        "green",
        "blue",
        "luma",
    ]
    assert browser.colour(RED) == one(red(0))


def test_exposure_gamma_and_channels_change_all_pictures_and_the_page_says_so(browser):
    browser.open(f"view=side&a={RED}&b={GREEN}")
    assert not browser.find("#altered").is_displayed()
    for key in "vvy":
        browser.keys(key)

    def toned(value: int) -> float:
        linear = np.where(value / 255 <= 0.04045, value / 255 / 12.92, ((value / 255 + 0.055) / 1.055) ** 2.4)
        light = np.minimum(1, 2 * linear)
        encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        return 255 * encoded ** (1 / 1.1)

    for ids, pixels in ((RED, red), (GREEN, green)):
        assert near(browser.colour(ids), toned(pixels(0)[0, 0].astype(float)))
    assert browser.find("#altered").text == "Not shown as rendered: exposure +1, gamma 1.1."
    browser.point(*browser.at(RED))
    assert browser.values(RED) == one(red(0))
    browser.point(2, 2)
    time.sleep(0.5)
    address = browser.run("return location.hash.slice(1)")

    browser.keys("q")
    assert browser.colour(RED) == one(red(0))
    for channel, grey in (("Red", 200), ("Green", 40), ("Blue", 60)):
        browser.keys("c")
        assert Select(browser.find("#channel")).first_selected_option.text == channel
        assert browser.colour(RED) == [grey] * 3
    browser.keys("c")
    assert near(browser.colour(RED), [0.2126 * 200 + 0.7152 * 40 + 0.0722 * 60] * 3)
    browser.keys("q")
    assert not browser.find("#altered").is_displayed()

    browser.open(address)
    assert near(browser.colour(GREEN), toned(green(0)[0, 0].astype(float)))
    browser.keys("q")


def test_an_error_map_needs_a_reference(browser, driver, crowd):
    page = Browser(driver, crowd.page)
    page.open("view=error")
    page.keys("e")

    assert not page.find('[data-view="error"]').is_enabled()
    assert page.find('[data-view="grid"]').get_attribute("aria-pressed") == "true"


def test_the_pictures_fill_the_screen_until_escape_is_pressed(browser):
    browser.open(f"view=wipe&a={RED}&b={GREEN}&channel=red")
    bottom = browser.box(f"{RED} {GREEN}")[3]
    browser.keys(Keys.SHIFT + "f")
    browser.until(lambda: browser.run("return document.fullscreenElement !== null"))
    browser.until(lambda: browser.box(f"{RED} {GREEN}")[3] > bottom)
    browser.settle()

    left, _, right, low = browser.box(f"{RED} {GREEN}")
    assert (right - left, low) >= (1420, 890)
    assert browser.find("#altered").is_displayed()
    assert not browser.find("#choose-a").is_displayed()
    browser.keys(Keys.ARROW_RIGHT)
    browser.wait_for(1)

    browser.keys(Keys.ESCAPE)
    browser.until(lambda: browser.run("return document.fullscreenElement === null"))
    browser.until(lambda: browser.box(f"{RED} {GREEN}")[3] == bottom)


def test_playback_repeats_the_frames_between_two_marks(browser):
    browser.open(f"view=wipe&a={SOURCE}&b={RED}&fps=24&frame=frame_003.png", frame=3)
    browser.keys(",", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, ".")
    browser.wait_for(5)
    browser.run(WATCH)
    browser.keys(Keys.SPACE)
    browser.until(lambda: browser.run("return passed.length") > 8)
    browser.keys(Keys.SPACE)
    assert {frame for _, frame in browser.run("return passed")} == {"3", "4", "5"}
    time.sleep(0.5)
    address = browser.run("return location.hash.slice(1)")
    assert "first=frame_003.png&last=frame_005.png" in address

    left, top, right, bottom = browser.place("#loop-range [data-end=last]")
    start = ((left + right) / 2, (top + bottom) / 2)
    browser.drag(start, (start[0] + 2.05 * browser.run("return scrub.clientWidth / 11"), start[1]))
    assert browser.run("return State.values.last") == 7
    browser.keys("u")
    assert browser.run("return [State.values.first, State.values.last]") == [None, None]
    assert not browser.find("#loop-range").is_displayed()

    browser.open(f"{address}&first=nonsense", frame=int(browser.run("return State.values.frame")))
    assert browser.find("#loop").text == "No loop"


def test_names_and_scale_of_the_graph_stand_beside_it_and_it_grows_with_the_window(browser, driver, show):
    heights = {}
    for size in ((1440, 900), (3840, 2160)):
        page = Browser(driver, show.page, size=size)
        page.open(f"a={RED}&b={SOURCE}")
        page.until(lambda page=page: page.find("#graph").is_displayed())
        page.settle()
        left, top, right, bottom = page.place("#graph")
        heights[size[1]] = bottom - top
        name = page.place(".line-name.a")
        assert right <= name[0] < name[2] <= size[0]
        assert top <= name[1] < name[3] <= bottom
        assert page.place("#graph-scale")[2] <= left
        assert not page.find(".line-name.b").is_displayed()
    assert heights[900] < 80
    assert heights[2160] > 150
    Browser(driver, show.page)


@pytest.fixture(scope="module")
def two_metrics(tmp_path_factory: pytest.TempPathFactory) -> Show:
    """Models that PSNR and SSIM order differently; the last one is far worse than the others by PSNR."""
    show = Show(tmp_path_factory.mktemp("two_metrics"))
    add_frames(show)
    values = {"sharp": (30.0, 0.9), "smooth": (32.0, 0.8), "flat": (10.0, 0.7)}
    tables: dict[str, dict[str, list[float | None]]] = {"PSNR": {}, "SSIM": {}}
    for name, (psnr, ssim) in values.items():
        folder = show.add_model(name, red)
        add_means(folder, {"psnr": psnr, "ssim": ssim, "clipping": -2.5})
        for table, mean in zip(tables.values(), (psnr, ssim), strict=True):
            table[folder.name] = [mean + 0.001 * number for number in range(FRAMES)]
    show.build(
        metrics=[
            FrameMetric("PSNR", tables["PSNR"], higher_is_better=True, unit="dB", key="psnr"),
            FrameMetric("SSIM", tables["SSIM"], higher_is_better=True, key="ssim"),
        ]
    )
    return show


def test_list_values_and_curve_are_about_one_chosen_metric(browser, driver, two_metrics):
    page = Browser(driver, two_metrics.page)
    page.open("sort=mean:psnr&descending=1")
    page.until(lambda: page.find("#graph").is_displayed())

    page.choose("#metric", "SSIM")
    assert [each.text for each in page.all("#list bdi")][1:] == ["sharp", "smooth", "flat"]
    assert page.find('#list [data-id="model_1"] .figure').text == "0.9"
    assert page.find('.panel[data-ids="model_1"] .figure').text == "0.9"
    page.choose("#sort", "mean:psnr")
    assert page.run("return document.getElementById('metric').value") == "PSNR"
    assert [each.text for each in page.all("#list bdi")][1:] == ["smooth", "sharp", "flat"]
    assert page.find('.panel[data-ids="model_1"] .figure').text == "30 dB"

    page.open("metric=SSIM&sort=mean:psnr")  # as in links of earlier pages
    assert page.run("return document.getElementById('metric').value") == "PSNR"


def test_the_scale_of_the_graph_fits_what_stands_out_and_counts_what_leaves_it(browser, driver, two_metrics):
    page = Browser(driver, two_metrics.page)
    page.open("a=model_1&b=model_2&metric=PSNR")
    page.until(lambda: page.find("#graph").is_displayed())
    page.settle()

    assert page.find("#graph-low").text == "30"
    assert page.find("#graph-below").text == "1 lower"
    page.choose("#choose-a", "model_3")
    assert page.find("#graph-low").text == "10"
    assert page.find("#graph-below").text == ""


def test_values_beside_the_name_of_a_frame_are_those_of_that_frame(browser, driver, two_metrics):
    page = Browser(driver, two_metrics.page)
    page.open("a=model_1&b=model_2&metric=PSNR")
    page.until(lambda: page.find("#graph").is_displayed())
    page.settle()

    left, top, right, _ = page.place("#graph")
    page.point(left + 6 + (right - left - 12) * 7 / (FRAMES - 1), top + 6)
    assert page.find("#frame-name").text == "frame_000.png"
    assert "30 dB" in page.find("#graph-values").text
    assert page.find("#tip").text.split() == ["frame_007.png", "A", "30.007", "dB", "B", "32.007", "dB"]
    page.point(left + 6, top - 300)
    assert not page.find("#tip").is_displayed()


def test_columns_whose_printed_values_are_all_equal_can_be_left_out(browser, driver, two_metrics):
    page = Browser(driver, two_metrics.page)
    page.open("view=table")
    assert page.all('#table [data-sort="mean:clipping"]') == []
    assert page.all('#table [data-sort="mean:ssim"]') != []

    page.click("#differing")
    assert page.all('#table [data-sort="mean:clipping"]') != []


def test_each_group_of_controls_is_one_stop_of_the_tab_key(browser):
    browser.open(f"view=side&a={RED}&b={GREEN}")
    browser.until(lambda: browser.find("#graph").is_displayed())
    stops = []
    for _ in range(30):
        browser.keys(Keys.TAB)
        groups = "#skip, #head, #verdict, #find, #list, #failed, #options, #stage, #controls, #track, #jumps"
        stops.append(browser.run("return document.activeElement.closest(arguments[0])?.id ?? null", groups))
        if stops[-1] is None:
            break
    wanted = [
        "skip",
        "head",
        "verdict",
        *["find"] * 3,
        "list",
        "failed",
        "options",
        "stage",
        "controls",
        "track",
        "jumps",
    ]
    assert stops[: len(wanted)] == wanted

    browser.run("document.activeElement.blur()")
    browser.find("#skip").send_keys(Keys.ENTER)
    assert browser.run("return document.activeElement.id") == "stage"
    browser.keys(Keys.ARROW_RIGHT)
    browser.wait_for(1)

    browser.run(f"document.querySelector('#list li[data-id=\"{RED}\"] .name').focus()")
    browser.keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ENTER)
    assert browser.run("return [State.values.a, State.values.frame]") == [GREEN, 1]
    assert browser.run("return document.activeElement.matches('.chip.a')")


def test_thumbnails_and_proxies_are_said_to_be_what_they_are(browser, driver, tmp_path):
    show = Show(tmp_path)
    board = np.indices((900, 1600)).sum(0) % 2 * 255
    pixels = np.repeat(board[..., None], 3, 2).astype(np.uint8)
    show.add_frame("a.png", pixels)
    show.reference.mkdir()
    Image.fromarray((board * 257).astype(np.uint16)).save(show.reference / "a.png")
    for number in range(24):
        show.add_model(f"model {number}", lambda _: pixels)
    show.build(reference=show.paired())
    large = Browser(driver, show.page)

    large.open()
    assert "Thumbnails: zoom in for the frames' own pixels." in large.find("#notes").text
    assert "8-bit" in large.find("#notes").text
    badges = large.all(f'.panel[data-ids="{REFERENCE}"] .badge')
    assert [badge.text for badge in badges if badge.is_displayed()] == [
        "8 of 16 bits"
    ]  # small ones leave room for names
    assert near(large.colour("model_1"), [128, 128, 128], 40)

    large.click('[data-zoom="one"]')
    large.until(lambda: "Thumbnails" not in large.find("#notes").text)
    large.settle()
    assert set(np.unique(large.picture("model_1"))) == {0, 255}


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Show:
    """Nine models of 24 frames of 640 by 360: more than a grid plays at full size."""
    show = Show(tmp_path_factory.mktemp("wall"))
    for number in range(24):
        show.add_frame(f"frame_{number:03d}.png", flat(10 * number, 0, 0, size=(640, 360)))
    for model in range(9):
        show.add_model(f"run {model}", lambda number, model=model: flat(10 * number, 20 * model, 60, size=(640, 360)))
    show.build()
    return show


def test_a_grid_that_plays_shows_thumbnails_and_says_so_and_the_frames_when_it_stands(browser, driver, wall):
    page = Browser(driver, wall.page)
    page.open()
    assert page.find("#notes").text == ""
    assert page.colour("model_4") == [0, 60, 60]

    page.keys(Keys.SPACE)
    page.until(lambda: page.find("#notes").text == "Thumbnails until playback stops.")
    page.until(lambda: page.run("return document.documentElement.dataset.ready") != "0")
    assert [badge.text for badge in page.all(".badge")] == ["thumbnail"] * 10
    page.keys(Keys.SPACE)
    page.until(lambda: page.find("#notes").text == "")

    frame = int(page.find("#scrub").get_attribute("value"))
    assert page.all(".badge") == []
    for model in (1, 5, 9):
        assert page.colour(f"model_{model}") == [10 * frame, 20 * (model - 1), 60]


def test_small_pictures_keep_the_room_for_their_names_while_thumbnails_play(browser, driver, wall):
    page = Browser(driver, wall.page, size=(1100, 520))
    page.open()
    page.run(BADGES)
    page.keys(Keys.SPACE)
    page.until(lambda: page.run("return badges.length > 0"))

    assert not any(page.run("return badges"))
    page.keys(Keys.SPACE)


def test_every_thumbnail_is_that_of_its_frame(browser, driver, wall):
    """The scrubber is held, so that each frame stays a thumbnail."""
    page = Browser(driver, wall.page)
    page.open()
    left, top, right, bottom = page.place("#scrub")
    y = (top + bottom) / 2
    page.mouse("mousePressed", left + 6, y, button="left", buttons=1, clickCount=1)
    for frame in (7, 8, 12, 21, 3):  # those beside the first are loaded already
        page.mouse("mouseMoved", left + 6 + (right - left - 12) * frame / 23, y, button="left", buttons=1)
        page.wait_for(frame)
        assert "Thumbnails" in page.find("#notes").text
        for model in (1, 9):
            assert near(page.colour(f"model_{model}"), [10 * frame, 20 * (model - 1), 60], 4), frame
    page.mouse("mouseReleased", left + 40, y, button="left", clickCount=1)


def test_a_pair_that_plays_shows_the_frames_themselves(browser, driver, wall):
    page = Browser(driver, wall.page)
    page.open("view=wipe&a=@source&b=model_9")
    page.keys(Keys.SPACE)
    page.until(lambda: int(page.run("return document.documentElement.dataset.ready")) > 2)

    assert page.find("#notes").text == ""
    assert page.colour("@source model_9", 0.6)[1:] == [160, 60]
    page.keys(Keys.SPACE)


def test_a_sequence_keeps_its_clock_where_not_every_frame_can_be_shown(browser, driver, wall):
    """The browser is slowed down six times: it shows fewer frames, and goes through the sequence no slower."""
    page = Browser(driver, wall.page)
    page.open("fps=24")
    page.driver.execute_cdp_cmd("Emulation.setCPUThrottlingRate", {"rate": 6})
    try:
        page.run(WATCH)
        page.keys(Keys.SPACE)
        page.until(lambda: page.run("return passed.at(-1)[0] - passed[0][0]") > 6000)
        page.keys(Keys.SPACE)
    finally:
        page.driver.execute_cdp_cmd("Emulation.setCPUThrottlingRate", {"rate": 1})

    passed = [(time / 1000, int(frame)) for time, frame in page.run("return passed")][1:]
    steps = [(then - before) % 24 for (_, before), (_, then) in pairwise(passed)]
    assert max(steps) > 1
    assert sum(steps) == pytest.approx(24 * (passed[-1][0] - passed[0][0]), rel=0.25)


def test_a_grid_whose_thumbnails_are_gone_plays_the_frames(browser, driver, tmp_path):
    show = Show(tmp_path)
    for number in range(6):
        show.add_frame(f"frame_{number}.png", flat(10 * number, 0, 0, size=(640, 360)))
    for model in range(9):
        show.add_model(f"run {model}", lambda number, model=model: flat(10 * number, 20 * model, 60, size=(640, 360)))
    show.build()
    shutil.rmtree(show.page.parent / "page" / "thumbnails" / "model_3")
    page = Browser(driver, show.page)
    page.open("fps=6")

    page.keys(Keys.SPACE)
    page.wait_for(3)  # beyond what was loaded before it played
    assert page.colour("model_3")[1:] == [40, 60]
    page.keys(Keys.SPACE)
    assert all("ERR_FILE_NOT_FOUND" in message for message in page.log())


def test_a_frame_that_is_not_there_is_said_to_be_missing(browser, driver, tmp_path):
    show = Show(tmp_path)
    add_frames(show, 2)
    show.add_model("gap", red)
    show.add_model("lost", green)
    (show.models[0] / "frame_001.png").unlink()
    show.build()
    (show.models[1] / "frame_001.png").unlink()
    page = Browser(driver, show.page)

    page.open()
    page.keys(Keys.ARROW_RIGHT)
    page.wait_for(1)

    for ids, name in ((RED, "gap"), (GREEN, "lost")):
        assert page.find(f'.panel[data-ids="{ids}"] .message').text == f"{name}: this frame is missing"
    assert page.colour(SOURCE) == one(source(1))
    assert any("ERR_FILE_NOT_FOUND" in message for message in page.log())


def test_a_model_that_was_knocked_out_says_why_it_lacks_frames(browser, driver, tmp_path):
    show = Show(tmp_path)
    add_frames(show, 2)
    for name, pixels in (("first", red), ("second", green)):
        show.add_model(name, pixels)
    about = show.models[1] / "metadata.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"knocked_out": "rank 2 of 2"}))
    (show.models[1] / "frame_001.png").unlink()
    show.build()
    page = Browser(driver, show.page)

    page.open()
    assert [badge.text for badge in page.all(f'.panel[data-ids="{GREEN}"] .badge')] == ["knocked out"]
    assert page.find(f'.panel[data-ids="{GREEN}"] .message').text == ""
    page.keys(Keys.ARROW_RIGHT)
    page.wait_for(1)
    assert "knocked out, so this frame was not rendered" in page.find(f'.panel[data-ids="{GREEN}"] .message').text
    assert page.find(f'.panel[data-ids="{RED}"] .message').text == ""


def test_a_page_without_metrics_and_reference_shows_no_place_for_them(browser, driver, tmp_path):
    show = Show(tmp_path)
    add_frames(show, 1)
    show.add_model("only", red)
    show.build()
    page = Browser(driver, show.page)

    page.open()

    assert page.panels() == [SOURCE, RED]
    assert not page.find("#graph").is_displayed()
    assert not page.find("#worst").is_displayed()
    assert not page.find("#blind").is_enabled()


def test_models_of_another_size_are_shown_at_one_size_and_said_to_be_enlarged(browser, driver, tmp_path):
    show = Show(tmp_path)
    pixels = noise(1)
    show.add_frame("a.png", pixels)
    show.add_model("double", lambda _: pixels.repeat(2, 0).repeat(2, 1), scale=2)
    show.build()
    page = Browser(driver, show.page)

    page.open("view=difference&a=@source&b=model_1&gain=64")

    assert page.colour(f"{SOURCE} {RED}", 0.45, 0.55) == [0, 0, 0]
    assert [badge.text for badge in page.all(".badge")] == ["×2"]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Show:
    """50 models of 500 frames, with metrics; frames of one model are one file of many names."""
    show = Show(tmp_path_factory.mktemp("crowd"))
    size, models, frames = (160, 90), 50, 500
    show.add_frame("frame_000.png", flat(90, 90, 90, size=size))
    for model in range(models):
        params = {"lr": str(1e-3 * (model + 1)), "kind": "even" if model % 2 == 0 else "odd"}
        show.add_model(
            f"run_{model:02d}", lambda _, model=model: flat(model, 100, 200, size=size), run={"params": params}
        )
    for folder in (show.input, *show.models):
        for number in range(1, frames):
            (folder / f"frame_{number:03d}.png").hardlink_to(folder / "frame_000.png")
    wave = 30 + np.sin(np.arange(frames) / 20)
    values = {folder.name: (wave + number / 10).tolist() for number, folder in enumerate(show.models)}
    show.build(metrics=[FrameMetric("PSNR", values, higher_is_better=True, unit="dB")])
    return show


def test_fifty_models_of_five_hundred_frames_can_be_gone_through(browser, driver, crowd):
    page = Browser(driver, crowd.page)
    page.open()
    assert page.colour("model_1") == [0, 100, 200]

    page.keys(Keys.END)
    page.wait_for(499)
    assert page.colour("model_2") == [1, 100, 200]
    page.find("#filter").send_keys("odd")
    page.settle()
    assert len(page.panels()) == 26
    page.run("document.getElementById('stage').scrollTop = 1e6")
    page.settle()
    page.wait_for(499)
    assert page.colour("model_50") == [49, 100, 200]


def test_a_grid_comes_back_as_far_scrolled_as_it_was(browser, driver, crowd):
    page = Browser(driver, crowd.page, size=(1100, 520))
    page.open()
    page.run("document.getElementById('stage').scrollTop = 300")
    for other in "wt":
        page.keys(other, "g")
        assert page.run("return document.getElementById('stage').scrollTop") == 300


def test_the_values_of_a_pixel_are_written_for_fifty_models(browser, driver, crowd):
    page = Browser(driver, crowd.page, size=(2560, 1440))
    page.open()
    page.point(*page.at("model_3"))

    assert len(page.panels()) == 51
    page.until(lambda: len(page.all(".readout:not(.blank)")) == 51)
    for model in (1, 27, 50):
        assert page.values(f"model_{model}") == [model - 1, 100, 200]


def test_two_fingers_zoom_and_move_all_pictures(browser, driver, show):
    phone = Browser(driver, show.page, size=(390, 844), mobile=True)
    phone.open(f"view=side&a={NOISE}&b={RED}")
    before = int(float(phone.find("#percent").text.rstrip(" %")))
    x, y = phone.at(NOISE)
    for kind, apart in (("touchStart", 40), ("touchMove", 80), ("touchMove", 160), ("touchEnd", None)):
        touches = [{"x": x + side * apart / 2, "y": y, "id": side + 1} for side in (-1, 1)] if apart else []
        driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
    phone.settle()

    assert int(float(phone.find("#percent").text.rstrip(" %"))) == pytest.approx(4 * before, rel=0.2)
    middle = phone.picture(NOISE)[
        -60:-20, 20:60
    ]  # a pixel of the frame is larger than that, and no value is written there
    assert len(np.unique(middle.reshape(-1, 3), axis=0)) <= 4


def test_a_phone_shows_the_page_without_scrolling_sideways(browser, driver, show):
    phone = Browser(driver, show.page, size=(390, 844), mobile=True)
    for view in ("grid", "wipe", "table", "error"):
        phone.open(f"view={view}&a={RED}&b={GREEN}&channel=red")
        assert phone.run("return document.documentElement.scrollWidth") <= 390
        small = phone.run("return " + SMALL)
        assert small == []
        phone.screen(f"phone-{view}")

    phone.open(f"view=wipe&a={RED}&b={GREEN}")
    assert phone.colour(f"{RED} {GREEN}", 0.3) == one(red(0))
    start, end = phone.at(f"{RED} {GREEN}", 0.5), phone.at(f"{RED} {GREEN}", 0.2)
    for kind, points in (("touchStart", [start]), ("touchMove", [end]), ("touchEnd", [])):
        touches = [{"x": x, "y": y} for x, y in points]
        driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
    phone.settle()
    assert phone.colour(f"{RED} {GREEN}", 0.3) == one(green(0))
    assert phone.values(f"{RED} {GREEN}", 0) == one(red(0))

    assert not phone.find("#filter").is_displayed()
    phone.click("#open-models")
    phone.until(lambda: phone.find("#filter").is_displayed())


def test_the_help_is_about_the_keys_or_about_the_gestures_of_the_device(browser, driver, show):
    browser.open()
    browser.click("#open-help")
    assert browser.run("return document.getElementById('help').scrollTop") == 0
    text = browser.find("#help").text
    assert "Wheel" in text
    assert "tap twice" not in text

    phone = Browser(driver, show.page, size=(390, 844), mobile=True)
    phone.open()
    phone.click("#open-help")
    text = phone.find("#help").text
    assert "tap twice" in text
    assert not any(word in text for word in ("Wheel", "Ctrl", "Tab", "Shift", "pointer"))


def test_a_phone_on_its_side_still_shows_the_pictures(browser, driver, show):
    phone = Browser(driver, show.page, size=(844, 390), mobile=True)
    for view in ("grid", "side", "wipe", "difference"):
        phone.open(f"view={view}&a={RED}&b={GREEN}")
        _, top, _, bottom = phone.place(".picture")
        assert bottom - top > (80 if view == "grid" else 180), view
        assert phone.run("return document.documentElement.scrollWidth") <= 844
        phone.screen(f"phone-on-its-side-{view}")


def test_names_stay_readable_beside_the_values_of_a_pixel(browser, driver, show):
    for size, mobile in (((1440, 900), False), ((390, 844), True)):
        page = Browser(driver, show.page, size=size, mobile=mobile)
        page.open(f"a={RED}&b={GREEN}")
        page.point(*page.at(RED))
        assert page.values(RED) == one(red(0))
        for ids in (RED, NOISE):  # the one's name is short, the other's is cut
            left, top, right, bottom = page.box(ids, ".name")
            value_left, value_top, value_right, value_bottom = page.box(ids, ".readout")
            assert value_right > value_left
            assert ids == RED or right - left > 60
            assert value_left >= right or value_top >= bottom or value_right <= left or value_bottom <= top


def test_names_can_be_told_apart_in_a_grid_of_many_that_have_much_to_be_said_of_them(browser, driver, tmp_path):
    show = Show(tmp_path)
    add_frames(show, 1)
    for number in range(12):
        double = number == 1
        show.add_model(
            f"restormer_run_{number}", lambda n, k=1 + double: red(n).repeat(k, 0).repeat(k, 1), scale=1 + double
        )
    Image.fromarray(np.zeros(SIZE[::-1], np.uint16)).save(show.models[0] / "frame_000.png")
    show.build(trained={folder.name: {"frame_000.png"} for folder in show.models})
    page = Browser(driver, show.page, size=(1100, 520))

    page.open()

    parts = "[...document.querySelectorAll('.panel')].map((panel) => [panel, panel.querySelector('.name'), "
    widths = page.run(f"return {parts} 0]).map(([, name]) => name.clientWidth / name.scrollWidth)")
    assert min(widths[1:]) > 0.6
    beyond = page.run(
        f"return {parts} panel.querySelector('.badges')])"
        ".map(([panel, , badges]) => badges.getBoundingClientRect().right - panel.getBoundingClientRect().right)"
    )
    assert max(beyond) <= 0


def test_models_without_a_name_or_with_one_that_others_have_can_be_told_apart(browser, driver, tmp_path):
    show = Show(tmp_path)
    add_frames(show, 1)
    for name, run_id in (("", "a"), ("unet", "b"), ("unet", "c"), ("nafnet", "d"), ("nafnet", "d"), ("dat", "e")):
        show.add_model(name, red, run={"run_id": run_id * 32})
    show.build()
    page = Browser(driver, show.page)
    page.open()

    names = [name.text for name in page.all("#list .name")]
    assert names[:4] == ["Source", "model_1", "unet bbbbbbbb", "unet cccccccc"]
    assert all(name.startswith("nafnet ") for name in names[4:6])
    assert len(set(names)) == 7
    page.keys("t")
    assert [name.text for name in page.all("#table tbody .name")] == names[1:]


def test_a_4k_monitor_is_filled(browser, driver, show):
    wide = Browser(driver, show.page, size=(3840, 2160))
    wide.open(f"view=side&a={RED}&b={GREEN}")

    _, top, right, bottom = wide.box(GREEN)

    assert right > 3800
    assert bottom - top > 1700
    assert wide.colour(GREEN) == one(green(0))


def test_every_control_has_a_name_and_can_be_seen_against_its_ground(browser):
    browser.open("view=difference")

    assert browser.run(NAMELESS) == []
    assert browser.run(FAINT) == []


def test_the_focus_can_be_seen(browser):
    browser.open()
    browser.keys(Keys.TAB, Keys.TAB)

    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_page_that_is_still_loading_does_not_say_that_it_is_broken(browser, driver):
    added = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LOADING})
    try:
        browser.open()
        assert browser.run("return brokenWhileLoading") == [False]
        assert browser.all("#broken") == []  # its style would slow down each change of a text
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_a_page_that_may_run_no_scripts_says_so(browser, driver, show):
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get("about:blank")
        driver.get(show.page.as_uri())
        seen = driver.find_element(By.TAG_NAME, "body").text
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    assert seen.startswith("The page cannot be shown: JavaScript is disabled, or the folder page")
    assert "Grid" not in seen


def test_a_page_whose_folder_is_gone_says_so(browser, driver, tmp_path):
    show = Show(tmp_path)
    add_frames(show, 1)
    show.add_model("only", red)
    show.build()
    shutil.rmtree(show.page.parent / "page")

    driver.get(show.page.as_uri())

    assert "missing or incomplete" in driver.find_element(By.TAG_NAME, "body").text
    browser.log()


def test_the_page_opens_from_a_bundle_that_was_unpacked_elsewhere(browser, driver, show, tmp_path):
    bundle.build(show.layout)
    shutil.unpack_archive(show.layout.bundle, tmp_path / "else where")
    page = Browser(driver, tmp_path / "else where" / "dailies" / "index.html")

    page.open()

    assert driver.current_url.split("#")[0] == (tmp_path / "else where/dailies/compare/index.html").as_uri()
    assert page.panels() == list(PIXELS)
    for ids in (SOURCE, REFERENCE, RED, GREEN):
        assert page.colour(ids) == one(PIXELS[ids](0)), ids


def test_the_video_plays_in_the_browser_in_its_own_colours(browser, driver, tmp_path):
    show = Show(tmp_path)
    for number in range(24):
        show.add_frame(f"a_{number:02d}.png", bars(256, 144))
    show.add_model("ramp", lambda number: flat(10 * number, 30, 200, size=(256, 144)))
    show.build()
    video = show.page.with_name("side_by_side.mp4")
    side_by_side.build(
        show.rendered(),
        sequence=show.state / "sequence.json",
        input_dir=show.input,
        output=video,
        fps=12,
    )
    write_extras(show.layout)
    page = Browser(driver, show.page)
    page.open()
    address = page.find("#extras a").get_attribute("href")
    (tmp_path / "player.html").write_text(
        f'<body style="margin: 0"><video src="{address}" muted style="display: block"></video>'
    )
    driver.get((tmp_path / "player.html").as_uri())

    assert (
        page.run("return document.querySelector('video').canPlayType('video/mp4; codecs=\"avc1.64001f\"')")
        == "probably"
    )
    for number in (0, 17, 5):
        assert page.driver.execute_async_script(SEEK, (number + 0.5) / 12) is None
        page.settle()
        seen = page.screen(box=(0, 0, 512, 208)).astype(int)
        # without a GPU Chromium takes blue as Y + 2 U, not 2.112 U; by BT.601 red and green would be 20 off
        assert (np.abs(seen[100, 16:256:32] - BARS) <= [4, 4, 14]).all()
        assert (np.abs(seen[100, 384] - [10 * number, 30, 200]) <= [4, 4, 10]).all(), number
    assert page.driver.execute_async_script(PLAY) is None
    assert page.run("const video = document.querySelector('video'); return video.ended && video.duration") == 2


def test_a_picture_of_the_page_for_the_readme(browser, driver, tmp_path):
    """``DAILIES_SCREENSHOTS=docs pytest -k readme`` makes docs/page.png."""
    photograph = pytest.importorskip("sklearn.datasets").load_sample_image("china.jpg")
    show = Show(tmp_path)
    show.reference.mkdir()
    rng = np.random.default_rng(1)
    count = 8
    clean = [photograph[8 * number : 8 * number + 300, 10 * number : 10 * number + 533] for number in range(count)]
    for number, pixels in enumerate(clean):
        grain = pixels + rng.normal(0, 16 + 3 * number, pixels.shape)
        show.add_frame(f"frame_{number:06d}.png", grain.clip(0, 255).astype(np.uint8))
        Image.fromarray(pixels).save(show.reference / f"frame_{number:06d}.png")

    def filtered(kind):
        paths = sorted(show.input.iterdir())
        return lambda number: np.asarray(Image.open(paths[number]).convert("RGB").filter(kind))

    def psnr(number, pixels):
        return float(10 * np.log10(255**2 / ((pixels.astype(float) - clean[number]) ** 2).mean()))

    kinds = {
        "nafnet_adamw": ImageFilter.MedianFilter(5),
        "unet_wide_adamw": ImageFilter.GaussianBlur(1.2),
        "unet_adamw": ImageFilter.GaussianBlur(2.4),
    }
    values = {}
    for name, kind in kinds.items():
        folder = show.add_model(name, filtered(kind), run={"architecture": name.split("_", maxsplit=1)[0]})
        rendered = [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]
        values[folder.name] = [psnr(number, pixels) for number, pixels in enumerate(rendered)]
    metric = FrameMetric("PSNR", values, higher_is_better=True, unit="dB")
    show.build(reference=show.paired(), metrics=[metric])
    page = Browser(driver, show.page)

    page.open("view=wipe&b=model_1")
    page.point(*page.at("@source model_1", 0.6, 0.4))
    wipe = page.screen()
    page.open("a=model_1&b=model_2&frame=frame_000005.png", frame=5)
    page.until(lambda: page.find("#graph").is_displayed())
    page.settle()
    grid = page.screen("page")

    assert wipe.std() > 20
    assert grid.std() > 20
