"""Which kinds of parts a run needs: plain ones, those that know grammars, or those that sample as requests ask for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..errors import InputError
from ..grammar import GrammarRequest
from ..grammar_table import Tables
from ..masked_draws import HeldSamplingRequest
from ..request import Request
from ..sampling import Asked, Sampling, SamplingRequest
from ..speculation import SpeculatingRequest, reserve_for
from .checkpoint import Checkpoint
from .engines import carries_over, keeps_state, samples
from .grammars import (
    GraphedGrammarModel,
    GraphedTableModel,
    TimedGrammarModel,
    TimedGrammarScheduler,
    TimedTableModel,
    grammars,
    without_table,
)
from .graphed import GraphedModel
from .mistakes import mistaken
from .options import Options
from .samplers import (
    GraphedMaskedModel,
    GraphedSamplingModel,
    TimedMaskedModel,
    TimedMaskedScheduler,
    TimedSamplingModel,
    TimedSamplingScheduler,
)
from .speculating import drafts_of, parts_for
from .timed import TimedModel, TimedScheduler
from .workload import Job


class Parts(NamedTuple):
    """The kinds of parts.

    Attributes:
        request: what each is made as.
        scheduler: of them.
        model: that runs them; the second launches decodes as graphs.
        each: what each request is given besides, one by one.
        grammar: what tokens are held to; None: nothing.
        table: whether by a table on the device.
        drafts: that go along in each decode; 0: none.
        beyond: positions behind those reserved for a request that it may touch all the same; 0, but for a mistake.
    """

    request: Callable[..., Request]
    scheduler: type[TimedScheduler]
    model: tuple[type[TimedModel], type[TimedModel]]
    each: Sequence[tuple]
    grammar: object = None
    table: bool = False
    drafts: int = 0
    beyond: int = 0

    @property
    def constrained(self) -> bool:
        """Whether tokens are held to masks, or could be."""
        return issubclass(self.scheduler, TimedGrammarScheduler) and not self.table

    def asked(self, requests: Sequence[Request], vocab_size: int) -> tuple[Asked | Tables, ...]:
        """What a model is told besides."""
        if self.drafts:
            return (self.drafts,)
        if self.table:
            return (Tables(requests, vocab_size),)
        return (Asked.by(requests),) if issubclass(self.scheduler, TimedSamplingScheduler) else ()

    @staticmethod
    def biases(requests: Sequence[Request]) -> int:
        """How many scores one of these changes by name, at most."""
        return max((len(request.biases) for request in requests if isinstance(request, SamplingRequest)), default=0)


def with_own_sampling(options: Options, job: Job, checkpoint: Checkpoint) -> Options:
    """Options that say how tokens are chosen: as the model's generation config asks, if nobody says otherwise.

    Raises:
        InputError: what that asks for makes no sense.
    """
    own = None if job.sampling is not None or options.sampling is not None else checkpoint.sampling
    return options if own is None or own.greedy else replace(options, sampling=own)


def choose_parts(engine: type, job: Job, options: Options, checkpoint: Checkpoint) -> Parts:
    """The parts for an engine that is to serve a job. An engine that asks for none, whose requests do not either, gets
    those that know of nothing: they cost nothing.

    Raises:
        InputError: a grammar or a sampling cannot be used, or not together.
    """
    count = len(job.prompts)
    grammar = options.grammar if job.grammar is None else job.grammar
    each = samplings(options.sampling if job.sampling is None else job.sampling, count)
    drafts, reserve = drafts_of(engine, job, options)
    if drafts:
        if grammar is not None or samples(engine) or keeps_state(engine) or not all(one.greedy for one in each):
            raise InputError(f"speculate is {drafts}: drafts go with the likeliest tokens, no grammar and no draws")
        return Parts(
            SpeculatingRequest, *parts_for(drafts, options), [(drafts, reserve)] * count, drafts=drafts,
            beyond=reserve_for(drafts) - reserve,
        )  # fmt: skip
    if all(one.greedy for one in each) and not keeps_state(engine):
        if options.mistake:
            raise InputError(f"the mistake {options.mistake!r} is one of sampling, and all tokens are the likeliest")
        if grammar is None and not samples(engine):
            return Parts(Request, TimedScheduler, (TimedModel, GraphedModel), [()] * count)
        grammar, table = without_table(grammar)
        held = [(one,) if one else () for one in grammars(grammar, count, checkpoint)]
        if table:
            if samples(engine) or not carries_over(engine):
                raise InputError("a table of a grammar is for an engine that carries tokens over: chapters 5 and 6")
            return Parts(_held, TimedGrammarScheduler, (TimedTableModel, GraphedTableModel), held, grammar, True)
        return Parts(_held, TimedGrammarScheduler, (TimedGrammarModel, GraphedGrammarModel), held, grammar)
    if grammar is not None or samples(engine):
        grammar, table = without_table(grammar)
        if table or options.mistake:
            what = f"the mistake {options.mistake!r} is" if options.mistake else "a table of a grammar is"
            raise InputError(f"{what} not for draws that are held to masks: give one of the two")
        held = grammars(grammar, count, checkpoint)
        both = [(one, each) if each else (one,) for one, each in zip(each, held, strict=True)]
        return Parts(_drawn, TimedMaskedScheduler, (TimedMaskedModel, GraphedMaskedModel), both, grammar)
    kinds = (mistaken(options.mistake),) * 2 if options.mistake else (TimedSamplingModel, GraphedSamplingModel)
    return Parts(SamplingRequest, TimedSamplingScheduler, kinds, [(one,) for one in each])


def _held(*asked) -> Request:
    """A request, with a grammar behind all else if it has one."""
    return GrammarRequest(*asked) if len(asked) > 4 else Request(*asked)


def _drawn(*asked) -> Request:
    """A request that is drawn, with a grammar behind all else if it has one."""
    return HeldSamplingRequest(*asked) if len(asked) > 5 else SamplingRequest(*asked)


def samplings(asked: Sampling | Sequence[Sampling | None] | None, count: int) -> list[Sampling]:
    """A Sampling for each of so many prompts.

    Raises:
        InputError: there are not as many as prompts.
    """
    each = [asked] * count if asked is None or isinstance(asked, Sampling) else list(asked)
    if len(each) != count:
        raise InputError(f"there are {len(each)} samplings for {count} prompts: give one for all, or one for each")
    return [one or Sampling() for one in each]
