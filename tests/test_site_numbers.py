"""No page of the site has a measured number of its own: all come from what docs/results holds."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
from bs4 import BeautifulSoup

from acb_minimal import measured, report, results
from acb_minimal.errors import InputError

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS / "results"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
each_page = pytest.mark.parametrize("page", PAGES)

UNITS = (
    r"%|percent|[nuµμm]?s|sec|([a-z]+)?seconds?|[kMGT]i?B(/s)?|[a-z]+bytes(/s)?|[kMGT]?FLOP/?s|"
    r"tokens?(/s| per second| a second)"
)
MEASURED = re.compile(rf"(?<![\w.,])\d[\d.,]*[*_`]*(\s|-|&nbsp;)?[*_`]*({UNITS})(?!\w)")
IN_HEAD = re.compile(rf"(?<!\w)({UNITS}|time)(?!\w)")  # of a table: its numbers are measured
NUMBERS = re.compile(r"\|[ *~]*[\d.,]+[ *]*(?=\|)")

# What may stand in a page as typed: published by others, or given and not measured. By page, each with the reason.
synchronous, asynchronous = report.PUBLISHED.values()
TYPED = {
    "elsewhere.md": {
        f"{synchronous[0]} s without and {asynchronous[0]} s with": "published by Hugging Face",
        f"{synchronous[1]:.1%} and {asynchronous[1]:.1%} of the time".replace("%", " %"): "published by Hugging Face",
    },
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
        if IN_HEAD.search(head):
            yield from (f"{found}|" for row in rows for found in NUMBERS.findall(row))


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
        *("| ms | a |\n| --- | --- |\n| 2.5 | b |", "| a | host time |\n| --- | --- |\n| b | **3** |"),
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


def stored_tables() -> dict[tuple[str, str], list[list[str]]]:
    """Everything in docs/results that a page can show as a table, by file and name: head and rows, as text."""
    found = {}
    for file in RESULTS.glob("*.json"):
        with contextlib.suppress(InputError):  # another kind of file
            found |= {(file.name, name): each for name, each in measured.load(file).items()}
    return {key: [list(each.columns), *each.cells()] for key, each in found.items()}


def markdown_table(text: str) -> list[list[str]]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()]
    return [[cell.strip("*`").replace("** ", " ") for cell in row] for row in rows if not set(row[0]) <= set("- ")]


def shown_tables(site, page: str) -> list[list[list[str]]]:
    """The tables of a page as built, as text."""
    file = site.folder / page.removesuffix("index.md").removesuffix(".md") / "index.html"
    article = BeautifulSoup(file.read_bytes(), "html.parser").select_one("article")
    return [
        [[" ".join(cell.text.split()) for cell in row.find_all(["th", "td"])] for row in table.find_all("tr")]
        for table in article.find_all("table")
    ]


@each_page
def test_a_table_of_figures_is_the_stored_one(site, page):
    stored = stored_tables()
    shown = shown_tables(site, page)
    source = (DOCS / page).read_text()
    for file, name in re.findall(r'\{\{ *table\("([^"]+)", *"([^"]+)"\)', source):
        assert stored[file, name] in shown, f"docs/{page} does not show what {file} has as {name!r}"
    for file in re.findall(r'\{\{ *steps\((?:"([^"]+)")?\)', source):
        expected = markdown_table(report.markdown(results.load(RESULTS / (file or "h200.json"))))
        assert expected in shown, f"docs/{page} does not show the steps of {file or 'h200.json'}"
    heads = {tuple(table[0]) for table in stored.values()}
    for table in shown:
        if table and tuple(table[0]) in heads:
            assert table in stored.values(), f"docs/{page} has figures that are not stored: {table}"
