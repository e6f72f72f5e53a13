"""No page of the site has a measured number of its own: all come from what docs/results holds."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
from bs4 import BeautifulSoup, Tag

from acb_minimal.measure import metrics, result_table
from acb_minimal.measure import tables as report
from acb_minimal.run.engines import chapter_path, chapter_paths

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = DOCS / "results"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
MACRO = re.compile(r"\{\{ *(table|steps|parts)\(([^)]*)\)")
SOURCE = re.compile(r'\{\{ *source\(("[^")]*"(?:, *"[^")]*")*)\)')
each_page = pytest.mark.parametrize("page", PAGES)

UNITS = (
    r"%|percent|[nuµμm]?s|sec|([a-z]+)?seconds?|[kMGT]i?B(/s)?|[a-z]+bytes(/s)?|[kMGT]?FLOP/?s|"
    r"tokens?(/s| per second| a second)"
)
MEASURED = re.compile(rf"(?<![\w.,])\d[\d.,]*[*_`]*(\s|-|&nbsp;)?[*_`]*({UNITS})(?!\w)")
OF_MEASURED = re.compile(rf"(?<!\w)({UNITS}|time)(?!\w)")  # where the head of a table or row says this, such are:
NUMBERS = re.compile(r"(?<![\w.,])\d+\.\d+(?![\w.])|(?<=\|)[ *]*\d[\d,]*[ *]*(?=\|)")

# What may stand in a page as typed: published by others, or given and not measured. By page, each with the reason.
TYPED = {
    "more-gpus.md": {"30 seconds": "what torch's launcher waits, in its own source"},
    "workshop.md": {"10 GB of GPU memory": "the sum of sizes that run.devices.check_gpu makes"},
}


def typed(source: str) -> str:
    """What a page says by itself: its text, and the strings that it gives to macros, which are captions."""
    tokens = jinja2.Environment().lex(source)
    return "".join(text if kind in ("data", "string") else "\0" for _, kind, text in tokens)


def numbers(text: str) -> Iterator[str]:
    """The measured numbers in it."""
    yield from (" ".join(found.group().split()) for found in MEASURED.finditer(text))
    for table in re.findall(r"(?:^ *\|.*\n?)+", text, re.MULTILINE):
        head, *rows = table.splitlines()
        for row in rows:
            if OF_MEASURED.search(head + row.split("|")[1]):
                yield from (f"{found.strip()} (in a table)" for found in NUMBERS.findall(row))


@each_page
def test_a_page_has_no_measured_number_of_its_own(page):
    text = typed((DOCS / page).read_text())
    for known in TYPED.get(page, ()):
        text, times = re.subn(r"\s+".join(map(re.escape, known.split())), "", text)
        assert times, f"docs/{page} no longer says {known!r}: take it from the list here"
    found = sorted(set(numbers(text)))
    assert not found, f"docs/{page} has, typed by hand: {', '.join(found)}. Let a macro take it from docs/results"


@pytest.mark.parametrize(
    "text",
    [
        *("takes 25.04 ms", "**3**&nbsp;us", "`3` µs", "at 4.0 TB/s", "98.2 %", "99%", "1,024 MiB", "0.5\nseconds"),
        *("a 5-ms step", "7,100 tokens/s", '{{ figure("x", "a bubble of 1.03 ms") }}'),
        *("| ms | a |\n| --- | --- |\n| **2.5** = 1 + 1.5 | b |", "| a | host time |\n| --- | --- |\n| b | **3** |"),
        "| what | b |\n| --- | --- |\n| tokens/s | 7,100 |",
    ],
)
def test_a_measured_number_is_recognised(text):
    assert list(numbers(typed(text)))


@pytest.mark.parametrize(
    "text",
    [
        *("batch 2 starts", "H200s", "32 requests of 4,000 tokens", "8B", "chapters 4 and 5", "2 streams"),
        *('{{ step("wide", "ch1").bubbles | ms }}', '{{ "%.1f" | format(2 * x) }} ms'),
        *("| ms |\n| --- |\n| {{ x }} |", "| rows |\n| --- |\n| 8 |"),
    ],
)
def test_other_numbers_may_be_typed(text):
    assert not list(numbers(typed(text)))


def article(site, page: str) -> Tag:
    """A page as built."""
    file = site.folder / page.removesuffix("index.md").removesuffix(".md") / "index.html"
    return BeautifulSoup(file.read_bytes(), "html.parser").select_one("article")


def tables(site, page: str) -> list[list[list[str]]]:
    """The tables of a page as built: row by row, cell by cell, as text."""
    return [[cells(row) for row in table.find_all("tr")] for table in article(site, page).find_all("table")]


def cells(row: Tag) -> list[str]:
    return [" ".join(cell.text.split()) for cell in row.find_all(["th", "td"])]


@each_page
def test_tables_show_what_is_stored(site, page):
    """Each cell, from the stored file to the built page: neither the macro nor Markdown may change it."""
    shown = tables(site, page)
    for name, given in MACRO.findall((DOCS / page).read_text()):
        given = re.findall(r'"([^"]*)"', given)
        if name == "table":
            file, entry = given
            stored = result_table.load(RESULTS / file)[entry]
            expected = [[name.strip() for name in stored.columns], *stored.cells()]
        else:
            expected = rows_of_steps() if name == "steps" else rows_of_parts(*given)
        columns = len(expected[0])
        found = [[row[-columns:] for row in table[-len(expected) :]] for table in shown]
        assert expected in found, f"docs/{page} does not show what is stored: {name}({', '.join(given)})"


@each_page
def test_a_source_names_the_machine_the_day_and_every_command(site, page):
    """In one line, for each entry that the macro is given, or for the whole file."""
    built = article(site, page)
    for end in built.select("small br"):
        end.replace_with("\n")
    lines = [line for small in built.find_all("small") for line in small.text.splitlines()]
    for given in SOURCE.findall((DOCS / page).read_text()):
        file, *names = re.findall(r'"([^"]*)"', given)
        stored = json.loads((RESULTS / file).read_text())
        for entry in [stored[name] for name in names] or [stored]:
            needed = [entry["command"], *(entry["environment"][fact] for fact in ("device", "date", "torch"))]
            assert any(all(text in line for text in needed) for line in lines), f"docs/{page}: source({given})"


def rows_of_steps() -> list[list[str]]:
    """A row for each chapter: its name, and the parts of its step on each workload."""
    workloads = [report.breakdowns(entry) for entry in metrics.load(RESULTS / "h200.json").values()]
    return [
        [stem, *("{:.2f} = {:.2f} + {:.2f} + {:.2f}".format(*in_ms(made[stem])) for made in workloads if made)]
        for stem in chapter_paths()
    ]


def rows_of_parts(*chapters: str) -> list[list[str]]:
    """For each workload a row for each chapter: its name, and the parts of its step."""
    workloads = [report.breakdowns(entry) for entry in metrics.load(RESULTS / "h200.json").values()]
    stems = [chapter_path(chapter).stem for chapter in chapters]
    return [[stem, *(f"{part:.2f}" for part in in_ms(made[stem]))] for made in workloads if made for stem in stems]


def in_ms(step: metrics.Breakdown) -> list[float]:
    return [1e3 * part for part in (step.step, step.kernels, step.launch_gaps, step.bubbles)]
