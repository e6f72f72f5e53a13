"""Examples worked by the real code when the site is built: a batch in its slot, a hazard and the clocks behind it,
which tokens are carried over, how a page changes hands. Nothing is measured.
"""

import functools
import inspect
import textwrap

import griffe
import widgets
from dialled import Dialled
from recorder import Recorder, watch

from acb_minimal.check import tables
from acb_minimal.check.actions import HOST
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
from acb_minimal.trace.formatting import markdown

QUEUED = {"A": [11, 12, 13], "B": [21, 22, 23, 24, 25, 26, 27]}
PAGES, PAGE_SIZE, BUDGET = 8, 4, 6


def written() -> str:
    """The second batch of two requests as a slot holds it, the first one being still on the GPU: every view, what is in
    it, and what that means."""
    scheduler = Scheduler(PagePool(PAGES, PAGE_SIZE), len(QUEUED), BUDGET, 100, 100)
    for name, prompt in QUEUED.items():
        scheduler.add(Request(name, prompt, 4))
    device = SimulatedDevice(Costs.of("counter"))
    slot = IOSlot(SlotSize(len(QUEUED), BUDGET, PAGES), PAGE_SIZE, PAGES, device)
    for _ in range(2):
        batch = scheduler.schedule()
        slot.write(batch)
    views = slot.host_inputs.trim(batch.num_tokens, len(batch.rows), len(batch.sampled))
    _, told = griffe.Docstring(inspect.getdoc(Inputs)).parse("google", warnings=False)
    lines = []
    for field in told.value:
        # Past a row's pages, its row of the page table holds what nobody reads.
        rows = [row.request.pages for row in batch.rows] if field.name == "page_table" else [getattr(views, field.name)]
        shown = " / ".join(" ".join(map(str, row)) for row in rows)
        lines.append((f"`{field.name}`", f"`{shown}`", " ".join(field.description.splitlines())))
    return markdown(("view", 'in this batch {: style="min-width: 9rem" }', "what it says"), lines, [False] * 3)


def clocks(chapter: str, *without: str) -> str:
    """The actions of a chapter's first batch up to its forward pass; of each, what is over before it begins."""
    outcome = _served(chapter, *without)
    begun = [action for kind, action in outcome.events if kind == "issued" or (kind, action.actor) == ("done", HOST)]
    actions = begun[: 1 + [action.what for action in begun].index("forward")]
    names = outcome.names[: 1 + max(action.actor for action in actions)]
    lines = []
    for action in actions:
        past = dict(enumerate(action.past)) | {action.actor: ""}
        cells = (str(past.get(actor, 0)) for actor in range(len(names)))
        lines.append((str(action.number), names[action.actor], action.what, *cells))
    heads = "number", "who", "what", *(f"{name} up to" for name in names)
    return markdown(heads, lines, [True, False, False, *[True] * len(names)])


def problem(chapter: str, *without: str) -> str:
    """What `acb check` says of a chapter without these statements."""
    lines = str(tables.problem(_served(chapter, *without))).splitlines()
    return "\n".join(["```text", *(textwrap.fill(line, 92, subsequent_indent="  ") for line in lines), "```"])


@functools.cache
def _served(chapter: str, *without: str) -> Outcome:
    return replay(engines.without(chapter, *without), "0")  # clocks are the same under any schedule


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


def handed_on() -> str:
    """Chapter 4: what becomes of the page of the first request, which finishes with a row in the next batch, up to when
    that row's writing is written over: a table."""
    seen, did, ended = served("ch4"), [], None  # what the host does for which batch; when the request is finished
    for call in seen.calls:
        if call.get("what") in ("schedule", "forward", "update"):
            did.append((call["what"], call.get("batch")))
        if ended is None and len(call.get("answers", {}).get("0", ())) == PAIRS[0][1] - PAIRS[0][0] + 2:
            ended = len(did)
    late = next(number for what, number in did[ended:] if what == "forward")
    row, (page, *_) = next(zip(seen.batches[late].rows, seen.pages[late], strict=True))
    who = f"`{name(row.request)}`"
    told = {
        ("schedule", late): f"schedules batch {late}, with a row for {who}",
        ("update", late - 1): f"takes in batch {late - 1}: **{who} is finished, its page is free**",
        ("update", late): f"takes in batch {late}: drops the token of {who}",
    }
    lines, owner = [], row.request
    for what, number in did[did.index(("forward", late - 1)) :]:
        both = zip(seen.batches[number].rows, seen.pages[number], strict=True)
        user = next((user for user, pages in both if page in pages), None)
        if what == "schedule" and user and user.request is not owner:
            owner = user.request
            told[what, number] = f"schedules batch {number}: **`{name(owner)}` gets the page**"
        if what != "forward":
            lines += [(told[what, number], "", "")] if (what, number) in told else []
        elif user:
            first, last = user.start, user.start + user.length - 1
            dead = ", dead," if number == late and user.request is row.request else ""
            where = f"positions {first} to {last}" if last > first else f"position {first}"
            writes = f"`{name(user.request)}`{dead} writes {where}"
            lines.append((f"launches batch {number}", writes, f"0 to {last}"))
            if owner is not row.request and last >= row.start:
                break
    return markdown(("the host, in order", "what is written to the page", "positions read"), lines, [False] * 3)


def carried_over() -> str:
    """Chapter 5: the tokens of a batch on their way into the next one, in which rows have changed place: two tables."""
    seen = served("ch5")
    held = {(call["what"], call["batch"]): call["then"] for call in seen.calls if "then" in call}

    def carried(number: int) -> list[int]:
        """Of each token of a batch where it is among the outputs of the one before; -1 if it is not from there."""
        before, after = seen.batches[number - 1], seen.batches[number]
        ids = [before.rows[place].request.id for place in before.sampled]
        each = [row.request.id for row in after.rows for _ in range(row.length)]
        return [ids.index(id) if id in ids else -1 for id in each]

    def moves(number: int) -> bool:
        return any(index not in (-1, place) for place, index in enumerate(carried(number)))

    number = next(filter(moves, sorted(seen.batches)[1:]))
    before, after, places = seen.batches[number - 1], seen.batches[number], carried(number)
    sampled, outputs, inputs = held["forward", number - 1]["outputs"], [], []
    for index, place in enumerate(before.sampled):
        token = f"<mark>{sampled[index]}</mark>" if index in places else f"<s>{sampled[index]}</s>"
        outputs.append((index, name(before.rows[place].request), token))
    requests = [name(row.request) for row in after.rows for _ in range(row.length)]
    written, read = held["write", number]["pinned inputs"], held["carry_over", number]["inputs"]
    for request, id, index, token in zip(requests, written, places, read, strict=True):
        both = (id, token) if index < 0 else (f"<i>{id}</i>", f"<mark>{token}</mark>")
        inputs.append((request, both[0], index, both[1]))
    heads = "request", "the host wrote", "<code>carry_over</code>", "the GPU reads"
    made = _table(f"Batch {number - 1}, outputs", ("index", "request", "token"), outputs)
    made += _table(f"Batch {number}, inputs", heads, inputs)
    told = "What chapter 5 did on the simulated GPU when this page was built."
    return f'<figure class="carried" markdown="0">{made}</figure>{widgets.source([told])}\n'


def _table(caption: str, heads: tuple, lines: list[tuple]) -> str:
    rows = ["".join(f"<th>{head}</th>" for head in heads)]
    rows += ["".join(f"<td>{cell}</td>" for cell in line) for line in lines]
    return f"<div><table><caption>{caption}</caption>{''.join(f'<tr>{row}</tr>' for row in rows)}</table></div>"
