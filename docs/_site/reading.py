"""What is known of pages only once all of them are made: how long they take to read, and what their words mean."""

import html
import re

from bs4 import BeautifulSoup

from acb_minimal.run.engines import chapter_paths

PACE = 155  # words a minute, of prose, code and tables alike: 90 minutes for 14,000
COURSE = ("index.md", "law.md", *(f"chapters/{stem}.md" for stem in chapter_paths()))
MARK = re.compile(r"<!-- minutes (\S*) -->")
QUERY = re.compile(r'href="([^"]*)" data-query="([^"]*)"|data-query="([^"]*)" href="([^"]*)"')
LINK = re.compile(r'<a href="([^"]*glossary/)?#([\w-]+)"')

_words: dict[str, int] = {}
_meanings: dict[str, str] = {}


def note(uri: str, content: str) -> None:
    """Takes in a page as it is before its theme comes around it."""
    if uri in COURSE or uri.startswith("chapters/"):
        _words[uri] = words(content)
    if uri == "glossary.md":
        page = BeautifulSoup(content, "html.parser")
        for term in page.select("h3[id]"):
            text = " ".join(term.find_next_sibling("p").get_text().split())
            _meanings[term["id"]] = re.match(r".*?[.:](?= [A-Z\[]|$)", text)[0]


def words(content: str) -> int:
    """Words that a reader comes by: of prose, code and tables, but not of what is folded."""
    page = BeautifulSoup(content, "html.parser")
    for hidden in page.select("details, script, svg, .headerlink"):
        hidden.decompose()
    return len(page.get_text(" ").split())


def filled(uri: str, output: str) -> str:
    """A page with its reading times put in, and the meaning of a word of the glossary shown on its link."""
    output = MARK.sub(lambda mark: minutes(mark[1]), output)
    output = QUERY.sub(lambda link: f'href="{link[1] or link[4]}?{link[2] or link[3]}"', output)
    if uri in _words and uri != "index.md":
        output = re.sub(r"</h1>", f'</h1>\n<p class="reading">{minutes(uri)} minutes</p>', output, count=1)
    if uri == "glossary.md":
        return output

    def explained(link: re.Match) -> str:
        meaning = _meanings.get(link[2]) if link[1] else None
        return f'{link[0]} class="term" title="{html.escape(meaning)}"' if meaning else link[0]

    return LINK.sub(explained, output)


def minutes(uri: str) -> str:
    """The reading time of a page; without one, of all of the course, in tens."""
    if uri:
        return str(round(_words[uri] / PACE))
    return str(10 * round(sum(map(_words.get, COURSE)) / PACE / 10))
