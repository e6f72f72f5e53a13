"""The recorded traces of real engines, as the tests hold `acb idle` to them: what one foretells of its twin."""

import json
from pathlib import Path

from drawings import origin

from acb_minimal.trace.idle import Report, analyse, read

DATA = Path(__file__).parents[2] / "tests" / "data"


def foretold() -> str:
    """A row for each synchronous engine that has an asynchronous twin, and where the traces are from."""
    facts = json.loads((DATA / "recorded.json").read_text())
    lines = ["| synchronous engine | verdict | K | L | H | step | all of it hidden | its asynchronous twin |"]
    lines.append("| --- | --- |" + " ---: |" * 6)
    for name, entry in facts.items():
        if entry["twin"]:
            found, twin = report(name), report(entry["twin"])
            mine, law = found.typical, found.typical.law
            times = (mine.kernels, mine.launching, mine.host, mine.step, law.asynchronous, twin.typical.step)
            cells = " | ".join(f"{1e3 * seconds:.2f}" for seconds in times)
            lines.append(f"| {entry['what']} | {found.verdict.kind} | {cells} |")
    commands = "`, `".join(dict.fromkeys(entry["command"] for entry in facts.values()))
    source = origin(next(iter(facts.values()))["environment"] | {"command": commands})
    return "\n".join(lines) + f"\n\n<small markdown>{source}</small>"


def report(name: str) -> Report:
    (found,) = analyse(read(DATA / f"{name}.json.gz"))
    return found
