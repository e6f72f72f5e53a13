"""A browser, and the site as a server on this machine gives it."""

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator

import pytest
from docs.reader import WINDOWS, Reader
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("gpu", "quic", "background-networking", "component-update", "sync")  # and nothing sent by itself


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


@pytest.fixture
def reader(browser, address, view) -> Iterator[Reader]:
    name, scheme = view
    with browser.new_context(viewport=WINDOWS[name], color_scheme=scheme) as context:
        reader = Reader(context.new_page(), address)
        reader.tab.set_default_timeout(10_000)
        yield reader
    assert not reader.wrong, "\n".join(reader.wrong)
