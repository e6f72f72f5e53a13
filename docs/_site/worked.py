"""Examples worked by the real code when the site is built: a batch in its slot, a hazard and the clocks behind it,
which tokens are carried over, how a page changes hands. Nothing is measured.
"""

import functools
import inspect
import textwrap

import griffe
import widgets

from acb_minimal.check import tables
from acb_minimal.check.actions import HOST, Action
from acb_minimal.check.judge import Outcome
from acb_minimal.check.schedules import replay
from acb_minimal.kv_cache import PagePool
from acb_minimal.models import counter
from acb_minimal.request import Batch, Request
from acb_minimal.run import engines
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.session import Session
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


class Watched(SimulatedDevice):
    """Keeps what batches take in and bring out.

    log      what the host did for a batch, in order: what, and the batch's number
    batches  each batch, by number; `pages` and `dead`: each one's pages, and its requests that had finished before it
             was launched
    ids      token ids of each batch as the host wrote them, and as the forward pass reads them
    source   its carry-over index
    sampled  the tokens it made
    """

    def __init__(self):
        super().__init__(Costs.of("counter"))
        self.log: list[tuple[str, int]] = []
        self.batches: dict[int, Batch] = {}
        self.pages: dict[int, list[int]] = {}
        self.dead: dict[int, list[Request]] = {}
        self.ids: dict[int, tuple[list[str], list[str]]] = {}
        self.source: dict[int, list[int]] = {}
        self.sampled: dict[int, list[str]] = {}

    def spent(
        self, what: str, since: float, rows: int, batch_number: int | None = None, slot: str | None = None
    ) -> None:
        super().spent(what, since, rows, batch_number, slot)
        self.log.append((what, batch_number))

    def compute(self, what: str, work: IOSlot, run) -> None:
        number, inputs, outputs = work.batch.number, work.written.inputs, work.written.outputs
        ids, source = inputs.input_ids, inputs.carry_over

        def watched() -> None:
            written = words(ids)
            run()
            if what == "carry_over":
                self.ids[number], self.source[number] = (written, words(ids)), source.tolist()
            else:
                self.sampled[number] = words(outputs)

        if what == "forward":
            self.log.append(("launch", number))
            requests = [row.request for row in self.batches[number].rows] if number in self.batches else []
            self.dead[number] = [request for request in requests if request.finish_reason]
        super().compute(what, work, watched)


@functools.cache
def checkpoint() -> Checkpoint:
    return Checkpoint("counter")


def words(ids) -> list[str]:
    return [checkpoint().decode([token]) or "end" for token in ids.tolist()]


def name(request: Request) -> str:
    return "{} to {}".format(*PAIRS[int(request.id)])


@functools.cache
def served(chapter: str) -> Watched:
    """What a chapter's engine did for the five prompts."""
    device = Watched()
    prompts = [counter.prompt(*pair) for pair in PAIRS]
    job = Job(prompts, max_new_tokens=8, max_running=4, max_batch_tokens=16, page_size=16)
    session = Session(job, chapter, checkpoint(), device)
    schedule = session.scheduler.schedule

    def watched() -> Batch | None:
        if batch := schedule():
            device.batches[batch.number] = batch
            device.pages[batch.number] = [row.request.pages[0] for row in batch.rows]
        return batch

    session.scheduler.schedule = watched
    session.serve()
    return device


# --- chapter 4: how a page changes hands ---


def handed_on() -> str:
    """What becomes of the page of the first request that finishes with a row in the next batch: a table in Markdown,
    up to when that row's writing is written over."""
    seen = served("ch4")
    late = next(number for number, dead in sorted(seen.dead.items()) if dead)
    row = next(row for row in seen.batches[late].rows if row.request in seen.dead[late])
    page = seen.pages[late][seen.batches[late].rows.index(row)]
    told = {
        ("schedule", late): f"schedules batch {late}, with a row for `{name(row.request)}`",
        ("update", late - 1): f"takes in batch {late - 1}: **`{name(row.request)}` is finished, its page is free**",
        ("update", late): f"takes in batch {late}: drops the token of `{name(row.request)}`",
    }
    lines = ["| the host, in order | what is written to the page | positions read |", "| --- | --- | --- |"]
    owner = row.request
    for did in seen.log[seen.log.index(("launch", late - 1)) :]:
        what, number = did
        users = [row for row, its in zip(seen.batches[number].rows, seen.pages[number], strict=True) if its == page]
        if what == "schedule" and users and users[0].request is not owner:
            owner = users[0].request
            told[did] = f"schedules batch {number}: **`{name(owner)}` gets the page**"
        if what != "launch":
            lines += [f"| {told[did]} | | |"] if did in told else []
        elif users:
            request, start, length, _ = users[0]
            who = f"`{name(request)}`" + ", dead," * (request in seen.dead[number])
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
    number = next(number for number in sorted(seen.source) if moved(seen.source[number]))
    before, after = seen.batches[number - 1], seen.batches[number]
    sampled, (written, read), source = seen.sampled[number - 1], seen.ids[number], seen.source[number]
    made = [f"<div><table><caption>Batch {number - 1}, outputs</caption>", _row("th", "index", "request", "token")]
    for index, place in enumerate(before.sampled):
        text = f"<mark>{sampled[index]}</mark>" if index in source else f"<s>{sampled[index]}</s>"
        made.append(_row("td", index, name(before.rows[place].request), text))
    made.append(f"</table></div><div><table><caption>Batch {number}, inputs</caption>")
    made.append(_row("th", "request", "the host wrote", "<code>carry_over</code>", "the GPU reads"))
    requests = [name(row.request) for row in after.rows for _ in range(row.length)]
    for request, id, index, token in zip(requests, written, source, read, strict=True):
        known = index < 0
        cells = (id, index, token) if known else (f"<i>{id}</i>", index, f"<mark>{token}</mark>")
        made.append(_row("td", request, *cells))
    told = "What chapter 5 did on the simulated GPU when this page was built."
    return f'<figure class="carried" markdown="0">{"".join(made)}</table></div></figure>{widgets.source([told])}\n'


def _row(tag: str, *cells) -> str:
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"


def moved(source: list[int]) -> bool:
    """Whether a carried token comes from another place than its own."""
    return any(index >= 0 and index != place for place, index in enumerate(source))
