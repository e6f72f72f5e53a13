"""Which kinds of parts a run needs: plain ones, those that know grammars, or those that sample as requests ask for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from ..errors import InputError
from ..grammar import GrammarModel, GrammarScheduler, GrammarSlot
from ..grammar_table import TableModel, Tables
from ..model import Model
from ..request import Request
from ..sampler import SamplingSlot
from ..sampling import Asked, Sampling, SamplingRequest, SamplingScheduler
from ..scheduler import Scheduler
from ..speculation import SpeculatingModel, SpeculatingRequest, SpeculatingScheduler, reserve_for
from .checkpoint import Checkpoint
from .engines import carries_over, keeps_state, samples
from .grammars import grammars, without_table
from .mistakes import mistaken
from .options import Options
from .samplers import CompiledDraws
from .speculating import DialledModel, DialledScheduler, drafts_of
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
}


class Parts(NamedTuple):
    """The kinds of parts, as the engine has them: none is timed.

    Attributes:
        requests: what makes each, of its id, prompt, number of new tokens and stop tokens.
        scheduler: of them.
        model: that runs them.
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
    asks, if nobody says otherwise.

    Raises:
        InputError: what that asks for makes no sense.
    """
    names = "grammar", "sampling", "pages", "preempt", "speculate", "arrivals"
    options = replace(options, **{name: own for name in names if (own := getattr(job, name)) is not None})
    if options.sampling is None and not checkpoint.sampling.greedy:
        return replace(options, sampling=checkpoint.sampling)
    return options


def choose_parts(engine: type, count: int, options: Options, checkpoint: Checkpoint) -> Parts:
    """The parts for an engine that is to serve so many prompts. An engine that asks for none, whose requests do not
    either, gets those that know of nothing: they cost nothing.

    Raises:
        InputError: what is asked for cannot be used, or not together.
    """
    drafts, reserve = drafts_of(engine, options)
    each = samplings(options.sampling, count)
    names, table = without_table(options.grammar)
    drawn = keeps_state(engine) or not all(one.greedy for one in each)
    masked = samples(engine) or names is not None
    if drafts and (drawn or masked):
        raise InputError(f"speculate is {drafts}: drafts go with the likeliest tokens, no grammar and no draws")
    if table and (drawn or samples(engine) or not carries_over(engine)):
        raise InputError("a table of a grammar is for the likeliest tokens, carried over: chapters 5 and 6")
    _, scheduler, model = KINDS[drawn, masked]
    if drafts:
        scheduler, model = SpeculatingScheduler, SpeculatingModel
    model = mistaken(options.mistake, model) if options.mistake else TableModel if table else model
    if drafts:
        dial = {} if options.acceptance is None else {"acceptance": options.acceptance}
        scheduler = composed(*[DialledScheduler] * len(dial), scheduler, drafts=drafts, **dial)
        model = composed(*[DialledModel] * len(dial), model, **dial)
        requests = [partial(SpeculatingRequest, drafts=drafts, reserve=reserve)] * count
        return Parts(requests, scheduler, model, lambda *asked: (), drafts, reserve_for(drafts) - reserve)
    requests = []
    for sampling, grammar in zip(each, grammars(names, count, checkpoint), strict=True):
        asked = ({"sampling": sampling} if drawn else {}) | ({"grammar": grammar} if grammar else {})
        requests.append(partial(KINDS[drawn, masked][0], **asked))

    def given(requests: Sequence[Request], vocab_size: int) -> tuple:
        return (Tables(requests, vocab_size),) if table else (Asked.by(requests),) if drawn else ()

    return Parts(requests, scheduler, model, given)


def samplings(asked: Sampling | Sequence[Sampling | None] | None, count: int) -> list[Sampling]:
    """A Sampling for each of so many prompts.

    Raises:
        InputError: there are not as many as prompts.
    """
    each = [asked] * count if asked is None or isinstance(asked, Sampling) else list(asked)
    if len(each) != count:
        raise InputError(f"there are {len(each)} samplings for {count} prompts: give one for all, or one for each")
    return [one or Sampling() for one in each]
