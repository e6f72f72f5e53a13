"""Which kinds of parts a run needs: plain ones, or those that know grammars, sample as requests ask for, or speculate.

An engine that asks for none, whose requests do not either, gets those that know of nothing: they cost nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from ..errors import InputError
from ..grammar import GrammarModel, GrammarScheduler, GrammarSlot
from ..grammar_table import TableModel, Tables
from ..model import Model
from ..preemption import PreemptingScheduler, SwappingScheduler
from ..request import Request
from ..sampler import SamplingSlot
from ..sampling import Asked, Sampling, SamplingRequest, SamplingScheduler
from ..scheduler import Scheduler
from ..speculation import SpeculatingModel, SpeculatingRequest, reserve_for
from .checkpoint import Checkpoint
from .engines import carries_over, copies_pages, keeps_state, samples, verifies
from .grammars import TABLE, grammars
from .mistakes import ForgettingScheduler, mistaken
from .options import Options
from .part_two import CompiledDraws, DialledModel, DialledScheduler, NamedBerths
from .timed import composed
from .workload import Job

# Of requests, by whether their tokens are drawn and whether they are held to masks: the request, scheduler and model.
KINDS = {
    (False, False): (Request, Scheduler, Model),
    (False, True): (Request, GrammarScheduler, GrammarModel),
    (True, False): (SamplingRequest, SamplingScheduler, CompiledDraws),
    (True, True): (
        SamplingRequest, composed(SamplingScheduler, GrammarScheduler),
        composed(CompiledDraws, GrammarModel, slot_class=composed(SamplingSlot, GrammarSlot)),
    ),
}  # fmt: skip
# Schedulers that give pages on demand, by what becomes of a request that gives way.
MODES = {"recompute": PreemptingScheduler, "swap": SwappingScheduler}
MISTAKES = {"forget": ForgettingScheduler}
MOST_DRAFTS = 32
DRAFTS = 3  # of an engine that verifies, where nothing is said


class Parts(NamedTuple):
    """The kinds of parts, as the engine has them: none is timed.

    Attributes:
        requests: what makes each, of its id, prompt, number of new tokens and stop tokens.
        given: what the model is given besides, by the requests and the size of the vocabulary.
        drafts: that go along in each decode; 0: none.
        beyond: positions behind those reserved for a request that it may touch all the same; 0, but for a mistake.
    """

    requests: Sequence[Callable[..., Request]]
    scheduler: type[Scheduler]
    model: type[Model]
    given: Callable[[Sequence[Request], int], tuple]
    drafts: int = 0
    beyond: int = 0


def settled(options: Options, job: Job, checkpoint: Checkpoint) -> Options:
    """The options of a run: what its Job says counts for more; and tokens are chosen as the model's generation config
    asks, if nobody says otherwise. InputError if what that asks for makes no sense."""
    names = "grammar", "sampling", "pages", "preempt", "speculate", "arrivals"
    options = replace(options, **{name: own for name in names if (own := getattr(job, name)) is not None})
    if options.sampling is None and not checkpoint.sampling.greedy:
        return replace(options, sampling=checkpoint.sampling)
    return options


def choose_parts(engine: type, count: int, options: Options, checkpoint: Checkpoint) -> Parts:
    """The parts for an engine that is to serve so many prompts; InputError if what is asked for cannot be used, or not
    together."""
    drafts, reserve = drafts_of(engine, options)
    each = [one or Sampling() for one in each_of(options.sampling, count, "samplings")]
    held = each_of(options.grammar, count, "grammars")
    table = any(str(one).startswith(TABLE) for one in held)
    drawn = keeps_state(engine) or not all(one.greedy for one in each)
    masked = samples(engine) or options.grammar is not None
    if drafts and (drawn or masked):
        raise InputError(f"speculate is {drafts}: drafts go with the likeliest tokens, no grammar and no draws")
    if table and (drawn or samples(engine) or not carries_over(engine)):
        raise InputError("a table of a grammar is for the likeliest tokens, carried over: chapters 5 and 6")
    if options.mask_work and (table or not masked):
        raise InputError(f"mask work is {1e3 * options.mask_work:g} ms, and no masks are made: give a grammar")
    request, scheduler, model = KINDS[drawn, masked]
    if drafts:
        scheduler, model = composed(DialledScheduler, drafts=drafts, acceptance=options.acceptance), SpeculatingModel
    model = mistaken(options.mistake, model) if options.mistake else TableModel if table else model
    if options.preempt:
        scheduler = composed(scheduler, mode(options.preempt, engine, drafts, drawn))
    if copies_pages(engine):
        model = composed(NamedBerths, model)
    if drafts:
        model = composed(DialledModel, model, acceptance=options.acceptance)
        requests = [partial(SpeculatingRequest, drafts=drafts, reserve=reserve)] * count
        return Parts(requests, scheduler, model, lambda *asked: (), drafts, reserve_for(drafts) - reserve)
    requests = []
    for sampling, grammar in zip(each, grammars(held, checkpoint), strict=True):
        asked = ({"sampling": sampling} if drawn else {}) | ({"grammar": grammar} if grammar else {})
        requests.append(partial(request, **asked))

    def given(requests: Sequence[Request], vocab_size: int) -> tuple:
        return (Tables(requests, vocab_size),) if table else (Asked.by(requests),) if drawn else ()

    return Parts(requests, scheduler, model, given)


def each_of(asked, count: int, what: str) -> list:
    """What is asked for each of so many prompts, of one for all or a list; InputError if that has another length."""
    each = list(asked) if isinstance(asked, list | tuple) else [asked] * count
    if len(each) != count:
        raise InputError(f"there are {len(each)} {what} for {count} prompts: give one for all, or one for each")
    return each


def drafts_of(engine: type, options: Options) -> tuple[int, int]:
    """How many drafts go along, 0 for none, and how many positions are reserved behind a request's last; InputError if
    there cannot be so many, or something is asked for that needs drafts."""
    drafts = DRAFTS if options.speculate is None and verifies(engine) else options.speculate
    if drafts is None:
        for name in ("reserve", "acceptance"):
            if (value := getattr(options, name)) is not None:
                raise InputError(f"{name} is {value:g}, and there are no drafts: give speculate")
        return 0, 0
    if not 1 <= drafts <= MOST_DRAFTS:
        raise InputError(f"speculate is {drafts}; it must be from 1 to {MOST_DRAFTS} drafts")
    most = reserve_of(engine, drafts)
    reserve = most if options.reserve is None else options.reserve
    if not 0 <= reserve <= most:
        raise InputError(f"reserve is {reserve}; with {drafts} drafts it must be from 0 to {most}")
    return drafts, reserve


def reserve_of(engine: type, drafts: int) -> int:
    """Positions behind its last that a request may touch: as the engine says in a static method `reserve`, or as it is
    for chapter 10."""
    return getattr(engine, "reserve", reserve_for)(drafts)


def mode(name: str, engine: type, drafts: int, drawn: bool) -> type[PreemptingScheduler]:
    """The scheduler that gives pages on demand; InputError if there is none of that name, or it does not go together
    with the engine, with drafts or with draws."""
    if name not in MODES | MISTAKES:
        raise InputError(f"unknown preempt mode {name!r}: the modes are {' and '.join(MODES)}")
    if drafts:
        raise InputError(f"preempt is {name!r}, and pages on demand do not go together with drafts")
    if name == "swap" and not copies_pages(engine):
        raise InputError("preempt is 'swap', and this engine copies no pages: give recompute, or take chapter ch9")
    if name == "swap" and drawn:
        raise InputError("preempt is 'swap', and what a request has sampled by is not copied: give recompute")
    return (MODES | MISTAKES)[name]
