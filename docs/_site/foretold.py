"""What `acb idle` foretells from traces of synchronous engines, beside what their asynchronous twins did, as tables."""

import functools
import json
from pathlib import Path

from drawings import RESULTS, origin, stored

from acb_minimal.trace.idle import Report, analyse, read

DATA = Path(__file__).parents[2] / "tests" / "data"
HEAD = ("synchronous engine", "verdict", "K", "L", "H", "step", "all of it hidden", "its asynchronous twin")
GRAPHS = ("and launched as graphs", "chapter 6")


def by_profiler() -> str:
    """A row for each synchronous engine of tests/data that has a twin, and where the traces are from."""
    facts = json.loads((DATA / "recorded.json").read_text())
    rows = [
        _row(entry["what"], DATA / f"{name}.json.gz", DATA / f"{entry['twin']}.json.gz")
        for name, entry in facts.items()
        if entry["twin"]
    ]
    commands = "`, `".join(dict.fromkeys(entry["command"] for entry in facts.values()))
    return _table(HEAD, rows, next(iter(facts.values()))["environment"] | {"command": commands})


def by_events() -> str:
    """A row for chapters 1 and 3 on each workload, whose traces the site shows, and where these are from."""
    traces, rows, facts = RESULTS / "traces", [], {}
    for workload in ("wide", "small", "long"):
        for chapter, name in (("ch1_sync", "chapter 1"), ("ch3_events", "chapter 3")):
            file, twin, graphs = (
                traces / f"{workload}-{each}.json" for each in (chapter, "ch5_carry_over", "ch6_cuda_graphs")
            )
            rows.append(_row(f"`{workload}`, {name}", file, twin, graphs))
            source = stored(f"traces/{file.name}")["otherData"]
            facts[source["command"]] = source
    return _table(HEAD + GRAPHS, rows, next(iter(facts.values())) | {"command": "`, `".join(facts)})


def _row(what: str, trace: Path, twin: Path, graphs: Path | None = None) -> list[str]:
    """What a trace foretells beside what two others show: of the engine's twin, and of one that launches graphs too."""
    found = report(trace)
    mine, law = found.typical, found.typical.law
    times = [mine.kernels, mine.launching, mine.host, mine.step, law.asynchronous, report(twin).typical.step]
    if graphs:
        times += [mine.as_graphs, report(graphs).typical.step]
    return [what, found.verdict.kind, *(f"{1e3 * seconds:.2f}" for seconds in times)]


@functools.cache
def report(trace: Path) -> Report:
    """What `acb idle` makes of a trace of one GPU."""
    (found,) = analyse(read(trace))
    return found


def _table(head: tuple[str, ...], rows: list[list[str]], source: dict[str, str]) -> str:
    rule = ["---"] * 2 + ["---:"] * (len(head) - 2)
    lines = (f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
    return "\n".join(lines) + f"\n\n<small markdown>{origin(source)}</small>"
