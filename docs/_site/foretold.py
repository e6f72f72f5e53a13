"""What `acb idle` foretells from traces of synchronous engines, beside what their asynchronous twins did, as tables."""

import functools
import json
from pathlib import Path

from drawings import RESULTS, origin, stored

from acb_minimal.trace.idle import Report, analyse, read

DATA = Path(__file__).parents[2] / "tests" / "data"
HEAD = (
    "| synchronous engine | verdict | K | L | H | step | all of it hidden | its asynchronous twin |",
    "| --- | --- |" + " ---: |" * 6,
)


def by_profiler() -> str:
    """A row for each synchronous engine of tests/data that has a twin, and where the traces are from."""
    facts = json.loads((DATA / "recorded.json").read_text())
    rows = [
        _row(entry["what"], DATA / f"{name}.json.gz", DATA / f"{entry['twin']}.json.gz")
        for name, entry in facts.items()
        if entry["twin"]
    ]
    commands = "`, `".join(dict.fromkeys(entry["command"] for entry in facts.values()))
    return _table(rows, next(iter(facts.values()))["environment"] | {"command": commands})


def by_events() -> str:
    """A row for chapters 1 and 3 on `wide` and `small`, whose traces the site shows, and where these are from."""
    traces, rows, facts = RESULTS / "traces", [], {}
    for workload in ("wide", "small"):
        for chapter, name in (("ch1_sync", "chapter 1"), ("ch3_events", "chapter 3")):
            file = traces / f"{workload}-{chapter}.json"
            rows.append(_row(f"`{workload}`, {name}", file, traces / f"{workload}-ch5_carry_over.json"))
            source = stored(f"traces/{file.name}")["otherData"]
            facts[source["command"]] = source
    return _table(rows, next(iter(facts.values())) | {"command": "`, `".join(facts)})


def _row(what: str, trace: Path, twin: Path) -> str:
    found, after = report(trace), report(twin).typical
    mine, law = found.typical, found.typical.law
    times = mine.kernels, mine.launching, mine.host, mine.step, law.asynchronous, after.step
    return f"| {what} | {found.verdict.kind} | {' | '.join(f'{1e3 * seconds:.2f}' for seconds in times)} |"


@functools.cache
def report(trace: Path) -> Report:
    """What `acb idle` makes of a trace of one GPU."""
    (found,) = analyse(read(trace))
    return found


def _table(rows: list[str], source: dict[str, str]) -> str:
    return "\n".join([*HEAD, *rows]) + f"\n\n<small markdown>{origin(source)}</small>"
