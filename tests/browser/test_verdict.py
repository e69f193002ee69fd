"""The verdict in a real Chromium: which model is the best, how sure that is, and how models are told apart."""

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.images import flat
from helpers.requires import lacking
from helpers.shows import Show

selenium = pytest.importorskip("selenium", reason="selenium, which drives the browser, is not installed")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402

pytestmark = pytest.mark.browser

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FRAMES = 24
NOISE = np.random.default_rng(0).normal(size=FRAMES)
DESKTOP, PHONE = (1440, 900), (390, 844)

VISIBLE = """
return [...document.querySelectorAll(arguments[0])].map((node) => {
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT), range = document.createRange();
  let seen = "";
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const box = text.parentElement.getBoundingClientRect(), whole = node.getBoundingClientRect();
    for (let at = 0; at < text.length; at++) {
      range.setStart(text, at); range.setEnd(text, at + 1);
      const letter = range.getBoundingClientRect();
      const inside = ({ right, bottom }) => letter.right <= right + 1 && letter.bottom <= bottom + 3;
      if (letter.width && inside(box) && inside(whole)) seen += text.data[at];
    }
  }
  return seen.trim();
}).filter(Boolean);"""

INSIDE = """
const [cells, headings] = [...arguments].map((selector) => [...document.querySelectorAll(selector)]);
return cells.flatMap((cell, at) => {
  const { left, right } = cell.getBoundingClientRect();
  const covered = at > 0 && left < cells[0].getBoundingClientRect().right;
  return right <= innerWidth && !covered ? [[cell.textContent, headings[at].textContent]] : [];
});"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator["webdriver.Chrome"]:
    if not (CHROMIUM and DRIVER):
        lacking("browser", "chromium and chromedriver are not installed (apt install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(driver) -> Iterator[Callable[..., "webdriver.Chrome"]]:
    """Open the page of a show in a window of a size; afterwards, nothing may have gone wrong in the page."""

    def open_page(show: Show, address: str = "", size: tuple[int, int] = DESKTOP) -> "webdriver.Chrome":
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        driver.get("about:blank")
        driver.get(f"{show.page.as_uri()}#{address}")
        wait(lambda: driver.execute_script("return document.documentElement.dataset.ready") is not None)
        return driver

    driver.get_log("browser")
    yield open_page
    assert driver.get_log("browser") == []


def wait(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def find(page, selector: str):
    return page.find_element(By.CSS_SELECTOR, selector)


def texts(page, selector: str) -> list[str]:
    return [" ".join(each.text.split()) for each in page.find_elements(By.CSS_SELECTOR, selector)]


def add_models(show: Show, runs: dict[str, dict[str, str]]) -> None:
    for number in range(FRAMES):
        show.add_frame(f"f_{number:03d}.png", flat(number, 80, 120, size=(16, 9)))
    show.reference.mkdir()
    for path in show.input.iterdir():
        shutil.copyfile(path, show.reference / path.name)
    for name, params in runs.items():
        metrics = {"train/loss": 0.5, "val/psnr": 30.0 + len(show.models)}
        show.add_model(name, lambda n: flat(n, 90, 60, size=(16, 9)), run={"params": params, "metrics": metrics})


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Show:
    """Models whose first is clearly the best and whose last is worse than the source."""
    show = Show(tmp_path_factory.mktemp("three"))
    add_models(show, {"first": {"lr": "1e-3"}, "best": {"lr": "1e-4"}, "poor": {"lr": "1e-5"}})
    values = {"@source": 25 + NOISE, "model_1": 30 + NOISE, "model_2": 31 + NOISE, "model_3": 20 + NOISE}
    show.build(psnr=values, reference=show.paired())
    return show


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Show:
    """24 runs of one name that differ in three params; the first two tie."""
    show = Show(tmp_path_factory.mktemp("sweep"))
    grid = list(itertools.product(("0.001", "3e-4", "1e-4", "1e-5"), ("0", "0.01", "0.05"), ("l1", "charbonnier")))
    add_models(show, {})
    for lr, wd, loss in grid:
        params = {"training.lr": lr, "optimizer.weight_decay": wd, "loss": loss}
        show.add_model("copyair_sweep_unet", lambda n: flat(n, 90, 60, size=(16, 9)), run={"params": params})
    values = {f"model_{place}": 40 - max(0, place - 2) + 0.1 * np.roll(NOISE, place) for place in range(1, 25)}
    show.build(psnr={"@source": 10 + NOISE} | values, reference=show.paired())
    return show


def test_the_first_line_names_the_best_model_the_metric_the_frames_the_lead_and_what_is_worse_than_nothing(
    opened, three
):
    page = opened(three)

    said = find(page, "#said").text
    assert said.startswith("Best best")
    for part in ("PSNR", "30.89", "all 24 frames", "1 dB", "95 % interval", "ahead of first", "above the source"):
        assert part in said
    assert texts(page, "#said .below") == ["1 of 3 below the source"]
    assert texts(page, "#list .mark") == ["best", "below the source"]
    assert [row.get_attribute("data-id") for row in page.find_elements(By.CSS_SELECTOR, "#list li")][2:] == [
        "model_2",
        "model_1",
        "model_3",
    ]
    assert Select(find(page, "#choose-b")).first_selected_option.text == "best"
    find(page, "#said .pick + .phrase .pick, #said .phrase:nth-of-type(3) .pick").click()
    assert Select(find(page, "#choose-b")).first_selected_option.text == "first"


def test_ties_are_a_group_with_what_would_settle_them(opened, sweep):
    page = opened(sweep)

    assert find(page, "#said strong").text == "Tie of 2 models"
    first, second = "lr 1e-3 · wd 0 · loss l1", "lr 1e-3 · wd 0 · loss charbonnier"
    assert texts(page, "#said .pick") == [first, second]
    find(page, "#more summary").click()
    advice = " ".join(texts(page, "#more li"))
    assert "frames" in advice
    assert "ote blind" in advice
    assert texts(page, "#list .mark") == ["tie", "tie"]


def test_the_promote_command_can_be_run_and_copied_as_it_is(opened, sweep):
    page = opened(sweep)
    find(page, "#more summary").click()

    command = find(page, "#more code").text
    assert command.endswith("model=model_1 registered_model=exp alias=champion")
    find(page, "#more button").click()
    wait(lambda: find(page, "#copied").text == "Copied")


def test_blind_votes_are_on_the_models_that_tie_and_in_a_view_that_shows_both(opened, sweep):
    page = opened(sweep, "view=onion&sort=param:loss")
    state = "const { view, sort, a, b } = State.values; return { view, sort, a, b }"
    before = page.execute_script(state)
    find(page, "#blind").click()

    assert page.execute_script("return State.values.view") == "side"
    choice = Select(find(page, "#draw"))
    assert [each.text for each in choice.options] == ["the 2 that tie", "all 24"]
    assert choice.first_selected_option.text == "the 2 that tie"
    for _ in range(4):
        shown = page.execute_script("return [State.values.a, State.values.b].sort()")
        assert shown == ["model_1", "model_2"]
        find(page, '#ballot [data-vote="a"]').click()

    choice.select_by_visible_text("all 24")
    assert "of 276" in find(page, "#round").text
    find(page, "#reveal").click()
    assert page.execute_script(state) == before
    page.execute_script("document.getElementById('discard').click()")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_all_figures_of_the_votes_are_on_the_screen(opened, sweep, size):
    page = opened(sweep, size=size)
    find(page, "#blind").click()
    find(page, '#ballot [data-vote="a"]').click()
    find(page, "#reveal").click()

    assert page.execute_script(
        "const { right } = document.getElementById('tally').getBoundingClientRect();"
        "return [...document.querySelectorAll('#tally :is(th, td)')].every("
        "  (cell) => cell.getBoundingClientRect().right <= right + 1 && cell.scrollWidth <= cell.clientWidth + 1)"
    )
    page.execute_script("document.getElementById('discard').click()")


def test_marks_name_the_metric_and_the_rank_where_the_list_is_sorted_by_something_else(opened, three):
    page = opened(three, "sort=metric:val/psnr&descending=1")

    assert texts(page, "#list li .params .mark") == [
        "rank 3 by PSNR",
        "below the source by PSNR",
        "rank 1, best by PSNR",
        "rank 2 by PSNR",
    ]
    Select(find(page, "#sort")).select_by_value("")
    assert texts(page, "#list .mark") == ["best", "below the source"]


def test_only_a_significant_difference_to_the_source_is_marked(opened, tmp_path):
    show = Show(tmp_path)
    add_models(show, {"first": {}, "unsure": {}, "worse": {}})
    values = {"@source": 25 + NOISE, "model_1": 25.2 + 3 * np.roll(NOISE, 5)}
    values |= {"model_2": 24.9 + 3 * np.roll(NOISE, 9), "model_3": 20 + NOISE}
    show.build(psnr=values, reference=show.paired())

    for size in (DESKTOP, PHONE):
        page = opened(show, size=size)
        said = find(page, "#said .source").text
        assert "95 % interval" in said
        assert "not significant" in said
        assert "1 of 3 below the source" in said
    marked = page.execute_script(
        "return [...document.querySelectorAll('#list li:has(.below)')].map((li) => li.dataset.id)"
    )
    assert marked == ["model_3"]


def test_without_a_ranking_the_page_says_what_to_set(opened, tmp_path):
    show = Show(tmp_path)
    add_models(show, {"one": {}, "two": {}})
    show.build(advice="Set reference_dir to the true frames.")

    page = opened(show)

    assert find(page, "#said").text == "No verdict Set reference_dir to the true frames."
    assert not find(page, "#more").is_displayed()


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_24_runs_of_one_name_have_24_labels_that_can_be_seen_whole(opened, sweep, size):
    page = opened(sweep, size=size)
    captions = page.execute_script(VISIBLE, "#stage .single .name")
    if size == PHONE:
        find(page, "#open-models").click()

    rows = page.execute_script(VISIBLE, "#list .name")
    for shown in (captions, rows):
        assert len(set(shown)) == len(shown) == 26
    assert all(each.endswith(("l1", "charbonnier")) for each in rows[2:])


def test_the_table_has_source_and_reference_directions_intervals_and_no_column_twice(opened, three):
    page = opened(three, "view=table&differing=0")

    headings = texts(page, "#table thead tr:last-child th")
    assert sum("train" in heading and "loss" in heading for heading in headings) == 1
    assert any(heading.startswith("PSNR dB ↑") for heading in headings)
    assert "Metrics logged in MLflow" in texts(page, "#table thead th.group")
    rows = texts(page, "#table tbody tr")
    assert rows[0].startswith("Source without a model")
    assert "24.886" in rows[0]
    assert rows[1].startswith("Reference")
    assert "ideal" in rows[1]
    assert "100" not in rows[1]
    assert rows[2].startswith("best lr 1e-4")
    assert " to " in rows[3]
    assert "below the source" in rows[4]
    assert "best" in find(page, "#table td.best .spoken").get_attribute("textContent")

    Select(find(page, "#sort")).select_by_value("metric:val/psnr")
    assert texts(page, "#table tbody tr:not(.fixed) bdi") == ["poor", "best", "first"]


def test_a_phone_shows_name_rank_metric_and_verdict_of_the_table_without_scrolling(opened, three):
    page = opened(three, "view=table", size=PHONE)

    seen = page.execute_script(INSIDE, "#table tbody tr:nth-child(3) > *", "#table thead tr:last-child > *")
    assert seen[0][0].startswith("best")
    assert [heading.split()[0] for _, heading in seen] == ["Model", "rank", "PSNR", "verdict"]
    assert [value for value, _ in seen[1:3]] == ["1", "30.886best"]
    assert page.execute_script("return document.querySelector('#table').scrollLeft") == 0


def test_values_are_those_of_the_frame_where_playback_stops(opened, three):
    page = opened(three, "fps=60")
    frame = "return State.values.frame"
    page.execute_script("Transport.toggle()")
    wait(lambda: page.execute_script(frame) > 2)
    page.execute_script("Transport.toggle()")

    shown = page.execute_script("return document.querySelector('.panel[data-ids=model_2] .figure').textContent")
    assert shown == page.execute_script("return Metrics.text('model_2', State.values.frame)") != ""


def test_every_heading_explains_itself_to_the_mouse_and_to_the_keyboard(opened, three):
    page = opened(three, "view=table")
    heading = find(page, '#table [data-sort="mean:psnr"]')

    webdriver.ActionChains(page).move_to_element(heading).perform()
    assert "Higher is better" in find(page, "#tip").text
    webdriver.ActionChains(page).move_by_offset(0, 300).perform()
    assert not find(page, "#tip").is_displayed()

    find(page, '#table [data-sort="place:rank"]').send_keys(Keys.ARROW_RIGHT)
    assert page.switch_to.active_element == heading
    assert heading.get_attribute("aria-describedby") == "tip"
    assert "Peak signal-to-noise ratio" in find(page, "#tip").text
    help_texts = [each.get_attribute("data-help") for each in page.find_elements(By.CSS_SELECTOR, "#table [data-sort]")]
    assert all(help_texts[1:])


def test_the_address_is_copied_and_tables_are_linked(opened, three):
    page = opened(three)

    assert [Path(each.get_attribute("href")).name for each in page.find_elements(By.CSS_SELECTOR, "#extras a")] == [
        "leaderboard.csv",
        "metrics.csv",
    ]
    find(page, "#copy").click()
    wait(lambda: find(page, "#copied").text != "")
    assert find(page, "#copied").text == "Copied"
