"""A real Chromium without a window, for tests of the page.

Owns how it is found, started and emulated. At home a missing one skips the test with the reason; in CI it fails. It
reaches no network: the browser itself knows no name and no address but the loopback one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.clients import module, program
from support.nodes import eventually


class Browser:
    """One page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Go to a URL, as a tab that has never been anywhere."""
        self.driver.get("about:blank")
        self.driver.get(url)

    def js(self, script: str, *arguments: Any) -> Any:
        """What a script returns; errors of the page's own are none of it."""
        return self.driver.execute_script(script, *arguments)

    def turn(self, view: str) -> None:
        """To another view."""
        self.js("location.hash = arguments[0]", view)

    def text(self, selector: str) -> str:
        """The text of the first such element; empty if there is none."""
        return self.js("return document.querySelector(arguments[0])?.textContent ?? ''", selector) or ""

    def attribute(self, selector: str, name: str) -> str:
        """An attribute of the first such element; empty if there is none."""
        found = "return document.querySelector(arguments[0])?.getAttribute(arguments[1]) ?? ''"
        return self.js(found, selector, name) or ""

    def sees(self, selector: str, *words: str) -> None:
        """Wait until such an element says these words."""
        eventually(lambda: all(word in self.text(selector) for word in words), what=f"{words} in {selector}")

    def click(self, selector: str) -> None:
        """Press the first such element that is shown, as soon as there is one."""
        click = (
            "const found = [...document.querySelectorAll(arguments[0])].find((one) => one.checkVisibility() && "
            "!one.disabled); found?.click(); return Boolean(found)"
        )
        eventually(lambda: self.js(click, selector), what=f"{selector} can be pressed")

    def keys(self, *keys: str) -> None:
        """Press keys, whatever has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(self.driver)
        for key in keys:
            chain.send_keys(key)
        chain.perform()

    def looks(self, *, dark: bool = False, width: int = 1280, height: int = 900) -> None:
        """Emulate a screen."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def complaints(self) -> list[str]:
        """What the browser said since it was asked last: scripts that fail, what the page's policy refuses."""
        answers = ("status of 4", "status of 5", "net::ERR")  # answers that a test wants are no complaint
        said = [one["message"] for one in self.driver.get_log("browser")]
        return [one for one in said if not any(word in one for word in answers)]


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """The browser, with its profile in a directory of the test."""
    webdriver = module("selenium.webdriver")
    binary, driver = program("chromium", "chromium"), program("chromedriver", "chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for word in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking",
        "no-first-run", "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield Browser(made)
    finally:
        made.quit()
