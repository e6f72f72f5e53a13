"""Examples worked by the real code when the site is built: a batch in its slot, a hazard and the clocks behind it,
which tokens are carried over, how a page changes hands. Nothing is measured.
"""

import functools
import inspect
import textwrap

import griffe
import widgets
from dialled import Dialled
from recorder import Recorder
from recording import watch

from acb_minimal.check import tables
from acb_minimal.check.actions import HOST, Action
from acb_minimal.check.judge import Outcome
from acb_minimal.check.schedules import replay
from acb_minimal.kv_cache import PagePool
from acb_minimal.models import counter
from acb_minimal.request import Request
from acb_minimal.run import engines
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.workload import Job
from acb_minimal.scheduler import Scheduler
from acb_minimal.sim.costs import Costs
from acb_minimal.sim.device import SimulatedDevice
from acb_minimal.slot import Inputs, IOSlot, SlotSize

QUEUED = {"A": [11, 12, 13], "B": [21, 22, 23, 24, 25, 26, 27]}
PAGES, PAGE_SIZE, BUDGET = 8, 4, 6
SEED = "0"  # of the schedule under which an engine is looked at; clocks are the same under any


def written() -> str:
    """The second batch of two requests as a slot holds it, the first one being still on the GPU: every view, what is in
    it, and what that means."""
    device = SimulatedDevice(Costs.of("counter"))
    scheduler = Scheduler(PagePool(PAGES, PAGE_SIZE), len(QUEUED), BUDGET, 100, 100)
    for name, prompt in QUEUED.items():
        scheduler.add(Request(name, prompt, 4))
    slot = IOSlot(SlotSize(len(QUEUED), BUDGET, PAGES), PAGE_SIZE, PAGES, device)
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


@functools.cache
def _served(chapter: str, *without: str) -> Outcome:
    return replay(engines.without(chapter, *without), SEED)


# The counter serves five prompts, at most four at a time; each request fits into one page, and is called by what it
# counts. Tokens are shown as what they stand for: token 0 is the number 0, which also stands where the host knows none.

PAIRS = [(3, 4), (10, 14), (7, 9), (50, 54), (20, 24)]


def name(request: Request) -> str:
    return "{} to {}".format(*PAIRS[int(request.id)])


@functools.cache
def served(chapter: str) -> Recorder:
    """What was seen of a chapter's engine as it served the five prompts."""
    prompts = [counter.prompt(*pair) for pair in PAIRS]
    job = Job(prompts, max_new_tokens=8, max_running=4, max_batch_tokens=16, page_size=16)
    return watch(engines.load_chapter(chapter), job, Checkpoint("counter"), Dialled.to(1e-2, 1e-3, 1e-3, 0.0))[0]


# --- chapter 4: how a page changes hands ---


def handed_on() -> str:
    """What becomes of the page of the first request that finishes with a row in the next batch: a table in Markdown,
    up to when that row's writing is written over."""
    seen, did, ended = served("ch4"), [], {}  # what the host does, for which batch; when a request has its last token
    for call in seen.calls:
        if call.get("what") in ("schedule", "forward", "update"):
            did.append((call["what"], call.get("batch")))
        for row in seen.batches[call["batch"]].rows if "answers" in call else ():
            if len(call["answers"][row.request.id]) == len(row.request.generated):
                ended.setdefault(row.request.id, len(did))

    def dead(number: int, request: Request) -> bool:
        return ended[request.id] <= did.index(("forward", number))

    late, row, page = next(
        (number, row, pages[0])
        for number, batch in sorted(seen.batches.items())
        for row, pages in zip(batch.rows, seen.pages[number], strict=True)
        if dead(number, row.request)
    )
    told = {
        ("schedule", late): f"schedules batch {late}, with a row for `{name(row.request)}`",
        ("update", late - 1): f"takes in batch {late - 1}: **`{name(row.request)}` is finished, its page is free**",
        ("update", late): f"takes in batch {late}: drops the token of `{name(row.request)}`",
    }
    lines = ["| the host, in order | what is written to the page | positions read |", "| --- | --- | --- |"]
    owner = row.request
    for what, number in did[did.index(("forward", late - 1)) :]:
        both = zip(seen.batches[number].rows, seen.pages[number], strict=True)
        users = [user for user, pages in both if page in pages]
        if what == "schedule" and users and users[0].request is not owner:
            owner = users[0].request
            told[what, number] = f"schedules batch {number}: **`{name(owner)}` gets the page**"
        if what != "forward":
            lines += [f"| {told[what, number]} | | |"] if (what, number) in told else []
        elif users:
            request, start, length, _ = users[0]
            who = f"`{name(request)}`" + ", dead," * dead(number, request)
            last = start + length - 1
            where = f"positions {start} to {last}" if length > 1 else f"position {start}"
            lines.append(f"| launches batch {number} | {who} writes {where} | 0 to {last} |")
            if owner is not row.request and last >= row.start:
                break
    return "\n".join(lines)


# --- chapter 5: which tokens are carried over ---


def carried_over() -> str:
    """The tokens of a batch on their way into the next one, in which rows have changed place: two tables."""
    seen = served("ch5")
    held = {(call["what"], call["batch"]): call["then"] for call in seen.calls if "then" in call}

    def source(number: int) -> list[int]:
        """Of each token of a batch where it is among the outputs of the one before; -1 if it is not from there."""
        before, after = seen.batches[number - 1], seen.batches[number]
        ids = [before.rows[place].request.id for place in before.sampled]
        each = [row.request.id for row in after.rows for _ in range(row.length)]
        return [ids.index(id) if id in ids else -1 for id in each]

    number = next(
        each
        for each in sorted(seen.batches)[1:]
        if any(index not in (-1, place) for place, index in enumerate(source(each)))
    )
    before, after, carried = seen.batches[number - 1], seen.batches[number], source(number)
    sampled = held["forward", number - 1]["outputs"]
    written, read = held["write", number]["pinned inputs"], held["carry_over", number]["inputs"]
    made = [f"<div><table><caption>Batch {number - 1}, outputs</caption>", _row("th", "index", "request", "token")]
    for index, place in enumerate(before.sampled):
        text = f"<mark>{sampled[index]}</mark>" if index in carried else f"<s>{sampled[index]}</s>"
        made.append(_row("td", index, name(before.rows[place].request), text))
    made.append(f"</table></div><div><table><caption>Batch {number}, inputs</caption>")
    made.append(_row("th", "request", "the host wrote", "<code>carry_over</code>", "the GPU reads"))
    requests = [name(row.request) for row in after.rows for _ in range(row.length)]
    for request, id, index, token in zip(requests, written, carried, read, strict=True):
        known = index < 0
        cells = (id, index, token) if known else (f"<i>{id}</i>", index, f"<mark>{token}</mark>")
        made.append(_row("td", request, *cells))
    told = "What chapter 5 did on the simulated GPU when this page was built."
    return f'<figure class="carried" markdown="0">{"".join(made)}</table></div></figure>{widgets.source([told])}\n'


def _row(tag: str, *cells) -> str:
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"
