"""Chapter 9: throughput against the number of KV pages, where requests end sooner than they may.

    python docs/results/ch9_preemption.py          # on a GPU: makes ch9_preemption.json anew
    python docs/results/ch9_preemption.py --sim    # on the simulator: makes its tables of tokens a second

Each request has a prompt of 512 tokens, may generate 1,024, and ends somewhere before: where, is drawn for each, as a
stop token would have it (the weights are random and end nowhere by themselves), and the scheduler does not know. Where
nearly all go to their limit, most of those that were admitted have to give way. A pool
of 100 % has as many pages as all requests that may run at a time can need. Three ways to spend a pool: chapter 5 with
all pages of a request reserved; chapter 5 with pages on demand, computed again after a preemption; chapter 9, which
copies them to the host and back. Decodes are launched as graphs.

A larger batch rounds its sums in another order, so that bf16 tokens can differ from pool to pool whatever the engine.
How many are the same is in the table. The counter, whose tokens are sure, has to give the same in every pool and way.
"""

import random
import statistics
import sys

from common import need_gpu, store

from acb_minimal.measure.metrics import Metrics
from acb_minimal.models import counter
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.devices import open_device
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import Job, workload

PROMPT, LIMIT, PAGE = 512, 1024, 64
WAYS = {"reserve": ("ch5", None), "recompute": ("ch5", "recompute"), "swap": ("ch9", "swap")}
WORKLOAD = workload("small")  # whose model it is, and how many at a time
WHOLE = WORKLOAD.max_running * -(-(PROMPT + LIMIT - 1) // PAGE)  # pages that these can need
# Requests, shares of the pool in percent, and the fewest tokens that one generates.
LOADS = {"small": (256, (100, 50, 35, 25), 32), "limit": (128, (50, 35), 900)}
SPEED = {"pool, %": "d", "pages": ",d"} | dict.fromkeys(WAYS, ",.0f")
SPEED_NOTE = "Tokens a second, of the whole run, in three ways of spending the pages."
WORK = {"pool, %": "d"} | {f"{way}: rows": ".0f" for way in WAYS}
WORK |= {"recompute: gave way": "d", "tokens again": ",d", "swap: gave way": "d", "copied, GB": ".1f", "same, %": ".1f"}
WORK_NOTE = (
    "rows: of a batch, on average. same: of the least of the three ways, the share of tokens that are those of the "
    "first line's, all pages reserved, place by place; after one that differs, others do."
)
COPIES = {"": "", "copies": "d", "MB each": ".0f", "ms each": ".2f", "GB/s": ".1f", "host, ms each": ".2f"}
COPIES |= {"beside a batch, %": ".0f"}
COPIES_NOTE = (
    "Medians of a traced run. host: to launch a copy. beside a batch: the share of the copies' time with a batch on "
    "the GPU."
)


def run(load: str, checkpoint: Checkpoint, way: str, pages: int, device: str, trace: bool = False):
    """A session that has served, and what was counted: requests that gave way, tokens computed again, pages copied."""
    chapter, preempt = WAYS[way]
    requests, _, shortest = LOADS[load]
    rows, rng = WORKLOAD.max_running, random.Random(0)
    prompts = [rng.choices(range(checkpoint.vocab_size), k=PROMPT) for _ in range(requests)]
    ends = [rng.randint(shortest, LIMIT) for _ in prompts]
    job = Job(prompts, LIMIT, rows, 8192, PAGE, pages, preempt, rows // 2, ignore_stop=True)
    session = Session(job, chapter, checkpoint, device, Options(graphs=True), trace)
    scheduler, counted = session.scheduler, {"gave way": 0, "again": 0, "copied": 0}
    session.moved = {"swap_out": [], "swap_in": []}  # pages of each copy
    scheduler.finish_reason = lambda request, token: (
        "stop" if len(request.generated) >= ends[int(request.id)] else None
    )
    if preempt:
        give_way, begin = scheduler.give_way, scheduler.begin

        def giving_way(request) -> None:
            counted["gave way"] += 1
            give_way(request)
            if request.berth is not None:
                session.moved["swap_out"].append(len(scheduler.moves.out[-1].pages))

        def beginning(request) -> None:
            counted["again"] += request.scheduled if request.berth is None else 0
            begin(request)
            if request.berth is not None:
                session.moved["swap_in"].append(len(scheduler.moves.back[-1].pages))

        scheduler.give_way, scheduler.begin = giving_way, beginning
    tokens = [one.tokens for one in session.serve()]
    counted["copied"] = sum(map(sum, session.moved.values()))
    return session, tokens, counted


def page_bytes(checkpoint: Checkpoint) -> int:
    """Of one page, in all layers."""
    return 2 * sum(layer.kv_heads * layer.head_dim for layer in checkpoint.layers) * PAGE * checkpoint.dtype.itemsize


def rows(load: str, checkpoint: Checkpoint, device: str) -> tuple[list[list], list[list]]:
    """One load, with each pool: how fast that was, and what was done."""
    page, speed, work, right = page_bytes(checkpoint), [], [], None
    for share in LOADS[load][1]:
        pages, found, same = WHOLE * share // 100, {}, 100.0
        for way in WAYS:
            session, tokens, counted = run(load, checkpoint, way, pages, device)
            right = right or tokens
            alike = [a == b for pair in zip(tokens, right, strict=True) for a, b in zip(*pair, strict=True)]
            same = min(same, 100 * sum(alike) / len(alike))
            average = sum(step.rows for step in session.done) / len(session.done)
            found[way] = Metrics.of(session).tokens_per_second, average, counted
            print(load, share, way, f"{found[way][0]:,.0f} tokens/s, {average:.0f} rows", counted, same, flush=True)
        again, swapped = found["recompute"][2], found["swap"][2]
        told = again["gave way"], again["again"], swapped["gave way"], swapped["copied"] * page / 1e9
        speed.append([share, pages, *(found[way][0] for way in WAYS)])
        work.append([share, *(found[way][1] for way in WAYS), *told, same])
    return speed, work


def copies(checkpoint: Checkpoint, device: str) -> list[list]:
    """What copies of chapter 9 took where there are many, and what ran beside them."""
    session, *_ = run("limit", checkpoint, "swap", WHOLE * 35 // 100, device, trace=True)
    batches, found = list(session.trace.batches().values()), []
    for lane, what in (("D2H", "swap_out"), ("H2D", "swap_in")):
        spans = [span for span in session.trace.lane(lane) if span.name == what]
        launches = [span.seconds for span in session.trace.lane("CPU") if span.name == what]
        sizes = session.moved[what]
        seconds = statistics.median(span.seconds for span in spans)
        covered = sum(max(min(end, span.end) - max(start, span.start), 0) for span in spans for start, end in batches)
        size = statistics.median(sizes) * page_bytes(checkpoint)
        rate = sum(sizes) * page_bytes(checkpoint) / sum(span.seconds for span in spans)
        host, beside = statistics.median(launches), covered / sum(span.seconds for span in spans)
        found.append([what, len(spans), size / 1e6, 1e3 * seconds, rate / 1e9, 1e3 * host, 100 * beside])
    return found


def counts(device: str) -> None:
    """Ends the script if the counter does not count right, in whatever pool."""
    rng = random.Random(0)
    pairs = [(start, start + rng.randint(0, 40)) for start in rng.choices(range(900), k=60)]
    checkpoint, prompts = Checkpoint("counter"), [counter.prompt(*pair) for pair in pairs]
    for pages in (12, 16, 24, 48):
        for way, (chapter, preempt) in WAYS.items():
            job = Job(prompts, 44, 16, 64, 4, pages, preempt)
            texts = [one.text for one in Session(job, chapter, checkpoint, device).serve()]
            if texts != [counter.answer(*pair) for pair in pairs]:
                sys.exit(f"the counter is wrong: {way}, {pages} pages")
    print("the counter is right in every pool", flush=True)


if __name__ == "__main__":
    simulated = "--sim" in sys.argv
    if not simulated:
        need_gpu()
    where = "sim" if simulated else "cuda"
    counts(where)
    model = Checkpoint(WORKLOAD.model)
    for load, (_, _, fewest) in LOADS.items():
        title = f"Pages on demand: {model.name}, {WORKLOAD.max_running} at a time, {fewest} to {LIMIT:,} new tokens"
        speed, work = rows(load, model, where)
        store("ch9_preemption.json", load, title, SPEED, speed, SPEED_NOTE, open_device(where, model))
        store("ch9_preemption.json", f"{load}-work", title, WORK, work, WORK_NOTE)
    title = f"Copies of KV pages beside batches: {model.name}"
    store("ch9_preemption.json", "copies", title, COPIES, copies(model, where), COPIES_NOTE)
