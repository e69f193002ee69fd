"""Snakemake's report, opened without a network."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from helpers.requires import lacking
from helpers.studio import Studio

selenium = pytest.importorskip("selenium", reason="selenium, which drives the browser, is not installed")

from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.browser

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def test_the_report_shows_leaderboard_and_contact_sheet_without_a_network(compared: Studio):
    path = compared.root / "report.html"
    reference = {"reference_dir": str(compared.frames)}
    compared.snakemake(**reference)
    compared.snakemake("--report", str(path), **reference)

    assert path.stat().st_size < 5_000_000
    if not (CHROMIUM and DRIVER):
        lacking("browser", "chromium and chromedriver are not installed (apt install chromium-driver)")
    with offline_browser() as browser:
        browser.get(path.as_uri())
        said = shown(browser, "Dailies rendered")
        assert (
            f"Dailies rendered every model of exp over every frame of {compared.frames} at native resolution." in said
        )
        assert "open compare/index.html in that folder to see them side by side." in said
        page = browser.find_element(By.PARTIAL_LINK_TEXT, "compare/index.html")
        assert page.get_attribute("href") == (compared.output / "compare" / "index.html").as_uri()

        click(browser, By.PARTIAL_LINK_TEXT, "1. Models")
        assert "leaderboard" in shown(browser, "leaderboard")

        browser.get(path.as_uri())
        choose(browser, "2. Frames", "all models side by side")
        size = "return [...document.images].filter((each) => each.naturalWidth > 500).length"
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
