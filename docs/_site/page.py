"""What a page may call to get Markdown: figures, tables, code and diffs. Values for its sentences are in values.py."""

import ast
import json
import posixpath
import re
from pathlib import Path

import comparisons
import examples
import first
import labs
import notebooks
import published
import worked
from figures import RESULTS, origin, picture, stored
from path import Path as Course
from values import Values
from widgets import source as behind_icon

from acb_minimal.measure import metrics, result_table
from acb_minimal.run.engines import chapter_path
from acb_minimal.sim import costs

ROOT = Path(__file__).parents[2]
MARKUP = re.compile(r"""\]\([^)]*\)|[][`*"]""")  # what Markdown adds to a text, and quotes


class Page(Course, Values):
    """What the page at `uri`, relative to docs/, may call."""

    def __init__(self, uri: str):
        self._folder = posixpath.dirname(uri)
        self._served = posixpath.splitext(uri)[0]  # mkdocs rewrites links in Markdown, not those in HTML

    def figure(self, name: str, title: str, caption: str) -> str:
        """A figure, titled by its point, with its caption and where it is from."""
        _, device, source = picture(name)
        alt = MARKUP.sub("", f"{title}. {caption}")
        return (
            f'<figure class="picture" markdown>\n<p class="point" markdown="span">{title} <small>{device}</small></p>\n'
            f'<div class="scroll"><!-- picture {name} "{alt}" --></div>\n'
            f'<figcaption markdown="span">{caption}</figcaption>\n{behind_icon([source])}\n</figure>'
        )

    def table(self, file: str, name: str) -> str:
        """A stored table, its note and where it is from."""
        found = result_table.load(RESULTS / file)[name]
        facts = found.environment | {"command": found.command}
        return f"{found.markdown()}\n\n{found.note}\n\n{behind_icon([origin(facts)])}"

    def steps(self) -> str:
        """What a decode step is made of: a column for each workload, a row for each chapter."""
        return result_table.markdown(metrics.load(RESULTS / "h200.json"))

    def parts(self, *chapters: str) -> str:
        """What a decode step of these chapters is made of, in ms: a row for each, workload by workload."""
        lines = ["| workload | chapter | step | kernels | kernel gaps | launch gaps | bubbles |"]
        lines.append("| --- | --- |" + " ---: |" * 5)
        for name, entry in stored("h200.json").items():
            made, load = result_table.breakdowns(entry), entry["workload"]
            what = f"`{name}`: {load['model']}, {load['max_running']} requests"
            for stem in (chapter_path(chapter).stem for chapter in chapters):
                if stem in made:
                    lines.append(f"| {what} | {stem} | {' | '.join(result_table.parts_in_ms(made[stem]))} |")
                    what = ""
        return "\n".join(lines)

    def reports(self) -> str:
        """What others have published of asynchrony in their engines, as a table."""
        return published.reports()

    def first_run(self) -> str:
        """What `acb compare` prints: the block in the README, which a test holds to the command."""
        return first.block()

    def experiment(self, name: str) -> str:
        """A script of docs/results/myths and what it printed."""
        script = RESULTS / "myths" / f"{name}.py"
        shown = f'```python title="docs/results/myths/{name}.py"\n{script.read_text()}```'
        facts, _, printed = script.with_suffix(".txt").read_text().partition("\n")
        return f"{shown}\n\n```text\n{printed}```\n\n{behind_icon([facts])}"

    def source(self, file: str, *names: str) -> str:
        """Where the figures of a file are from, or of these entries: a line for each machine, day and versions."""
        commands: dict[tuple, list[str]] = {}
        for entry in [stored(file)[name] for name in names] or [stored(file)]:
            commands.setdefault(tuple(entry["environment"].items()), []).append(entry["command"])
        lines = (origin(dict(facts) | {"command": "</code>, <code>".join(those)}) for facts, those in commands.items())
        return behind_icon(lines)

    def predictions(self) -> str:
        """Measured and simulated steps side by side, part by part."""
        real, simulated = stored("h200.json"), stored("simulated.json")
        date = json.loads(costs.FILE.read_text())["environment"]["date"]
        sources = (self.source(file, *simulated) for file in ("h200.json", "simulated.json"))
        by = behind_icon([f"Simulated by costs that were measured on {date}."])
        return "\n\n".join([comparisons.predictions(real, simulated), *sources, by])

    def deletion_table(self, chapter: str) -> str:
        """The same as a table."""
        return comparisons.deletions(self.deletions(chapter))

    def written(self) -> str:
        """A batch as a slot holds it, view by view."""
        return examples.written()

    def explore(self, chapter: str, preset: str) -> str:
        """The player, with its dials as in a preset. The page's address keeps its state."""
        there = posixpath.relpath(".", self._served)
        names = ("explore-data", "timing", "run", "timeline", "panels", "tour", "explore")
        scripts = (f'<script defer src="{there}/javascripts/{name}.js"></script>' for name in names)
        stem = chapter_path(chapter).stem
        return (
            f'<div class="explore" data-chapter="{stem}" data-preset="{preset}"><p class="without">Engines are played '
            "here, which takes JavaScript.</p></div>\n" + "\n".join(scripts)
        )

    def clocks(self, chapter: str, *without: str) -> str:
        """The actions of a chapter's first batch and what is over before each begins."""
        return examples.clocks(chapter, *without)

    def problem(self, chapter: str, *without: str) -> str:
        """What `acb check` says of a chapter without these statements."""
        return examples.problem(chapter, *without)

    def handed_on(self) -> str:
        """The page of a finished request and its next owner, as chapter 4 ran."""
        return worked.handed_on()

    def labs(self, kind: str) -> str:
        """The labs of a kind, "build" or "hunt", as a table."""
        return labs.table(kind)

    def session(self, name: str) -> str:
        """A terminal session: commands, and what they print."""
        return labs.session(name)

    def bugs(self) -> str:
        """What the bugs of the hunts are, folded."""
        return labs.bugs()

    def chapter(self, name: str) -> str:
        """All of a chapter's code."""
        path = chapter_path(name)
        return f'```python title="chapters/{path.name}" linenums="1"\n{path.read_text()}```'

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
        return notebooks.section(self._notebook(chapter), heading, self._link("figures"))

    def _notebook(self, chapter: str) -> Path:
        return chapter_path(chapter).with_suffix(".ipynb")

    def _link(self, uri: str) -> str:
        return posixpath.relpath(uri, self._folder or ".")
