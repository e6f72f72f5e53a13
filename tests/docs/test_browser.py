"""The documentation site in a browser, wide and narrow, light and dark: a reader's way through it."""

import re
from pathlib import Path

import pytest
from docs.reader import WINDOWS
from playwright.sync_api import expect

from acb_minimal.run.engines import chapter_paths

pytestmark = pytest.mark.slow
each_view = pytest.mark.parametrize(
    "view", [(window, scheme) for window in WINDOWS for scheme in ("light", "dark")], ids="-".join
)
each_window = pytest.mark.parametrize("view", [("desktop", "light"), ("phone", "dark")], ids="-".join)


@each_window
def test_the_course_is_read_by_clicking_from_home_to_its_end(reader, view):
    reader.open("")
    first, *others = (f"chapters/{stem}/" for stem in chapter_paths())
    others.insert(0, "explore/")
    reader.click(reader.tab.locator(f"article a[href='{first}']").first)
    assert reader.page == first
    for page in others:
        reader.click(reader.tab.locator("a.md-footer__link--next"))
        assert reader.page == page


@each_view
def test_figures_have_the_colours_of_the_palette_that_is_switched_on(reader, view):
    reader.open("law/")
    text = reader.tab.locator("figure svg:visible text").first
    colours = [text.evaluate("text => getComputedStyle(text).fill")]
    reader.tab.locator("form[data-md-component=palette] label:visible").click()
    reader.look()
    colours.append(text.evaluate("text => getComputedStyle(text).fill"))
    light, dark = colours if view[1] == "light" else reversed(colours)
    assert lightness(light) < 110 < lightness(dark)


def lightness(colour: str) -> float:
    """The mean of "rgb(r, g, b)"."""
    return sum(map(int, re.findall(r"\d+", colour))) / 3


@each_window
def test_a_term_is_found_by_searching(reader, view):
    reader.open("")
    if view[0] == "phone":
        reader.tab.locator("label.md-header__button[for=__search]").click()
    reader.tab.locator("input.md-search__input").click()
    reader.tab.keyboard.type("carry-over")
    reader.click(reader.tab.locator("a.md-search-result__link").first)
    assert reader.page != ""
    expect(reader.tab.locator("article")).to_contain_text("carry-over", ignore_case=True)


@pytest.mark.parametrize("view", [("desktop", "light")], ids="-".join)
def test_the_calculator_takes_three_times_or_a_step_and_a_share(reader, view):
    reader.open("law/")
    box = reader.tab.locator(".calculator")
    field, said = lambda name: box.locator(f"[data-time={name}]"), box.locator("output")
    field("H").fill("6")
    expect(said).to_contain_text("a speedup of 1.50")
    assert (field("step").input_value(), field("active").input_value()) == ("18", "66.667")
    field("step").fill("10")
    field("active").fill("76")
    expect(said).to_contain_text("A speedup of 1.00 to 1.32")
    expect(said).to_contain_text("never more than 1 / 0.76 = 1.32")
    assert (field("K").input_value(), field("H").input_value()) == ("7.6", "2.4")


@pytest.mark.parametrize("view", [("desktop", "light")], ids="-".join)
def test_every_page_fits_the_window_also_when_it_gets_narrow(reader, site):
    """The six chapters are opened above. A palette changes no width."""
    files = sorted(Path(site.folder).rglob("index.html"))
    pages = [file.parent.relative_to(site.folder).as_posix() + "/" for file in files]
    others = [page for page in pages if not page.startswith("chapters/")]
    assert len(others) > 10
    for page in others:
        reader.open(page)
        for name in ("phone", "desktop"):
            reader.resize(name)
