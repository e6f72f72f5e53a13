"""The documentation site as built: its links, what it loads, its figures, code and diffs."""

import copy
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from bs4 import BeautifulSoup, Tag

from acb_minimal.run.engines import chapter_paths

HOST = "http://site/"
IN_CSS = re.compile(r"""(?:url\(|@import\s+)\s*["']?([^"')]+)""")
IN_SVG = re.compile(r"""\bhref=["']([^"']+)""")
LINKS = {"prev", "next", "canonical", "alternate", "edit"}  # of <link>: what is named, but not loaded


class Reference(NamedTuple):
    """What `source`, a file of the site, refers to. What is `loaded` comes with the page, the rest by a click."""

    source: str
    url: str
    loaded: bool

    def __str__(self) -> str:
        return f"{self.source}: {self.url}"

    @property
    def file(self) -> str | None:
        """The file of the site; None if it is on another host, or in the URL itself."""
        address = urldefrag(self.url).url
        if not address.startswith(HOST):
            return None
        path = unquote(address.removeprefix(HOST).partition("?")[0])
        return f"{path}index.html" if path == "" or path.endswith("/") else path


@pytest.fixture(scope="module")
def pages(site) -> dict[str, BeautifulSoup]:
    """The pages of the site by file name."""
    files = sorted(site.folder.rglob("*.html"))
    assert len(files) > 10, f"mkdocs did not get to its end:\n{site.output}"
    spaces = {"preserve_whitespace_tags": {"pre", "code"}}
    return {
        str(file.relative_to(site.folder)): BeautifulSoup(file.read_bytes(), "html.parser", **spaces) for file in files
    }


@pytest.fixture(scope="module")
def references(site, pages) -> list[Reference]:
    """All of them, absolute."""
    found = [Reference(name, *each) for name, page in pages.items() for each in _in_page(page)]
    for pattern, suffix in ((IN_CSS, ".css"), (IN_SVG, ".svg")):
        for file in site.folder.rglob(f"*{suffix}"):
            name = str(file.relative_to(site.folder))
            found += [Reference(name, url, True) for url in pattern.findall(file.read_text())]
    return [each._replace(url=urljoin(HOST + each.source, each.url)) for each in found]


def _in_page(page: BeautifulSoup) -> Iterator[tuple[str, bool]]:
    for tag in page.find_all(True):
        link = tag.name == "a" or bool(LINKS & set(tag.get_attribute_list("rel")))
        for name in ("href", "src", "data", "poster", "srcset"):
            if name in tag.attrs:
                yield tag[name].split()[0] if name == "srcset" else tag[name], not link
        yield from ((url, True) for url in IN_CSS.findall(tag.get("style", "")))
        if tag.name == "style":
            yield from ((url, True) for url in IN_CSS.findall(tag.text))


def article(page: BeautifulSoup) -> Tag:
    return page.select_one("article")


def test_the_site_builds_without_a_warning(site):
    assert site.status == 0, site.output


def test_every_link_within_the_site_arrives(site, pages, references):
    """Also those that mkdocs does not look at: in HTML, in code and in what a macro or a notebook put in."""
    anchors = {name: {tag.get("id") or tag.get("name") for tag in page.find_all(True)} for name, page in pages.items()}
    broken = []
    for each in references:
        fragment = unquote(urldefrag(each.url).fragment)
        if each.file is None:
            continue
        if not (site.folder / each.file).is_file():
            broken.append(f"{each} (no such file)")
        elif fragment and not each.loaded and fragment not in anchors.get(each.file, ()):
            broken.append(f"{each} (no such anchor)")
    assert not broken, "\n".join(broken)


def test_nothing_is_loaded_from_another_host(references):
    loaded = [each for each in references if each.loaded]
    assert len(loaded) > 100
    foreign = [str(each) for each in loaded if each.file is None and not each.url.startswith("data:")]
    assert not foreign, "\n".join(foreign)


def test_every_term_that_is_linked_is_explained(pages, references):
    """A link into the glossary leads to a term with an explanation after it, not just to some anchor there."""
    glossary = article(pages["glossary/index.html"])
    terms = {term["id"]: term.find_next_sibling() for term in glossary.select("dt[id], h2[id], h3[id]")}
    to_glossary = [each for each in references if each.file == "glossary/index.html" != each.source]
    linked = {urldefrag(each.url).fragment for each in to_glossary} - {""}
    assert len(linked) > 20, "the glossary is hardly used"
    unknown = [term for term in sorted(linked) if not (terms.get(term) and terms[term].get_text(strip=True))]
    assert not unknown, f"linked, but not explained in the glossary: {', '.join(unknown)}"


@pytest.mark.parametrize("path", chapter_paths().values(), ids=chapter_paths())
def test_a_chapter_s_page_shows_all_of_its_code_and_what_it_has_changed(pages, path):
    """What is copied from the page is the class, as it is in the file; without the new lines, and with those that are
    gone, it is the class of the chapter before."""
    (listing,) = pages[f"chapters/{path.stem}/index.html"].select(".listing code")
    assert listing.text == engine_of(path)
    before = dict(pairwise(reversed(chapter_paths().values()))).get(path)
    if before:
        rows = listing.find_all("span", recursive=False)
        left = [row for row in rows if "come" not in row.get("class", ())]
        assert "".join(f"{row['data-text']}\n" if row.has_attr("data-text") else row.text for row in left) == (
            engine_of(before)
        )


def engine_of(path: Path) -> str:
    text = path.read_text()
    return text[text.index("class Engine") :]


def test_what_figures_are_from_is_behind_an_icon(pages):
    """A machine or the command that made them, a date: of every figure, every bar chart and stored table."""
    for name, page in pages.items():
        for shown in page.select("article figure:has(svg), article table.bars"):
            source = shown.select_one("details.source") or shown.find_next_sibling("details", class_="source")
            assert source, f"{name}: nothing says where this is from: {str(shown)[:200]}"


def test_the_course_is_read_in_ninety_minutes(pages):
    """Words of prose, code and tables that are not folded, as reading.py counts them."""
    shown = [pages[f"{name}index.html"] for name in ("", "law/", *(f"chapters/{stem}/" for stem in chapter_paths()))]
    words = 0
    for page in map(copy.copy, map(article, shown)):
        for hidden in page.select("details, svg, script, .headerlink"):
            hidden.decompose()
        words += len(page.get_text(" ").split())
    assert words <= 14_000


def test_every_figure_is_drawn_and_says_what_to_see(pages):
    wrong, drawn = [], 0
    for name, page in pages.items():
        for figure in page.select("article figure.picture"):
            point, caption = figure.select_one(".point"), figure.select_one("figcaption")
            if min(len(part.text.split()) if part else 0 for part in (point, caption)) < 4:
                wrong.append(f"{name}: a figure without a point or a caption: {caption}")
            drawings = figure.find_all("svg")
            if not drawings or not all(len(svg.get("aria-label", "")) > 4 for svg in drawings):
                wrong.append(f"{name}: no picture with a text for those who do not see it: {caption}")
            drawn += 1
        for image in page.select("article img"):
            alt = image.get("alt", "").strip()
            if len(alt) < 4 or alt.startswith("<"):
                wrong.append(f"{name}: {image['src']}: alt text {alt!r}")
    assert drawn > 10
    assert not wrong, "\n".join(wrong)
