"""The documentation site as built: its links, what it loads, its figures, code and diffs."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from bs4 import BeautifulSoup, Tag

from acb_minimal.run.engines import chapter_paths

HOST = "http://site/"
IN_CSS = re.compile(r"""(?:url\(|@import\s+)\s*["']?([^"')]+)""")
IN_SVG = re.compile(r"""\bhref=["']([^"']+)""")
LINKS = {"prev", "next", "canonical", "alternate", "edit"}  # of <link>: what is named, but not loaded
NARROWED = re.compile(r" +(?=#)")  # half a page is narrow: before a comment, spaces are left out there


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
        path = unquote(address.removeprefix(HOST))
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
def test_a_chapter_s_page_shows_all_of_its_code(pages, path):
    page = pages[f"chapters/{path.stem}/index.html"]
    titles = [title for title in page.select(".filename") if title.text.strip() == f"chapters/{path.name}"]
    whole = [title for title in titles if title.find_next("td", class_="code").text == path.read_text()]
    assert whole, f"found {len(titles)} listings of chapters/{path.name}, none of them all of it"


@pytest.mark.parametrize(("old", "new"), list(pairwise(chapter_paths().values())), ids=lambda path: path.stem)
@pytest.mark.parametrize("view", ["beside", "column"])
def test_a_diff_turns_one_chapter_into_the_next(pages, old, new, view):
    """Every line is the file's, and what is left of both without the marked lines is the same."""
    page = pages[f"chapters/{new.stem}/index.html"]
    tables = {"beside" if "beside" in table["class"] else "column": table for table in page.select(".changes")}
    assert view in tables, "the page shows no diff of this kind"
    shown = {old: {}, new: {}}  # by file: the number of each line, its text and its mark
    for row in tables[view].select("tr:not(.gap)"):
        cells = row.find_all("td")
        if view == "beside":
            sides = {old: cells[:2], new: cells[2:]}
        else:
            sides = {old if "gone" in cells[0]["class"] else new: cells}
        for path, (number, code) in sides.items():
            if number.text:
                mark = {"gone", "come"} & set(code["class"])
                assert mark <= {"gone" if path == old else "come"}
                assert mark == {"gone", "come"} & set(number["class"])
                shown[path][int(number.text)] = (code.text, bool(mark))
    left = []
    for path, lines in shown.items():
        text = path.read_text().splitlines()
        for number, (code, _) in lines.items():
            assert _narrowed(code) == _narrowed(text[number - 1]), f"{path.name}:{number}"
        start = next(number for number, line in enumerate(text, 1) if line.startswith("class Engine"))
        marked = {number for number, (_, mark) in lines.items() if mark}
        left.append([line for number, line in enumerate(text, 1) if number >= start and number not in marked])
    assert left[0] == left[1]


def _narrowed(line: str) -> str:
    return NARROWED.sub("  ", line)


def test_every_figure_is_drawn_says_what_to_see_and_where_it_is_from(pages):
    wrong, drawn = [], 0
    for name, page in pages.items():
        for figure in page.select("article figure"):
            caption = figure.find("figcaption") or figure.new_tag("figcaption")
            source = caption.find("small")  # where the figures are from, which is no caption
            if not source or len(caption.text.split()) - len(source.text.split()) < 4:
                wrong.append(f"{name}: a figure without a caption or a source: {caption}")
            if [len(svg.get("aria-label", "")) > 4 for svg in figure.find_all("svg")] != [True]:
                wrong.append(f"{name}: not one picture with a text for those who do not see it: {caption}")
            drawn += 1
        for image in page.select("article img"):
            alt = image.get("alt", "").strip()
            if len(alt) < 4 or alt.startswith("<"):
                wrong.append(f"{name}: {image['src']}: alt text {alt!r}")
    assert drawn > 10
    assert not wrong, "\n".join(wrong)
