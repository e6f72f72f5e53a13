"""The figures of the site: what draws each, where what it shows is from, and how it is put into a page.

A figure is drawn when a page asks for it, for wide pages and for phones. Its colours are CSS variables, which the
page's palette sets.
"""

import functools
import inspect
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import charts
import matplotlib
import plots
from matplotlib.figure import Figure

from acb_minimal.measure import result_table
from acb_minimal.measure.metrics import environment
from acb_minimal.pictures.theme import DARK, LIGHT, NARROW, WIDTH, Ink, Theme
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


def rows(file: str, name: str) -> list[dict]:
    """The rows of a stored table, each value by the name of its column."""
    found = stored(file)[name]
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


def origin(facts: dict[str, str]) -> str:
    """Where figures are from, in a line: machine, date, versions, command."""
    told = ("device", "date", "command", "chapter", "prompts")  # in other words, or of a trace and not of its origin
    versions = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in told)
    return f"{facts['device']}, {facts['date']} ({versions}): <code>{facts['command']}</code>"


@functools.cache
def picture(name: str) -> tuple[Callable[..., Figure], str, str]:
    """What draws a figure of the site, given a `theme` and, mostly, a `width`; on what it was measured; where it is
    from. Raises KeyError if there is no such figure."""
    kind, _, rest = name.partition("-")
    if kind in ("timeline", "closeup"):
        chrome = stored(f"traces/{rest}.json")
        facts, trace = chrome["otherData"], Trace.of_chrome(chrome)
        device, trace.device = trace.device, ""  # the page says it
        first, last = trace.middle(3)
        # The trace ends with `last`; with that one left out, no lane has an end where nothing is known.
        draw = (plots.closeup, trace, first + 1) if kind == "closeup" else (timeline, trace, first - 1, last - 1)
        return functools.partial(*draw), device, origin(facts)
    if name == "unordered":
        device = plots.unordered()
        number = device.trace.middle(1)[0]
        before = plots.early(device.trace, number - 1) + plots.BEFORE  # for the download to be in the picture
        draw = functools.partial(plots.closeup, device.trace, number, before=before, wrong="D2H")
        return draw, device.trace.device, origin(environment(device) | {"command": "mkdocs build"})
    file, table, draw = {
        "gains": ("law.json", "law", functools.partial(charts.gains, published=published())),
        "regimes": ("regimes.json", "regimes", charts.regimes),
        "rates": ("latency.json", "rates, simulated", charts.rates),
    }[name]
    found = stored(file)[table]
    facts = found["environment"] | {"command": found["command"]}
    return functools.partial(draw, rows(file, table)), facts["device"], origin(facts)


def published() -> tuple[float, float]:
    """H / K and speedup of Hugging Face's run: the share of time without work is taken for H, the rest for K."""
    (slow, active), (fast, _) = result_table.PUBLISHED.values()
    return 1 / active - 1, slow / fast


def placed(html: str) -> str:
    """A page with its figures put where `Page.figure` has left marks: for wide pages, and for phones."""

    def both(mark: re.Match) -> str:
        drawn = svg(mark[1], WIDTH) + svg(mark[1], NARROW)
        return drawn.replace('role="img"', f'role="img" aria-label="{mark[2]}"')

    return MARK.sub(both, html)


@functools.cache
def svg(name: str, width: float) -> str:
    """A figure as part of a page. Empty if it is drawn for wide pages alone."""
    draw, *_ = picture(name)
    sizes = {"width": width} if "width" in inspect.signature(draw).parameters else {}
    if not sizes and width == NARROW:
        return ""
    file = io.StringIO()
    # Texts stay texts, in the page's own font; the same picture is the same file.
    with matplotlib.rc_context({"svg.hashsalt": f"{name} {width}", "svg.fonttype": "none"}):
        draw(theme=in_variables(), **sizes).savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[^"]*pt"', "", text, count=2)
    text = re.sub(r' id="(?!(?:m|h|p)[0-9a-f]{10})[^"]*"', "", text)  # but of what is referred to
    text = re.sub(r"(font: [^'\"]*px) [^;\"]*", r"\1 var(--md-text-font-family, sans-serif)", text)
    text = re.sub(r'\b(fill|stroke)="(#ac\d\dac)"', r'style="\1: \2"', text)
    for variable, colour in STANDINS.items():
        text = text.replace(colour, f"var(--acb-{variable})")
    kind = "wide" if width == WIDTH else "narrow"
    return re.sub(r"\n\s*", "\n", text).replace("<svg", f'<svg class="{kind}" role="img"', 1)


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
