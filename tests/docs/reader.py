"""Someone who reads the site in a browser, for the tests that look at it there."""

from urllib.parse import urldefrag, urljoin

from playwright.sync_api import Page as Tab
from playwright.sync_api import TimeoutError

WINDOWS = {"desktop": {"width": 1400, "height": 900}, "phone": {"width": 390, "height": 844}}


class Reader:
    """Someone who reads the site in a tab, and notes what is wrong with the pages: nothing ever should be."""

    def __init__(self, tab: Tab, address: str):
        self.tab, self.address, self.wrong = tab, address, []
        tab.on("console", lambda message: self._note(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: self._note(str(error)))
        tab.on("request", lambda request: self._loads(request.url))
        tab.on("response", lambda response: self._answered(response.url, response.status))
        tab.on("requestfailed", lambda request: self._failed(request.url, request.failure))

    def open(self, page: str) -> None:
        self.tab.goto(urljoin(self.address, page))
        self.look()

    def click(self, link) -> None:
        with self.tab.expect_navigation():
            link.click()
        self.look()

    def resize(self, window: str) -> None:
        self.tab.set_viewport_size(WINDOWS[window])
        self.look()

    def look(self) -> None:
        """At the page as it is now: when all has moved to its place, it must not be wider than the window."""
        wide, window = "document.documentElement.scrollWidth", "document.documentElement.clientWidth"
        try:
            self.tab.wait_for_function(f"{wide} <= {window}", timeout=2000)
        except TimeoutError:
            self._note("the page is {} pixels wide, the window {}".format(*self.tab.evaluate(f"[{wide}, {window}]")))

    @property
    def page(self) -> str:
        return urldefrag(self.tab.url).url.partition("?")[0].removeprefix(self.address)

    def _loads(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self._note(f"asks another host: {url}")

    def _answered(self, url: str, status: int) -> None:
        if status >= 400:
            self._note(f"{status}: {url}")

    def _failed(self, url: str, why: str) -> None:
        if why != "net::ERR_ABORTED":  # the reader went on to the next page
            self._note(f"{why}: {url}")

    def _note(self, text: str) -> None:
        self.wrong.append(f"{self.page or 'home'}: {text}")
