"""Small examples, run by the real code when the site is built: a batch in its slot, a hazard and the clocks behind it.

Nothing here is measured. Each returns Markdown.
"""

import inspect
import textwrap

import griffe

from acb_minimal.check import tables
from acb_minimal.check.judge import Outcome
from acb_minimal.check.race_detector import HOST, Action
from acb_minimal.check.schedules import replay
from acb_minimal.kv_cache import PagePool
from acb_minimal.request import Request
from acb_minimal.run import engines
from acb_minimal.scheduler import Scheduler
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.slot import Inputs, IOSlot, SlotSize

PROMPTS = {"A": [11, 12, 13], "B": [21, 22, 23, 24, 25, 26, 27]}
PAGES, PAGE_SIZE, BUDGET = 8, 4, 6
SEED = "0"  # of the schedule under which an engine is looked at; clocks are the same under any


def written() -> str:
    """The second batch of two requests as a slot holds it, the first one being still on the GPU: every view, what is in
    it, and what that means."""
    device = SimulatedDevice(Costs.of("counter"))
    scheduler = Scheduler(PagePool(PAGES, PAGE_SIZE), len(PROMPTS), BUDGET, 100, 100)
    for name, prompt in PROMPTS.items():
        scheduler.add(Request(name, prompt, 4))
    slot = IOSlot(SlotSize(len(PROMPTS), BUDGET, PAGES), PAGE_SIZE, PAGES, device)
    for _ in range(2):
        batch = scheduler.schedule()
        slot.write(batch)
    views = slot.host_inputs.trim(batch.num_tokens, len(batch.rows), len(batch.sampled))
    lines = ['| view | in this batch {: style="min-width: 9rem" } | what it says |', "| --- | --- | --- |"]
    _, told = griffe.Docstring(inspect.getdoc(Inputs)).parse("google", warnings=False)
    for field in told.value:
        # Past a row's pages, its row of the page table holds what nobody reads.
        rows = [row.request.pages for row in batch.rows] if field.name == "page_table" else [getattr(views, field.name)]
        shown = " / ".join(" ".join(map(str, row)) for row in rows)
        lines.append(f"| `{field.name}` | `{shown}` | {' '.join(field.description.splitlines())} |")
    return "\n".join(lines)


def clocks(chapter: str, *without: str) -> str:
    """The actions of a chapter's first batch up to its forward pass; of each, what is over before it begins."""
    outcome = _served(chapter, *without)
    actions: list[Action] = []
    for kind, action in outcome.events:
        if kind == "issued" or (kind == "done" and action.actor == HOST):
            actions.append(action)
            if action.what == "forward":
                break
    actors = range(max(action.actor for action in actions) + 1)
    names = outcome.names[: len(actors)]
    lines = [f"| number | who | what | {' | '.join(f'{name} up to' for name in names)} |"]
    lines.append("| ---: | --- | --- |" + " ---: |" * len(names))
    for action in actions:
        past = [*action.past, *[0] * len(names)][: len(names)]
        cells = ["" if actor == action.actor else str(past[actor]) for actor in actors]
        lines.append(f"| {action.number} | {names[action.actor]} | {action.what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def problem(chapter: str, *without: str) -> str:
    """What `acb check` says of a chapter without these statements. Raises ValueError if there is nothing to say."""
    outcome = _served(chapter, *without)
    if outcome.clean:
        raise ValueError(f"nothing is wrong with {chapter} without {without}")
    lines = str(tables.problem(outcome)).splitlines()
    return "\n".join(["```text", *(textwrap.fill(line, 92, subsequent_indent="  ") for line in lines), "```"])


def _served(chapter: str, *without: str) -> Outcome:
    return replay(engines.without(chapter, *without), SEED)
