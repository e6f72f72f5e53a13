"""The page on which engines are played: its times are the simulator's, and all of it can be worked."""

import gzip
import random
import sys
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlparse

import pytest
from docs.reader import WINDOWS, Reader
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect

from acb_minimal.check.mutations import mutants
from acb_minimal.run.engines import chapter_paths, load_chapter
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.trace.idle import typical_of

sys.path.append(str(Path(__file__).parents[2] / "docs" / "_site"))

import explore  # noqa: E402
from dialled import Dialled  # noqa: E402

pytestmark = pytest.mark.slow
STEMS = list(chapter_paths())
PLAYED = [(stem, graphs) for stem in STEMS for graphs in (False, True) if stem != explore.FULL or not graphs]


@pytest.fixture(scope="module")
def shared(browser, address):
    """A reader for all tests, who opens the page once a test."""
    with browser.new_context(viewport=WINDOWS["desktop"]) as context:
        reader = Reader(context.new_page(), address)
        reader.tab.set_default_timeout(10_000)
        yield reader


@pytest.fixture
def reader(shared):
    yield shared
    assert not shared.wrong, "\n".join(shared.wrong)


@pytest.fixture
def tab(reader) -> Tab:
    """The page as it is when it is opened."""
    if urlparse(reader.tab.url).path != "/explore/":
        reader.open("explore/")
        go(reader.tab, "?")
    reader.tab.evaluate(
        """() => {
            const root = document.querySelector(".explore"), { player } = root;
            player.play(false);
            history.replaceState(null, "", location.pathname);
            player.state = { ...player.begin({ ...root.dataset, chapter: "ch5_carry_over" }), simple: false };
            player.choose();
            root.querySelector("details").open = false;
        }"""
    )
    return reader.tab


def go(tab: Tab, query: str) -> None:
    """To the page at an address."""
    tab.goto(urljoin(tab.url, query))
    tab.wait_for_function("document.querySelector('.explore').player")


def player(tab: Tab, what: str):
    """A property of the player."""
    return tab.evaluate(f"document.querySelector('.explore').player.{what}")


def line_of_host(tab: Tab) -> int:
    (row,) = tab.locator(".source li.now").all()
    return int(row.get_attribute("value"))


@pytest.mark.parametrize(("stem", "graphs"), PLAYED)
def test_the_page_has_every_span_where_the_simulator_has_it(reader, stem, graphs):
    if reader.page != "explore/":
        reader.open("explore/")
    rng = random.Random(f"{stem} {graphs}")
    times = {dial: rng.choice((1e-4, 1e-3, 1e-2)) * rng.random() for dial in "KLH"} | {"R": 2e-3 * rng.random()}
    costs = Dialled.to(times["K"], times["L"], times["H"], times["R"])
    device = SimulatedDevice(costs, trace=True)
    session = Session(explore.job(), load_chapter(stem), explore.checkpoint(), device, Options(graphs=graphs))
    session.serve()
    spans, figures = reader.tab.evaluate(
        """([stem, graphs, dials]) => {
            const chapter = EXPLORE.chapters[stem], recording = graphs ? chapter.graphs : chapter.recording;
            const spans = spansOf(recording, timed(recording, EXPLORE.costs, dials));
            return [spans, figuresOf(recording, spans)];
        }""",
        [stem, graphs, times],
    )
    there = [(span.lane, span.start, span.name, span.end, span.batch_number, span.slot) for span in device.trace.spans]
    here = [tuple(span[key] for key in ("lane", "start", "what", "end", "batch", "slot")) for span in spans]
    assert len(here) == len(there)
    for mine, theirs in zip(sorted(here, key=lambda s: s[:2]), sorted(there, key=lambda s: s[:2]), strict=True):
        assert (mine[0], mine[2], *mine[4:]) == (theirs[0], theirs[2], *theirs[4:])
        assert mine[1] == pytest.approx(theirs[1] - session.started, abs=1e-9)
        assert mine[3] == pytest.approx(theirs[3] - session.started, abs=1e-9)
    typical = typical_of(device.trace)
    assert figures["step"] == pytest.approx(typical.step, abs=1e-7)
    assert figures["bubbles"] == pytest.approx(typical.bubbles, abs=1e-7)


def test_it_loads_less_than_a_megabyte_and_asks_nobody_else(browser, address):
    """Compressed, as servers send it."""
    with browser.new_context(viewport=WINDOWS["desktop"]) as context:
        reader, sizes = Reader(context.new_page(), address), []
        reader.tab.on("response", lambda response: sizes.append(len(gzip.compress(response.body()))))
        reader.open("explore/")
        reader.tab.wait_for_load_state("networkidle")
        assert 0 < sum(sizes) < 1_000_000
        assert not reader.wrong


def test_it_plays_and_pauses_and_goes_from_event_to_event_by_keyboard(tab):
    tab.locator(".explore").focus()
    before = player(tab, "state.t")
    tab.keyboard.press("Space")
    tab.wait_for_function("before => document.querySelector('.explore').player.state.t > before", arg=before)
    tab.keyboard.press("Space")
    assert player(tab, "playing") is False
    tab.keyboard.press("Home")
    lines = []
    for _ in range(12):
        lines.append(line_of_host(tab))
        tab.keyboard.press("ArrowRight")
    source = chapter_paths()["ch5_carry_over"].read_text().splitlines()
    called = [source[line - 1].split("#")[0].strip() for line in lines]
    assert called[0] == "batch = self.scheduler.schedule()"
    assert "self.compute.wait_event(self.uploaded)" in called
    assert "self.model.forward(self.slot)" in called
    now = player(tab, "state.t")
    tab.keyboard.press("ArrowLeft")
    assert player(tab, "state.t") < now
    tab.keyboard.press("End")
    expect(tab.locator(".told")).to_have_text("The run is over.")


def test_a_stream_that_waits_names_the_record_it_waits_for(tab):
    states = ".streams tr:has(th:text-is('d2h')) span"
    expect(tab.locator(states)).to_contain_text(
        "waits for computed in compute, recorded behind the forward pass of batch"
    )
    expect(tab.locator(".timeline .arrow.holds")).to_have_count(1)
    tab.locator(".chip.wait").hover()
    expect(tab.locator(".chip.record.lit")).to_have_text("record computed")


def test_a_bar_marks_its_line_and_a_line_its_bars(tab):
    forwards = [each for each in tab.locator(".bar[data-lane=compute]").all() if each.bounding_box()["width"] > 20]
    bar = sorted(forwards, key=lambda each: each.bounding_box()["x"])[1]  # the first may begin left of what is shown
    line = bar.get_attribute("data-line")
    bar.hover()
    expect(tab.locator(".source li.lit")).to_have_attribute("value", line)
    expect(tab.locator(".told")).to_contain_text("forward of batch")
    for part in ("slot", "starts at", "takes", f"line {line}"):
        expect(tab.locator(".told")).to_contain_text(part)
    tab.locator(f".source li[value='{line}']").hover()
    lit = tab.locator(".bar.lit")
    assert {each.get_attribute("data-line") for each in lit.all()} == {line}
    assert lit.count() > 2


@pytest.mark.parametrize("stem", STEMS)
def test_every_chapter_is_played_line_by_line_as_it_is_and_without_each_line(tab, stem):
    tab.get_by_label("chapter", exact=True).select_option(stem)
    rows = tab.locator(".source li").all_text_contents()
    whole = chapter_paths()[stem].read_text()
    assert [" ".join(row.split()) for row in rows] == [
        " ".join(line.split()) for line in whole[whole.index("class Engine") :].splitlines()
    ]
    assert tab.locator(".bar").count() > 10
    assert len(tab.locator(".slots tbody").first.locator("tr").all()) == (4 if stem < "ch4" else 8)
    choice = tab.get_by_label("take a line away")
    found = [each.get_attribute("value") for each in choice.locator("option").all()][1:]
    assert found == [str(mutant.line) for mutant in mutants(stem)]
    for line in found:
        choice.select_option(line)
        expect(tab.locator(".source li.gone")).to_have_attribute("value", line)
        harmful = player(tab, "run.ordered")
        schedule = next(number for number, text in enumerate(whole.splitlines(), 1) if ".schedule()" in text)
        assert player(tab, "run.calls[0].line") == schedule
        expect(tab.locator(".failure .wrong")).to_have_count(int(harmful))
        if harmful:
            player(tab, "zoom(9)")
            player(tab, "go(1e9)")
            expect(tab.locator(".slots mark").first).to_be_visible()
            if player(tab, "run.recording.hazard"):
                assert tab.locator(".bar.races").count() == 2
                assert set(tab.locator(".access").all_text_contents()) <= {"reads", "writes"}


def test_every_preset_sets_the_dials(tab):
    for preset in explore.presets():
        tab.get_by_label("times of").select_option(preset["name"])
        assert [player(tab, f"state.{dial}") for dial in "KLHR"] == [preset[dial] for dial in "KLHR"]
        assert player(tab, "state.graphs") is preset["graphs"]
        expect(tab.locator(".says")).to_contain_text(preset["says"])


def test_an_address_leads_to_the_moment_it_was_taken_at(tab):
    tab.get_by_label("chapter", exact=True).select_option("ch4_dual_slots")
    tab.get_by_label("decodes as graphs").check()
    tab.get_by_label("H, ms", exact=True).fill("12.5")
    tab.keyboard.press("Tab")
    tab.get_by_label("on by an event").click()
    tab.wait_for_function("location.search === document.querySelector('.explore').player.address()")  # it lags behind
    link, state, line = tab.url, player(tab, "state"), line_of_host(tab)
    query = parse_qs(urlparse(link).query)
    assert (query["chapter"], query["H"]) == (["ch4_dual_slots"], ["12.5"])
    tab.goto("about:blank")
    go(tab, link)
    found = player(tab, "state")
    assert found == state  # its moment too: rounded, it could be before the event that it is of
    assert line_of_host(tab) == line


def test_the_tour_shows_what_it_tells(tab):
    def stop(number: int) -> None:
        tab.get_by_label(f"stop {number}", exact=True).click()

    stop(1)
    assert player(tab, "run.figures.bubbles") == pytest.approx(player(tab, "state.H"), abs=0.1)
    stop(2)
    assert player(tab, "below.figures.bubbles") < 0.01
    step, below = player(tab, "run.figures.step"), player(tab, "below.figures.step")
    law = tab.evaluate("lawOf(document.querySelector('.explore').player.state)")
    assert step / below == pytest.approx(law["synchronous"] / law["asynchronous"], rel=0.01)
    expect(tab.locator(".timeline:visible")).to_have_count(2)
    stop(3)
    assert player(tab, "below.figures.bubbles") > 5
    stop(4)
    assert player(tab, "run.figures.step") == pytest.approx(player(tab, "below.figures.step"), rel=0.02)
    tab.get_by_label("decodes as graphs").check()
    assert player(tab, "run.figures.step") > 1.3 * player(tab, "below.figures.step")
    stop(5)
    expect(tab.locator(".timeline:visible")).to_have_count(1)
    assert tab.locator(".bar.races").count() == 2


def test_the_simple_view_has_two_lanes_and_the_law_s_point(tab):
    tab.get_by_label("simple view").check()
    expect(tab.locator(".timeline:visible text.name")).to_have_text(["CPU", "GPU"])
    expect(tab.locator(".streams")).to_be_hidden()
    before = tab.locator(".curve circle").get_attribute("cx")
    tab.get_by_label("H, ms", exact=True).fill("20")
    tab.keyboard.press("Tab")
    assert float(tab.locator(".curve circle").get_attribute("cx")) > float(before)


def test_it_can_be_worked_on_a_phone(browser, address):
    with browser.new_context(viewport=WINDOWS["phone"], has_touch=True, color_scheme="dark") as context:
        reader = Reader(context.new_page(), address)
        reader.open("explore/?chapter=ch5_carry_over&without=45")
        reader.tab.get_by_label("play", exact=True).tap()
        reader.tab.wait_for_function("document.querySelector('.explore').player.state.t > 2")
        source, row = reader.tab.locator(".source").bounding_box(), reader.tab.locator(".source li.now").bounding_box()
        assert source["y"] <= row["y"] < source["y"] + source["height"]
        reader.look()
        assert not reader.wrong


def test_without_javascript_there_is_a_sentence(browser, address):
    with browser.new_context(java_script_enabled=False) as context:
        tab = context.new_page()
        tab.goto(urljoin(address, "explore/"))
        expect(tab.locator(".explore")).to_contain_text("takes JavaScript")
