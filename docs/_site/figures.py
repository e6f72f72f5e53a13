"""The figures of the site: what draws each, where what it shows is from, and how it is put into a page.

A figure is drawn when a page asks for it, once: its colours are CSS variables, which the page's palette sets.
"""

import functools
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import batching
import closeup
import comparisons
import matplotlib
import regimes
import roofline
import unordered
import worked
from matplotlib.figure import Figure

from acb_minimal.measure import metrics, result_table
from acb_minimal.measure import tables as report
from acb_minimal.pictures import law
from acb_minimal.pictures.breakdown import breakdown
from acb_minimal.pictures.theme import DARK, LIGHT, Ink, Theme
from acb_minimal.pictures.timeline import timeline
from acb_minimal.trace.spans import Trace

RESULTS = Path(__file__).parents[1] / "results"
MARK = re.compile(r'<!-- picture (\S+) "(.*?)" -->')
# A colour that no picture has stands for each variable until the picture is drawn.
STANDINS = {name: f"#ac{number:02d}ac" for number, name in enumerate(LIGHT.colours())}


@functools.cache
def stored(file: str) -> dict:
    """A file of docs/results."""
    return json.loads((RESULTS / file).read_text())


def origin(facts: dict[str, str]) -> str:
    """Where figures are from, in a line: machine, date, versions, command."""
    told = ("device", "date", "command", "chapter", "prompts")  # in other words, or of a trace and not of its origin
    versions = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in told)
    return f"{facts['device']}, {facts['date']} ({versions}): `{facts['command']}`"


def picture(name: str) -> tuple[Callable[..., Figure], str]:
    """What draws a figure of the site, given a `theme`, and where what it shows is from. Raises KeyError if unknown."""
    kind, _, rest = name.partition("-")
    if kind in ("timeline", "closeup"):
        chrome = stored(f"traces/{rest}.json")
        trace, source = Trace.of_chrome(chrome), origin(chrome["otherData"])
        if kind == "closeup":
            return functools.partial(closeup.closeup, trace, closed_up(trace)), source
        first, last = trace.middle(3)
        # The trace ends with `last`; with that one left out, no lane has an end where nothing is known.
        return functools.partial(timeline, trace, first - 1, last - 1), source
    if kind == "breakdown":
        entry = metrics.load(RESULTS / "h200.json")[rest]
        facts = entry["environment"] | {"command": entry["command"]}
        return functools.partial(breakdown, report.breakdowns(entry)), origin(facts)
    if name in ("regimes", "roofline"):
        found = result_table.load(RESULTS / f"{name}.json")[name]
        draw = {"regimes": regimes.regimes, "roofline": roofline.steps}[name]
        return functools.partial(draw, comparisons.rows(found)), origin(found.environment | {"command": found.command})
    return {"gains": gains, "unordered": early_download}.get(name, lambda: COUNTED[name])()


def gains() -> tuple:
    found = result_table.load(RESULTS / "law.json")["law"]
    return functools.partial(law.gains, found), origin(found.environment | {"command": found.command})


def early_download() -> tuple:
    trace, source = unordered.unordered()
    number = trace.middle(1)[0]
    before = unordered.early(trace, number - 1) + closeup.BEFORE  # for the download to be in the picture
    return functools.partial(closeup.closeup, trace, number, before=before), origin(source)


# Of what the code did when the site was built; nothing is timed.
COUNTED = {
    "batching": (batching.batching, "Steps, counted by the scheduler that all chapters use; nothing is timed."),
    "carry-over": (worked.carried_over, "What chapter 5 did on the simulated GPU when this page was built."),
}


def closed_up(trace: Trace) -> int:
    """The batch that follows the bubble which a stored trace is shown close up at."""
    return trace.middle(3)[0] + 1


def placed(html: str) -> str:
    """A page with its figures put where `Page.figure` has left marks."""
    return MARK.sub(lambda mark: svg(mark[1]).replace("<svg", f'<svg role="img" aria-label="{mark[2]}"', 1), html)


@functools.cache
def svg(name: str) -> str:
    """A figure as part of a page."""
    draw, _ = picture(name)
    file = io.StringIO()
    # Texts stay texts, in the page's own font; the same picture is the same file.
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        draw(theme=in_variables()).savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r' id="(?!(?:m|h|p)[0-9a-f]{10})[^"]*"', "", text)  # but of what is referred to
    text = re.sub(r"(font: [^'\"]*px) [^;\"]*", r"\1 var(--md-text-font-family, sans-serif)", text)
    text = re.sub(r'\b(fill|stroke)="(#ac\d\dac)"', r'style="\1: \2"', text)
    for variable, colour in STANDINS.items():
        text = text.replace(colour, f"var(--acb-{variable})")
    return re.sub(r"\n\s*", "\n", text)


def in_variables() -> Theme:
    """A theme of stand-ins for the variables."""
    host, a, b = (Ink(*(STANDINS[f"{name}-{part}"] for part in Ink._fields)) for name in ("host", "a", "b"))
    series = tuple(STANDINS[f"series-{number}"] for number in range(len(LIGHT.series)))
    rest = {name: colour for name, colour in STANDINS.items() if name in vars(LIGHT)}
    return Theme(**rest | {"host": host, "slots": (a, b), "series": series})


def colours() -> str:
    """The variables, light and dark, as CSS."""
    return "".join(
        f"{selector} {{ {' '.join(f'--acb-{name}: {value};' for name, value in theme.colours().items())} }}\n"
        for selector, theme in ((":root", LIGHT), ('[data-md-color-scheme="slate"]', DARK))
    )
