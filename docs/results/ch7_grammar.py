"""Chapter 7: the decode step of an engine that masks, against what its masks take.

    python docs/results/ch7_grammar.py          # on a GPU: makes ch7_grammar.json anew
    python docs/results/ch7_grammar.py --sim    # a rehearsal on the simulator; stores nothing

Two engines: chapter 7, which retires a batch while the next one computes, and the same with that batch retired first.
Decodes are launched as graphs as far as the scores; sampling is launched by itself. Real masks are written and
uploaded in every step, 128,256 bits a row; what a grammar takes to find them is added, busily. K is what a batch
takes the GPU (its compute spans). L, M and H are the host's, of the engine that retires in between and of the same
steps: to launch, to write the masks, and the rest of a step but for its wait.

Then the same engines with masks of a library's, for a JSON schema, if llguidance is installed: M is what they take.
"""

import json
import statistics
import sys

from common import need_gpu, store

from acb_minimal.errors import InputError
from acb_minimal.grammar import Grammar, JsonSchema
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import load_chapter, retiring_first
from acb_minimal.run.options import Options
from acb_minimal.run.session import Session
from acb_minimal.run.workload import workload
from acb_minimal.trace.spans import LAUNCHES

WORKLOADS = ("small", "long")
MASK_WORK = (0.0, 1e-3, 2e-3, 4e-3, 8e-3, 12e-3, 16e-3)  # seconds added to a step, each in turn
STEPS, SETTLING = 24, 12  # decode steps with each of them, of which the first are not counted
COLUMNS = {"workload": "", "masks": "", "M": ".2f", "K": ".2f", "L": ".2f", "H": ".2f"} | dict.fromkeys(
    ("the host waits", "retired in between", "max(K, L + M + H)", "retired first", "max(K, L + M) + H"), ".2f"
)
WAYS = {"chapter 5, no grammar": ("ch5", None), "chapter 5, a table on the GPU": ("ch5", "table:any"),
        "chapter 7, masks of the host's": ("ch7", "any")}  # fmt: skip
SCHEMA = {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}},
                                     "required": ["name"], "additionalProperties": False}}  # fmt: skip
NOTE = (
    "ms per decode step, medians. K: kernels of a batch; L: launching, sampling too; M: writing masks; H: the rest of "
    "the host's work; waits: for the tokens of N. L, M and H are of the engine that retires N in between, in the same "
    "steps, and say what the other one should take."
)


class Words:
    """As many words as a large vocabulary has, as llguidance takes a tokenizer: bytes, then letters and digits, then
    whatever it takes."""

    eos_token_id, bos_token_id, special_token_ids = 256, None, (256,)

    def __init__(self, count: int):
        letters = "etaoinsrhldcumfpgwybvkxjqz ETAOINSRHL0123456789"
        longer = (f"{a}{b}{c}{d}".encode() for a in letters for b in letters for c in letters for d in letters)
        self.tokens = [*(bytes([byte]) for byte in range(256)), b"<end>"]
        self.tokens += [next(longer) for _ in range(count - len(self.tokens))]

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def added(number: int) -> float:
    """The mask work of a batch of that number."""
    return MASK_WORK[number // STEPS % len(MASK_WORK)]


def run(name: str, checkpoint: Checkpoint, engine: type, grammar: str | Grammar, work, steps: int, device: str):
    """A session that has served, with a trace, and the number of its first batch that all rows decode in."""
    load = workload(name)
    prefills = -(-load.requests * load.prompt_tokens // load.max_batch_tokens)
    load = load.override(new_tokens=prefills + steps + 2 * STEPS)
    options = Options(graphs=True, grammar=grammar)
    session = Session(load.job(checkpoint.vocab_size), engine, checkpoint, device, options, trace=True)
    session.mask_work = work
    session.serve()
    widest = max(step.rows for step in session.done if step.decodes)
    first = next(n for n, step in enumerate(session.done) if step.decodes and step.rows == widest)
    return session, first


def step(session: Session, numbers: list[int]) -> float:
    """Median seconds of these batches' steps."""
    return statistics.median(session.done[n].time - session.done[n - 1].time for n in numbers)


def on_gpu(session: Session, numbers: list[int]) -> float:
    """Median seconds of the compute spans of these batches."""
    spans = dict.fromkeys(numbers, 0.0)
    for span in session.trace.lane("compute"):
        if span.batch_number in spans:
            spans[span.batch_number] += span.seconds
    return statistics.median(spans.values())


def masks(session: Session, numbers: list[int]) -> float:
    """Median seconds that writing the masks of these batches took."""
    return statistics.median(span.seconds for span in session.trace.lane("CPU")
                             if span.name == "masks" and span.batch_number in set(numbers))  # fmt: skip


def launching(session: Session, numbers: list[int]) -> float:
    """Median seconds that the host took to launch these batches, copies included."""
    spans = dict.fromkeys(numbers, 0.0)
    for span in session.trace.lane("CPU"):
        if span.name in (*LAUNCHES, "upload", "download") and span.batch_number in spans:
            spans[span.batch_number] += span.seconds
    return statistics.median(spans.values())


def waiting(session: Session, numbers: list[int]) -> float:
    """Median seconds that the host waited from the masks of these batches to the tokens."""
    spans, waited = session.trace.lane("CPU"), []
    written = {span.batch_number: span.end for span in spans if span.name == "masks"}
    taken = {span.batch_number: span.start for span in spans if span.name == "update"}
    for n in numbers:
        waits = (span.seconds for span in spans if span.name == "wait" and written[n] <= span.start < taken[n])
        waited.append(sum(waits))
    return statistics.median(waited)


def followed(name: str, device: str) -> list:
    """One workload, by who follows the grammar."""
    checkpoint, found = Checkpoint(workload(name).model), [name]
    for chapter, grammar in WAYS.values():
        session, first = run(name, checkpoint, load_chapter(chapter), grammar, lambda number: 0.0, STEPS, device)
        found.append(1e3 * step(session, list(range(first + SETTLING, first + STEPS))))
    return found


def rows(name: str, device: str) -> list[list]:
    """One workload, with each amount of mask work; and with a library's masks, if it is there."""
    checkpoint = Checkpoint(workload(name).model)
    engines = load_chapter("ch7"), retiring_first("ch7")
    found = []

    def row(kind: str, between: Session, first: Session, numbers: list[int]) -> None:
        m, k, launch = masks(between, numbers), on_gpu(first, numbers), launching(between, numbers)
        waits, overlapped = waiting(between, numbers), step(between, numbers)
        h = overlapped - waits - launch - m
        laws = max(k, launch + m + h), max(k, launch + m) + h
        seconds = m, k, launch, h, waits, overlapped, laws[0], step(first, numbers), laws[1]
        found.append([name, kind, *(1e3 * each for each in seconds)])

    both = [run(name, checkpoint, e, "any", added, STEPS * len(MASK_WORK), device) for e in engines]
    start = -(-max(first for _, first in both) // (STEPS * len(MASK_WORK))) * STEPS * len(MASK_WORK)
    if start + STEPS * len(MASK_WORK) > min(len(session.done) for session, _ in both):
        start = -(-max(first for _, first in both) // STEPS) * STEPS  # turns in another order do as well
    turns = {added(n): list(range(n + SETTLING, n + STEPS))
             for n in range(start, start + STEPS * len(MASK_WORK), STEPS)}  # fmt: skip
    for seconds in MASK_WORK:
        row("work added", both[0][0], both[1][0], turns[seconds])
    try:
        import llguidance

        words = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Words(checkpoint.vocab_size)))
        schema = JsonSchema(json.dumps(SCHEMA), words, checkpoint.vocab_size, (Words.eos_token_id,))
    except (ImportError, InputError) as error:
        print(f"no masks of a library: {error}")
        return found
    if device != "sim":  # which computes no tokens for this model, so that no grammar would go on
        both = [run(name, checkpoint, e, schema, lambda number: 0.0, STEPS, device) for e in engines]
        start = max(first for _, first in both)
        row("JSON schema", both[0][0], both[1][0], list(range(start + SETTLING, start + STEPS)))
    return found


if __name__ == "__main__":
    simulated = "--sim" in sys.argv
    if not simulated:
        need_gpu()
    machine = "sim" if simulated else "cuda"
    table = [row for name in WORKLOADS for row in rows(name, machine)]
    store("ch7_grammar.json", "grammar", "Masks beside the forward pass", COLUMNS, table, NOTE)
    table = [followed(name, machine) for name in WORKLOADS]
    title, columns = "Who follows the grammar, ms per decode step", {"workload": ""} | dict.fromkeys(WAYS, ".2f")
    store("ch7_grammar.json", "followed", title, columns, table, "Decodes are launched as graphs.")
