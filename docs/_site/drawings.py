"""The figures of the site, drawn when it is built, and where what they show is from."""

import functools
import io
import json
from pathlib import Path

import batching
import closeup
import house
import matplotlib
import unordered
import worked
from matplotlib.figure import Figure

from acb_minimal.measure import metrics, result_table
from acb_minimal.measure import tables as report
from acb_minimal.pictures import charts, law, roofline
from acb_minimal.pictures.timeline import timeline
from acb_minimal.trace.spans import Trace

RESULTS = Path(__file__).parents[1] / "results"


@functools.cache
def stored(file: str) -> dict:
    """A file of docs/results."""
    return json.loads((RESULTS / file).read_text())


@functools.cache
def drawings() -> dict[str, tuple]:
    """For every figure of the site, by name: a function of `dark` that draws it, and where its figures are from, as
    facts for `origin` or in words."""
    found = {}
    for path in sorted((RESULTS / "traces").glob("*.json")):
        chrome = stored(f"traces/{path.name}")
        trace = Trace.of_chrome(chrome)
        source, (first, last) = chrome["otherData"], trace.middle(3)
        # The trace ends with `last`; with that one left out, no lane has an end where nothing is known.
        found[f"timeline-{path.stem}"] = functools.partial(timeline, trace, first - 1, last - 1), source
        found[f"closeup-{path.stem}"] = functools.partial(closeup.closeup, trace, closed_up(trace)), source
    for name, entry in metrics.load(RESULTS / "h200.json").items():
        if rows := report.breakdowns(entry):
            source = entry["environment"] | {"command": entry["command"]}
            found[f"breakdown-{name}"] = functools.partial(charts.breakdown, rows), source
    regimes = stored("regimes.json")
    source = regimes["environment"] | {"command": regimes["command"]}
    found["regimes"] = functools.partial(charts.regimes, report.regime_points(regimes)), source
    roof = result_table.load(RESULTS / "roofline.json")["roofline"]
    source = roof.environment | {"command": roof.command}
    found["roofline"] = functools.partial(roofline.steps, roof), source
    law_table = result_table.load(RESULTS / "law.json")["law"]
    source = law_table.environment | {"command": law_table.command}
    found["gains"] = functools.partial(law.gains, law_table), source
    found["batching"] = batching.batching, "Steps, counted by the scheduler that all chapters use; nothing is timed."
    trace, source = unordered.unordered()
    number = trace.middle(1)[0]
    before = unordered.early(trace, number - 1) + closeup.BEFORE  # for the download to be in the picture
    found["unordered"] = functools.partial(closeup.closeup, trace, number, before=before), source
    found["imports"] = house.draw, "Read from the source when this page was built."
    found["carry-over"] = worked.carried_over, "What chapter 5 did on the simulated GPU when this page was built."
    return found


def closed_up(trace: Trace) -> int:
    """The batch that follows the bubble which a stored trace is shown close up at."""
    return trace.middle(3)[0] + 1


@functools.cache
def svg(name: str, dark: bool) -> str:
    draw, _ = drawings()[name]
    figure: Figure = draw(dark=dark)
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):  # the same picture is the same file
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=not dark)
    return file.getvalue()


def origin(facts: dict[str, str]) -> str:
    """Where figures are from, in a line: machine, date, versions, command."""
    told = ("device", "date", "command", "chapter", "prompts")  # in other words, or of a trace and not of its origin
    versions = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in told)
    return f"{facts['device']}, {facts['date']} ({versions}): `{facts['command']}`"
