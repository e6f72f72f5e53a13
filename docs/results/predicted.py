"""What `acb idle` predicts from traces of synchronous engines, and what their asynchronous twins did.

    python docs/results/predicted.py        # needs no GPU: the traces are in tests/data and docs/results/traces

Writes predicted.json.
"""

import json
from pathlib import Path

from acb_minimal.measure.result_table import ResultTable
from acb_minimal.trace.idle import Report, analyse, read

RESULTS = Path(__file__).parent
DATA = RESULTS.parents[1] / "tests" / "data"
COLUMNS = ("K", "L", "H", "step", "all of it hidden", "its asynchronous twin")
SPEEDUPS = {"speedup predicted": "", "with --step-ms": "", "measured without a profiler": ""}
GRAPHS = ("and launched as graphs", "chapter 6")


def main() -> None:
    recorded = json.loads((DATA / "recorded.json").read_text())
    pairs, commands, last = [], [], {}
    for name, entry in recorded.items():
        commands, last = dict.fromkeys([*commands, entry["command"]]), entry["environment"]
        if entry["twin"]:
            pairs.append((entry["what"], DATA / f"{name}.json.gz", DATA / f"{entry['twin']}.json.gz"))
    speedups = [said(name, entry, recorded) for name, entry in recorded.items() if entry["twin"]]
    save("by_profiler", COLUMNS, pairs, last | {"date": "2026-11-21 and 2026-12-01"}, commands, speedups)

    traces, twins = RESULTS / "traces", ("ch5_carry_over", "ch6_cuda_graphs")
    rows = [
        (f"`{workload}`, chapter {chapter[2]}", *(traces / f"{workload}-{each}.json" for each in (chapter, *twins)))
        for workload in ("wide", "small", "long")
        for chapter in ("ch1_sync", "ch3_events")
    ]
    sources = [json.loads(trace.read_text())["otherData"] for _, trace, *_ in rows]
    environment = {name: value for name, value in sources[0].items() if name not in ("command", "chapter", "prompts")}
    save("by_events", COLUMNS + GRAPHS, rows, environment, dict.fromkeys(each["command"] for each in sources))


def save(
    name: str, columns: tuple[str, ...], pairs: list[tuple], environment: dict, commands: dict, more: list | None = None
) -> None:
    """A row for each synchronous engine: its name, its trace, and its twins'; and what more there is to each."""
    heads = {"synchronous engine": "", "verdict": ""} | dict.fromkeys(columns, ".2f")
    rows = [row(what, *map(report, traces)) for what, *traces in pairs]
    if more:  # in place of what a step takes under the profiler
        heads = dict(list(heads.items())[:6]) | SPEEDUPS
        rows = [[*begin[:6], *end] for begin, end in zip(rows, more, strict=True)]
    found = ResultTable("What a synchronous engine predicts, ms", heads, rows, "", environment, "`, `".join(commands))
    found.save(RESULTS / "predicted.json", name)


def said(name: str, entry: dict, recorded: dict[str, dict]) -> list[str]:
    """The speedup that is predicted, without and with `--step-ms`, and what was measured without a profiler; "-" where
    nothing is, or was."""
    before, own = report(DATA / f"{name}.json.gz"), entry["step_ms"]
    if before.verdict.kind == "launch-bound":
        return ["none", "none", f"{own / recorded[entry['twin']]['step_ms']:.2f}"]
    low, high = before.typical.without_profiler.speedups(before.least)
    if own is None:
        return [f"{low:.2f} to {high:.2f}", "-", "-"]
    closed = report(DATA / f"{name}.json.gz", own / 1e3)
    point = closed.typical.without_profiler.scaled(closed.least).speedup
    return [f"{low:.2f} to {high:.2f}", f"{point:.2f}", f"{own / recorded[entry['twin']]['step_ms']:.2f}"]


def row(what: str, before: Report, twin: Report, graphs: Report | None = None) -> list:
    mine, law = before.typical, before.typical.law
    times = [law.on_gpu, law.launching, law.host, mine.step, law.asynchronous, twin.typical.step]
    times += [mine.as_graphs, graphs.typical.step] if graphs else []
    return [what, before.verdict.kind, *(1e3 * seconds for seconds in times)]


def report(trace: Path, step: float | None = None) -> Report:
    (found,) = analyse(read(trace), step=step)
    return found


if __name__ == "__main__":
    main()
