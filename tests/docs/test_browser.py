"""The documentation site in a browser, wide and narrow, light and dark: a reader's way through it."""

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import pytest
from playwright.sync_api import Browser, TimeoutError, expect, sync_playwright
from playwright.sync_api import Page as Tab

from acb_minimal.run.engines import chapter_paths

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("gpu", "quic", "background-networking", "component-update", "sync")  # and nothing sent by itself
WINDOWS = {"desktop": {"width": 1400, "height": 900}, "phone": {"width": 390, "height": 844}}
each_view = pytest.mark.parametrize(
    "view", [(window, scheme) for window in WINDOWS for scheme in ("light", "dark")], ids="-".join
)


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        give_up = pytest.fail if "CI" in os.environ else pytest.skip
        give_up(f"no browser is installed: none of {', '.join(NAMES)}")
    switches = ["--no-sandbox", "--no-first-run", *(f"--disable-{each}" for each in QUIET)]
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=program, args=switches) as browser:
        yield browser


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    assert (site.folder / "index.html").is_file(), f"mkdocs did not get to its end:\n{site.output}"
    handler = functools.partial(Handler, directory=site.folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


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
        return urldefrag(self.tab.url).url.removeprefix(self.address)

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


@pytest.fixture
def reader(browser, address, view) -> Iterator[Reader]:
    name, scheme = view
    with browser.new_context(viewport=WINDOWS[name], color_scheme=scheme) as context:
        reader = Reader(context.new_page(), address)
        reader.tab.set_default_timeout(10_000)
        yield reader
    assert not reader.wrong, "\n".join(reader.wrong)


@each_view
def test_the_course_is_read_by_clicking_from_home_to_its_end(reader):
    reader.open("")
    first, *others = (f"chapters/{stem}/" for stem in chapter_paths())
    reader.click(reader.tab.locator(f"article a[href='{first}']").first)
    assert reader.page == first
    for page in others:
        reader.click(reader.tab.locator("a.md-footer__link--next"))
        assert reader.page == page
        switch_the_diff(reader.tab)
        reader.look()


def switch_the_diff(tab: Tab) -> None:
    beside, column = tab.locator(".changes.beside"), tab.locator(".changes:not(.beside)")
    expect(beside).to_be_visible()
    expect(column).to_be_hidden()
    tab.get_by_text("In one column", exact=True).click()
    expect(column).to_be_visible()
    expect(beside).to_be_hidden()
    tab.get_by_text("Side by side", exact=True).click()
    expect(beside).to_be_visible()


@each_view
def test_figures_are_drawn_for_the_palette_that_is_switched_on(reader, view):
    reader.open(f"chapters/{list(chapter_paths())[0]}/")
    before, after = view[1], {"light": "dark", "dark": "light"}[view[1]]
    for shown, hidden in ((before, after), (after, before)):
        for picture in reader.tab.locator(f"img[src$='#only-{shown}']").all():
            expect(picture).to_be_visible()
        for picture in reader.tab.locator(f"img[src$='#only-{hidden}']").all():
            expect(picture).to_be_hidden()
        assert reader.tab.locator(f"img[src$='#only-{shown}']").count() > 0
        reader.tab.locator("form[data-md-component=palette] label:visible").click()
        reader.look()


@each_view
def test_a_term_is_found_by_searching(reader, view):
    reader.open("")
    if view[0] == "phone":
        reader.tab.locator("label.md-header__button[for=__search]").click()
    reader.tab.locator("input.md-search__input").click()
    reader.tab.keyboard.type("carry-over")
    reader.click(reader.tab.locator("a.md-search-result__link").first)
    assert reader.page != ""
    expect(reader.tab.locator("article")).to_contain_text("carry-over", ignore_case=True)


@pytest.mark.parametrize("view", [("desktop", "light"), ("desktop", "dark")], ids="-".join)
def test_every_page_fits_the_window_also_when_it_gets_narrow(reader, site):
    """The six chapters are opened above."""
    files = sorted(Path(site.folder).rglob("index.html"))
    pages = [file.parent.relative_to(site.folder).as_posix() + "/" for file in files]
    others = [page for page in pages if not page.startswith("chapters/")]
    assert len(others) > 10
    for page in others:
        reader.open(page)
        for name in ("phone", "desktop"):
            reader.resize(name)
