"""What a page may call to get Markdown or HTML: the methods of Page, and worked examples."""

import ast
import posixpath
import re
from pathlib import Path

import notebooks
import widgets
import worked
from course import Course
from figures import RESULTS, picture

from acb_minimal.course.labs.lab import LABS
from acb_minimal.run.engines import chapter_path
from acb_minimal.trace.formatting import markdown

ROOT = Path(__file__).parents[2]
MARKUP = re.compile(r"""\]\([^)]*\)|[][`*"]""")  # what Markdown adds to a text, and quotes
WORKED = (worked.written, worked.clocks, worked.problem, worked.handed_on, worked.carried_over)
SCRIPTS = ("explore-data", "timing", "run", "timeline", "panels", "tour", "explore")


class Page(Course):
    """What the page at `uri`, relative to docs/, may call."""

    def __init__(self, uri: str):
        self._folder = posixpath.dirname(uri)
        self._served = posixpath.splitext(uri)[0]  # mkdocs rewrites links in Markdown, not those in HTML

    @classmethod
    def names(cls, uri: str) -> dict:
        """All that a page may call, by name."""
        page = cls(uri)
        methods = {name: getattr(page, name) for name in dir(page) if not name.startswith("_")}
        return methods | {example.__name__: example for example in WORKED}

    def figure(self, name: str, title: str, caption: str) -> str:
        """A figure, titled by its point, with its caption and where it is from."""
        _, device, source = picture(name)
        alt = MARKUP.sub("", f"{title}. {caption}")
        return (
            f'<figure class="picture" markdown>\n<p class="point" markdown="span">{title} <small>{device}</small></p>\n'
            f'<div class="scroll"><!-- picture {name} "{alt}" --></div>\n'
            f'<figcaption markdown="span">{caption}</figcaption>\n{widgets.source([source])}\n</figure>'
        )

    def explore(self, chapter: str, preset: str) -> str:
        """The player, with its dials as in a preset. The page's address keeps its state."""
        there = posixpath.relpath(".", self._served)
        scripts = (f'<script defer src="{there}/javascripts/{name}.js"></script>' for name in SCRIPTS)
        stem = chapter_path(chapter).stem
        return (
            f'<div class="explore" data-chapter="{stem}" data-preset="{preset}"><p class="without">Engines are played '
            "here, which takes JavaScript.</p></div>\n" + "\n".join(scripts)
        )

    def labs(self, kind: str) -> str:
        """The labs of a kind, "build" or "hunt": name, what it is about, and the chapter it has to be as fast as."""
        rows = []
        for lab in LABS.values():
            if lab.kind == kind:
                link = lab.goal and f"[chapter {lab.goal[2:]}](chapters/{chapter_path(lab.goal).stem}.md)"
                rows.append((f"`{lab.name}`", lab.title, link or "its solution"))
        return markdown(("lab", "what it is about", "as fast as"), rows, [False] * 3)

    def bugs(self) -> str:
        """What the bugs of the hunts are called, and where engines in use have had them. Folded: it gives them away."""
        rows = [
            (f"`{lab.name}`", lab.found, ", ".join(map("[{}]({})".format, lab.threads, lab.links)))
            for lab in LABS.values()
            if lab.kind == "hunt"
        ]
        title = '??? failure "What the bugs are, and where they were seen: this gives them away"'
        table = markdown(("hunt", "the bug", "seen in"), rows, [False] * 3)
        return "\n".join([title, "", *(f"    {line}" for line in table.splitlines())])

    def session(self, name: str) -> str:
        """Commands in a terminal of 88 columns, and what they print."""
        return f"```text\n{(RESULTS / 'sessions' / f'{name}.txt').read_text()}```"

    def modules(self, folder: str) -> str:
        """A section of the reference for each module of a folder of the package."""
        files = sorted((ROOT / "acb_minimal" / folder).rglob("*.py"))
        modules = (path.relative_to(ROOT).with_suffix("").parts for path in files if path.read_text())
        return "\n\n".join(f"::: {'.'.join(parts).removesuffix('.__init__')}" for parts in modules)

    def code(self, file: str, name: str) -> str:
        """A function, class or method ("Class.method") of a file, as it is there."""
        text = (ROOT / file).read_text()
        node = ast.parse(text)
        for part in name.split("."):
            found = [child for child in node.body if getattr(child, "name", None) == part]
            if not found:
                raise ValueError(f"{file} has no {name}")
            node = found[0]
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        lines = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
        return f'```python title="{file}" linenums="{first}"\n{lines}\n```'

    def notebook(self, chapter: str, heading: str) -> str:
        """A section of a chapter's notebook, with what its cells printed and drew."""
        return notebooks.section(self._notebook(chapter), heading, posixpath.relpath("figures", self._folder or "."))

    def _notebook(self, chapter: str) -> Path:
        return chapter_path(chapter).with_suffix(".ipynb")
